"""PASCAL-5i: VOC 2012 in four folds of five classes, by HSNet's lists."""

import dataclasses
from collections.abc import Collection, Iterable, Iterator, Mapping
from pathlib import Path

from seggpt_jax.data.layout import (
    Decoded,
    Entry,
    Layout,
    Listing,
    Skipped,
    files_in,
    looked_up_one,
    need,
    read_lines,
    relative,
)
from seggpt_jax.data.sources import voc

LIST = "HSNet's list of a fold"
LISTS = {"train": "trn", "val": "val"}


@dataclasses.dataclass(frozen=True)
class Pascal5i(Layout):
    """VOC's tree (see `voc`) and HSNet's lists `splits/pascal/{trn,val}/fold{f}.txt`
    (github.com/juhongm999/hsnet, data/splits), lines such as `2007_000033__01`.

    A record is a line, one image of one class, in the order of the list: HSNet draws
    its episodes from `by_class`. The other classes of the image, of any fold, are
    background. val is the list of the fold, with its five classes; train is the lists
    of the other three folds. fold: 0 to 3.
    """

    fold: int = dataclasses.field(kw_only=True)
    lists: str = "splits/pascal"

    def __post_init__(self):
        if self.fold not in range(4):
            raise ValueError(f"fold: {self.fold!r} must be 0, 1, 2 or 3")

    def records(self, root: Path, split: str) -> Listing:
        images, masks, *paths = self.watched(root, split)
        own = {label for label in voc.NAMES if (label - 1) // 5 == self.fold}
        chosen = own if split == "val" else voc.NAMES.keys() - own

        names = {k: voc.NAMES[k] for k in sorted(chosen)}
        of = f"split {split!r} with fold={self.fold}"
        folders = (images, ".jpg"), (masks, ".png")
        return Listing(
            names, listed_pairs(root, paths, folders, voc.NAMES, names, of, LIST)
        )

    def watched(self, root: Path, split: str) -> Iterable[Path]:
        images, masks, _ = voc.parts(root)
        yield need(images, "VOC's images")
        yield need(masks, "SBD's masks as PNG")
        for fold in range(4):
            if (fold == self.fold) == (split == "val"):
                path = root / self.lists / LISTS[split] / f"fold{fold}.txt"
                yield need(path, LIST)

    def decode(self, mask: bytes, annotation: str) -> Decoded:
        return looked_up_one(mask, voc.LOOKUP, annotation)


def listed_pairs(
    root: Path,
    paths: Iterable[Path],
    folders: tuple[tuple[Path, str], tuple[Path, str]],
    names: Mapping[int, str],
    chosen: Collection[int],
    of: str,
    what: str,
) -> Iterator[Entry | Skipped]:
    """A record for each line of lists such as `2007_000033__01`: image and class.

    folders: of the images and of the masks, each with what its files have after the
    image's name. names: all classes. Raises ValueError for a class that is not
    `chosen`, with the words `of`, and for another line. what: the lists, for errors.
    """
    (images, image_end), (masks, mask_end) = folders
    there = files_in(images), files_in(masks)
    for path in paths:
        for line in read_lines(path, what):
            name, label = _pair(path, line, names)
            if label not in chosen:
                raise ValueError(
                    f"{path}: {line!r} is of {names[label]}, which is no class of {of}"
                )
            image, mask = f"{name}{image_end}", f"{name}{mask_end}"
            if image in there[0] and mask in there[1]:
                shown, mask = (
                    relative(p, root) for p in (images / image, masks / mask)
                )
                yield Entry(line, shown, mask, str(label), (label,))
            else:
                here = image in there[0]
                part = f"mask in {masks}" if here else f"image in {images}"
                why = f"is listed in {path.name}, and has no {part}"
                yield Skipped(line, why, listed=True)


def _pair(path: Path, line: str, names: Mapping[int, str]) -> tuple[str, int]:
    """Name of the image, and class, of a line."""
    name, _, number = line.partition("__")
    if not number.isdigit() or int(number) not in names:
        raise ValueError(f"{path}: {line!r} must be such as 2007_000033__01")
    return name, int(number)
