"""ADE20K as in the scene parsing benchmark (SceneParse150), 150 classes."""

import dataclasses
from collections.abc import Iterable
from pathlib import Path

from seggpt_jax.data.layout import lookup, names_of, top
from seggpt_jax.data.sample import IGNORE
from seggpt_jax.data.sources.folders import Folders

# The first name of each line of objectInfo150.txt
# (github.com/CSAILVision/sceneparsing).
NAMES = names_of("""
    wall, building, sky, floor, tree, ceiling, road, bed, windowpane, grass,
    cabinet, sidewalk, person, earth, door, table, mountain, plant, curtain, chair,
    car, water, painting, sofa, shelf, house, sea, mirror, rug, field, armchair,
    seat, fence, desk, rock, wardrobe, lamp, bathtub, railing, cushion, base, box,
    column, signboard, chest of drawers, counter, sand, sink, skyscraper, fireplace,
    refrigerator, grandstand, path, stairs, runway, case, pool table, pillow, screen
    door, stairway, river, bridge, bookcase, blind, coffee table, toilet, flower,
    book, hill, bench, countertop, stove, palm, kitchen island, computer, swivel
    chair, boat, bar, arcade machine, hovel, bus, towel, light, truck, tower,
    chandelier, awning, streetlight, booth, television, airplane, dirt track,
    apparel, pole, land, bannister, escalator, ottoman, bottle, buffet, poster,
    stage, van, ship, fountain, conveyer belt, canopy, washer, plaything, swimming
    pool, stool, barrel, basket, waterfall, tent, bag, minibike, cradle, oven, ball,
    food, step, tank, trade name, microwave, pot, animal, bicycle, lake, dishwasher,
    screen, blanket, sculpture, hood, sconce, vase, traffic light, tray, ashcan,
    fan, pier, crt screen, plate, monitor, bulletin board, shower, radiator, glass,
    clock, flag
""")
FOLDERS = {"train": "training", "val": "validation"}


@dataclasses.dataclass(frozen=True)
class Ade20k(Folders):
    """`[ADEChallengeData2016/]{images,annotations}/{training,validation}/*`.

    Values 1..150 are the classes; 0 is what was not labelled, so `IGNORE`.
    """

    names = NAMES
    table = lookup({i: i for i in NAMES}, other=IGNORE)

    def places(self, root: Path, split: str) -> Iterable[tuple[Path, Path]]:
        ade = top(root, "ADEChallengeData2016")
        if not (ade / "annotations").is_dir() and _is_full(root):
            raise ValueError(
                f"{root}: this is the full ADE20K, its masks *_seg.png of thousands "
                f"of classes; SceneParse150 is wanted, ADEChallengeData2016.zip "
                f"(docs/datasets.md)"
            )
        yield ade / "images" / FOLDERS[split], ade / "annotations" / FOLDERS[split]


def _is_full(root: Path) -> bool:
    """Whether a folder is or holds the full ADE20K, of 2016 or of 2021."""
    marks = ("index_ade20k.*", "images/ADE", "images/training/*/*/*_seg.png")
    return any(
        next(root.glob(f"{place}{mark}"), None)
        for place in ("", "*/")
        for mark in marks
    )
