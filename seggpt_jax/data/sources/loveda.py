"""LoveDA: aerial images of 1024 x 1024, six classes of land cover."""

import dataclasses
from collections.abc import Iterable
from pathlib import Path

from seggpt_jax.data.layout import lookup, names_of
from seggpt_jax.data.sample import IGNORE
from seggpt_jax.data.sources.folders import Folders

NAMES = names_of("building, road, water, barren, forest, agriculture", first=2)


@dataclasses.dataclass(frozen=True)
class LoveDa(Folders):
    """`{Train,Val}/{Rural,Urban}/{images_png,masks_png}/N.png`.

    Values: 0 no data, so `IGNORE`; 1 background; 2..7 the classes.
    """

    names = NAMES
    table = lookup({0: IGNORE} | {i: i for i in NAMES})

    def places(self, root: Path, split: str) -> Iterable[tuple[Path, Path]]:
        for area in ("Rural", "Urban"):
            folder = root / split.title() / area
            yield folder / "images_png", folder / "masks_png"

    def prefix(self, images: Path) -> str:
        return f"{images.parent.name}/"
