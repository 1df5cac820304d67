"""Lists of the owners that name files which are not there: each is left out by name,
counted, and refused by an evaluation (tests/evaluators/test_whole.py)."""

import numpy as np
import pytest
from PIL import Image

from seggpt_jax.data import check
from seggpt_jax.data.dataset import Dataset
from seggpt_jax.data.layout import Skipped
from seggpt_jax.data.prepare import prepare
from seggpt_jax.data.prepared import Prepared
from seggpt_jax.data.sources import make_layout
from tests.data.test_layouts_eval import write_pickle
from tests.support.layouts import mask, photo, raw, save, write_json, write_lines


def video(root, name, frames, masks, below=""):
    """The first so many frames and masks of a video."""
    for k in range(frames):
        photo(root / "JPEGImages" / below / f"{name}/{k:05}.jpg", k)
    for k in range(masks):
        mask(root / "Annotations" / below / f"{name}/{k:05}.png", (0, 1), "P")


def davis2017(root):
    """Two of five listed videos are there; one has no mask, one no image."""
    names = ("bear", "camel", "cows", "dogs", "flamingo")
    for name, counts in zip(
        names, ((2, 2), (0, 0), (2, 0), (0, 2), (2, 2)), strict=True
    ):
        video(root / "DAVIS", name, *counts, "480p")
    write_lines(root / "DAVIS/ImageSets/2017/val.txt", *names)
    return "val", {}, ["camel", "cows", "dogs"]


def davis2016(root):
    """The list names frames. One is in neither folder; a video is not there at all."""
    lines = []
    for name, listed in (("bear", 3), ("camel", 1)):
        for k in range(listed):
            parts = (
                f"JPEGImages/480p/{name}/{k:05}",
                f"Annotations/480p/{name}/{k:05}",
            )
            lines.append(f"/{parts[0]}.jpg /{parts[1]}.png")
            if name == "bear" and k != 1:
                photo(root / f"{parts[0]}.jpg", k)
                mask(root / f"{parts[1]}.png", (0, 255))
    write_lines(root / "ImageSets/480p/val.txt", *lines)
    return "val", {}, ["bear/00001", "camel"]


def youtube_vos(root):
    """Of meta.json a video, a frame, and the mask where an object begins."""
    video(root / "valid", "whole", 3, 1)
    video(root / "valid", "cut", 3, 1)
    frames = [f"{k:05}" for k in range(4)]
    first = {"category": "dog", "frames": frames[:3]}
    later = {"category": "cat", "frames": frames[2:]}
    videos = {
        "whole": {"objects": {"1": first}},
        "gone": {"objects": {"1": first}},
        "cut": {"objects": {"1": first, "2": later}},
    }
    write_json(root / "valid/meta.json", {"videos": videos})
    return "valid", {}, ["cut/00002", "cut/00003", "gone"]


def mose(root):
    """MOSE has no list; of two folders of a video either may be missing."""
    video(root / "valid", "one", 3, 1)
    video(root / "valid", "two", 3, 0)
    video(root / "valid", "three", 0, 1)
    return "valid", {}, ["three", "two"]


def fss1000(root):
    photo(root / "abacus/1.jpg")
    mask(root / "abacus/1.png", (0, 255))
    write_lines(root / "splits/test.txt", "abacus", "unicorn")
    return "test", {}, ["unicorn"]


def voc(root):
    for name in ("a", "b"):
        photo(root / f"VOC2012/JPEGImages/{name}.jpg")
    for name in ("a", "c"):
        mask(root / f"VOC2012/SegmentationClassAug/{name}.png", (0, 1))
    lists = root / "VOC2012/ImageSets/Segmentation/val.txt"
    write_lines(lists, "a", "b", "c", "d")
    return "val", {}, ["b", "c", "d"]


def pascal5i(root):
    photo(root / "VOC2012/JPEGImages/a.jpg")
    mask(root / "VOC2012/SegmentationClassAug/a.png", (0, 1))
    write_lines(root / "splits/pascal/val/fold0.txt", "a__01", "b__02")
    return "val", {"fold": 0}, ["b__02"]


def coco20i(root):
    photo(root / "val2014/a.jpg")
    mask(root / "annotations/val2014/a.png", (0, 1))
    lists = {0: ["val2014/a.jpg", "val2014/b.jpg"]}
    write_pickle(root / "splits/coco/val/fold0.pkl", lists)
    return "val", {"fold": 0}, ["val2014/b.jpg#1"]


