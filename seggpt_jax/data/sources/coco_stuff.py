"""COCO-Stuff (164k): 80 things and 91 stuff classes on the images of COCO 2017."""

import dataclasses
from collections.abc import Iterable
from pathlib import Path

from seggpt_jax.data.layout import first_folder, lookup, names_of
from seggpt_jax.data.sample import IGNORE
from seggpt_jax.data.sources.folders import Folders

# labels.txt of github.com/nightrome/cocostuff, from 1 on. "-" stands for the eleven
# names that COCO dropped, which no map shows.
NAMES = names_of("""
    person, bicycle, car, motorcycle, airplane, bus, train, truck, boat, traffic
    light, fire hydrant, -, stop sign, parking meter, bench, bird, cat, dog, horse,
    sheep, cow, elephant, bear, zebra, giraffe, -, backpack, umbrella, -, -,
    handbag, tie, suitcase, frisbee, skis, snowboard, sports ball, kite, baseball
    bat, baseball glove, skateboard, surfboard, tennis racket, bottle, -, wine
    glass, cup, fork, knife, spoon, bowl, banana, apple, sandwich, orange, broccoli,
    carrot, hot dog, pizza, donut, cake, chair, couch, potted plant, bed, -, dining
    table, -, -, toilet, -, tv, laptop, mouse, remote, keyboard, cell phone,
    microwave, oven, toaster, sink, refrigerator, -, book, clock, vase, scissors,
    teddy bear, hair drier, toothbrush, -, banner, blanket, branch, bridge,
    building-other, bush, cabinet, cage, cardboard, carpet, ceiling-other,
    ceiling-tile, cloth, clothes, clouds, counter, cupboard, curtain, desk-stuff,
    dirt, door-stuff, fence, floor-marble, floor-other, floor-stone, floor-tile,
    floor-wood, flower, fog, food-other, fruit, furniture-other, grass, gravel,
    ground-other, hill, house, leaves, light, mat, metal, mirror-stuff, moss,
    mountain, mud, napkin, net, paper, pavement, pillow, plant-other, plastic,
    platform, playingfield, railing, railroad, river, road, rock, roof, rug, salad,
    sand, sea, shelf, sky-other, skyscraper, snow, solid-other, stairs, stone,
    straw, structural-other, table, tent, textile-other, towel, tree, vegetable,
    wall-brick, wall-concrete, wall-other, wall-panel, wall-stone, wall-tile,
    wall-wood, water-other, waterdrops, window-blind, window-other, wood
""")
NAMES = {label: name for label, name in NAMES.items() if name != "-"}


@dataclasses.dataclass(frozen=True)
class CocoStuff(Folders):
    """`[images/]{train,val}2017/*.jpg` and `stuffthingmaps/{train,val}2017/*.png` (or
    below `annotations/`): the pixel maps of things and stuff.

    Labels are the numbers of labels.txt, one above the values of the maps; 255 there is
    what was not labelled, so `IGNORE`.
    """

    not_masks = "_labelTrainIds"  # of mmsegmentation
    names = NAMES
    table = lookup({i - 1: i for i in NAMES}, other=IGNORE)

    def places(self, root: Path, split: str) -> Iterable[tuple[Path, Path]]:
        name = f"{split}2017"
        maps = first_folder(root, f"stuffthingmaps/{name}", f"annotations/{name}")
        alone = f"stuff_{name}_pixelmaps"
        if not maps.is_dir() and next(root.glob(f"**/{alone}"), None):
            raise ValueError(
                f"{root}: {alone} has maps of stuff alone, in other numbers; "
                f"stuffthingmaps_trainval2017.zip is wanted (docs/datasets.md)"
            )
        yield first_folder(root, name, f"images/{name}"), maps
