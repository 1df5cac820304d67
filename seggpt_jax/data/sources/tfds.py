"""Data sets that tensorflow-datasets itself prepares with masks, in its folders.

The folder is NAME/[CONFIG/]VERSION, of any file format that needs no TensorFlow
(`array_record`); splits are those of tensorflow-datasets.
"""

import dataclasses
import functools
import io
import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from seggpt_jax.config import shorten
from seggpt_jax.data.layout import (
    Decoded,
    Entry,
    Layout,
    Listing,
    looked_up,
    lookup,
    names_of,
    need,
    nth_label,
    thresholded,
)
from seggpt_jax.data.masks import read_colors, read_grey
from seggpt_jax.data.prepared import require_array_record
from seggpt_jax.data.sample import IGNORE, INSTANCE, BadRecord
from seggpt_jax.data.sources import cityscapes
from seggpt_jax.data.sources.coco_panoptic import paint_segments
from seggpt_jax.data.sources.videos import OBJECT, Videos

# instanceInfo100_train.txt of github.com/CSAILVision/placeschallenge: `scene_parse150`
# of tensorflow-datasets holds the masks of its instance task, not the 150 classes.
SCENE_OBJECTS = names_of("""
    bed, windowpane, cabinet, person, door, table, curtain, chair, car, painting, sofa,
    shelf, mirror, armchair, seat, fence, desk, wardrobe, lamp, bathtub, railing,
    cushion, box, column, signboard, chest of drawers, counter, sink, fireplace,
    refrigerator, stairs, case, pool table, pillow, screen door, bookcase, coffee table,
    toilet, flower, book, bench, countertop, stove, palm, kitchen island, computer,
    swivel chair, boat, arcade machine, bus, towel, light, truck, chandelier, awning,
    streetlight, booth, television receiver, airplane, apparel, pole, bannister,
    ottoman, bottle, van, ship, fountain, washer, plaything, stool, barrel, basket, bag,
    minibike, oven, ball, food, step, trade name, microwave, pot, animal, bicycle,
    dishwasher, screen, sculpture, hood, sconce, vase, traffic light, tray, ashcan, fan,
    plate, monitor, bulletin board, radiator, glass, clock, flag
""")


class Tfds(Layout):
    """Base: an example is a record, or several (`parts`).

    image, mask: the features of a record.
    """

    splits = ()
    image = "image"
    mask = "annotation"

    def names(self, builder: Any) -> dict[int, str]:
        raise NotImplementedError

    def parts(self, number: int, examples: "Examples") -> Iterator[Entry]:
        """The records of an example, without their place."""
        yield Entry(f"{number:08}", "")

    def records(self, root: Path, split: str) -> Listing:
        examples = _open(root, split)

        def entries() -> Iterator[Entry]:
            for number in range(len(examples)):
                for entry in self.parts(number, examples):
                    yield entry._replace(image=f"{split}#{number}")

        return Listing(self.names(examples.builder), entries())

    def watched(self, root: Path, split: str) -> Iterable[Path]:
        info = need(root / "dataset_info.json", "a folder of tensorflow-datasets")
        return info, *sorted(root.glob("*.array_record*"))

    def read_image(self, root: Path, entry: Entry) -> bytes:
        return self.example(root, entry)[self.image]

    def read_mask(self, root: Path, entry: Entry) -> bytes:
        return self.example(root, entry)[self.mask]

    def example(self, root: Path, entry: Entry) -> Mapping[str, Any]:
        split, _, number = entry.image.partition("#")
        return _example(root, split, int(number))


@dataclasses.dataclass(frozen=True)
class TfdsSceneParse150(Tfds):
    """`scene_parse150`: red is one of 100 classes of objects, green the instance."""

    def names(self, builder: Any) -> dict[int, str]:
        return SCENE_OBJECTS

    def decode(self, mask: bytes, annotation: str) -> Decoded:
        return Decoded(read_colors(io.BytesIO(mask)) % 256)


@dataclasses.dataclass(frozen=True)
class TfdsCityscapes(Tfds):
    """`cityscapes/semantic_segmentation`."""

    image = "image_left"
    mask = "segmentation_label"

    def names(self, builder: Any) -> dict[int, str]:
        return cityscapes.NAMES

    def decode(self, mask: bytes, annotation: str) -> Decoded:
        return looked_up(mask, cityscapes.Cityscapes.table)


@dataclasses.dataclass(frozen=True)
class TfdsOxfordPet(Tfds):
    """`oxford_iiit_pet`: the breed of the pet; its border is `IGNORE`."""

    mask = "segmentation_mask"

    def names(self, builder: Any) -> dict[int, str]:
        return {nth_label(n): name for n, name in _class_names(builder, "label")}

    def parts(self, number: int, examples: "Examples") -> Iterator[Entry]:
        example = examples[number]
        label = nth_label(int(example["label"]))
        name = example["file_name"].decode().rpartition(".")[0]
        yield Entry(name, "", annotation=str(label))

    def decode(self, mask: bytes, annotation: str) -> Decoded:
        return looked_up(mask, lookup({1: int(annotation), 3: IGNORE}))


