"""The `seggpt` command, the same as `python -m seggpt_jax.cli`."""

import argparse
import contextlib
import functools
import importlib.metadata
import json
import os
import sys
from collections import deque
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np
from absl import logging
from tqdm import tqdm

from seggpt_jax.cli import (
    inputs,
    mask_command,
    models_command,
    prompt_args,
    serve_command,
    tune_command,
    video_args,
)
from seggpt_jax.data.sample import KINDS
from seggpt_jax.inference import Predictor, Result
from seggpt_jax.models.attention import CHOICES, choose
from seggpt_jax.pictures import video
from seggpt_jax.pictures.images import overlay, save_labels
from seggpt_jax.pictures.listing import kinds, look_into
from seggpt_jax.predict import ENSEMBLES
from seggpt_jax.results.categories import categories, categories_of, read_names
from seggpt_jax.results.coco import Truth
from seggpt_jax.results.folder import Folder, files
from seggpt_jax.results.forms import FORMS as RESULTS
from seggpt_jax.results.forms import OF_OBJECTS, Shown, read_forms
from seggpt_jax.results.objects import find
from seggpt_jax.runs import checksums, paths, staging
from seggpt_jax.runs.runtime import cache_compiled
from seggpt_jax.runs.workdir import prepare_workdir
from seggpt_jax.weights.convert import FORMS, convert
from seggpt_jax.weights.names import DEFAULT, bundled

_SHOWN = ("seggpt_jax", "jax", "jaxlib", "flax", "numpy", "pillow", "av", "torch",
          "transformers")  # fmt: skip
_EXAMPLES = """examples:
  seggpt segment --model BAAI/seggpt-vit-large --prompt cat.jpg:cat-mask.png \\
      photos/ --out results
  seggpt segment --model seggpt.pth --prompt a.jpg:a.png --prompt b.jpg:b.png \\
      'photos/*.jpg' --out results --as segments,overlay,coco-json
  seggpt segment --model runs/mini --prompt images:masks --prompt auto:4 \\
      photos/ --out results
  seggpt mask cat.jpg --box 10,20,200,180 --out cat-mask.png
  seggpt video --model runs/mini --first first-frame-mask.png clip.mp4 --out results
  seggpt tune --model runs/mini --data my-data --out prompt.safetensors
  seggpt segment --model runs/mini --prompt prompt.safetensors photos/ --out results
  seggpt convert --input seggpt_vit_large.pth --output weights/vitl
  seggpt convert --input runs/mini --output weights/mini --to hub-folder
  seggpt models
  seggpt demo
  seggpt serve --host 0.0.0.0 --token SECRET
  seggpt doctor
"""
# How arguments are given, where it is not --NAME.
_ARGUMENTS = {"inputs": "INPUT", "video": "VIDEO", "image": "IMAGE", "forms": "--as"}
_PLACES = {"--model": paths.MODEL, "--input": paths.MODEL, "VIDEO": paths.STREAM}
_NO_PATHS = ("--host", "--token", "--license")
Failed = tuple[Path, str]  # a file, and why it was left out
_MODEL = (
    "a path (training run, release, .pth, .safetensors, folder of transformers), a "
    "bundled name, or OWNER/NAME[@REVISION] of the Hugging Face hub; `seggpt models` "
    "lists some"
)
_DEFAULTED = (
    f"no --model given: taking {DEFAULT}, a small bundled model, for trials "
    "and research only (its data's licences); for real work give the authors' weights: "
    "--model BAAI/seggpt-vit-large"
)
_INPUTS = "image, quoted glob, or folder"
_FORMS = f"some of {','.join(RESULTS)} (default: %(default)s)"
_NAMES = "1=cat,2=dog, or a classes.tsv: the classes that the labels are"
_CLASSES = "the only classes that the prompts show, by their names (default: all)"
_SPLIT = "connected parts of a label are objects of their own"
_COCO = "coco.json is a list of results with the ids of this COCO file"
_VIDEO_FORMS = (
    "overlay (an mp4), segments (a PNG per frame), both (default: %(default)s)"
)
_KIND = "what the labels tell apart (default: %(default)s)"
_TILE = "cut images into overlapping tiles of this side (default: take them whole)"
_BATCH = "images at once (default: 1 on a CPU, else 8)"
_DTYPE = "of the computation; bfloat16 is for GPUs and TPUs (default: %(default)s)"
_ATTENTION = "how attention is computed (default: the best one for the device)"
_ENSEMBLE = "how several prompts are combined (default: %(default)s)"
_MEMORY = "number of last frames used as prompts too (default: %(default)s)"
_PROMPT: dict[str, Any] = {
    "action": "append",
    "metavar": "IMAGE:MASK",
    "help": prompt_args.HELP,
}


