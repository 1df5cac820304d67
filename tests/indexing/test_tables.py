"""Tables of own images and masks: what is written reads as the masks were drawn."""

import csv
import json

import numpy as np
import pytest
from PIL import Image

from seggpt_jax.data.sources import open_sources
from seggpt_jax.indexing.pairs import pair, splits_of
from seggpt_jax.indexing.tables import write_tables
from tests.conftest import REPOSITORY

PALETTE = np.array([[0, 0, 0], [250, 0, 0], [0, 250, 0], [0, 0, 250]], np.uint8)


def drawn(number):
    """Segments `[24, 32]` with two of the classes 1, 2, 3."""
    rng = np.random.default_rng(number)
    segments = np.zeros((24, 32), np.uint8)
    for k in range(2):
        y, x = rng.integers(2, 12, 2)
        segments[y : y + 9, x + 8 * k : x + 8 * k + 8] = (number + k) % 3 + 1
    return segments


def save(root, masks, form="PNG"):
    """Images 0, 1, ... and their masks, in two folders."""
    for number, mask in enumerate(masks):
        h, w = mask.shape[:2]
        pixels = np.full((h, w, 3), 9 * number, np.uint8)
        for folder, array, kind in (("photos", pixels, "PNG"), ("gt", mask, form)):
            (root / folder).mkdir(parents=True, exist_ok=True)
            where = root / folder / f"{number}.{kind.lower()}"
            Image.fromarray(array).save(where, format=kind, quality=95)


def index(root, masks="gt", named=None, **more):
    given = {"out": None, "split": "", "show": lambda items, total: items} | more
    return write_tables(root / "photos", root / masks, named=named or {}, **given)


def read(root, split):
    """Image -> (names of its classes by pixel, "" background, "ignore") of a split."""
    spec = {"type": "indexed", "folder": root.name, "split": split, "strict": True}
    source = open_sources({"own": spec}, root.parent)["own"]
    names = {0: "", 255: "ignore"} | source.class_names
    words = np.vectorize(lambda label: names[label])
    return {
        source.store[k].id.split("#")[0]: words(source[k].segments)
        for k in range(len(source))
    }


def everything(root):
    made = {r["split"] for r in rows(root)}
    return {name: x for split in made for name, x in read(root, split).items()}


def rows(root):
    with (root / "index.tsv").open() as file:
        return [*csv.DictReader(file, delimiter="\t")]


@pytest.mark.parametrize("form", ["PNG", "JPEG"])
def test_black_and_white_masks_are_one_class(tmp_path, form):
    masks = [(drawn(k) > 0) * np.uint8(255) for k in range(6)]
    save(tmp_path, masks, form)
    made = index(tmp_path)
    assert made.classes == [(255, "object", 6)] and not made.failed
    assert any("only 0 and 255" in note for note in made.notes)
    for number, mask in enumerate(masks):
        found = everything(tmp_path)[f"photos/{number}.png"]
        assert ((found == "object") == (mask > 0)).mean() > (0.95, 1)[
            form == "PNG"
        ] - 0.01
    for number in (1, 255):  # the label of its inside in a prompt, and its value
        for file in tmp_path.glob("*.tsv"):
            file.unlink()
        assert index(tmp_path, named={number: "cat"}).classes == [(255, "cat", 6)]


def test_labels_are_classes_and_255_beside_them_is_ignored(tmp_path):
    masks = [drawn(k) for k in range(6)]
    masks[2][0] = 255
    save(tmp_path, masks)
    made = index(tmp_path, named={2: "dog"})
    assert [c[:2] for c in made.classes] == [(1, "class 1"), (2, "dog"), (3, "class 3")]
    found = everything(tmp_path)
    names = np.array(["", "class 1", "dog", "class 3"])
    for number, mask in enumerate(masks):
        wanted = np.where(mask == 255, "ignore", names[mask % 255])
        np.testing.assert_array_equal(found[f"photos/{number}.png"], wanted)
    assert any("255 is ignored" in note for note in made.notes)
    (tmp_path / "index.tsv").unlink()
    assert index(tmp_path, named={255: "sky"}).classes[-1] == (255, "sky", 1)


def test_one_label_and_255_in_other_masks_is_no_guess(tmp_path):
    save(tmp_path, [(drawn(k) > 0) * np.uint8(255 if k % 2 else 1) for k in range(4)])
    with pytest.raises(ValueError, match="none has both.*--names 1=a,255=b"):
        index(tmp_path)
    assert not (tmp_path / "index.tsv").exists()


