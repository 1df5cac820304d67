"""Folders as tensorflow-datasets prepares them, written with the features of its own
sets (tensorflow_datasets 4.9.10, checked against their sources)."""

import io
import shutil

import numpy as np
import pytest
import tensorflow_datasets as tfds
from array_record.python.array_record_module import ArrayRecordWriter
from PIL import Image
from tensorflow_datasets.core.example_serializer import ExampleSerializer

from seggpt_jax.data.sample import IGNORE, BadRecord
from seggpt_jax.data.sources.tfds import _open as opened
from tests.support.layouts import agrees, raw, shown, stripes


def png(values, mode=None) -> bytes:
    file = io.BytesIO()
    Image.fromarray(np.asarray(values, np.uint8), mode).save(file, "PNG")
    return file.getvalue()


def photo(number: int) -> bytes:
    rng = np.random.default_rng(number)
    file = io.BytesIO()
    pixels = rng.integers(0, 256, (24, 32, 3)).astype(np.uint8)
    Image.fromarray(pixels).save(file, "JPEG")
    return file.getvalue()


def write(root, features, examples, shards=1):
    """A folder of two splits, train and validation, with the same examples."""
    root = root / "own" / "1.0.0"
    root.mkdir(parents=True)
    features = tfds.features.FeaturesDict(features)
    serializer = ExampleSerializer(features.get_serialized_info())
    splits = []
    for split in ("train", "validation"):
        template = tfds.core.ShardedFileTemplate(
            data_dir=root, dataset_name="own", split=split,
            filetype_suffix="array_record",
        )  # fmt: skip
        for shard in range(shards):
            path = template.sharded_filepath(shard_index=shard, num_shards=shards)
            writer = ArrayRecordWriter(str(path), "group_size:1")
            for example in examples[shard::shards]:
                example = features.encode_example(example)
                writer.write(serializer.serialize_example(example))
            writer.close()
        splits.append(
            tfds.core.SplitInfo(
                name=split, filename_template=template, num_bytes=1,
                shard_lengths=[len(examples[k::shards]) for k in range(shards)],
            )
        )  # fmt: skip
    tfds.folder_dataset.write_metadata(
        data_dir=str(root), features=features, split_infos=splits, version="1.0.0",
        check_data=False,
    )  # fmt: skip
    return root


IMAGE = tfds.features.Image(encoding_format="jpeg")
MASK = tfds.features.Image(encoding_format="png")


def test_scene_parse150_is_the_instance_task(tmp_path):
    masks = [np.zeros((24, 32, 3)), np.zeros((24, 32, 3))]
    masks[0][..., 0], masks[0][..., 1] = stripes((0, 4, 4)), stripes((0, 1, 2))
    masks[1][..., 0] = 100
    examples = [
        {"image": photo(k), "annotation": png(mask)} for k, mask in enumerate(masks)
    ]
    root = write(tmp_path, {"image": IMAGE, "annotation": MASK}, examples)
    source = raw("tfds_scene_parse150", root, "validation")
    agrees(source)
    assert len(source.class_names) == 100
    assert sorted(shown(source).values()) == [["flag"], ["person"]]
    with pytest.raises(ValueError, match="'test' must be one of train, validation"):
        raw("tfds_scene_parse150", root, "test")
    with pytest.raises(ValueError, match="no such file or folder"):
        raw("tfds_scene_parse150", tmp_path, "train")
    damaged = shutil.copytree(root, tmp_path / "damaged")
    (damaged / "dataset_info.json").write_text("{")
    with pytest.raises(ValueError, match="no folder of tensorflow-datasets"):
        raw("tfds_scene_parse150", damaged, "validation")


def cityscapes(root, count, shards):
    example = {
        "image_id": "aachen/aachen_000000_000019",
        "image_left": photo(0),
        "segmentation_label": png(stripes((7, 4, 26, 0))),
    }
    text = tfds.features.Text()
    features = {"image_id": text, "image_left": IMAGE, "segmentation_label": MASK}
    return write(root, features, [example] * count, shards)


def test_missing_and_torn_files_are_named(tmp_path):
    root = cityscapes(tmp_path, 6, 3)
    last = root / "own-train.array_record-00002-of-00003"
    whole = last.read_bytes()
    last.unlink()
    message = f"{root}: split 'train' lacks 1 of its 3 files: {last.name}; copy"
    with pytest.raises(ValueError, match=message):
        raw("tfds_cityscapes", root, "train")
    last.write_bytes(whole[:100])
    source = raw("tfds_cityscapes", root, "train")
    assert {item.id for item in source.lost} == {"00000004", "00000005"}
    with pytest.raises(BadRecord, match="train#4 cannot be read: .*; copy its file"):
        source[4]
    last.write_bytes(whole)
    opened.cache_clear()  # another process: this one keeps its files open
    source = raw("tfds_cityscapes", root, "train")
    agrees(source)
    assert source.lost == []


