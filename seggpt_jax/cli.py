"""The `seggpt` command, the same as `python -m seggpt_jax.cli`."""

import argparse
import contextlib
import importlib.metadata
import json
import os
import sys
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np
from absl import logging
from PIL import Image
from tqdm import tqdm

from seggpt_jax import outputs, pretrained, video
from seggpt_jax.convert import FORMS, convert
from seggpt_jax.images import overlay, read_rgb, read_target, save_labels
from seggpt_jax.inference import KINDS, Predictor
from seggpt_jax.models.attention import CHOICES, choose
from seggpt_jax.predict import ENSEMBLES
from seggpt_jax.runtime import cache_compiled
from seggpt_jax.workdir import check_workdir, prepare_workdir

_SHOWN = ("seggpt_jax", "jax", "jaxlib", "flax", "numpy", "pillow", "av", "torch",
          "transformers")  # fmt: skip
_VIDEOS = (".mp4", ".mov", ".mkv", ".avi", ".webm", ".m4v")
_EXAMPLES = """examples:
  seggpt segment --model runs/mini --prompt cat.jpg:cat-mask.png photos/ --out results
  seggpt segment --model seggpt.pth --prompt a.jpg:a.png --prompt b.jpg:b.png \\
      'photos/*.jpg' --out results --as segments,overlay,coco-json
  seggpt video --model runs/mini --first first-frame-mask.png clip.mp4 --out results
  seggpt convert --input seggpt_vit_large.pth --output weights/vitl
  seggpt doctor
"""
_MODEL = "training run, release, .pth, .safetensors, folder of transformers, or one of"
_INPUTS = "image, quoted glob, or folder"
_FORMS = f"of {','.join(outputs.FORMS)} (default: %(default)s)"
_VIDEO_FORMS = "of overlay (an mp4), segments (a PNG per frame) (default: %(default)s)"
_KIND = "what labels number (default: %(default)s)"
_TILE = "cut images into overlapping tiles of this side (default: take them whole)"
_ENSEMBLE = "of several prompts (default: %(default)s)"
_MEMORY = "last frames that are prompts too (default: %(default)s)"
_PROMPT: dict[str, Any] = {
    "action": "append",
    "metavar": "IMAGE:MASK",
    "help": "an example; several go together",
}


