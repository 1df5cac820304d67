"""A COCO file of a user: its classes, its images by their paths, and their masks."""

from collections.abc import Collection, Iterable
from pathlib import Path, PurePath

import numpy as np

from seggpt_jax.config import shorten
from seggpt_jax.data.layout import labels_of, lookup, nth_label
from seggpt_jax.data.sources.coco import paint
from seggpt_jax.data.sources.coco_file import CROWDS, Id, Listed, Note, read_coco
from seggpt_jax.data.sources.coco_region import read_region

SUFFIX = ".json"


class ByPath:
    """The images of a COCO file by the ends of their paths."""

    def __init__(self, path: Path, images: Iterable[tuple[Id, Listed]]):
        self._path = path
        self._images: dict[str, dict[Id, Listed]] = {}
        for key, image in images:
            for name in image.names:
                self._images.setdefault(PurePath(name).name, {})[key] = image

    def find(self, path: Path) -> tuple[Id, Listed]:
        """The image of a file, with its id: its `file_name` is the end of the path, or
        the path is the end of its `file_name`. Raises ValueError where none is, or
        several are."""
        found = [
            (key, image)
            for key, image in self._images.get(path.name, {}).items()
            if any(_end_alike(PurePath(name), path) for name in image.names)
        ]
        if len(found) == 1:
            return found[0]
        if found:
            names = shorten([image.name for _, image in found], 3)
            raise ValueError(
                f"{path} may be {names} of {self._path}: give it with its folder"
            )
        raise ValueError(f"{path} is not in {self._path}")


def _end_alike(one: PurePath, other: PurePath) -> bool:
    length = min(len(one.parts), len(other.parts))
    return one.parts[-length:] == other.parts[-length:]


class Annotations:
    """names: category id -> name. labels: category id -> label of prompts.

    Raises ValueError for a file that is no COCO file of objects.
    """

    def __init__(self, path: str | Path):
        self.path = Path(path)
        self._coco = read_coco(self.path)
        self.names = dict(sorted(self._coco.names.items()))
        self.labels = labels_of(self.names)
        self._by_path = ByPath(self.path, self._coco.images.items())

    def files(self, folder: Path, classes: Collection[int]) -> list[Path]:
        """The images of a folder that have objects of these categories, by name."""
        found = []
        for key, image in self._coco.images.items():
            notes = self._coco.notes.get(key, ())
            if any(n.category in classes and not n.crowd for n in notes):
                paths = [folder / name for name in image.names]
                found += [path for path in paths if path.is_file()][:1]
        return sorted(set(found))

    def segments(
        self,
        path: Path,
        size: tuple[int, int],
        classes: Collection[int],
        first: int | None = None,
    ) -> tuple[np.ndarray, dict[int, int]]:
        """The objects of an image of `size` (h, w) that are of these categories: a
        label map int32 `[h, w]`, and label -> category. Crowds are background.

        first: the number of the first object, where every object has a label of its
        own; else the labels are those of the categories. Raises ValueError for an image
        without such an object, and for an object without a usable mask.
        """
        key, image = self._by_path.find(path)
        own = image.size or size
        if own != size:
            raise ValueError(
                f"{path} is {size[1]} x {size[0]}, and {own[1]} x {own[0]} in "
                f"{self.path}"
            )
        notes = [
            (note, note.category)
            for note in self._coco.notes.get(key, ())
            if note.category is not None and note.category in classes and not note.crowd
        ]
        if not notes:
            kinds = shorten([self.names[number] for number in classes], 5)
            crowds = any(note.crowd for note in self._coco.notes.get(key, ()))
            but = f" but crowds; {CROWDS}" if crowds else ""
            raise ValueError(f"{path} has no object of {kinds} in {self.path}{but}")
        objects = [(1, 0, self._counts(note, size)) for note, _ in notes]
        owners = {nth_label(k): category for k, (_, category) in enumerate(notes)}
        table = {label: self.labels[category] for label, category in owners.items()}
        if first is not None:
            table = {nth_label(k): nth_label(first + k) for k in range(len(notes))}
        segments = lookup(table)[paint(size, objects, True).segments]
        return segments, {table[label]: owners[label] for label in owners}

    def _counts(self, note: Note, size: tuple[int, int]) -> str:
        region = read_region(note.row, size)
        if note.wrong or not region.exact:
            raise ValueError(f"{self.path} {note.name} {note.wrong or region.wrong}")
        return region.counts
