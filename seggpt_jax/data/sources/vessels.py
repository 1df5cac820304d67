"""Retinal images with traced vessels: CHASE_DB1, DRIVE, HRF and STARE."""

import dataclasses
import gzip
import re
from collections.abc import Iterable
from pathlib import Path
from typing import ClassVar

from seggpt_jax.data.files import hidden, read_file
from seggpt_jax.data.layout import (
    Decoded,
    Entry,
    Layout,
    Listing,
    need,
    pair_up,
    pictures,
    thresholded,
    top,
)
from seggpt_jax.data.sources.folders import by_name

VESSEL = {1: "retinal vessel"}
Files = dict[str, Path]  # name of an image -> file


class Vessels(Layout):
    """Base: masks are bright where a vessel is."""

    splits: ClassVar[tuple[str, ...]] = ("train", "test")

    def find(self, folders: Iterable[Path], split: str) -> tuple[Files, Files]:
        """The images and the masks of a split, in the folders of `watched`."""
        raise NotImplementedError

    def records(self, root: Path, split: str) -> Listing:
        images, masks = self.find(self.watched(root, split), split)
        return Listing(VESSEL, pair_up(images, masks, root))

    def decode(self, mask: bytes, annotation: str) -> Decoded:
        return thresholded(mask)


def _divide(files: Files, split: str, pattern: str, last: int) -> Files:
    """The files of a split of a set whose owners give none: train has the numbers up to
    `last`, as is customary. A name without the number is in train.

    It goes by number, so a missing file moves no other file into the other split.
    """

    def trained(name: str) -> bool:
        found = re.search(pattern, name)
        return not found or int(found[1]) <= last

    return {n: p for n, p in files.items() if trained(n) == (split == "train")}


@dataclasses.dataclass(frozen=True)
class ChaseDb1(Vessels):
    """`[CHASEDB1/]Image_NN{L,R}.jpg` and `Image_NN{L,R}_1stHO.png` (1 bit): 28 images
    of 999 x 960, two of each person.

    train is the first 10 persons, test the last 4.
    """

    def find(self, folders: Iterable[Path], split: str) -> tuple[Files, Files]:
        (folder,) = folders
        images, masks = by_name(folder, ".jpg"), by_name(folder, "_1stHO.png")
        number = r"Image_(\d+)", 10
        return _divide(images, split, *number), _divide(masks, split, *number)

    def watched(self, root: Path, split: str) -> Iterable[Path]:
        return (need(top(root, "CHASEDB1"), "CHASE_DB1's images"),)


@dataclasses.dataclass(frozen=True)
class Drive(Vessels):
    """`[DRIVE/]{training,test}/{images/NN_*.tif,1st_manual/NN_manual1.gif}`: 40 images
    of 565 x 584.

    Masks are 0 and 255. Outside the field of view (`mask/`) nothing is vessel.
    """

    def find(self, folders: Iterable[Path], split: str) -> tuple[Files, Files]:
        images, masks = (
            {path.name.split("_")[0]: path for path in pictures(folder)}
            for folder in folders
        )
        return images, masks

    def watched(self, root: Path, split: str) -> Iterable[Path]:
        folder = top(root, "DRIVE") / {"train": "training"}.get(split, split)
        for name in ("images", "1st_manual"):
            yield need(folder / name, "DRIVE's images and manual masks")


@dataclasses.dataclass(frozen=True)
class Hrf(Vessels):
    """`[HRF/]images/NN_{dr,g,h}.jpg` (or .JPG) and `manual1/NN_{dr,g,h}.tif`: 45 images
    of 3504 x 2336.

    train is the images 01 to 05 of each kind (retinopathy, glaucoma, healthy), test the
    other ten of each.
    """

    def find(self, folders: Iterable[Path], split: str) -> tuple[Files, Files]:
        images, masks = (
            _divide(by_name(folder), split, r"^(\d+)(?:_|$)", 5) for folder in folders
        )
        return images, masks

    def watched(self, root: Path, split: str) -> Iterable[Path]:
        for name in ("images", "manual1"):
            yield need(top(root, "HRF") / name, "HRF's images and manual masks")


@dataclasses.dataclass(frozen=True)
class Stare(Vessels):
    """`stare-images/imNNNN.ppm[.gz]` and `labels-ah/imNNNN.ah.ppm[.gz]`, traced by
    A. Hoover: 20 images of 700 x 605, all in train, since the owners give no splits."""

    splits = ("train",)

    def find(self, folders: Iterable[Path], split: str) -> tuple[Files, Files]:
        images, masks = (
            {
                path.name.split(".")[0]: path
                for path in sorted(folder.iterdir())
                if path.name.lower().endswith((".ppm", ".ppm.gz"))
                and not hidden(Path(path.name))
            }
            for folder in folders
        )
        # Only 20 of the 400 images of the whole set have traced vessels.
        return {name: images[name] for name in images if name in masks}, masks

    def watched(self, root: Path, split: str) -> Iterable[Path]:
        for name in ("stare-images", "labels-ah"):
            yield need(root / name, "STARE's images and labels")

    def read_image(self, root: Path, entry: Entry) -> bytes:
        return _unpacked(root / entry.image)

    def read_mask(self, root: Path, entry: Entry) -> bytes:
        return _unpacked(root / entry.mask)


def _unpacked(path: Path) -> bytes:
    data = read_file(path)
    return gzip.decompress(data) if path.suffix.lower() == ".gz" else data
