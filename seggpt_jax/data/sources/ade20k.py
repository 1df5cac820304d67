"""ADE20K as in the scene parsing benchmark (SceneParse150), 150 classes."""

import dataclasses
from collections.abc import Iterable
from pathlib import Path

from seggpt_jax.data.layout import lookup, names_of, top
from seggpt_jax.data.sample import IGNORE
from seggpt_jax.data.sources.folders import Folders

FOLDERS = {"train": "training", "val": "validation"}


@dataclasses.dataclass(frozen=True)
class Ade20k(Folders):
    """`[ADEChallengeData2016/]{images,annotations}/{training,validation}`.

    Values 1..150 are the lines of objectInfo150.txt; 0 is unlabelled, so `IGNORE`.
    """

    names = names_of("""
        wall, building, sky, floor, tree, ceiling, road, bed, windowpane, grass
    """)
    table = lookup({i: i for i in range(1, 151)}, other=IGNORE)

    def places(self, root: Path, split: str) -> Iterable[tuple[Path, Path]]:
        ade = top(root, "ADEChallengeData2016")
        yield ade / "images" / FOLDERS[split], ade / "annotations" / FOLDERS[split]
