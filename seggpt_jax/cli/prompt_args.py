"""Reads the values of `--prompt`, and gives a predictor these prompts."""

import dataclasses
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

from seggpt_jax.cli import talk
from seggpt_jax.config import counted, shorten, suggest
from seggpt_jax.inference import Predictor
from seggpt_jax.pictures.listing import kinds, look_into
from seggpt_jax.prompts import search
from seggpt_jax.prompts.annotations import Annotations
from seggpt_jax.prompts.classes import by_class, ids_of, is_coco
from seggpt_jax.prompts.file import SUFFIX
from seggpt_jax.prompts.read import check_prompts, target_names
from seggpt_jax.runs.paths import locate

HELP = (
    "an example; several go together. FOLDER:MASKS: all of a folder, paired by their "
    "names. A mask, or MASKS, may be a COCO JSON file of the images. "
    f"auto:K, or auto:K:similarity: the K best of them. Or FILE{SUFFIX}, a "
    "tuned prompt, alone"
)
KIND = "what the labels tell apart (default: %(default)s)"
NAMES = "1=cat,2=dog, or a classes.tsv: the classes that the labels are"
CLASSES = "the only classes that the prompts show, by their names (default: all)"
OPTION: dict[str, Any] = {
    "action": "append",
    "metavar": "IMAGE:MASK",
    "help": HELP,
}
_AUTO = "auto"


@dataclasses.dataclass(frozen=True)
class Given:
    """images, masks: files; a tuned prompt stands in `images`, without a mask. count:
    number of prompts to choose, `by` one of `search.WAYS`; 0 takes all."""

    images: list[str]
    masks: list[str]
    count: int = 0
    by: str = ""

    @property
    def files(self) -> list[str]:
        return [*self.images, *self.masks]


def read(prompts: Sequence[str], classes: Sequence[str] = ()) -> Given:
    """Reads all values of `--prompt`. classes: those that images of a COCO file must
    show, by name. Raises ValueError that names the wrong one, or FileNotFoundError."""
    one = [p for p in prompts if ":" not in p.removeprefix("gs://")]  # no IMAGE:MASK
    tuned = [p for p in one if p.endswith(SUFFIX)]
    if tuned and len(prompts) > 1:
        raise ValueError(f"--prompt {' '.join(prompts)}: a tuned prompt goes alone")
    if tuned:
        _check_there(tuned)
        return Given(tuned, [])
    searches = [prompt for prompt in prompts if prompt.split(":")[0] == _AUTO]
    pairs = [
        p
        for prompt in prompts
        if prompt not in searches
        for p in _pairs(prompt, classes)
    ]
    given = Given([image for image, _ in pairs], [mask for _, mask in pairs])
    _check_there(given.files)
    if not searches:
        return given
    if len(searches) > 1 or not pairs:
        raise ValueError(
            f"--prompt {' '.join(prompts)}: auto:K once, beside the examples to choose "
            "from, IMAGE:MASK or FOLDER:MASKS"
        )
    count, by = _read_search(searches[0])
    try:
        search.check(by, count, len(pairs))
    except ValueError as error:
        raise ValueError(f"--prompt {searches[0]}: {error}") from error
    return dataclasses.replace(given, count=count, by=by)


def check(
    given: Given,
    kind: str,
    names: Mapping[int, str] = MappingProxyType({}),
    classes: Sequence[str] = (),
    bits: int = 16,
) -> None:
    """Reads the prompts in full, so that a fault ends a command before its model is
    read, which takes long. Many prompts to choose from are only read for their use.
    Arguments: as of `show`. Raises what `Predictor.set_prompts` raises."""
    if given.masks and not given.count:
        targets, _ = by_class(given.images, given.masks, kind, names, classes)
        called = target_names(given.masks)
        check_prompts(given.images, targets, kind, bits, called)


def show(
    predictor: Predictor,
    given: Given,
    kind: str,
    names: Mapping[int, str] = MappingProxyType({}),
    classes: Sequence[str] = (),
    *,
    quiet: bool,
) -> dict[str, Any]:
    """Sets a predictor's prompts, prints the chosen ones, and says what the labels are.
    names, classes: as of `Predictor.set_prompts`. quiet: as of `talk`. Returns the
    settings that results depend on, beside the files."""
    about = _show(predictor, given, kind, names, classes, quiet)
    known = predictor.names | dict(names)
    legend = (
        " ".join(filter(None, (str(label), known.get(label), f"#{bytes(color).hex()}")))
        for label, color in predictor.palette.items()
        if label
    )
    talk.say(quiet, f"labels and their colours: {', '.join(legend)}")
    return about