def main(argv: list[str] | None = None) -> None:
    """Runs a command. Exit status: 0 done; 1 done, except for the files listed; 2
    stopped, with one `error:` line; 130 interrupted."""
    args = _parser().parse_args(argv)
    logging.set_verbosity(logging.INFO if args.verbose else logging.WARNING)
    logging.set_stderrthreshold("info")
    failed: list[Failed] = []
    status = 0
    try:
        _check_paths(args)
        if getattr(args, "model", "") is None:
            args.model = DEFAULT
            print(_DEFAULTED, file=sys.stderr)
        cache_compiled()
        args.run(args, failed)
    # RuntimeError: jax has no device, or too little memory on it.
    except (ValueError, OSError, RuntimeError, MemoryError) as error:
        if args.verbose:
            raise
        lines = str(error).strip().splitlines() or [type(error).__name__]
        print("error: " + "\n  ".join(lines), file=sys.stderr)
        status = 2
    except KeyboardInterrupt:
        print("interrupted: the same command goes on", file=sys.stderr)
        status = 130
    for path, reason in failed:
        print(f"failed: {path}: {reason}", file=sys.stderr)
    sys.exit(status or (1 if failed else 0))


def _check_paths(args) -> None:
    """Holds every option of a command against the places that it may name."""
    given = {_ARGUMENTS.get(name, f"--{name}"): x for name, x in vars(args).items()}
    paths.check_all(given, _PLACES, free=_NO_PATHS)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        "seggpt",
        description="Segment images and videos the way an example shows.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--verbose", action="store_true", help="more log; tracebacks")
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
    segment.add_argument("--prompt", "--prompts", required=True, **_PROMPT)
    segment.add_argument(
        "--out", required=True, help="folder; finished images are skipped"
    )
    segment.add_argument("--as", dest="forms", default="segments,overlay", help=_FORMS)
    segment.add_argument("--names", metavar="NAMES", help=_NAMES)
    segment.add_argument("--classes", metavar="NAME,...", help=_CLASSES)
    segment.add_argument("--split", action="store_true", help=_SPLIT)
    segment.add_argument("--coco", metavar="FILE", help=_COCO)
    segment.add_argument("--kind", choices=KINDS, default="category", help=_KIND)
    segment.add_argument("--tile", type=int, default=0, metavar="PIXELS", help=_TILE)
    segment.add_argument("--batch", type=int, default=0, help=_BATCH)
    segment.add_argument(
        "--ensemble", choices=ENSEMBLES[1:], default="feature", help=_ENSEMBLE
    )

    movie = command("video", _video, "videos")
    _add_model(movie)
    video_args.add_arguments(movie)
    start = movie.add_mutually_exclusive_group(required=True)
    start.add_argument("--first", metavar="MASK", help="of the first frame")
    start.add_argument("--prompt", "--prompts", **_PROMPT)
    movie.add_argument("--out", required=True, help="folder")
    movie.add_argument("--as", dest="forms", default="overlay", help=_VIDEO_FORMS)
    movie.add_argument("--kind", choices=KINDS, default="instance", help=_KIND)
    movie.add_argument("--memory", type=int, default=8, metavar="FRAMES", help=_MEMORY)

    mask = command("mask", _mask, "the mask of an example, by a box or points")
    mask_command.add_arguments(mask)

    tuned = command("tune", _tune, "a prompt learned from an indexed folder")
    _add_model(tuned)
    tune_command.add_arguments(tuned)

    for name, run, help in (
        ("serve", _serve, "an HTTP server, with a page to draw on"),
        ("demo", _demo, "the same, and the page is opened"),
    ):
        served = command(name, run, help)
        _add_model(served)
        serve_command.add_arguments(served)

    weights = command("convert", _convert, "weights")
    weights.add_argument("--input", required=True, metavar="MODEL", help=_MODEL)
    weights.add_argument("--output", required=True, help="folder")
    weights.add_argument(
        "--to", choices=FORMS, default=FORMS[0], help="layout (default: %(default)s)"
    )
    weights.add_argument(
        "--raw", action="store_true",
        help="of a training run, the parameters themselves instead of their average",
    )  # fmt: skip
    weights.add_argument(
        "--license", default="", metavar="ID", help="for --to hub-folder, as apache-2.0"
    )

    command("models", _models, "bundled, cached and known models")
    command("doctor", _doctor, "versions, devices, folders")
    return parser