def _coco(root, path, key="file_name", prefix=""):
    """Three images with an object each; the last image is not there."""
    names = [f"{prefix}{k}.jpg" for k in range(3)]
    for name in names[:2]:
        photo(root / "val2017" / name.removeprefix("val2017/"))
    data = {
        "images": [
            {"id": k, "height": 24, "width": 32, key: name}
            for k, name in enumerate(names)
        ],
        "categories": [{"id": 1, "name": "cup"}],
        "annotations": [
            {
                "id": k + 1, "image_id": k, "category_id": 1, "area": 96.0,
                "segmentation": [[0, 0, 8, 0, 8, 12, 0, 12]], "bbox": [0, 0, 8, 12],
            }
            for k in range(3)
        ],
    }  # fmt: skip
    write_json(root / path, data)


def coco_instance(root):
    _coco(root, "annotations/instances_val2017.json")
    return "val", {}, ["2.jpg"]


def lvis(root):
    _coco(root, "annotations/lvis_v1_val.json", "coco_url", "val2017/")
    return "val", {}, ["val2017/2.jpg"]


def coco_panoptic(root):
    """An image, a mask and an annotation are missing."""
    images = [{"id": k, "file_name": f"{k}.jpg"} for k in range(4)]
    segments = [{"id": 1, "category_id": 1, "iscrowd": 0}]
    for k in (0, 2, 3):
        photo(root / f"val2017/{k}.jpg", k)
    red = np.zeros((24, 32, 3), np.uint8)
    red[..., 0] = 1
    for k in (0, 1):
        path = root / f"annotations/panoptic_val2017/{k}.png"
        save(path, Image.fromarray(red))
    data = {
        "images": images,
        "categories": [{"id": 1, "name": "person"}],
        "annotations": [
            {"image_id": k, "file_name": f"{k}.png", "segments_info": segments}
            for k in range(3)
        ],
    }
    write_json(root / "annotations/panoptic_val2017.json", data)
    return "val", {}, ["1.png", "2.jpg", "3.jpg"]


KINDS = {
    function.__name__: function
    for function in (
        davis2017, davis2016, youtube_vos, mose, fss1000, voc, pascal5i, coco20i,
        coco_instance, lvis, coco_panoptic,
    )
}  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
def test_what_a_list_names_and_is_not_there_is_named(kind, tmp_path, capsys):
    root = tmp_path / "data" / kind
    split, settings, lost = KINDS[kind](root)
    source = raw(kind, root, split, **settings)
    assert sorted(item.id for item in source.lost) == lost
    assert not check.run(*check.open_named(kind, str(root), [split], settings))
    out = capsys.readouterr().out
    assert all(name in out for name in lost)
    # Prepared, the same are lost: no evaluation takes the rest for the whole.
    layout = make_layout(kind, settings)
    prepare(layout, root, tmp_path / "prepared" / kind, [split])
    prepared = Dataset(Prepared(layout, tmp_path / "prepared" / kind, split), kind)
    assert sorted(item.id for item in prepared.lost) == lost


def test_records_that_cannot_be_prepared_are_lost(tmp_path):
    """Their masks cannot be read, and so the prepared form leaves them out."""
    for k in range(3):
        photo(tmp_path / f"raw/images/val/{k}.jpg", k)
        mask(tmp_path / f"raw/masks/val/{k}.png", (0, 1))
    (tmp_path / "raw/masks/val/1.png").write_bytes(b"version https://git-lfs")
    layout = make_layout("png_folders", {"ids": {"a": 1}})
    source = raw("png_folders", tmp_path / "raw", "val", ids={"a": 1})
    assert [item.id for item in source.lost] == ["1"]
    prepare(layout, tmp_path / "raw", tmp_path / "out", ["val"])
    store = Prepared(layout, tmp_path / "out", "val")
    assert [item.id for item in Dataset(store, "x").lost] == ["1"]
    # A picture that nobody lists is no record.
    photo(tmp_path / "raw/images/val/3.jpg")
    mask(tmp_path / "raw/masks/val/1.png", (0, 1))
    assert raw("png_folders", tmp_path / "raw", "val", ids={"a": 1}).lost == []


def test_a_record_that_is_listed_twice_is_one(tmp_path):
    pascal5i(tmp_path)
    write_lines(tmp_path / "splits/pascal/val/fold0.txt", "a__01", "a__01")
    source = raw("pascal5i", tmp_path, "val", fold=0)
    assert len(source) == 1 and source.by_class[1].tolist() == [0]
    assert [*source.store.catalog.skipped] == [Skipped("a__01", "is listed twice")]
