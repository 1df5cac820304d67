"""Two folders, of images and of masks, whose names differ in the ending only."""

import dataclasses
from collections.abc import Iterable, Mapping
from pathlib import Path

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

    image_suffix, mask_suffix: endings of the names, in upper or lower case; if none is
    given, the extension. not_masks: ending of other programs' files beside the masks.
    names: label -> name. table: mask value -> label.
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
        """Begins the names of a folder, where several folders have the same names."""
        return ""

    def records(self, root: Path, split: str) -> Listing:
        images: dict[str, Path] = {}
        masks: dict[str, Path] = {}
        for image_folder, mask_folder in self.places(root, split):
            prefix = self.prefix(image_folder)
            images |= by_name(need(image_folder, "images"), self.image_suffix, prefix)
            masks |= by_name(need(mask_folder, "masks"), self.mask_suffix, prefix)
        if self.not_masks:
            masks = {n: p for n, p in masks.items() if not n.endswith(self.not_masks)}
        return Listing(dict(self.names), pair_up(images, masks, root))

    def watched(self, root: Path, split: str) -> Iterable[Path]:
        for place in self.places(root, split):
            for folder in place:
                yield need(folder, "images or masks")

    def decode(self, mask: bytes, annotation: str) -> Decoded:
        return looked_up(mask, self.table)


def by_name(folder: Path, suffix: str = "", prefix: str = "") -> dict[str, Path]:
    """Name -> picture: the path below a folder, after `prefix`, without the suffix; if
    none is given, without the extension."""
    found: dict[str, Path] = {}
    for path in pictures(folder, suffix):
        name = prefix + relative(path, folder)
        short = name[: -len(suffix or path.suffix)]
        # Of two that differ in the extension the second keeps it, and has no partner.
        found[short if short not in found else name] = path
    return found


@dataclasses.dataclass(frozen=True)
class PngFolders(ById, Folders):
    """Folders of one's own in the manner of Cityscapes.

    images, masks: folders below the root. `{split}` in them stands for the split, which
    may be any word.
    """

    splits = ()
    images: str = "images/{split}"
    masks: str = "masks/{split}"
    image_suffix: str = ""
    mask_suffix: str = ""

    def places(self, root: Path, split: str) -> Iterable[tuple[Path, Path]]:
        images = placed(root, "images", self.images, split)
        yield images, placed(root, "masks", self.masks, split)
