"""Polyps in colonoscopy: CVC-ClinicDB, Kvasir-SEG and ETIS-Larib."""

import dataclasses
from collections.abc import Iterable
from pathlib import Path

from seggpt_jax.data.layout import (
    Decoded,
    Layout,
    Listing,
    need,
    pair_up,
    thresholded,
    top,
)
from seggpt_jax.data.sources.folders import by_name

POLYP = {1: "polyp"}


class Polyps(Layout):
    """Base: a folder of images and a folder of masks, where grey above 127 is polyp.

    archives: folders that the owners' archives unpack to. folders: pairs of (images,
    masks), the owners' names first, then those of PraNet's collection.
    """

    splits = ("all",)
    archives: tuple[str, ...] = ()
    folders: tuple[tuple[str, str], ...] = (("images", "masks"),)

    def records(self, root: Path, split: str) -> Listing:
        images, masks = (by_name(folder) for folder in self.watched(root, split))
        if not images.keys() & masks.keys():  # ETIS calls the mask of 7.tif p7.tif
            masks = {name.removeprefix("p"): path for name, path in masks.items()}
        return Listing(POLYP, pair_up(images, masks, root))

    def watched(self, root: Path, split: str) -> Iterable[Path]:
        base = top(top(root, *self.archives), "TIF", "PNG")
        places = [tuple(base / name for name in pair) for pair in self.folders]
        whole = (p for p in places if p[0].is_dir() and p[1].is_dir())
        chosen = next(whole, places[0])
        return tuple(need(path, "images or masks") for path in chosen)

    def decode(self, mask: bytes, annotation: str) -> Decoded:
        return thresholded(mask)


@dataclasses.dataclass(frozen=True)
class CvcClinicDb(Polyps):
    """`[CVC-ClinicDB/]{Original,Ground Truth}/N.tif`, 612 frames of 384 x 288."""

    archives = ("CVC-ClinicDB",)
    folders = (
        ("Original", "Ground Truth"),
        ("images", "masks"),
    )


@dataclasses.dataclass(frozen=True)
class KvasirSeg(Polyps):
    """`[Kvasir-SEG/]{images,masks}/ID.jpg`, 1,000 images; the masks are JPEGs."""

    archives = ("Kvasir-SEG", "Kvasir")


@dataclasses.dataclass(frozen=True)
class EtisLarib(Polyps):
    """`[ETIS-LaribPolypDB/]ETIS-LaribPolypDB/N.tif` and `Ground Truth/pN.tif`, 196
    frames of 1225 x 966."""

    folders = (
        ("ETIS-LaribPolypDB", "Ground Truth"),
        ("ETIS-LaribPolypDB/ETIS-LaribPolypDB", "ETIS-LaribPolypDB/Ground Truth"),
        ("images", "masks"),
        ("ETIS-LaribPolypDB/images", "ETIS-LaribPolypDB/masks"),
    )
