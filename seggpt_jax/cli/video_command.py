"""What `seggpt video` does: options, and the frames one after the other."""

import argparse
import contextlib
import json
import sys
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from seggpt_jax.cli import inputs, model_args, prompt_args, talk, video_args
from seggpt_jax.config import parse_list, shorten
from seggpt_jax.data.sample import KINDS
from seggpt_jax.inference import Result
from seggpt_jax.pictures import video
from seggpt_jax.pictures.images import overlay, save_labels
from seggpt_jax.pictures.legend import with_legend
from seggpt_jax.pictures.listing import kinds, look_into
from seggpt_jax.results.categories import read_names
from seggpt_jax.results.forms import read_forms
from seggpt_jax.runs import paths, staging
from seggpt_jax.runs.workdir import RESULTS, check_writable, prepare_workdir

_FORMS = "overlay (an mp4), segments (a PNG per frame), both (default: %(default)s)"
_MEMORY = "number of last frames used as prompts too (default: %(default)s)"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options beside those of the model."""
    add = parser.add_argument
    video_args.add_arguments(parser)
    start = parser.add_mutually_exclusive_group(required=True)
    start.add_argument("--first", metavar="MASK", help="of the first frame")
    start.add_argument("--prompt", "--prompts", **prompt_args.OPTION)
    add("--out", required=True, help="folder")
    add("--as", dest="forms", default="overlay", help=_FORMS)
    add("--kind", choices=KINDS, default="instance", help=prompt_args.KIND)
    add("--names", metavar="NAMES", help=prompt_args.NAMES)
    add("--classes", metavar="NAME,...", help=prompt_args.CLASSES)
    add("--memory", type=int, default=8, metavar="FRAMES", help=_MEMORY)


def run(args, failed: list[inputs.Failed]) -> None:
    """Segments a video. If it is damaged, it is added to `failed`."""
    forms = read_forms(args.forms, ("overlay", "segments"))
    wanted, out = parse_list(args.classes), paths.locate(args.out)
    if wanted and not args.prompt:
        raise ValueError("--classes says what a --prompt shows: --prompt is wanted")
    given = prompt_args.read(args.prompt, wanted) if args.prompt else None
    corrections = video_args.read_masks("--at", args.at)
    additions = video_args.read_masks("--add", args.add)
    later = [*corrections.values(), *additions.values()]
    masks = [*([args.first] if args.first else []), *later,
             *(given.masks if given else ())]  # fmt: skip
    source = video_args.read_source(args, masks)
    movie, labels = out / f"{source.name}.mp4", out / source.name
    folder = Path(source.where or "")
    if source.where and folder.is_dir() and (others := look_into(folder).others):
        print(f"no frames of the video: {kinds(others)}", file=sys.stderr)
    if source.but:
        print("no frames of the video, but masks and results of earlier runs: "
              f"{shorten(source.but, 3)}", file=sys.stderr)  # fmt: skip
    source.check_frames([*corrections, *additions])
    if args.names and not wanted and "overlay" not in forms:
        raise ValueError(
            f"--names is for the legend of an overlay, and --as {args.forms} has none"
        )
    named = read_names(args.names) if args.names else {}
    if args.memory < 0:
        raise ValueError(f"--memory {args.memory}: 0 or more is wanted")
    check_writable(out)
    if given:
        prompt_args.check(given, args.kind, named, wanted, args.bits)
    source.check_masks(args.first, later, args.kind, args.bits)
    predictor = model_args.load(args)
    files, chosen = [args.first], {}
    if given:
        files = given.files
        chosen = prompt_args.show(
            predictor, given, args.kind, named, wanted, quiet=args.quiet
        )
        named = predictor.names | named
    files += later
    source.check_new([movie, labels])
    inputs.check_apart([movie, labels], filter(None, [source.where, *files]))
    shown: deque[video.Frame] = deque()

    def frames() -> Iterator[video.Frame]:
        for frame in source.read(args.bits):
            shown.append(frame)
            yield frame

    results = predictor.track(
        frames(), args.first, corrections=corrections, additions=additions,
        memory=args.memory, kind=args.kind, ahead=0 if source.live else 1,
    )  # fmt: skip
    names = ("kind", "memory", "bits")
    settings = model_args.made_by(args, names, predictor, files) | chosen
    settings["input"] = source.identity
    legend = named if "overlay" in forms else {}
    more = {"at": [*corrections], "add": [*additions], "fps": str(args.fps or ""),
            "names": legend, "input_bytes": source.size}  # fmt: skip
    settings |= {name: value for name, value in more.items() if value}
    config = out / f"{source.name}.config.json"
    begun = config.exists()
    prepare_workdir(out, json.dumps(settings), name=config.name, holds=RESULTS)
    places = {form: movie if form == "overlay" else labels for form in forms}
    if all(map(staging.complete, places.values())):
        print(f"{source.identity}: done already, in {out}")
        return
    try:
        _write(args, source, results, shown, places, named, failed)
    except BaseException:
        if not begun:  # nothing was written: another command may follow
            config.unlink(missing_ok=True)
        raise
    talk.say(args.quiet, f"wrote {', '.join(str(place) for place in places.values())}")


def _write(
    args: argparse.Namespace,
    source: video_args.Source,
    results: Iterable[Result],
    shown: deque[video.Frame],
    places: dict[str, paths.AnyPath],
    names: Mapping[int, str],
    failed: list[inputs.Failed],
) -> None:
    """Writes the forms of a video to their places. shown: the results' frames. names:
    label -> name, for the legend, which shows the labels of the first frame."""
    with contextlib.ExitStack() as stack:
        write = save = None
        if "overlay" in places:
            new = video.writer(places["overlay"], source.info.fps, source.sound)
            write = stack.enter_context(new)
        if "segments" in places:
            save = stack.enter_context(staging.new_folder(places["segments"]))
        total = source.info.frames or None
        bar = talk.bar(args.quiet, total=total, unit="frame")(results)
        count, legend = 0, list[tuple[str, tuple[int, ...]]]()
        try:
            for count, result in enumerate(bar, start=1):
                image, time = shown.popleft()
                if write:
                    palette = result.palette
                    legend = legend or [(names[k], palette[k])
                                        for k in palette if k in names]  # fmt: skip
                    over = with_legend(overlay(image, result.colors), legend)
                    write(video.Frame(over, time))
                if save:
                    save_labels(save / f"{count - 1:05d}.png", result.segments,
                                result.palette)  # fmt: skip
        except video.Damaged as error:  # the frames before are kept
            failed.append((Path(source.identity), str(error)))
        except KeyboardInterrupt:
            if not source.live or not count:
                raise
