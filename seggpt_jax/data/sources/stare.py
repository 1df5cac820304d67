"""STARE: 20 retinal images of 700 x 605 with vessels traced by A. Hoover."""

import dataclasses
import gzip
from collections.abc import Iterable
from pathlib import Path
from typing import ClassVar

from seggpt_jax.data.layout import Entry, Listing, need
from seggpt_jax.data.sources.vessels import Vessels


@dataclasses.dataclass(frozen=True)
class Stare(Vessels):
    """`stare-images/imNNNN.ppm[.gz]` and `labels-ah/imNNNN.ah.ppm[.gz]`.

    All 20 images are in train: the owners give no division.
    """

    splits: ClassVar[tuple[str, ...]] = ("train",)

    def records(self, root: Path, split: str) -> Listing:
        images, masks = (
            {
                path.name.split(".")[0]: path
                for path in sorted(folder.iterdir())
                if path.name.lower().endswith((".ppm", ".ppm.gz"))
                and not path.name.startswith(".")
            }
            for folder in self.watched(root, split)
        )
        # Only 20 of the 400 images of the whole set have traced vessels.
        images = {name: path for name, path in images.items() if name in masks}
        return self.listing(images, masks, root)

    def watched(self, root: Path, split: str) -> Iterable[Path]:
        for name in ("stare-images", "labels-ah"):
            yield need(root / name, "STARE's images and labels")

    def read_image(self, root: Path, entry: Entry) -> bytes:
        return _unpacked(root / entry.image)

    def read_mask(self, root: Path, entry: Entry) -> bytes:
        return _unpacked(root / entry.mask)


def _unpacked(path: Path) -> bytes:
    data = path.read_bytes()
    return gzip.decompress(data) if path.suffix.lower() == ".gz" else data
