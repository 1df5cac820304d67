"""All training data of the paper in small: each set as its owners lay it out."""

import gzip
from pathlib import Path

import numpy as np
from PIL import Image

from tests.support.layouts import mask, photo, save, write_json, write_lines


def write_all(root: Path, size=(48, 64), count=3) -> Path:
    """Every set in the folder of its type's name, of about `count` images."""
    for name, write in SETS.items():
        write(root / name, size, count)
    return root


def _folders(images, masks, names, values, size, image=".jpg", target=".png"):
    for k, name in enumerate(names):
        photo(images / f"{name}{image}", k, size)
        mask(masks / f"{name}{target}", values, size=size)


def _names(count, pattern):
    return [pattern.format(k) for k in range(count)]


def ade20k(root, size, count):
    root /= "ADEChallengeData2016"
    for half in ("training", "validation"):
        images, masks = root / "images" / half, root / "annotations" / half
        _folders(images, masks, _names(count, "ADE_{:08}"), (0, 1, 150), size)


def cityscapes(root, size, count):
    for k, city in enumerate(("aachen", "zürich")):
        for n in range(2):
            name = f"{city}_{k:06}_{n:06}"
            image = root / "leftImg8bit/train" / city / f"{name}_leftImg8bit.png"
            photo(image, k, size)
            target = root / "gtFine/train" / city / f"{name}_gtFine_labelIds.png"
            mask(target, (0, 7, 26, 33), size=size)


def _coco_image(k, size):
    return {
        "id": k + 1, "file_name": f"{k:012}.jpg", "height": size[0], "width": size[1],
        "coco_url": f"http://images.cocodataset.org/train2017/{k:012}.jpg",
    }  # fmt: skip


def _coco_photos(root, size, count):
    for k in range(count):
        photo(root / "train2017" / f"{k:012}.jpg", k, size)


def _box(size, left, top, right, bottom):
    """A rectangle, in shares of the image, as a polygon."""
    (h, w), (x0, y0, x1, y1) = size, (left, top, right, bottom)
    return [[x0 * w, y0 * h, x1 * w, y0 * h, x1 * w, y1 * h, x0 * w, y1 * h]]


