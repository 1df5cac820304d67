"""iSAID-5i: iSAID in three folds of five classes, for few-shot evaluation."""

import dataclasses
from collections.abc import Iterable, Iterator
from pathlib import Path

from seggpt_jax.data.layout import (
    Decoded,
    Entry,
    Layout,
    Listing,
    Skipped,
    files_in,
    looked_up_one,
    lookup,
    need,
    read_lines,
    relative,
    top,
)
from seggpt_jax.data.sample import IGNORE
from seggpt_jax.data.sources.isaid import COLORS
from seggpt_jax.data.sources.pascal5i import pair

NAMES = dict(enumerate(COLORS, 1))
TABLE = lookup({i: i for i in NAMES} | {IGNORE: IGNORE})
FOLDS = 3


@dataclasses.dataclass(frozen=True)
class Isaid5i(Layout):
    """`[iSAID_patches/]val/images/NAME.png`, `val/semantic_png/NAME_instance_color_RGB
    .png` (classes 1 to 15, 255 ignored) and the lists `splits/val/fold{f}.txt` of lines
    such as `P0003_0_256_0_256__14`, as in INSID3's preparation (github.com/visinf/
    INSID3, docs/data.md).

    A record is a line, one image of one class, in the order of the list. The other
    classes of the image are background. Fold f has the classes 5 f + 1 to 5 f + 5.
    fold: 0 to 2.
    """

    splits = ("val",)
    fold: int = dataclasses.field(kw_only=True)

    def __post_init__(self):
        if self.fold not in range(FOLDS):
            raise ValueError(f"fold: {self.fold!r} must be 0, 1 or 2")

    def records(self, root: Path, split: str) -> Listing:
        images, masks, path = self.watched(root, split)
        there = files_in(images), files_in(masks)
        names = {k: name for k, name in NAMES.items() if (k - 1) // 5 == self.fold}

        def entries() -> Iterator[Entry | Skipped]:
            for line in read_lines(path, "the list of a fold"):
                name, label = pair(path, line, NAMES)
                if label not in names:
                    raise ValueError(
                        f"{path}: {line!r} is of {NAMES[label]}, which is no class of "
                        f"fold {self.fold}"
                    )
                target = f"{name}_instance_color_RGB.png"
                if f"{name}.png" in there[0] and target in there[1]:
                    image = relative(images / f"{name}.png", root)
                    mask = relative(masks / target, root)
                    yield Entry(line, image, mask, str(label), (label,))
                else:
                    why = f"is not in {images} or {masks}"
                    yield Skipped(line, why, listed=True)

        return Listing(names, entries())

    def watched(self, root: Path, split: str) -> Iterable[Path]:
        base = top(root, "iSAID_patches")
        yield need(base / "val/images", "patches of iSAID's images")
        yield need(base / "val/semantic_png", "their masks")
        lists = f"splits/val/fold{self.fold}.txt"
        found = (p for p in (base / lists, root / lists) if p.exists())
        yield need(next(found, base / lists), "the list of a fold")

    def decode(self, mask: bytes, annotation: str) -> Decoded:
        return looked_up_one(mask, TABLE, annotation)
