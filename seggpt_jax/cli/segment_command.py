"""What `seggpt segment` does: options, and the images one after the other."""

import argparse
import json
import sys
from collections import deque
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from tqdm import tqdm

from seggpt_jax.cli import inputs, model_args, prompt_args, talk
from seggpt_jax.config import counted, parse_list, shorten
from seggpt_jax.data.sample import KINDS
from seggpt_jax.predict import ENSEMBLES
from seggpt_jax.results.categories import categories, categories_of, read_names
from seggpt_jax.results.coco import Truth
from seggpt_jax.results.folder import Folder, files
from seggpt_jax.results.forms import FORMS, NAMING, OF_OBJECTS, Shown, read_forms
from seggpt_jax.results.objects import find
from seggpt_jax.runs.paths import locate
from seggpt_jax.runs.workdir import RESULTS, check_writable, prepare_workdir

_INPUTS = "image, quoted glob, or folder with the folders in it"
_FORMS = (
    f"some of {','.join(FORMS)} (default: %(default)s); docs/formats.md has the files"
)
_SPLIT = "connected parts of a label are objects of their own"
_COCO = "coco.json is a list of results with the ids of this COCO file"
_TILE = "cut images into overlapping tiles of this side (default: take them whole)"
_BATCH = "images at once (default: 1 on a CPU, else 8)"
_ENSEMBLE = "how several prompts are combined (default: %(default)s)"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options beside those of the model."""
    add = parser.add_argument
    add("inputs", nargs="+", metavar="INPUT", help=_INPUTS)
    add("--prompt", "--prompts", required=True, **prompt_args.OPTION)
    add("--out", required=True, help="folder; finished images are skipped")
    add("--as", dest="forms", default="segments,overlay", help=_FORMS)
    add("--names", metavar="NAMES", help=prompt_args.NAMES)
    add("--classes", metavar="NAME,...", help=prompt_args.CLASSES)
    add("--split", action="store_true", help=_SPLIT)
    add("--coco", metavar="FILE", help=_COCO)
    add("--kind", choices=KINDS, default="category", help=prompt_args.KIND)
    add("--tile", type=int, default=0, metavar="PIXELS", help=_TILE)
    add("--batch", type=int, default=0, help=_BATCH)
    add("--ensemble", choices=ENSEMBLES[1:], default="feature", help=_ENSEMBLE)


def run(args, failed: list[inputs.Failed]) -> None:
    """Segments the images. Those that fail are added to `failed`."""
    forms, out = read_forms(args.forms, tuple(FORMS)), locate(args.out)
    _check_options(args, forms)
    wanted = parse_list(args.classes)
    named = read_names(args.names) if args.names else {}
    given = prompt_args.read(args.prompt, wanted)
    listed = inputs.find_inputs(args.inputs, out, given.masks)
    check_writable(out)
    prompt_args.check(given, args.kind, named, wanted, args.bits)
    for line in listed.left_out():
        print(line, file=sys.stderr)
    found = listed.inputs
    written = files(out, forms, found)
    inputs.check_apart(written, [*found.values(), *given.files])
    folder = Folder(out, forms, found)
    truth = Truth(Path(args.coco)) if args.coco else None
    entries = (
        {name: truth.image_of(path) for name, path in found.items()} if truth else {}
    )
    predictor = model_args.load(args, tile=args.tile, batch_size=args.batch,
                      ensemble=args.ensemble)  # fmt: skip
    chosen = prompt_args.show(
        predictor, given, args.kind, named, wanted, quiet=args.quiet
    )
    labels, kind, named = predictor.palette, predictor.kind, predictor.names | named
    if truth:
        classes = categories_of(truth.categories, args.coco, labels, kind, named)
    else:
        classes = categories(labels, kind, named)
    names = ("kind", "tile", "ensemble", "bits")
    settings = model_args.made_by(args, names, predictor, given.files)
    prepare_workdir(out, json.dumps(settings | chosen), holds=RESULTS)
    of_objects = bool(set(forms) & set(OF_OBJECTS))
    if of_objects or named and set(forms) & set(NAMING):
        about = {"classes": classes._asdict(), "split": args.split}
        about["coco"] = model_args.identity(args.coco) if truth else None
        prepare_workdir(out, json.dumps(about), name="classes.json", holds=RESULTS)
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
    if skipped:
        of = counted(len(found), "image")
        talk.say(args.quiet, f"finished already: {skipped} of {of}")
    bar = talk.bar(args.quiet, total=len(found), initial=skipped, unit="image")
    for result in bar(predictor(readable())):
        name, image = reading.popleft()
        if result.choice:
            line = prompt_args.describe(given, result.choice)
            tqdm.write(f"{found[name]}: {line}")
        objects = find(result, args.split) if of_objects else []
        shown = Shown(str(found[name]), image, result, objects, classes,
                      entries.get(name), named)  # fmt: skip
        try:
            folder.write(name, shown)
        except (ValueError, OSError) as error:
            failed.append((found[name], f"its result could not be written: {error}"))
        else:
            if not result.segments.any():
                empty.append(found[name])
    folder.join(classes, as_results=truth is not None)
    done = len(folder.todo) - len(failed)
    forms_ = ", ".join(f"NAME{FORMS[form].suffix}" for form in forms)
    if done:
        talk.say(args.quiet, f"wrote {forms_} of {counted(done, 'image')} in {out}")
    if empty:
        of = counted(done, "image")
        print(f"nothing found in {len(empty)} of {of}: {shorten(empty)}",
              file=sys.stderr)  # fmt: skip


def _check_options(args, forms: list[str]) -> None:
    """Refuses options that none of the forms would show."""
    for option, needing in (("names", NAMING), ("split", OF_OBJECTS),
                            ("coco", ("coco-json",))):  # fmt: skip
        if option == "names" and args.classes:
            continue  # its names are those of the prompts
        if getattr(args, option) and not set(needing) & set(forms):
            raise ValueError(
                f"--{option} is for {', '.join(needing)}, and --as {args.forms} has "
                "none of them"
            )
