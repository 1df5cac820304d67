"""COCO-20i: COCO 2014 in four folds of twenty classes, by HSNet's lists."""

import dataclasses
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from seggpt_jax.data.layout import (
    Decoded,
    Entry,
    Layout,
    Listing,
    Skipped,
    files_in,
    looked_up_one,
    lookup,
    names_of,
    need,
    relative,
)
from seggpt_jax.data.sample import IGNORE
from seggpt_jax.data.sources.pickles import read_pickle

# The 80 things in the order of their category ids.
NAMES = names_of("""
    person, bicycle, car, motorcycle, airplane, bus, train, truck, boat, traffic light,
    fire hydrant, stop sign, parking meter, bench, bird, cat, dog, horse, sheep, cow,
    elephant, bear, zebra, giraffe, backpack, umbrella, handbag, tie, suitcase, frisbee,
    skis, snowboard, sports ball, kite, baseball bat, baseball glove, skateboard,
    surfboard, tennis racket, bottle, wine glass, cup, fork, knife, spoon, bowl, banana,
    apple, sandwich, orange, broccoli, carrot, hot dog, pizza, donut, cake, chair,
    couch, potted plant, bed, dining table, toilet, tv, laptop, mouse, remote, keyboard,
    cell phone, microwave, oven, toaster, sink, refrigerator, book, clock, vase,
    scissors, teddy bear, hair drier, toothbrush
""")
TABLE = lookup({i: i for i in NAMES} | {IGNORE: IGNORE})
LISTS = {"train": "trn", "val": "val"}
FOLDS = 4


@dataclasses.dataclass(frozen=True)
class Coco20i(Layout):
    """`{train,val}2014/*.jpg`, HSNet's masks `annotations/{train,val}2014/*.png` (class
    from 1) and its lists `splits/coco/{trn,val}/fold{f}.pkl`: class from 0 -> names
    such as `val2014/COCO_val2014_000000000042.jpg` (github.com/juhongm999/hsnet).

    A record is one image of one class, in the order of the lists: HSNet draws its
    episodes from `by_class`. The other classes of the image are background, 255 is
    `IGNORE`. val has the classes f, f + 4, f + 8, ... of fold f, train
    all others.
    """

    fold: int = dataclasses.field(kw_only=True)
    lists: str = "splits/coco"

    def __post_init__(self):
        if self.fold not in range(FOLDS):
            raise ValueError(f"fold: {self.fold!r} must be 0, 1, 2 or 3")

    def records(self, root: Path, split: str) -> Listing:
        masks, path = self.watched(root, split)
        lists = read_lists(path)
        own = [label for label in NAMES if (label - 1) % FOLDS == self.fold]
        chosen = own if split == "val" else [k for k in NAMES if k not in own]
        there = files_in(root)

        def entries() -> Iterator[Entry | Skipped]:
            for label in chosen:
                for name in lists.get(label - 1, ()):
                    record = f"{name}#{label}"
                    mask = relative(masks / name, root).removesuffix(".jpg") + ".png"
                    if name in there and mask in there:
                        yield Entry(record, name, mask, str(label), (label,))
                    else:
                        part = "mask" if name in there else "image"
                        why = f"is listed in {path.name}, and has no {part}"
                        yield Skipped(record, why, listed=True)

        return Listing({label: NAMES[label] for label in chosen}, entries())

    def watched(self, root: Path, split: str) -> Iterable[Path]:
        path = root / self.lists / LISTS[split] / f"fold{self.fold}.pkl"
        yield need(root / "annotations", "HSNet's masks of COCO 2014")
        yield need(path, "HSNet's lists of this fold")

    def decode(self, mask: bytes, annotation: str) -> Decoded:
        return looked_up_one(mask, TABLE, annotation)


def read_lists(path: Path) -> dict[int, list[str]]:
    """Class -> names of images, from a pickle. Anything but plain data in the pickle is
    refused, and never run."""

    def shaped(lists: Any) -> dict[int, list[str]]:
        return {int(k): [str(name) for name in names] for k, names in lists.items()}

    return read_pickle(path, "HSNet's lists of a fold", shaped)