@dataclasses.dataclass(frozen=True)
class TfdsCocoPanoptic(Tfds):
    """`coco/2017_panoptic`; labels count the 133 classes from 1."""

    mask = "panoptic_image"

    def names(self, builder: Any) -> dict[int, str]:
        names = _class_names(builder, "panoptic_objects", "label")
        return {nth_label(n): name for n, name in names}

    def parts(self, number: int, examples: "Examples") -> Iterator[Entry]:
        example = examples[number]
        objects = example["panoptic_objects"]
        labels = {
            int(segment): IGNORE if crowd else nth_label(int(label))
            for segment, label, crowd in zip(
                objects["id"], objects["label"], objects["is_crowd"], strict=True
            )
        }
        classes = tuple(sorted({v for v in labels.values() if v != IGNORE}))
        name = Path(example["image/filename"].decode()).stem
        yield Entry(name, "", annotation=json.dumps(labels), classes=classes)

    def decode(self, mask: bytes, annotation: str) -> Decoded:
        return paint_segments(mask, annotation)


@dataclasses.dataclass(frozen=True)
class TfdsLvis(Tfds):
    """`lvis`: as the type `lvis`, a record is one class of an image."""

    def names(self, builder: Any) -> dict[int, str]:
        names = _class_names(builder, "objects", "label")
        return {nth_label(n): name for n, name in names}

    def parts(self, number: int, examples: "Examples") -> Iterator[Entry]:
        example = examples[number]
        for label in sorted({nth_label(int(n)) for n in example["objects"]["label"]}):
            yield Entry(
                f"{int(example['image/id']):012}#{label}",
                "",
                annotation=str(label),
                classes=(label,),
            )

    def origin(self, name: str) -> str:
        return name.rpartition("#")[0]

    def read_mask(self, root: Path, entry: Entry) -> bytes:
        objects = self.example(root, entry)["objects"]
        union = np.maximum.reduce([
            read_grey(io.BytesIO(mask))
            for mask, label in zip(
                objects["segmentation"], objects["label"], strict=True
            )
            if nth_label(int(label)) == int(entry.annotation)
        ])  # fmt: skip
        file = io.BytesIO()
        Image.fromarray(union).save(file, "PNG")
        return file.getvalue()

    def decode(self, mask: bytes, annotation: str) -> Decoded:
        return thresholded(mask, int(annotation))


@dataclasses.dataclass(frozen=True)
class TfdsDavis(Tfds, Videos):
    """`davis`: a record is a frame."""

    kind = INSTANCE

    def names(self, builder: Any) -> dict[int, str]:
        return OBJECT

    def parts(self, number: int, examples: "Examples") -> Iterator[Entry]:
        example = examples[number]
        video = example["metadata"]["video_name"].decode()
        for frame in range(int(example["metadata"]["num_frames"])):
            yield Entry(f"{video}/{frame:05}", "")

    def read_image(self, root: Path, entry: Entry) -> bytes:
        return self._frame(root, entry, "frames")

    def read_mask(self, root: Path, entry: Entry) -> bytes:
        return self._frame(root, entry, "segmentations")

    def _frame(self, root: Path, entry: Entry, feature: str) -> bytes:
        number = int(entry.id.rpartition("/")[2])
        return self.example(root, entry)["video"][feature][number]


def _class_names(builder: Any, *path: str) -> Iterable[tuple[int, str]]:
    feature = builder.info.features
    for name in path:
        feature = feature[name]
    return enumerate(feature.names)


class Examples:
    """The examples of a split, with encoded pictures."""

    def __init__(self, root: Path, split: str):
        require_array_record(root)
        # These imports take two seconds; only such folders need them.
        import tensorflow_datasets as tfds
        from tensorflow_datasets.core.example_parser import ExampleParserNp

        try:
            self.builder = tfds.builder_from_directory(str(root))
        except Exception as error:  # it has no error class of its own
            raise ValueError(
                f"{root}: no folder of tensorflow-datasets, NAME/[CONFIG/]VERSION "
                f"({error})"
            ) from error
        if split not in self.builder.info.splits:
            raise ValueError(
                f"split: {split!r} must be one of {', '.join(self.builder.info.splits)}"
            )
        shards = [Path(name) for name in self.builder.info.splits[split].filepaths]
        if missing := [path.name for path in shards if not path.exists()]:
            raise ValueError(
                f"{root}: split {split!r} lacks {len(missing)} of its {len(shards)} "
                f"files: {shorten(missing, 5)}; copy them too"
            )
        raw = tfds.decode.DeserializeMethod.RAW_BYTES
        try:
            self.source = self.builder.as_data_source(split, deserialize_method=raw)
        except NotImplementedError as error:
            raise ValueError(
                f"{root}: prepare it with file_format='array_record' ({error})"
            ) from error
        features = self.builder.info.features
        self.parser = ExampleParserNp(features.get_serialized_info())

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, number: int) -> Mapping[str, Any]:
        try:
            return self.parser.parse_example(self.source[number])
        except Exception as error:  # of array_record or protobuf
            why = f"{type(error).__name__}: {error}"
            raise BadRecord(f"cannot be read: {why}; copy its file again") from error


@functools.lru_cache(maxsize=16)
def _open(root: Path, split: str) -> Examples:
    return Examples(root, split)


@functools.lru_cache(maxsize=4)  # an example may be a video, read frame by frame
def _example(root: Path, split: str, number: int) -> Mapping[str, Any]:
    return _open(root, split)[number]
