"""iSAID-5i: iSAID in three folds of five classes, for few-shot evaluation."""

import dataclasses
from collections.abc import Iterable
from pathlib import Path

from seggpt_jax.data.layout import (
    Decoded,
    Layout,
    Listing,
    looked_up_one,
    lookup,
    need,
    top,
)
from seggpt_jax.data.sample import IGNORE
from seggpt_jax.data.sources.isaid import COLORS
from seggpt_jax.data.sources.pascal5i import listed_pairs

NAMES = dict(enumerate(COLORS, 1))
TABLE = lookup({i: i for i in NAMES} | {IGNORE: IGNORE})
FOLDS = 3
_LIST = "the list of a fold"


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
        names = {k: name for k, name in NAMES.items() if (k - 1) // 5 == self.fold}
        folders = (images, ".png"), (masks, "_instance_color_RGB.png")
        of = f"fold {self.fold}"
        return Listing(
            names, listed_pairs(root, [path], folders, NAMES, names, of, _LIST)
        )

    def watched(self, root: Path, split: str) -> Iterable[Path]:
        base = top(root, "iSAID_patches")
        yield need(base / "val/images", "patches of iSAID's images")
        yield need(base / "val/semantic_png", "their masks")
        lists = f"splits/val/fold{self.fold}.txt"
        found = (p for p in (base / lists, root / lists) if p.exists())
        yield need(next(found, base / lists), _LIST)

    def decode(self, mask: bytes, annotation: str) -> Decoded:
        return looked_up_one(mask, TABLE, annotation)