def test_cityscapes(tmp_path):
    source = raw("tfds_cityscapes", cityscapes(tmp_path, 1, 1), "train")
    agrees(source)
    assert [*shown(source).values()] == [["road", "car"]]
    assert set(np.unique(source[0].segments)) == {7, 26, IGNORE}


def test_oxford_pet(tmp_path):
    breeds = tfds.features.ClassLabel(names=["Abyssinian", "beagle"])
    features = {
        "image": IMAGE, "label": breeds, "file_name": tfds.features.Text(),
        "segmentation_mask": MASK,
    }  # fmt: skip
    examples = [
        {
            "image": photo(0), "label": 1, "file_name": "beagle_7.jpg",
            "segmentation_mask": png(stripes((2, 3, 1))),
        }
    ]  # fmt: skip
    source = raw("tfds_oxford_pet", write(tmp_path, features, examples), "train")
    agrees(source)
    assert shown(source) == {"beagle_7": ["beagle"]}
    assert set(np.unique(source[0].segments)) == {0, 2, IGNORE}


def test_coco_panoptic(tmp_path):
    classes = tfds.features.ClassLabel(names=["person", "dog", "sky"])
    features = {
        "image": IMAGE,
        "image/filename": tfds.features.Text(),
        "image/id": np.int64,
        "panoptic_image": MASK,
        "panoptic_image/filename": tfds.features.Text(),
        "panoptic_objects": tfds.features.Sequence(
            {"id": np.int64, "label": classes, "is_crowd": np.bool_}
        ),
    }
    mask = np.zeros((24, 32, 3))
    # Segments 0 (void), 5, 256 and 65536, from left to right.
    mask[..., 0] = stripes((0, 5, 0, 0))
    mask[..., 1], mask[..., 2] = stripes((0, 0, 1, 0)), stripes((0, 0, 0, 1))
    example = {
        "image": photo(0),
        "image/filename": "000000000139.jpg",
        "image/id": 139,
        "panoptic_image": png(mask),
        "panoptic_image/filename": "000000000139.png",
        "panoptic_objects": [
            {"id": 5, "label": 0, "is_crowd": True},
            {"id": 256, "label": 1, "is_crowd": False},
            {"id": 65536, "label": 2, "is_crowd": False},
        ],
    }
    source = raw("tfds_coco_panoptic", write(tmp_path, features, [example]), "train")
    agrees(source)
    assert shown(source) == {"000000000139": ["dog", "sky"]}
    assert source[0].segments[0, ::8].tolist() == [IGNORE, IGNORE, 2, 3]


def test_lvis_has_a_record_for_each_class(tmp_path):
    classes = tfds.features.ClassLabel(names=["cat", "dog", "owl"])
    features = {
        "image": IMAGE,
        "image/id": np.int64,
        "objects": tfds.features.Sequence({"label": classes, "segmentation": MASK}),
    }
    masks = [(255, 0, 0, 0), (0, 255, 255, 0), (0, 0, 255, 255)]
    objects = [
        {"label": label, "segmentation": png(stripes(values))}
        for label, values in zip((2, 0, 2), masks, strict=True)
    ]
    example = {"image": photo(0), "image/id": 139, "objects": objects}
    source = raw("tfds_lvis", write(tmp_path, features, [example]), "train")
    agrees(source)
    assert shown(source) == {"000000000139#1": ["cat"], "000000000139#3": ["owl"]}
    assert source[0].segments[0, ::8].tolist() == [0, 1, 1, 0]
    assert source[1].segments[0, ::8].tolist() == [3, 0, 3, 3]


def test_davis_has_a_record_for_each_frame(tmp_path):
    features = {
        "video": tfds.features.Sequence({"frames": IMAGE, "segmentations": MASK}),
        "metadata": {"num_frames": np.int64, "video_name": np.str_},
    }
    examples = [
        {
            "video": {
                "frames": [photo(k) for k in range(count)],
                "segmentations": [png(stripes((0, 1, 2)))] * count,
            },
            "metadata": {"num_frames": count, "video_name": name},
        }
        for name, count in (("bear", 3), ("camel", 2))
    ]
    source = raw("tfds_davis", write(tmp_path, features, examples), "validation")
    agrees(source)
    assert {len(span) for span in source.videos.values()} == {2, 3}
    first = source[source.videos["camel"][0]]
    assert first.classes == (1, 2) and first.kind == 1 and source.same_image_only
    assert [*source.by_class] == [1] and source.class_names == {1: "object"}
