"""Which mask belongs to which image, and which images are held out."""

import collections
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from seggpt_jax.config import counted, shorten
from seggpt_jax.pictures.listing import kinds, look_into

_SPLITS = {
    "train": "train", "training": "train",
    "val": "val", "valid": "val", "validation": "val",
    "test": "test", "testing": "test",
}  # fmt: skip
_EVERY = 5  # one image of so many is held out
_LEAST = 4  # images of a class, of which two are held out: a query and its prompt


class Pairs(NamedTuple):
    """files: path below the folder of images, without its ending -> image, mask. notes:
    for the user, what was left out."""

    files: dict[str, tuple[Path, Path]]
    notes: list[str]


def pair(images: Path, masks: Path) -> Pairs:
    """Pairs the pictures of two folders, and of the folders in them, by their paths
    without endings. Where no two are equal, what all names of a folder begin and end
    with does not count: `a_photo.jpg` goes with `gt_a.png`.

    Raises ValueError where nothing fits together.
    """
    ours, theirs = _by_stem(images), _by_stem(masks)
    if not ours.keys() & theirs.keys():
        ours, theirs = _varying(ours), _varying(theirs)
    both = {stem: (path, theirs[stem]) for stem, path in ours.items() if stem in theirs}
    if not both:
        one, other = next(iter(ours.values())), next(iter(theirs.values()))
        raise ValueError(
            f"no image of {images} and mask of {masks} have the same name, apart from "
            f"what all names of a folder begin or end with: {one.name}, {other.name}"
        )
    notes = []
    for found, single, several in (
        (ours, "image without a mask", "images without a mask"),
        (theirs, "mask without an image", "masks without one"),
    ):
        alone = [path for stem, path in found.items() if stem not in both]
        if alone:
            left_out = counted(len(alone), single, several)
            notes.append(f"left out: {left_out}: {shorten(alone, 3)}")
    return Pairs(both, notes)


def splits_of(names: Sequence[str], shown: Mapping[str, Sequence[int]]) -> list[str]:
    """The split of every image. names: paths without endings. shown: name -> classes.

    Where the first folder in all paths is `train`, `val` or `test`, that one. Else a
    fifth of the images of each class, rarest first, is `val`: two or more of four or
    more, one of two or three. They are spread evenly over the images by name.
    """
    folders = [name.split("/")[0].lower() for name in names]
    if all("/" in name for name in names) and set(folders) <= set(_SPLITS):
        return [_SPLITS[folder] for folder in folders]
    members: dict[int | None, list[str]] = {}
    for name in sorted(names):
        for label in shown[name] or (None,):
            members.setdefault(label, []).append(name)
    held: set[str] = set()
    counts: collections.Counter[int | None] = collections.Counter()  # of the held out
    rarest = sorted(members.items(), key=lambda x: (len(x[1]), str(x[0])))
    for label, own in rarest:
        wanted = max(2 if len(own) >= _LEAST else 1, round(len(own) / _EVERY))
        if len(own) < (_EVERY if label is None else 2):
            continue
        # Half of a class at most is held out.
        full = {c for c, has in members.items() if 2 * (1 + counts[c]) > len(has)}
        free = [n for n in own if n not in held and full.isdisjoint(shown[n])]
        more = min(max(0, wanted - counts[label]), len(free))
        for k in range(more):
            name = free[(2 * k + 1) * len(free) // (2 * more)]
            held.add(name)
            counts.update(shown[name] or (None,))
    return ["val" if name in held else "train" for name in names]


def _by_stem(folder: Path) -> dict[str, Path]:
    if not folder.is_dir():
        raise ValueError(f"{folder}: no such folder")
    inside = look_into(folder, deep=True)
    found: dict[str, Path] = {}
    for path in inside.pictures:
        stem = path.relative_to(folder).with_suffix("").as_posix()
        if stem in found:
            raise ValueError(f"{found[stem]} and {path} have the same name")
        found[stem] = path
    if not found:
        there = kinds(inside.others) or "nothing"
        raise ValueError(f"{folder} has no picture; it has {there}")
    return found


def _varying(found: Mapping[str, Path]) -> dict[str, Path]:
    """The names without what all begin and end with. A number counts whole where there
    are several names, so that `img_10` never goes with `mask_0`, and without its
    leading zeros."""
    stems = [*found]
    start = _alike(stems)
    end = _alike([stem[start:][::-1] for stem in stems])
    cut = {
        re.sub("0*([0-9]+)", r"\1", stem[start : len(stem) - end]): path
        for stem, path in found.items()
    }
    return cut if len(cut) == len(found) else dict(found)


def _alike(texts: Sequence[str]) -> int:
    """How many characters all begin with, without a part of a number."""
    common = os.path.commonprefix(texts)
    if any(re.match("[0-9]", text[len(common) :]) for text in texts):
        common = re.sub("[0-9]+$", "", common)
    return len(common)
