"""Two folders of pictures, images and masks, with the same names but for an ending."""

import dataclasses
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import ClassVar

import numpy as np

from seggpt_jax.data.layout import (
    Decoded,
    Layout,
    Listing,
    looked_up,
    need,
    pair_up,
    pictures,
    placed,
    relative,
)
from seggpt_jax.data.sources.ids import ById


class Folders(Layout):
    """Base of the layouts that are such folders.

    image_suffix, mask_suffix: endings in any case, which the names leave out; without
    them, the extension is left out. not_masks: ending of files that others leave beside
    the masks. names: label -> name. table: mask value -> label.
    """

    image_suffix = ""
    mask_suffix = ""
    not_masks = ""

    @property
    def names(self) -> Mapping[int, str]:
        raise NotImplementedError

    @property
    def table(self) -> np.ndarray:
        raise NotImplementedError

    def places(self, root: Path, split: str) -> Iterable[tuple[Path, Path]]:
        """The folders of images, each with that of its masks."""
        raise NotImplementedError

    def prefix(self, images: Path) -> str:
        """What tells the names of several folders of images apart."""
        return ""

    def records(self, root: Path, split: str) -> Listing:
        images: dict[str, Path] = {}
        masks: dict[str, Path] = {}
        for image_folder, mask_folder in self.places(root, split):
            found = (
                by_name(need(image_folder, "images"), self.image_suffix),
                by_name(need(mask_folder, "masks"), self.mask_suffix),
            )
            prefix = self.prefix(image_folder)
            images |= {prefix + name: path for name, path in found[0].items()}
            masks |= {
                prefix + name: path
                for name, path in found[1].items()
                if not (self.not_masks and name.endswith(self.not_masks))
            }
        return Listing(dict(self.names), pair_up(images, masks, root))

    def watched(self, root: Path, split: str) -> Iterable[Path]:
        for place in self.places(root, split):
            for folder in place:
                yield need(folder, "images or masks")

    def decode(self, mask: bytes, annotation: str) -> Decoded:
        return looked_up(mask, self.table)


def by_name(folder: Path, suffix: str) -> dict[str, Path]:
    """Pictures by their path below a folder, without the suffix or extension."""
    found = {}
    for path in pictures(folder, suffix):
        name = relative(path, folder)
        cut = len(suffix) if suffix else len(path.suffix)
        short = name[:-cut]
        # Of two that differ in the extension the second keeps it, and has no partner.
        found[short if short not in found else name] = path
    return found


@dataclasses.dataclass(frozen=True)
class PngFolders(ById, Folders):
    """Folders of one's own in the manner of Cityscapes.

    images, masks: folders below the root; `{split}` in them is the split, any word
    then.
    """

    splits: ClassVar[tuple[str, ...]] = ()
    images: str = "images/{split}"
    masks: str = "masks/{split}"
    image_suffix: str = ""
    mask_suffix: str = ""

    def places(self, root: Path, split: str) -> Iterable[tuple[Path, Path]]:
        yield (
            placed(root, "images", self.images, split),
            placed(root, "masks", self.masks, split),
        )
