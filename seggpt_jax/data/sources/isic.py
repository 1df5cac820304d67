"""ISIC 2018, skin lesions of three kinds, for few-shot evaluation."""

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

# The folders that the split script of cross-domain few-shot work makes.
KINDS = {1: "1", 2: "2", 3: "3"}


@dataclasses.dataclass(frozen=True)
class Isic2018(Layout):
    """`[ISIC/]ISIC2018_Task1-2_Training_Input/{1,2,3}/NAME.jpg` and
    `ISIC2018_Task1_Training_GroundTruth/NAME_segmentation.png`.

    The folders 1, 2 and 3, the kinds of lesions, are made of the owners' one folder by
    data_util/ISIC_Split.py of github.com/Matt-Su/DR-Adapter. A record is an image; grey
    of 128 or more is the lesion.
    """

    splits = ("all",)

    def records(self, root: Path, split: str) -> Listing:
        images, masks = self.watched(root, split)
        targets = by_name(masks, "_segmentation.png")

        def entries() -> Iterator[Entry | Skipped]:
            unused = set(targets)
            for label, name in KINDS.items():
                folder = need(
                    images / name, "one of the three folders of ISIC_Split.py"
                )
                for stem, path in by_name(folder, ".jpg").items():
                    record = f"{name}/{stem}"
                    unused.discard(stem)
                    if stem in targets:
                        image, mask = (relative(p, root) for p in (path, targets[stem]))
                        yield Entry(record, image, mask, str(label), (label,))
                    else:
                        yield Skipped(record, "has no mask")
            for stem in sorted(unused):
                yield Skipped(stem, "has no image")

        names = {label: f"lesion {name}" for label, name in KINDS.items()}
        return Listing(names, entries())

    def watched(self, root: Path, split: str) -> Iterable[Path]:
        base = top(root, "ISIC")
        for name in (
            "ISIC2018_Task1-2_Training_Input",
            "ISIC2018_Task1_Training_GroundTruth",
        ):
            yield need(base / name, "ISIC's images and masks")

    def decode(self, mask: bytes, annotation: str) -> Decoded:
        return thresholded(mask, int(annotation))
