"""Data sets whose masks are grey or colours, with the label maps of their records."""

from pathlib import Path

import numpy as np

from seggpt_jax.data.sample import IGNORE
from tests.fuzz.sets import SIZES, Made, _folders, photo, save, values_of
from tests.support.layouts import write_lines

_GREY = {255: 1, 0: 0, 128: 1, 127: 0}
_COLORS = {1: (0, 0, 63), 15: (0, 100, 155), 0: (0, 0, 0)}  # of iSAID
# Type, split, folders before the names of images and masks, names, endings.
_FORMS = (
    ("cvc_clinicdb", "all", "Original/", "Ground Truth/", "1 2", ".tif .tif"),
    ("etis_larib", "all", "ETIS-LaribPolypDB/", "Ground Truth/p", "1 2", ".tif .tif"),
    (
        "kvasir_seg",
        "all",
        "Kvasir-SEG/images/",
        "Kvasir-SEG/masks/",
        "a b",
        ".jpg .png",
    ),
    ("chase_db1", "train", "", "", "Image_01L Image_02R", ".jpg _1stHO.png"),
    ("hrf", "train", "images/", "manual1/", "01_dr 02_g", ".JPG .tif"),
    ("stare", "train", "stare-images/", "labels-ah/", "im1 im2", ".ppm .ah.ppm"),
    ("chest_xray", "all", "CXR_png/", "masks/", "MCUCXR_1_0 CHNCXR_2_0", ".png .png"),
)


def grey(rng: np.random.Generator, root: Path) -> Made:
    """An image and a mask of one class for each record."""
    kind, split, images, masks, names, endings = _FORMS[rng.integers(len(_FORMS))]
    image, mask = endings.split()
    return _folders(rng, root, kind, images, masks, names.split(), _GREY,
                    (image, mask), split=split)  # fmt: skip


def isic(rng: np.random.Generator, root: Path) -> Made:
    images, masks = (
        "ISIC2018_Task1-2_Training_Input", "ISIC2018_Task1_Training_GroundTruth"
    )  # fmt: skip
    places = {
        f"{label}/ISIC_{label}": (
            f"{images}/{label}/ISIC_{label}.jpg",
            f"{masks}/ISIC_{label}_segmentation.png",
        )
        for label in (1, 2, 3)
    }
    return _labelled(rng, root, "isic2018", places)


def suim(rng: np.random.Generator, root: Path) -> Made:
    names = ("FV", "HD", "PF", "RI", "RO", "SR", "WR")
    places = {f"{n}/{n}": (f"images/{n}.jpg", f"masks/{n}/{n}.png") for n in names}
    return _labelled(rng, root, "suim", places)


def _labelled(rng, root: Path, kind: str, places: dict[str, tuple[str, str]]) -> Made:
    """The records have the labels 1, 2, 3 ..."""
    truth: dict[str, np.ndarray | None] = {}
    for label, (record, (image, mask)) in enumerate(places.items(), 1):
        size = SIZES[label % len(SIZES)]
        values = values_of(rng, list(_GREY), size)
        photo(rng, root / image, size)
        save(root / mask, values)
        truth[record] = (values > 127) * label
    return Made(kind, "all", {}, truth, places)


def isaid5i(rng: np.random.Generator, root: Path) -> Made:
    labels = {1: 1, 15: 0, 0: 0, 255: IGNORE}
    names = ["P1_0_9", "P2_0_9"]
    endings = (".png", "_instance_color_RGB.png")
    made = _folders(rng, root, "isaid5i", "val/images/", "val/semantic_png/", names,
                    labels, endings, {"fold": 0}, "val")  # fmt: skip
    listed = "splits/val/fold0.txt"
    lines = [f"{name}__01" for name in names]
    write_lines(root / listed, *lines)
    return made._replace(
        truth=dict(zip(lines, made.truth.values(), strict=True)),
        files=dict(zip(lines, made.files.values(), strict=True)),
        lists=(listed,),
    )


def isaid(rng: np.random.Generator, root: Path) -> Made:
    """Tiles that overlap; those without a class are no records."""
    tile, overlap = ((16, 4), (896, 384))[rng.integers(2)]
    truth: dict[str, np.ndarray | None] = {}
    files = {}
    for k, name in enumerate(("P1", "P2")):
        size = SIZES[k]
        image = f"train/images/{name}.png"
        mask = f"train/Semantic_masks/{name}_instance_color_RGB.png"
        values = values_of(rng, list(_COLORS), size)
        photo(rng, root / image, size)
        save(root / mask, np.stack([
            np.vectorize({n: color[c] for n, color in _COLORS.items()}.get)(values)
            for c in range(3)
        ], -1))  # fmt: skip
        for top in _starts(size[0], tile, tile - overlap):
            for left in _starts(size[1], tile, tile - overlap):
                cut = values[top : top + tile, left : left + tile]
                if cut.any():
                    truth[f"{name}_{left}_{top}"] = cut
                    files[f"{name}_{left}_{top}"] = image, mask
    return Made("isaid", "train", {"tile": tile, "overlap": overlap}, truth, files)


def _starts(length: int, tile: int, stride: int) -> list[int]:
    found = [0]
    while found[-1] + tile < length:
        found.append(min(found[-1] + stride, length - tile))
    return found


EVERY = (grey, grey, isic, suim, isaid5i, isaid)
