"""PASCAL-5i: VOC 2012 in four folds of five classes, by HSNet's lists."""

import dataclasses
from collections.abc import Iterable, Iterator, Mapping
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
        there = files_in(images), files_in(masks)
        own = {label for label in voc.NAMES if (label - 1) // 5 == self.fold}
        chosen = own if split == "val" else voc.NAMES.keys() - own

        def entries() -> Iterator[Entry | Skipped]:
            for path in paths:
                for line in read_lines(path, "HSNet's list of a fold"):
                    name, label = pair(path, line, voc.NAMES)
                    if label not in chosen:
                        raise ValueError(
                            f"{path}: {line!r} is of {voc.NAMES[label]}, which is no "
                            f"class of split {split!r} with fold={self.fold}"
                        )
                    if f"{name}.jpg" in there[0] and f"{name}.png" in there[1]:
                        image = relative(images / f"{name}.jpg", root)
                        mask = relative(masks / f"{name}.png", root)
                        yield Entry(line, image, mask, str(label), (label,))
                    else:
                        shown = f"{name}.jpg" in there[0]
                        part = f"mask in {masks}" if shown else f"image in {images}"
                        why = f"is listed in {path.name}, and has no {part}"
                        yield Skipped(line, why, listed=True)

        return Listing({k: voc.NAMES[k] for k in sorted(chosen)}, entries())

    def watched(self, root: Path, split: str) -> Iterable[Path]:
        images, masks, _ = voc.parts(root)
        yield need(images, "VOC's images")
        yield need(masks, "SBD's masks as PNG")
        for fold in range(4):
            if (fold == self.fold) == (split == "val"):
                path = root / self.lists / LISTS[split] / f"fold{fold}.txt"
                yield need(path, "HSNet's list of a fold")

    def decode(self, mask: bytes, annotation: str) -> Decoded:
        return looked_up_one(mask, voc.LOOKUP, annotation)


def pair(path: Path, line: str, names: Mapping[int, str]) -> tuple[str, int]:
    """Name of the image, and class, of a line. path: of the list; names: the classes.

    Raises ValueError for another line.
    """
    name, _, number = line.partition("__")
    if not number.isdigit() or int(number) not in names:
        raise ValueError(f"{path}: {line!r} must be such as 2007_000033__01")
    return name, int(number)
