"""PASCAL VOC 2012 with the augmented masks of SBD, 20 classes."""

import dataclasses
from collections.abc import Iterable, Iterator
from pathlib import Path

from seggpt_jax.config import shorten
from seggpt_jax.data.layout import (
    Decoded,
    Entry,
    Layout,
    Listing,
    Skipped,
    looked_up,
    lookup,
    names_of,
    need,
    pair_up,
    pictures,
    read_lines,
    top,
)
from seggpt_jax.data.sample import IGNORE

NAMES = names_of(
    "aeroplane, bicycle, bird, boat, bottle, bus, car, cat, chair, cow, diningtable, "
    "dog, horse, motorbike, person, pottedplant, sheep, sofa, train, tvmonitor"
)
LOOKUP = lookup({i: i for i in NAMES} | {IGNORE: IGNORE})


@dataclasses.dataclass(frozen=True)
class Voc(Layout):
    """`[VOCdevkit/]VOC2012/{JPEGImages,SegmentationClassAug,ImageSets}`, and
    `SegmentationClass` for masks that SegmentationClassAug leaves out.

    val: `ImageSets/Segmentation/val.txt` (1,449 images). train: all other masks, the
    10,582 known as "trainaug". Values 1..20, 255 is void.
    """

    def records(self, root: Path, split: str) -> Listing:
        images, masks, val = parts(root)
        held_out = set(read_lines(val, "it lists the validation images"))
        # The later folder wins: scores are on VOC's own masks.
        folders = [masks.with_name("SegmentationClass"), need(masks, "SBD's as PNG")]
        chosen = {
            path.stem: path
            for folder in (folders if split == "train" else reversed(folders))
            for path in pictures(folder, ".png")
            if (path.stem in held_out) == (split == "val")
        }
        found = {p.stem: p for p in pictures(need(images, "VOC's images"), ".jpg")}
        if not chosen:
            listed = shorten(sorted(held_out), 3)
            raise ValueError(
                f"{masks}: has no mask of split {split!r}; {val} lists the images of "
                f"val: {listed}"
            )
        # Most of VOC's images have no mask: that is no fault.
        found = {name: path for name, path in found.items() if name in chosen}

        def entries() -> Iterator[Entry | Skipped]:
            yield from pair_up(found, chosen, root, listed=split == "val")
            if split == "val":
                for name in sorted(held_out - chosen.keys()):
                    why = f"is listed in {val.name}, and has no mask"
                    yield Skipped(name, why, listed=True)

        return Listing(NAMES, entries())

    def watched(self, root: Path, split: str) -> Iterable[Path]:
        images, masks, val = parts(root)
        yield need(images, "VOC's images")
        yield need(masks, "SBD's masks as PNG")
        yield need(val, "it lists the validation images")
        if (own := masks.with_name("SegmentationClass")).is_dir():
            yield own

    def decode(self, mask: bytes, annotation: str) -> Decoded:
        return looked_up(mask, LOOKUP)


def parts(root: Path) -> tuple[Path, Path, Path]:
    voc = top(top(root, "VOCdevkit"), "VOC2012")
    lists = voc / "ImageSets" / "Segmentation"
    return voc / "JPEGImages", voc / "SegmentationClassAug", lists / "val.txt"
