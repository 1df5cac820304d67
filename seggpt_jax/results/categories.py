"""Which category every label is, for files that name the classes of objects."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

from seggpt_jax.config import shorten, suggest
from seggpt_jax.data.sample import IGNORE
from seggpt_jax.data.sources.indexed import CLASSES, class_table

OBJECT = "object"  # the category of objects that only have numbers


class Categories(NamedTuple):
    """ids: label -> id of its category. names: id -> name, of all categories."""

    ids: dict[int, int]
    names: dict[int, str]

    def name(self, label: int) -> str:
        return self.names[self.ids[label]]

    def place(self, label: int) -> int:
        """The number of the label's category among all, from 0: the class of YOLO."""
        return list(self.names).index(self.ids[label])


def read_names(text: str) -> dict[int, str]:
    """`1=cat,2=dog`, or the classes.tsv of a folder -> label -> name."""
    if "=" not in text:
        path = Path(text)
        folder = path.parent if path.name == CLASSES else path
        if not (folder / CLASSES).is_file():
            raise ValueError(
                f"--names {text}: 1=cat,2=dog is wanted, or the {CLASSES} of a folder"
            )
        table = class_table(folder)
        named = {label: name for label, name in table.items() if label}
        if set(named) == {IGNORE}:  # of masks of 0 and 255, whose inside is label 1
            named = {1: named[IGNORE]}
        return named
    names = {}
    for part in text.split(","):
        label, _, name = (word.strip() for word in part.partition("="))
        if not label.isdecimal() or not int(label) or not name:
            raise ValueError(f"--names {text}: {part!r} is not such as 1=cat")
        if int(label) in names:
            raise ValueError(f"--names {text}: label {int(label)} is named twice")
        names[int(label)] = name
    return names


def categories(
    labels: Iterable[int], kind: str, names: Mapping[int, str]
) -> Categories:
    """The categories of a prompt's labels. names: label -> class, for all labels or for
    none; labels that the prompt has not may have names too.

    Of kind `category` every label is its own category, and its id is the label. Of kind
    `instance` the labels of one name are one category; without names, all are objects.
    Raises ValueError that names a label without a name, or a name of two labels.
    """
    labels = [label for label in labels if label]
    if names:
        _check_named(labels, names)
    if kind == "instance":
        kinds = dict.fromkeys(names.values() if names else [OBJECT])
        ids = {name: number for number, name in enumerate(kinds, 1)}
        own = {label: ids[names.get(label, OBJECT)] for label in labels}
        return Categories(own, {number: name for name, number in ids.items()})
    named = dict(names) or {label: str(label) for label in labels}
    for label, name in named.items():
        first = next(other for other in named if named[other] == name)
        if first != label:
            raise ValueError(
                f"labels {first} and {label} are both named {name!r}: give every "
                "category a name of its own"
            )
    return Categories({label: label for label in labels}, named)


def categories_of(
    known: Mapping[int, str],
    where: str,
    labels: Iterable[int],
    kind: str,
    names: Mapping[int, str],
) -> Categories:
    """The categories of a prompt's labels among those known, id -> name, of a file
    `where`. Labels with names are found by name. Labels without are ids of the file;
    those of kind `instance` are of its only category.

    Raises ValueError that names the label and the choices.
    """
    labels = [label for label in labels if label]
    known = dict(known)
    if names:
        _check_named(labels, names)
        by_name = {name: number for number, name in known.items()}
        for label in labels:
            if names[label] not in by_name:
                raise ValueError(
                    f"label {label} is {names[label]!r}, which is no category of "
                    f"{where}{suggest(names[label], by_name)}"
                )
        return Categories({label: by_name[names[label]] for label in labels}, known)
    if kind == "instance" and len(known) == 1:
        return Categories(dict.fromkeys(labels, *known), known)
    if kind == "instance" or not known.keys() >= set(labels):
        raise ValueError(
            f"labels {shorten(labels)} are not all ids of categories of {where} "
            f"({shorten(known)}): name them, as in --names {labels[0]}="
            f"{next(iter(known.values()))}"
        )
    return Categories({label: label for label in labels}, known)


def _check_named(labels: Iterable[int], names: Mapping[int, str]) -> None:
    if missing := [label for label in labels if label not in names]:
        raise ValueError(
            f"labels {shorten(missing)} have no name; named are {shorten(names)}"
        )
