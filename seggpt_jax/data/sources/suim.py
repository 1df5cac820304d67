"""SUIM, underwater images of seven classes, for few-shot evaluation."""

import dataclasses
from collections.abc import Iterable, Iterator
from pathlib import Path

from seggpt_jax.data.layout import (
    Decoded,
    Entry,
    Layout,
    Listing,
    Skipped,
    need,
    relative,
    thresholded,
    top,
)
from seggpt_jax.data.sources.folders import by_name

# Folder -> class, in the order of the few-shot protocols.
NAMES = {
    "FV": "fish and vertebrates", "HD": "human divers", "PF": "plants and sea-grass",
    "RI": "reefs and invertebrates", "RO": "robots", "SR": "sand and sea-floor",
    "WR": "wrecks and ruins",
}  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Suim(Layout):
    """`[SUIM/]images/NAME.jpg` and `masks/{FV,HD,PF,RI,RO,SR,WR}/NAME.*`, the train_val
    and test images of the owners together, 1,635 of them.

    A record is an image with one of its classes; grey of 128 or more is the class.
    Masks without it make no record.
    """

    splits = ("all",)
    keep_empty = False

    def records(self, root: Path, split: str) -> Listing:
        images, masks = self.watched(root, split)
        shown = by_name(images, ".jpg")

        def entries() -> Iterator[Entry | Skipped]:
            for label, name in enumerate(NAMES, 1):
                folder = need(masks / name, f"the masks of {NAMES[name]}")
                for stem, path in by_name(folder).items():
                    record = f"{name}/{stem}"
                    if stem in shown:
                        image, mask = (relative(p, root) for p in (shown[stem], path))
                        yield Entry(record, image, mask, str(label))
                    else:
                        yield Skipped(record, "has no image")

        return Listing(dict(enumerate(NAMES.values(), 1)), entries())

    def watched(self, root: Path, split: str) -> Iterable[Path]:
        base = top(root, "SUIM", "suim_merged")
        yield need(base / "images", "SUIM's images")
        yield need(base / "masks", "a folder of masks for each class")

    def origin(self, name: str) -> str:
        return name.partition("/")[2]

    def decode(self, mask: bytes, annotation: str) -> Decoded:
        return thresholded(mask, int(annotation))