@pytest.mark.parametrize("smooth", [False, True])
def test_colours_become_ids(tmp_path, smooth):
    masks = [drawn(k).repeat(8, 0).repeat(8, 1) for k in range(6)]
    save(tmp_path, [PALETTE[mask] for mask in masks])
    if smooth:
        for path in (tmp_path / "gt").iterdir():
            with Image.open(path) as image:
                image.resize((64, 48)).resize((256, 192), 3).save(path)
    made = index(tmp_path)
    assert sum("are smooth" in note for note in made.notes) == smooth
    assert {name for _, name, _ in made.classes} == {"#fa0000", "#00fa00", "#0000fa"}
    assert all(row["mask"].startswith("class-masks/") for row in rows(tmp_path))
    found = everything(tmp_path)
    names = np.array(["", "#fa0000", "#00fa00", "#0000fa"])
    for number, mask in enumerate(masks):
        right = (found[f"photos/{number}.png"] == names[mask]).mean()
        assert right == 1 if not smooth else right > 0.97


def test_a_small_object_whose_colour_lies_between_others_is_kept(tmp_path):
    """As a far pedestrian (64, 64, 0) among trees (128, 128, 0) in CamVid's palette."""
    street = np.zeros((72, 96, 3), np.uint8)
    street[:40] = (128, 128, 0)
    street[38:40, 50:52] = (64, 64, 0)  # 4 of 6,912 pixels
    save(tmp_path, [street])
    made = index(tmp_path, split="all")
    assert [name for _, name, _ in made.classes] == ["#808000", "#404000"]
    (found,) = read(tmp_path, "all").values()
    np.testing.assert_array_equal(found == "#404000", street[..., 0] == 64)


def test_colours_in_a_jpeg_are_refused(tmp_path):
    save(tmp_path, [PALETTE[drawn(0)]], "JPEG")
    with pytest.raises(ValueError, match="no image .* can be used.*which a JPEG blurs"):
        index(tmp_path)


def test_a_coco_file_is_drawn(tmp_path):
    save(tmp_path, [drawn(k) for k in range(5)])
    boxes = {0: [2, 3, 10, 8], 1: [4, 4, 6, 6], 3: [0, 0, 5, 9]}
    notes = [
        {
            "id": k, "image_id": k, "category_id": (0, 300)[k % 2], "iscrowd": 0,
            "segmentation": [[x, y, x + w, y, x + w, y + h, x, y + h]],
        }
        for k, (x, y, w, h) in boxes.items()
    ]  # fmt: skip
    content = {
        "images": [{"id": k, "file_name": f"{k}.png", "width": 32, "height": 24}
                   for k in range(5)],
        "annotations": notes,
        "categories": [{"id": 0, "name": "ant"}, {"id": 300, "name": "bee"},
                       {"id": 9, "name": "never"}],
    }  # fmt: skip
    (tmp_path / "own.json").write_text(json.dumps(content))
    made = index(tmp_path, "own.json")
    assert sorted(name for _, name, _ in made.classes) == ["ant", "bee"]
    found = everything(tmp_path)
    assert sorted(found) == ["photos/0.png", "photos/1.png", "photos/3.png"]
    for k, (x, y, w, h) in boxes.items():
        wanted = np.full((24, 32), "", object)
        wanted[y : y + h, x : x + w] = ("ant", "bee")[k % 2]
        np.testing.assert_array_equal(found[f"photos/{k}.png"], wanted)
    assert any("2 images without objects" in note for note in made.notes)
    assert not any("crowds" in note for note in made.notes)


def test_crowds_of_a_coco_file_are_said(tmp_path):
    """CVAT writes each mask as one."""
    save(tmp_path, [drawn(0)])
    size = {"width": 32, "height": 24}
    note = {"id": 1, "image_id": 1, "category_id": 1, "iscrowd": 1,
            "segmentation": {"size": [24, 32], "counts": [100, 200, 468]}}  # fmt: skip
    content = {
        "images": [{"id": 1, "file_name": "0.png", **size}],
        "annotations": [note],
        "categories": [{"id": 1, "name": "cup"}],
    }
    (tmp_path / "own.json").write_text(json.dumps(content))
    with pytest.raises(
        ValueError, match="no image .* can be used; ignored: 1 object with iscrowd 1, "
    ):
        index(tmp_path, "own.json")


def test_paint_over_an_image_is_named(tmp_path):
    save(tmp_path, [drawn(0)])
    with Image.open(REPOSITORY / "docs/examples/own/coffee.jpg") as photo:
        photo = photo.convert("RGB")
    photo.save(tmp_path / "photos/0.png")
    photo.paste((255, 0, 0), (130, 15, 300, 155))
    photo.save(tmp_path / "gt/0.png")
    with pytest.raises(ValueError, match="gt/0.png looks like its image with paint"):
        index(tmp_path)