def _add_model(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--model", help=f"{_MODEL} (default: {DEFAULT})")
    types = "float32", "bfloat16"
    parser.add_argument("--dtype", choices=types, default=types[0], help=_DTYPE)
    parser.add_argument("--attention", choices=CHOICES, default="auto", help=_ATTENTION)
    parser.add_argument("--bits", type=int, default=16, help=inputs.BITS)


def _segment(args, failed: list[Failed]) -> None:
    forms, out = read_forms(args.forms, tuple(RESULTS)), Path(args.out)
    _check_options(args, forms)
    found, others = inputs.find_inputs(args.inputs, out)
    if others:
        print(f"left out, of kinds that cannot be read: {kinds(others)}",
              file=sys.stderr)  # fmt: skip
    wanted = list(filter(None, (args.classes or "").split(",")))
    named = read_names(args.names) if args.names else {}
    given = prompt_args.read(args.prompt, wanted)
    written = files(out, forms, found)
    inputs.check_apart(written, [*found.values(), *given.files])
    folder = Folder(out, forms, found)
    truth = Truth(Path(args.coco)) if args.coco else None
    entries = (
        {name: truth.image_of(path) for name, path in found.items()} if truth else {}
    )
    predictor = _load(args, tile=args.tile, batch_size=args.batch,
                      ensemble=args.ensemble)  # fmt: skip
    chosen = prompt_args.show(predictor, given, args.kind, named, wanted)
    labels, kind, named = predictor.palette, predictor.kind, predictor.names | named
    if truth:
        classes = categories_of(truth.categories, args.coco, labels, kind, named)
    else:
        classes = categories(labels, kind, named)
    names = ("kind", "tile", "ensemble", "dtype", "bits")
    settings = _made_by(args, names, predictor, given.files)
    prepare_workdir(out, json.dumps(settings | chosen))
    of_objects = bool(set(forms) & set(OF_OBJECTS))
    if of_objects:
        about = {"classes": classes._asdict(), "split": args.split}
        about["coco"] = _identity(args.coco) if truth else None
        prepare_workdir(out, json.dumps(about), name="classes.json")
    folder.claim()
    reading: deque[tuple[str, np.ndarray]] = deque()
    empty: list[Path] = []

    def readable() -> Iterator[np.ndarray]:
        for name in folder.todo:
            try:
                image = predictor.read_image(found[name])
            except (ValueError, OSError) as error:
                failed.append((found[name], str(error)))
                continue
            reading.append((name, image))
            yield image

    skipped = len(found) - len(folder.todo)
    bar = tqdm(predictor(readable()), total=len(found), initial=skipped, unit="image")
    for result in bar:
        name, image = reading.popleft()
        if result.choice:
            line = prompt_args.describe(given, result.choice)
            tqdm.write(f"{found[name]}: {line}")
        if not result.segments.any():
            empty.append(found[name])
        objects = find(result, args.split) if of_objects else []
        shown = Shown(str(found[name]), image, result, objects, classes,
                      entries.get(name))  # fmt: skip
        try:
            folder.write(name, shown)
        except (ValueError, OSError) as error:
            failed.append((found[name], f"its result could not be written: {error}"))
    folder.join(classes, as_results=truth is not None)
    if empty:
        more = ", ..." if empty[1:] else ""
        print(f"nothing found in {len(empty)} of {len(folder.todo)} images: "
              f"{empty[0]}{more}", file=sys.stderr)  # fmt: skip


def _check_options(args, forms: list[str]) -> None:
    """Refuses options that none of the forms would show."""
    for option, needing in (("names", OF_OBJECTS), ("split", OF_OBJECTS),
                            ("coco", ("coco-json",))):  # fmt: skip
        if option == "names" and args.classes:
            continue  # its names are those of the prompts
        if getattr(args, option) and not set(needing) & set(forms):
            raise ValueError(
                f"--{option} is for {', '.join(needing)}, and --as {args.forms} has "
                "none of them"
            )


def _load(args, **settings) -> Predictor:
    return Predictor.from_pretrained(
        args.model,
        dtype=args.dtype,
        attention=args.attention,
        bits=args.bits,
        **settings,
    )


def _made_by(
    args, names: Iterable[str], predictor: Predictor, files: Iterable[str | Path]
) -> dict[str, Any]:
    """The settings that results depend on, stored beside them.

    A later run into the same folder with other settings is refused: its results would
    pass for those of this run.
    """
    model = predictor.model_name
    if os.path.exists(model):  # a path; else a bundled name, or one of the hub
        model = os.path.realpath(model)
    identity = functools.cache(_identity)  # one COCO file may serve many images
    prompts = [identity(path) for path in files]
    settings = {name: getattr(args, name) for name in names}
    return settings | {"model": model, "step": predictor.step, "prompts": prompts}


def _identity(path: str | Path) -> list[str]:
    """What a file is known by: its place and its content."""
    return [os.path.realpath(path), checksums.sha256(Path(path))]


def _video(args, failed: list[Failed]) -> None:
    forms = read_forms(args.forms, ("overlay", "segments"))
    out, source = Path(args.out), video_args.read_source(args)
    movie, labels = out / f"{source.name}.mp4", out / source.name
    folder = Path(source.where or "")
    if source.where and folder.is_dir() and (others := look_into(folder).others):
        print(f"no frames of the video: {kinds(others)}", file=sys.stderr)
    corrections = video_args.read_masks("--at", args.at)
    additions = video_args.read_masks("--add", args.add)
    predictor = _load(args)
    files, chosen = [args.first], {}
    if args.prompt:
        given = prompt_args.read(args.prompt)
        files, chosen = given.files, prompt_args.show(predictor, given, args.kind)
    files += [*corrections.values(), *additions.values()]
    video_args.check_apart(source, movie, labels, files)
    shown: deque[video.Frame] = deque()

    def frames() -> Iterator[video.Frame]:
        for frame in source.read(args.bits):
            shown.append(frame)
            yield frame

    results = predictor.track(
        frames(), args.first, corrections=corrections, additions=additions,
        memory=args.memory, kind=args.kind, ahead=0 if source.live else 1,
    )  # fmt: skip
    names = ("kind", "memory", "dtype", "bits")
    settings = _made_by(args, names, predictor, files) | chosen
    settings["input"] = source.identity
    more = {"at": [*corrections], "add": [*additions], "fps": str(args.fps or "")}
    settings |= {name: value for name, value in more.items() if value}
    config = out / f"{source.name}.config.json"
    begun = config.exists()
    prepare_workdir(out, json.dumps(settings), name=config.name)
    places = {form: movie if form == "overlay" else labels for form in forms}
    if all(place.exists() for place in places.values()):
        print(f"{source.identity}: done already, in {out}")
        return
    try:
        _write_video(source, results, shown, places, failed)
    except BaseException:
        if not begun:  # nothing was written: another command may follow
            config.unlink(missing_ok=True)
        raise


def _write_video(
    source: video_args.Source,
    results: Iterable[Result],
    shown: deque[video.Frame],
    places: dict[str, Path],
    failed: list[Failed],
) -> None:
    """Writes the forms of a video to their places; `shown` are the results' frames."""
    with contextlib.ExitStack() as stack:
        write = save = None
        if "overlay" in places:
            new = video.writer(places["overlay"], source.info.fps, source.sound)
            write = stack.enter_context(new)
        if "segments" in places:
            save = stack.enter_context(staging.new_folder(places["segments"]))
        bar = tqdm(results, total=source.info.frames or None, unit="frame")
        count = 0
        try:
            for count, result in enumerate(bar, start=1):
                image, time = shown.popleft()
                if write:
                    write(video.Frame(overlay(image, result.colors), time))
                if save:
                    save_labels(save / f"{count - 1:05d}.png", result.segments,
                                result.palette)  # fmt: skip
        except video.Damaged as error:  # the frames before are kept
            failed.append((Path(source.identity), str(error)))
        except KeyboardInterrupt:
            if not source.live or not count:
                raise


def _mask(args, failed: list[Failed]) -> None:
    mask_command.run(args)


def _tune(args, failed: list[Failed]) -> None:
    tune_command.run(args)


def _serve(args, failed: list[Failed]) -> None:
    serve_command.run(args, functools.partial(_load, args), browser=False)


def _demo(args, failed: list[Failed]) -> None:
    serve_command.run(args, functools.partial(_load, args), browser=True)


def _convert(args, failed: list[Failed]) -> None:
    for line in convert(args.input, args.output, args.to, args.raw, args.license):
        print(line)


def _models(args, failed: list[Failed]) -> None:
    models_command.run()


def _doctor(args, failed: list[Failed]) -> None:
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
    print(f"models       {', '.join(bundled()) or 'none bundled'}")
