"""PACO-Part: the parts of PACO's objects in four folds, for few-shot evaluation."""

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from seggpt_jax.data.decode import naming_errors
from seggpt_jax.data.layout import (
    Listing,
    Skipped,
    first_folder,
    need,
    nth_label,
    relative,
    top,
)
from seggpt_jax.data.sample import BadRecord
from seggpt_jax.data.sources.coco import stored_size
from seggpt_jax.data.sources.parts import (
    FOLDS,
    Box,
    Found,
    Parts,
    clipped,
    entry,
    union,
)
from seggpt_jax.data.sources.pickles import read_pickle

EPISODES = 2500  # of a fold
WHAT = "Matcher's annotations of PACO-Part"


class Annotations(NamedTuple):
    """images: class -> id and path of its images, each once. notes: image -> its
    parts."""

    images: dict[Any, dict[Any, str]]
    notes: Mapping[Any, Sequence[Mapping[str, Any]]]


@dataclasses.dataclass(frozen=True)
class PacoPart(Parts):
    """`[PACO-Part/]coco/{train,val}2017/NAME.jpg` and Matcher's pickles (github.com/
    aim-uofa/Matcher, datasets/README.md) `paco/paco_part_{train,val}.pkl`.

    A record is an object of an image, cut out by its box, with one kind of its parts.
    Of the classes of train in their order, fold f has f, f + 4, f + 8, ...; those with
    no more than `shots` images in val are left out. The pickles are read as plain data
    (`pickles`); they name no class, which is called by its number.
    """

    shots: int = 1

    def __post_init__(self):
        super().__post_init__()
        if self.shots < 1:
            raise ValueError(f"shots: {self.shots!r} must be at least 1")

    def records(self, root: Path, split: str) -> Listing:
        images, train, val = self.watched(root, split)
        known = [*read_annotations(train).images]
        given = read_annotations(val)
        own = known[self.fold :: FOLDS][: len(known) // FOLDS]
        own = [c for c in own if len(given.images.get(c, ())) > self.shots]
        if not own:
            raise ValueError(
                f"{val}: has no class of fold {self.fold} with more than {self.shots} "
                "images"
            )
        sizes: dict[Path, tuple[int, int]] = {}  # an image is of several classes
        names: dict[int, str] = {}
        found: Found = []
        pools: dict[str, list[tuple[str, list[str | None]]]] = {}
        for place, category in enumerate(own):
            label = nth_label(place)
            names[label] = f"part {category}"
            pool = pools.setdefault(str(label), [])
            for image, path in given.images[category].items():
                file = images / path
                name, records = relative(file, images), []
                try:
                    if file not in sizes:
                        sizes[file] = stored_size(file)
                    size = sizes[file]
                    with naming_errors(f"{val}: image {image}"):
                        objects = _objects(given.notes[image], category, size)
                        for number, (box, masks) in objects.items():
                            record = f"{name}#{number} {names[label]}" if box else None
                            records.append(record)
                            if record and box:
                                counts = union(masks, size)
                                found.append(
                                    entry(record, file, root, label, size, box, counts)
                                )
                        if not objects:
                            raise BadRecord("has no object of the class")
                except BadRecord as error:
                    why = f"is of class {category} in {val.name}; {error}"
                    found.append(Skipped(f"{name}#{category}", why, listed=True))
                pool.append((name, records or [None]))
        return Listing(names, found, {"pools": pools, "episodes": EPISODES})

    def watched(self, root: Path, split: str) -> Iterable[Path]:
        base = top(root, "PACO-Part")
        yield first_folder(base, "coco", ".")
        for half in ("train", "val"):
            yield need(base / f"paco/paco_part_{half}.pkl", WHAT)


def read_annotations(path: Path) -> Annotations:
    """Raises ValueError, which names the file, for anything else."""

    def shaped(data: Any) -> Annotations:
        images: dict[Any, dict[Any, str]] = {}
        for category, listed in data["cid2img"].items():
            own = images.setdefault(category, {})
            for one in listed:
                ((image, name),) = [*one.items()][:1]
                own.setdefault(image, "/".join(name.split("/")[-2:]))
        return Annotations(images, dict(data["img2anno"]))

    return read_pickle(path, WHAT, shaped)


def _objects(
    notes: Sequence[Mapping[str, Any]], category: Any, size: tuple[int, int]
) -> dict[Any, tuple[Box | None, list[Any]]]:
    """Object -> its box and the masks of its parts of one class, in the order of the
    annotations."""
    found: dict[Any, tuple[Box | None, list[Any]]] = {}
    for note in notes:
        if note["category_id"] == category:
            x, y, width, height = note["obj_bbox"]
            box = clipped((x, y, x + width, y + height), size)
            _, masks = found.setdefault(note["obj_ann_id"], (box, []))
            masks.append(_text(note["segmentation"]))
    return found


def _text(segmentation: Any) -> Any:
    """RLE whose counts are text, as JSON has it."""
    if isinstance(segmentation, Mapping) and isinstance(segmentation["counts"], bytes):
        return {**segmentation, "counts": segmentation["counts"].decode("ascii")}
    return segmentation
