"""Targets by class: label maps with a table of names, and the objects of COCO files."""

import os
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import TypeGuard

import numpy as np

from seggpt_jax.config import suggest
from seggpt_jax.data.decode import Picture
from seggpt_jax.data.sample import BACKGROUND, IGNORE
from seggpt_jax.pictures import images
from seggpt_jax.prompts.annotations import SUFFIX, Annotations


def by_class(
    pictures: Sequence[Picture],
    targets: Sequence[Picture],
    kind: str,
    names: Mapping[int, str],
    classes: Collection[str],
) -> tuple[list[Picture], dict[int, str]]:
    """Targets with no other labels than those of some classes, and label -> class.

    targets: a path that ends in `.json` is a COCO file, and the target is the objects
    that it has of the picture: of kind `category` their categories, of kind `instance`
    a label for every object of all pictures. names: label -> class of the other
    targets. classes: names; empty for all. Raises ValueError that names the file.
    """
    if len(pictures) != len(targets):  # `read_prompts` says so
        return list(targets), dict(names)
    named, files = dict(names), dict[str, Annotations]()
    chosen: list[Picture] = []
    count = 0  # of objects so far
    for i, (picture, target) in enumerate(zip(pictures, targets, strict=True), 1):
        if not is_coco(target):
            chosen.append(_of_labels(target, i, names, classes) if classes else target)
            continue
        path = os.fspath(target)
        if not isinstance(picture, (str, os.PathLike)):
            raise ValueError(
                f"prompt image {i} is no file: {path} finds images by their names"
            )
        file = files[path] = files.get(path) or Annotations(path)
        kept = ids_of(file.names, classes, path)
        shape = images.read_image(picture).pixels.shape
        first = count if kind == "instance" else None
        found, shown = file.segments(Path(picture), shape[:2], kept, first)
        chosen.append(found)
        count += len(shown)
        if kind != "instance":
            shown = {label: number for number, label in file.labels.items()}
        for label, number in shown.items():
            name = file.names[number]
            if named.setdefault(label, name) != name:
                raise ValueError(
                    f"label {label} is {named[label]!r}, and in {path} {name!r}: "
                    "examples must agree"
                )
    return chosen, named


def is_coco(target: Picture) -> TypeGuard[str | os.PathLike]:
    """Whether a target is the path of a COCO file."""
    path = target if isinstance(target, (str, os.PathLike)) else ""
    return str(path).lower().endswith(SUFFIX)


def ids_of(names: Mapping[int, str], classes: Collection[str], where: str) -> list[int]:
    """The ids of classes, by their names; all where none is chosen. Several ids may
    have one name, as objects of one class."""
    known = set(names.values())
    for name in classes:
        if name not in known:
            raise ValueError(
                f"class {name!r} is not one of {where}{suggest(name, known)}"
            )
    return [number for number, name in names.items() if name in (classes or known)]


def _of_labels(
    target: Picture, number: int, names: Mapping[int, str], classes: Collection[str]
) -> np.ndarray:
    name = images.name_of(target, f"prompt target {number}")
    if not names:
        raise ValueError(
            f"{name}: classes {', '.join(classes)} are chosen by name, and no names "
            "are given"
        )
    values = images.read_mask(target, name).values
    if values.ndim == 3:
        raise ValueError(f"{name} is a painting: only labels have names")
    if [*names] == [1] and np.setdiff1d(values, [BACKGROUND]).tolist() == [IGNORE]:
        # A binary mask, as in `read_prompts`.
        values = (values == IGNORE).astype(np.int32)
    kept = np.isin(values, ids_of(names, classes, "the names"))
    if not kept.any():
        raise ValueError(f"{name} shows no {', '.join(classes)}")
    return np.where(kept, values, BACKGROUND)