def test_a_file_that_is_no_json_is_named(tmp_path):
    save(tmp_path, [drawn(0)])
    (tmp_path / "cvat.xml").write_text("<annotations/>")
    with pytest.raises(ValueError, match="cvat.xml is a file: a folder of masks is wa"):
        index(tmp_path, "cvat.xml")


def test_splits_are_added_and_never_replaced(tmp_path):
    save(tmp_path, [drawn(k) for k in range(4)])
    index(tmp_path, split="train")
    with pytest.raises(ValueError, match="index.tsv is there: remove it"):
        index(tmp_path)
    with pytest.raises(ValueError, match="has a split 'train'"):
        index(tmp_path, split="train")
    made = index(tmp_path, split="val")
    assert made.splits == {"train": 4, "val": 4}
    assert sum(count for *_, count in made.classes) == 16
    assert len(read(tmp_path, "train")) == len(read(tmp_path, "val")) == 4
    with (tmp_path / "index.tsv").open("a") as file:
        file.write("test\tphotos/0.png\n")
    with pytest.raises(ValueError, match="index.tsv line 10: 2 fields instead of 6"):
        index(tmp_path, split="other")


def test_what_does_not_fit_is_named_and_left_out(tmp_path):
    save(tmp_path, [drawn(k) for k in range(4)])
    Image.new("L", (31, 24), 1).save(tmp_path / "gt/1.png")
    (tmp_path / "gt/2.png").write_bytes(b"nothing")
    (tmp_path / "gt/3.png").unlink()
    made = index(tmp_path)
    assert made.splits == {"train": 1}
    assert [path.name for path, _ in made.failed] == ["1.png", "2.png"]
    assert "32 x 24, but its mask" in made.failed[0][1]
    assert any("1 image without a mask" in note for note in made.notes)


def touch(root, *names):
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("L", (1, 1)).save(path)


@pytest.mark.parametrize(
    "images, masks",
    [
        (["a.png", "b/c.png"], ["a.bmp", "b/c.gif"]),
        (["a.png", "b.png"], ["a_mask.png", "b_mask.png"]),
        (["img_001.png", "img_012.png"], ["gt_001_x.png", "gt_012_x.png"]),
        (["x/10.png", "x/20.png", "x/30.png"], ["x/20-m.png", "x/10-m.png"]),
        (["i_1.png", "i_2.png"], ["m_001.png", "m_002.png"]),
    ],
)
def test_images_and_masks_pair_by_what_differs(tmp_path, images, masks):
    touch(tmp_path / "i", *images)
    touch(tmp_path / "m", *masks)
    found = pair(tmp_path / "i", tmp_path / "m").files.values()
    digits = [["".join(c for c in p.stem if c in "abc0123456789") for p in two]
              for two in found]  # fmt: skip
    assert len(digits) == len(masks)
    assert all(one.strip("_") in other for one, other in digits)


@pytest.mark.parametrize(
    "images, masks",
    [
        (["img_10.png", "img_11.png"], ["mask_0.png", "mask_1.png"]),
        (["10_i.png", "20_i.png"], ["15.png", "25.png"]),
    ],
)
def test_names_with_other_numbers_are_no_pair(tmp_path, images, masks):
    touch(tmp_path / "i", *images)
    touch(tmp_path / "m", *masks)
    with pytest.raises(ValueError, match="have the same name"):
        pair(tmp_path / "i", tmp_path / "m")


def test_folders_named_as_splits_are_splits():
    names = ["train/a", "valid/b", "test/c", "training/d"]
    shown = dict.fromkeys(names, (1,))
    assert splits_of(names, shown) == ["train", "val", "test", "train"]


@pytest.mark.parametrize("seed", range(20))
def test_every_class_is_held_out_in_fair_part(seed):
    rng = np.random.default_rng(seed)
    chance = rng.uniform(0.05, 1, 4)
    names = [f"{k:03}" for k in range(rng.integers(2, 60))]
    shown = {
        name: tuple(np.flatnonzero(rng.random(4) < chance).tolist()) for name in names
    }
    split = dict(zip(names, splits_of(names, shown), strict=True))
    for label in range(4):
        own = [name for name in names if label in shown[name]]
        held = sum(split[name] == "val" for name in own)
        assert 2 * held <= len(own)
    # A single class gets exactly what the help says.
    for count, held in ((1, 0), (2, 1), (3, 1), (4, 2), (8, 2), (20, 4), (50, 10)):
        alone = {f"{k:03}": (1,) for k in range(count)}
        assert splits_of([*alone], alone).count("val") == held
    alone = {f"{k:02}": (1,) for k in range(20)}
    held = [k for k, split in enumerate(splits_of([*alone], alone)) if split == "val"]
    assert held == [2, 7, 12, 17]  # spread evenly