def _annotations(size, count, categories):
    """Two objects per image, side by side, and a crowd between."""
    crowd = np.zeros(size, bool)
    crowd[:, size[1] * 45 // 100 : size[1] * 55 // 100] = True
    flat = crowd.ravel(order="F").astype(np.int8)
    edges = np.flatnonzero(np.diff(flat)) + 1
    counts = np.diff([0, *edges.tolist(), flat.size]).tolist()
    for k in range(count):
        for n, category in enumerate(categories):
            left = 0.05 + 0.5 * n
            yield {
                "id": 10 * k + n + 1, "image_id": k + 1, "category_id": category,
                "iscrowd": 0, "area": 1.0, "bbox": [0, 0, 1, 1],
                "segmentation": _box(size, left, 0.1, left + 0.35, 0.9),
            }  # fmt: skip
        yield {
            "id": 10 * k + 9, "image_id": k + 1, "category_id": categories[0],
            "iscrowd": 1, "area": 1.0, "bbox": [0, 0, 1, 1],
            "segmentation": {"size": list(size), "counts": counts},
        }  # fmt: skip


def coco_instance(root, size, count):
    _coco_photos(root, size, count)
    data = {
        "images": [_coco_image(k, size) for k in range(count)],
        "categories": [{"id": 1, "name": "person"}, {"id": 90, "name": "toothbrush"}],
        "annotations": list(_annotations(size, count, (1, 90))),
    }
    write_json(root / "annotations/instances_train2017.json", data)


def coco_panoptic(root, size, count):
    _coco_photos(root, size, count)
    notes = []
    for k in range(count):
        colors = np.zeros((*size, 3), np.uint8)  # segment 0: void
        colors[:, size[1] // 4 :, 0] = 7
        colors[:, size[1] // 2 :] = (1, 1, 0)  # segment 257
        folder = root / "annotations/panoptic_train2017"
        save(folder / f"{k:012}.png", Image.fromarray(colors))
        segments = [
            {"id": 7, "category_id": 1, "iscrowd": 0, "area": 1, "bbox": [0, 0, 1, 1]},
            {"id": 257, "category_id": 200, "iscrowd": 0, "area": 1, "bbox": [0] * 4},
        ]
        notes.append(
            {"image_id": k + 1, "file_name": f"{k:012}.png", "segments_info": segments}
        )
    data = {
        "images": [_coco_image(k, size) for k in range(count)],
        "categories": [
            {"id": 1, "name": "person", "isthing": 1},
            {"id": 200, "name": "rug-merged", "isthing": 0},
        ],
        "annotations": notes,
    }
    write_json(root / "annotations/panoptic_train2017.json", data)


def coco_stuff(root, size, count):
    _coco_photos(root, size, count)
    for k in range(count):
        target = root / "stuffthingmaps/train2017" / f"{k:012}.png"
        mask(target, (0, 181, 255), size=size)


def lip(root, size, count):
    images = root / "TrainVal_images/TrainVal_images/train_images"
    masks = root / "TrainVal_parsing_annotations/train_segmentations"
    _folders(images, masks, _names(count, "{}_77"), (0, 2, 13, 19), size)


def voc(root, size, count):
    root /= "VOC2012"
    images, masks = root / "JPEGImages", root / "SegmentationClassAug"
    _folders(images, masks, _names(count, "2007_{:06}"), (0, 1, 20, 255), size)
    write_lines(root / "ImageSets/Segmentation/val.txt", "2010_000001")


def paco(root, size, count):
    _coco_photos(root, size, count)
    images = [_coco_image(k, size) for k in range(count)]
    for image in images:
        image["file_name"] = f"train2017/{image['file_name']}"
    notes = list(_annotations(size, count, (378, 2100)))
    for note in notes:
        del note["iscrowd"]
    notes = [note for note in notes if note["id"] % 10 != 9]
    data = {
        "images": images,
        "categories": [
            {"id": 378, "name": "dog", "supercategory": "OBJECT"},
            {"id": 2100, "name": "dog:ear", "supercategory": "PART"},
        ],
        "annotations": notes,
    }
    write_json(root / "annotations/paco_lvis_v1_train.json", data)


def isaid(root, size, count):
    for k in range(count):
        # Ten pixels of one colour each way: much faster to pack than noise.
        noise = np.random.default_rng(k).integers(0, 256, (90, 100, 3), np.uint8)
        large = Image.fromarray(noise).resize((1000, 900), Image.Resampling.NEAREST)
        save(root / "train/images/images" / f"P{k:04}.png", large)
        colors = np.zeros((900, 1000, 3), np.uint8)
        colors[:, 100:300], colors[:, 600:700] = (0, 0, 63), (0, 100, 155)
        folder = root / "train/Semantic_masks/images"
        target = folder / f"P{k:04}_instance_color_RGB.png"
        save(target, Image.fromarray(colors))


def loveda(root, size, count):
    for k, area in enumerate(("Rural", "Urban")):
        folder = root / "Train" / area
        names = [str(2 * k + n) for n in range(2)]
        images, masks = folder / "images_png", folder / "masks_png"
        _folders(images, masks, names, (0, 1, 2, 7), size, ".png")


def chase_db1(root, size, count):
    for k in range(count):
        photo(root / f"Image_{k:02}L.jpg", k, size)
        mask(root / f"Image_{k:02}L_1stHO.png", (0, 255), "1", size)


def drive(root, size, count):
    root /= "DRIVE"
    for k in range(count):
        photo(root / "training/images" / f"{k}_training.tif", k, size)
        mask(root / "training/1st_manual" / f"{k}_manual1.gif", (0, 255), size=size)


def hrf(root, size, count):
    for k in range(count):
        for kind, suffix in (("dr", ".JPG"), ("g", ".jpg"), ("h", ".jpg")):
            photo(root / "images" / f"{k:02}_{kind}{suffix}", k, size)
            mask(root / "manual1" / f"{k:02}_{kind}.tif", (0, 255), size=size)


def stare(root, size, count):
    for k in range(count):
        for path in (
            photo(root / "stare-images" / f"im{k:04}.ppm", k, size),
            mask(root / "labels-ah" / f"im{k:04}.ah.ppm", (0, 255), "RGB", size),
        ):
            path.with_name(f"{path.name}.gz").write_bytes(
                gzip.compress(path.read_bytes())
            )
            path.unlink()


SETS = {
    function.__name__: function
    for function in (
        ade20k, chase_db1, cityscapes, coco_instance, coco_panoptic, coco_stuff, drive,
        hrf, isaid, lip, loveda, paco, stare, voc,
    )
}  # fmt: skip