def main(argv: list[str] | None = None) -> None:
    """Runs a command. Exit status: 0 done; 1 done but for the files that are listed;
    2 nothing done, and one `error:` line says why."""
    args = _parser().parse_args(argv)
    logging.set_verbosity(logging.INFO if args.verbose else logging.WARNING)
    logging.set_stderrthreshold("info")
    cache_compiled()
    try:
        failed = args.run(args)
    except (ValueError, OSError) as error:
        if args.verbose:
            raise
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    for path, reason in failed:
        print(f"failed: {path}: {reason}", file=sys.stderr)
    sys.exit(1 if failed else 0)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        "seggpt",
        description="Segment images and videos the way an example shows.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--verbose", action="store_true", help="say more; tracebacks")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def command(name: str, run, help: str) -> argparse.ArgumentParser:
        added = commands.add_parser(
            name,
            help=help,
            epilog=_EXAMPLES,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        added.set_defaults(run=run)
        return added

    segment = command("segment", _segment, "images")
    _add_model(segment)
    segment.add_argument("inputs", nargs="+", metavar="INPUT", help=_INPUTS)
    segment.add_argument("--prompt", required=True, **_PROMPT)
    segment.add_argument("--out", required=True, help="folder; what is done is skipped")
    segment.add_argument("--as", dest="forms", default="segments,overlay", help=_FORMS)
    segment.add_argument("--kind", choices=KINDS, default="category", help=_KIND)
    segment.add_argument("--tile", type=int, default=0, metavar="PIXELS", help=_TILE)
    segment.add_argument("--batch", type=int, default=0, help="images at once")
    segment.add_argument(
        "--ensemble", choices=ENSEMBLES[1:], default="feature", help=_ENSEMBLE
    )

    movie = command("video", _video, "videos")
    _add_model(movie)
    movie.add_argument("input", metavar="INPUT", help="video file")
    start = movie.add_mutually_exclusive_group(required=True)
    start.add_argument("--first", metavar="MASK", help="of the first frame")
    start.add_argument("--prompt", **_PROMPT)
    movie.add_argument("--out", required=True, help="folder")
    movie.add_argument("--as", dest="forms", default="overlay", help=_VIDEO_FORMS)
    movie.add_argument("--kind", choices=KINDS, default="instance", help=_KIND)
    movie.add_argument("--memory", type=int, default=8, metavar="FRAMES", help=_MEMORY)

    weights = command("convert", _convert, "weights")
    weights.add_argument("--input", required=True, help="file or folder of weights")
    weights.add_argument("--output", required=True, help="folder")
    weights.add_argument(
        "--to", choices=FORMS, default=FORMS[0], help="layout (default: %(default)s)"
    )

    command("doctor", _doctor, "versions, devices, folders")
    return parser


def _add_model(parser: argparse.ArgumentParser) -> None:
    names = ", ".join(pretrained.bundled()) or "no bundled models"
    parser.add_argument("--model", required=True, help=f"{_MODEL}: {names}")
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32")
    parser.add_argument("--attention", choices=CHOICES, default="auto")


def _split_prompts(prompts: list[str]) -> tuple[list[str], list[str]]:
    pairs = [prompt.rpartition(":") for prompt in prompts]
    for prompt, (image, _, mask) in zip(prompts, pairs, strict=True):
        if not image or not mask:
            raise ValueError(f"--prompt {prompt}: IMAGE:MASK is wanted")
    return [image for image, _, _ in pairs], [mask for _, _, mask in pairs]


def _segment(args) -> list[tuple[Path, str]]:
    forms = outputs.read_forms(args.forms)
    suffixes = set(Image.registered_extensions())
    found = outputs.find_inputs(args.inputs, suffixes)
    shown, masks = _split_prompts(args.prompt)
    out = Path(args.out)
    # Results of other prompts must not pass for these.
    names = ("model", "prompt", "kind", "tile", "ensemble", "dtype")
    settings = json.dumps({name: getattr(args, name) for name in names})
    check_workdir(out, settings)
    where = {name: outputs.places(out, name, forms) for name in found}
    todo = [n for n in found if not all(p.exists() for p in where[n].values())]
    predictor = Predictor.from_pretrained(
        args.model, dtype=args.dtype, attention=args.attention, tile=args.tile,
        batch_size=args.batch, ensemble=args.ensemble,
    )  # fmt: skip
    predictor.set_prompts(shown, masks, args.kind)
    prepare_workdir(out, settings)
    failed: list[tuple[Path, str]] = []
    reading: deque[tuple[str, np.ndarray]] = deque()

    def readable() -> Iterator[np.ndarray]:
        for name in todo:
            try:
                image = read_rgb(found[name])
            except (ValueError, OSError) as error:
                failed.append((found[name], str(error)))
                continue
            reading.append((name, image))
            yield image

    skipped = len(found) - len(todo)
    bar = tqdm(predictor(readable()), total=len(found), initial=skipped, unit="image")
    for result in bar:
        name, image = reading.popleft()
        outputs.write_result(where[name], found[name], image, result, args.kind)
    if "coco-json" in forms:
        written = [where[name]["coco-json"] for name in found]
        written = [path for path in written if path.exists()]
        outputs.join_coco(written, out, predictor.palette, args.kind)
    return failed


def _video(args) -> list[tuple[Path, str]]:
    forms = [form for form in args.forms.split(",") if form]
    if not forms or not set(forms) <= {"overlay", "segments"}:
        raise ValueError(f"--as {args.forms}: choose from overlay, segments")
    path, out = Path(args.input), Path(args.out)
    info = video.probe(path)
    predictor = Predictor.from_pretrained(
        args.model, dtype=args.dtype, attention=args.attention
    )
    if args.prompt:
        predictor.set_prompts(*_split_prompts(args.prompt), args.kind)
    shown: deque[np.ndarray] = deque()

    def frames() -> Iterator[np.ndarray]:
        for frame in video.read_frames(path):
            shown.append(frame)
            yield frame

    first = read_target(args.first) if args.first else None
    results = predictor.track(frames(), first, memory=args.memory, kind=args.kind)
    labels = out / path.stem
    (labels if "segments" in forms else out).mkdir(parents=True, exist_ok=True)
    movie = video.writer(out / f"{path.stem}.mp4", info.fps)
    with movie if "overlay" in forms else contextlib.nullcontext() as write:
        bar = tqdm(results, total=info.frames or None, unit="frame")
        for number, result in enumerate(bar):
            frame = shown.popleft()
            if write:
                write(overlay(frame, result.colors))
            if "segments" in forms:
                name = labels / f"{number:05d}.png"
                save_labels(name, result.segments, result.palette)
    return []


def _convert(args) -> list[tuple[Path, str]]:
    for line in convert(args.input, args.output, args.to):
        print(line)
    return []


def _doctor(args) -> list[tuple[Path, str]]:
    print(f"python       {sys.version.split()[0]}")
    for name in _SHOWN:
        try:
            print(f"{name:12} {importlib.metadata.version(name)}")
        except importlib.metadata.PackageNotFoundError:
            print(f"{name:12} not installed")
    devices = jax.devices()
    print(f"devices      {len(devices)} x {devices[0].device_kind}"
          f" ({jax.default_backend()}), {os.cpu_count()} CPU cores")  # fmt: skip
    print(f"attention    {choose(jax.default_backend())}")
    print(f"cache        {cache_compiled()}")
    print(f"models       {', '.join(pretrained.bundled()) or 'none bundled'}")
    return []


if __name__ == "__main__":
    main()