def _show(predictor, given, kind, names, classes, quiet) -> dict[str, Any]:
    about: dict[str, Any] = {}
    if classes:
        about = {"classes": list(classes), "names": dict(names)}
    if not given.masks:  # a tuned prompt; its file says its kind
        if classes:
            raise ValueError(f"--classes: {given.images[0]} is tuned for its classes")
        predictor.load_prompt(given.images[0])
        return about
    count = len(given.images)
    if not given.count:
        talk.say(quiet, f"encoding {counted(count, 'prompt')}")
        predictor.set_prompts(given.images, given.masks, kind, names, classes)
        return about
    talk.say(
        quiet, f"choosing {given.count} of {counted(count, 'example')} by {given.by}"
    )
    choice = predictor.search_prompts(
        given.images, given.masks, given.count, given.by, kind, names, classes,
        talk.bar(quiet, unit="example"),
    )  # fmt: skip
    searched: dict[str, Any] = {"by": given.by, "count": given.count}
    if choice:
        print(f"prompts: {describe(given, choice)}")
        searched["chosen"] = [os.path.realpath(given.images[k]) for k in choice.places]
    return about | {"search": searched}


def describe(given: Given, choice: search.Choice) -> str:
    """The chosen prompts with their scores, on one line."""
    rows = zip(choice.places, choice.scores, strict=True)
    return ", ".join(f"{given.images[k]} ({score:.3f})" for k, score in rows)


def _check_there(files: Iterable[str]) -> None:
    for file in files:
        if not locate(file).exists():
            raise FileNotFoundError(f"{file} does not exist")


def _read_search(prompt: str) -> tuple[int, str]:
    """`auto:4:similarity` -> 4, "similarity"."""
    _, *rest = prompt.split(":")
    count, by = [*rest, search.WAYS[0], ""][:2]
    if len(rest) not in (1, 2) or not count.isdecimal() or not int(count):
        choices = " or ".join(f"auto:K:{way}" for way in search.WAYS)
        raise ValueError(f"--prompt {prompt}: {choices} is wanted, K 1 or more")
    if by not in search.WAYS:
        raise ValueError(
            f"--prompt {prompt}: {by!r} is unknown{suggest(by, search.WAYS)}"
        )
    return int(count), by


def _cut(prompt: str) -> tuple[str, str]:
    """IMAGE and MASK of a text. Names may have colons, as times of the day do: the cut
    is where both are there, if it is anywhere."""
    parts = prompt.split(":")
    cuts = [
        (":".join(parts[:n]), ":".join(parts[n:])) for n in range(len(parts) - 1, 0, -1)
    ]
    there = (cut for cut in cuts if all(cut) and all(map(os.path.exists, cut)))
    return next(there, cuts[0] if cuts else ("", ""))


def _pairs(prompt: str, classes: Sequence[str]) -> Iterator[tuple[str, str]]:
    image, mask = _cut(prompt)
    if not image or not mask:
        raise ValueError(
            f"--prompt {prompt}: IMAGE:MASK is wanted, or IMAGES:MASKS of folders, "
            f"IMAGES:FILE.json of COCO's, auto:K, or a FILE{SUFFIX} of seggpt tune"
        )
    if not Path(image).is_dir() and not Path(mask).is_dir():
        yield image, mask
        return
    if is_coco(mask):
        file = Annotations(mask)
        own = file.files(Path(image), ids_of(file.names, classes, mask))
        if not own:
            raise ValueError(
                f"--prompt {prompt}: {mask} has objects of no image in {image}"
            )
        yield from ((str(path), mask) for path in own)
        return
    images, masks = _by_stem(prompt, image), _by_stem(prompt, mask)
    for found, others, what in ((images, masks, "mask"), (masks, images, "image")):
        alone = [found[stem] for stem in found if stem not in others]
        if alone:
            raise ValueError(
                f"--prompt {prompt}: no {what} of the same name for {shorten(alone, 3)}"
            )
    yield from ((images[stem], masks[stem]) for stem in images)


def _by_stem(prompt: str, folder: str) -> dict[str, str]:
    """Stem -> the picture of that name in a folder, by name."""
    if not Path(folder).is_dir():
        raise ValueError(
            f"--prompt {prompt}: FOLDER:MASKS takes two folders, and {folder} is none"
        )
    inside = look_into(Path(folder))
    found: dict[str, str] = {}
    for path in inside.pictures:
        if path.stem in found:
            raise ValueError(
                f"--prompt {prompt}: {found[path.stem]} and {path} have the same name"
            )
        found[path.stem] = str(path)
    if not found:
        there = kinds(inside.others) or "nothing"
        raise ValueError(f"--prompt {prompt}: {folder} has no picture; it has {there}")
    return found
