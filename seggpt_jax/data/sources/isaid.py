"""iSAID: aerial images of up to 60 million pixels in tiles, 15 classes."""

import dataclasses
import io
import json
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
from PIL import Image

from seggpt_jax.data.decode import naming_errors
from seggpt_jax.data.layout import (
    Decoded,
    Entry,
    Layout,
    Listing,
    Skipped,
    first_folder,
    need,
    pair_up,
    pictures,
)
from seggpt_jax.data.masks import read_colors
from seggpt_jax.data.sample import BACKGROUND, BadRecord
from seggpt_jax.data.sources.crops import cut

# Name -> colour of the owners' semantic masks.
COLORS = {
    "ship": (0, 0, 63), "storage tank": (0, 63, 63), "baseball diamond": (0, 63, 0),
    "tennis court": (0, 63, 127), "basketball court": (0, 63, 191),
    "ground track field": (0, 63, 255), "bridge": (0, 127, 63),
    "large vehicle": (0, 127, 127), "small vehicle": (0, 0, 127),
    "helicopter": (0, 0, 191), "swimming pool": (0, 0, 255),
    "roundabout": (0, 191, 127), "soccer ball field": (0, 127, 191),
    "plane": (0, 127, 255), "harbor": (0, 100, 155),
}  # fmt: skip
IDS = np.array([r + 256 * g + 65536 * b for r, g, b in COLORS.values()])


@dataclasses.dataclass(frozen=True)
class Isaid(Layout):
    """`{train,val}/images/**/PNNNN.png` (the images of DOTA) and
    `{train,val}/Semantic_masks/**/PNNNN_instance_color_RGB.png`; where there is no
    Semantic_masks, the masks are beside the images, as in the owners' iSAID_Devkit.

    A record is a tile of `tile` x `tile` pixels, which overlaps the next one by
    `overlap` (896 and 384, as is customary for this set). Tiles without a class make no
    record. A tile of the owners' files is read by decoding its whole image: prepare
    this set.
    """

    keep_empty = False
    readers = 2  # of images that take hundreds of megabytes
    tile: int = 896
    overlap: int = 384

    def __post_init__(self):
        if not 0 <= self.overlap < self.tile:
            raise ValueError(
                f"tile={self.tile}, overlap={self.overlap}: need 0 <= overlap < tile"
            )

    def records(self, root: Path, split: str) -> Listing:
        image_folder, mask_folder = self.watched(root, split)
        suffix = "_instance_color_RGB"
        images = {path.stem: path for path in pictures(image_folder, ".png")}
        masks = {
            path.stem.removesuffix(suffix): path
            for path in pictures(mask_folder, f"{suffix}.png")
        }
        # Both kinds of masks may lie beside the images: PNNNN_instance_{color,id}_RGB.
        images = {n: path for n, path in images.items() if "_instance_" not in n}

        def entries() -> Iterator[Entry | Skipped]:
            stride = self.tile - self.overlap
            for entry in pair_up(images, masks, root):
                if isinstance(entry, Skipped):
                    yield entry
                    continue
                try:
                    width, height = _size(root / entry.mask)
                    own = _size(root / entry.image)
                except BadRecord as error:
                    yield Skipped(entry.id, str(error))
                    continue
                if own != (width, height):  # its tiles would pass for the mask's
                    why = f"is {own[0]} x {own[1]}, but its mask is {width} x {height}"
                    yield Skipped(entry.id, why)
                    continue
                for top in starts(height, self.tile, stride):
                    for left in starts(width, self.tile, stride):
                        box = json.dumps((left, top, left + self.tile, top + self.tile))
                        name = f"{entry.id}_{left}_{top}"
                        yield entry._replace(id=name, annotation=box)

        names = {label: name for label, name in enumerate(COLORS, 1)}
        return Listing(names, entries())

    def watched(self, root: Path, split: str) -> Iterable[Path]:
        images = need(root / split / "images", "iSAID's images")
        yield images
        yield first_folder(images.parent, "Semantic_masks", "images")

    def read_image(self, root: Path, entry: Entry) -> bytes:
        return cut(root / entry.image, json.loads(entry.annotation))

    def read_mask(self, root: Path, entry: Entry) -> bytes:
        return cut(root / entry.mask, json.loads(entry.annotation))

    def decode(self, mask: bytes, annotation: str) -> Decoded:
        colors = read_colors(io.BytesIO(mask))
        segments = np.full(colors.shape, BACKGROUND, np.int32)
        for label, color in enumerate(IDS, 1):
            segments[colors == color] = label
        return Decoded(segments)


def starts(length: int, tile: int, stride: int) -> list[int]:
    """The starts of the tiles along an axis. The last tile ends with the axis."""
    if length <= tile:
        return [0]
    return [*range(0, length - tile, stride), length - tile]


def _size(path: Path) -> tuple[int, int]:
    """Width and height, from the header only."""
    with naming_errors(str(path)), Image.open(path) as picture:
        return picture.size
