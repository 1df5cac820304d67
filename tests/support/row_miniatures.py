"""All data of configs/eval.py's rows in small, each set as its owners lay it out.

A picture shows its truth: every class or object of a set has one of seven colours. So a
reader of examples (`reader`) can answer every row without a mistake. No two images of a
set are equal.
"""

import pickle
from pathlib import Path

import jax
import numpy as np
from PIL import Image
from pycocotools import mask as rle
from scipy import ndimage

from seggpt_jax import colors, painter
from seggpt_jax.data.sample import INSTANCE
from seggpt_jax.predict import PredictFns, TrackFns
from tests.support.layouts import mask, save, stripes, write_json, write_lines

SIZE = (128, 128)  # stuff of COCO counts from 8,192 pixels on


def write_all(root: Path) -> Path:
    """The data of every row, each set in the folder of its type's name."""
    for name, write in SETS.items():
        write(root / name)
    return root


def _picture(path: Path, values, number: int, size=SIZE) -> Path:
    """Stripes of colours 0 to 7, the channels of which are the bits of the value. The
    number makes it differ from others."""
    bits = (stripes(values, size)[..., None] >> np.arange(3)) & 1
    picture = Image.fromarray((bits * (255 - 2 * number)).astype(np.uint8))
    path.parent.mkdir(parents=True, exist_ok=True)
    options = {"quality": 100, "subsampling": 0} if path.suffix == ".jpg" else {}
    picture.save(path, **options)
    return path


def _turned(number: int, values=(0, 1, 1, 2)):
    return tuple(np.roll(values, number).tolist())


def fss1000(root):
    names = ("abacus", "zebra")
    write_lines(root / "splits/test.txt", *names)
    for place, name in enumerate(names, 1):
        for number in range(1, 4):
            shown = np.array(_turned(number, (0, place, place, 0)))
            folder = root / "fewshot_data" / name
            _picture(folder / f"{number}.jpg", shown, number + 4 * place)
            mask(folder / f"{number}.png", 255 * (shown > 0), size=SIZE)


def pascal5i(root):
    """Two classes a fold, the first and the second of its five."""
    for fold in range(4):
        lines = []
        for number in range(4):
            name = f"2007_00{fold}{number:03}"
            label = 5 * fold + 1 + number % 2
            shown = np.array(_turned(number, (0, 1, 1, 0))) * (1 + number % 2)
            _picture(root / f"VOC2012/JPEGImages/{name}.jpg", shown, number + 5 * fold)
            values = np.where(shown, label, 0)
            mask(root / f"VOC2012/SegmentationClassAug/{name}.png", values, size=SIZE)
            lines.append(f"{name}__{label:02}")
        write_lines(root / f"splits/pascal/val/fold{fold}.txt", *lines)


def coco20i(root):
    """Two classes a fold, beside things of no class."""
    for fold in range(4):
        names = [f"val2014/COCO_val2014_{10 * fold + n:012}.jpg" for n in range(6)]
        lists = {c: [] for c in range(80)} | {fold: names[:3], fold + 4: names[3:]}
        for number, name in enumerate(names):
            place = 1 + number // 3
            shown = np.array(_turned(number, (0, place, place, 4)))
            _picture(root / name, shown, number + 7 * fold)
            values = np.where(shown == place, 4 * place - 3 + fold, 0)
            target = (root / "annotations" / name).with_suffix(".png")
            mask(target, values, size=SIZE)
        path = root / f"splits/coco/val/fold{fold}.pkl"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(pickle.dumps(lists))


def lvis(root):
    """Two classes a fold, three images each. The classes up to 10 lie upon each other,
    and so do the others."""
    h, w = SIZE
    base, images, notes = "http://images.cocodataset.org/val2017", [], []
    for n in range(6):
        place = 1 + n // 3
        shown = _turned(n, (place, 0, 4, 0))
        _picture(root / f"val2017/{n:012}.jpg", shown, n)
        url = f"{base}/{n:012}.jpg"
        images.append({"id": n + 1, "height": h, "width": w, "coco_url": url})
        left, right = (w // 4 * (shown.index(place) + k) for k in (0, 1))
        for category in range(10 * place - 9, 10 * place + 1):
            notes.append({
                "id": len(notes) + 1, "image_id": n + 1, "category_id": category,
                "segmentation": [[left, 0, right, 0, right, h, left, h]],
                "area": w * h / 4, "bbox": (left, 0, w // 4, h),
            })  # fmt: skip
    names = [{"id": k, "name": f"c{k}"} for k in range(1, 21)]
    data = {"images": images, "categories": names, "annotations": notes}
    write_json(root / "annotations/lvis_v1_val.json", data)


def isaid5i(root):
    """Two classes a fold; ships and planes are of different folds."""
    root /= "iSAID_patches"
    for fold in range(3):
        lines = []
        for number in range(4):
            name, place = f"P{fold}{number:03}_0_256_0_256", 1 + number % 2
            shown = np.array(_turned(number, (0, place, place, 4)))
            _picture(root / f"val/images/{name}.png", shown, number + 5 * fold)
            values = np.select([shown == place, shown == 4], [5 * fold + place, 255])
            target = f"val/semantic_png/{name}_instance_color_RGB.png"
            mask(root / target, values, size=SIZE)
            lines.append(f"{name}__{5 * fold + place:02}")
        write_lines(root / f"splits/val/fold{fold}.txt", *lines)


def isic2018(root):
    images = root / "ISIC/ISIC2018_Task1-2_Training_Input"
    masks = root / "ISIC/ISIC2018_Task1_Training_GroundTruth"
    for number in range(9):
        place, name = 1 + number // 3, f"ISIC_{number:07}"
        shown = np.array(_turned(number, (0, place, place, 0)))
        _picture(images / f"{place}/{name}.jpg", shown, number)
        mask(masks / f"{name}_segmentation.png", 255 * (shown > 0), size=SIZE)


def chest_xray(root):
    root /= "Lung Segmentation"
    for number in range(4):
        name = f"MCUCXR_{number:04}_0" if number % 2 else f"CHNCXR_{number:04}_0"
        end = "" if number % 2 else "_mask"
        shown = np.array(_turned(number, (0, 1, 1, 0)))
        _picture(root / f"CXR_png/{name}.png", shown, number)
        mask(root / f"masks/{name}{end}.png", 255 * shown, size=SIZE)
    _picture(root / "CXR_png/CHNCXR_0099_1.png", (0, 1), 9)  # without a mask


def suim(root):
    """Two images of each class; the masks of other classes are black."""
    names = ("FV", "HD", "PF", "RI", "RO", "SR", "WR")
    for number in range(14):
        shown = np.array(_turned(number, (0, 1, 1, 0))) * (1 + number % 7)
        _picture(root / f"SUIM/images/d_r_{number}_.jpg", shown, number)
        for place, name in enumerate(names, 1):
            target = root / f"SUIM/masks/{name}/d_r_{number}_.bmp"
            mask(target, 255 * (shown == place), size=SIZE)


def _objects(number: int, place: int) -> tuple:
    """Two objects beside each other, one with a stripe that is its part: the values of
    the whole picture, and the mask of the part in it, which has the first or the second
    object."""
    whole, first = (SIZE[0], 2 * SIZE[1]), number % 2 == 0
    own, other = _turned(number, (0, place, 4, 0)), (0, 4, 4, 0)
    values = np.array([*own, *other] if first else [*other, *own])
    return values, stripes(values == place, whole), int(not first)


def pascal_part(root):
    """Two classes a fold, three images each, of which one object has the part."""
    root /= "Pascal-Part/VOCdevkit/VOC2010"
    (h, w), lists, number = SIZE, {}, 0
    kinds = {"animals": ("bird", "cat"), "indoor": ("bottle", "tvmonitor"),
             "person": ("person",), "vehicles": ("bus", "car")}  # fmt: skip
    for group, names in kinds.items():
        lists[group] = {"object": {}}
        for place, part in enumerate(("FACE", "LEG"), 1):
            kind = names[place % len(names)]
            images = [f"2008_{number + n:06}" for n in range(3)]
            parts = lists[group]["object"].setdefault(kind, {"part": {}})["part"]
            parts[part] = {"train": ["2008_999999"], "val": images}
            for image in images:
                values, shown, own = _objects(number, place)
                _picture(root / f"JPEGImages/{image}.jpg", values, number, (h, 2 * w))
                coded = rle.encode(np.asfortranarray(shown, np.uint8))
                coded["counts"] = coded["counts"].decode()
                objects = [
                    {"name": kind, "parts": [],
                     "bndbox": {"xmin": k * w, "ymin": 0, "xmax": k * w + w, "ymax": h}}
                    for k in (0, 1)
                ]  # fmt: skip
                objects[own]["parts"].append({"name": part, "mask": [coded]})
                folder = root / "Annotations_Part_json_merged_part_classes"
                write_json(folder / f"{image}.json", {"object": objects})
                number += 1
    write_json(root / "all_obj_part_to_image.json", lists)


def paco_part(root):
    """Two classes a fold, three images each; the masks are RLE and polygons."""
    (h, w), images, notes, number = SIZE, {}, {}, 0
    classes = [*range(10, 18)]
    for category in classes:
        images[category], place = [], 1 + classes.index(category) // 4
        for _ in range(3):
            name = f"val2017/{number:012}.jpg"
            values, shown, own = _objects(number, place)
            _picture(root / "PACO-Part/coco" / name, values, number, (h, 2 * w))
            segmentation = rle.encode(np.asfortranarray(shown, np.uint8))
            if number % 3 == 0:
                left = int(np.argmax(shown[0]))
                right = left + w // 4
                segmentation = [[left, 0, right, 0, right, h, left, h]]
            images[category].append({number: f"coco/{name}"})
            notes[number] = [{
                "category_id": category, "obj_ann_id": 100 * number,
                "obj_bbox": [own * w + 0.5, 0.0, float(w), float(h)],
                "segmentation": segmentation,
            }]  # fmt: skip
            number += 1
    (root / "PACO-Part/paco").mkdir(parents=True)
    for half in ("train", "val"):
        path = root / f"PACO-Part/paco/paco_part_{half}.pkl"
        path.write_bytes(pickle.dumps({"cid2img": images, "img2anno": notes}))


def permis(root):
    """Two objects, in three frames each."""
    for place, folder in enumerate(("4", "10"), 1):
        masks = []
        for frame in range(3):
            shown = np.array(_turned(frame, (0, place, place, 4)))
            path = root / f"PerMIRS/{folder}/{frame}.jpg"
            _picture(path, shown, frame + 4 * place)
            masks.append({7 * place: stripes(shown == place, SIZE)})
        np.save(root / f"PerMIRS/{folder}/masks.npz", masks, allow_pickle=True)


def _videos(images: Path, masks: Path, values=(1, 2), mode="P", starts=False):
    """Two videos of four frames whose two objects move. `starts`: only masks of the
    frames where an object begins, the second one in the third frame."""
    for place, video in enumerate(("one", "two")):
        for frame in range(4):
            late = 3 if not starts or frame > 1 else 0
            shown = np.array(_turned(frame + place, (0, 1, 1, 0, late, 0, 0, 0)))
            number = frame + 5 * place
            _picture(images / f"{video}/{frame:05}.jpg", shown, number)
            label = np.array([0, values[0], 0, values[1]])[shown]
            if starts and frame == 2:
                label[shown == 1] = 0
            if not starts or frame in (0, 2):
                mask(masks / f"{video}/{frame:05}.png", label, mode, SIZE)


def davis2016(root):
    root /= "DAVIS"
    parts = (root / "JPEGImages/480p", root / "Annotations/480p")
    _videos(*parts, values=(255, 255), mode="L")
    write_lines(root / "ImageSets/2016/val.txt", "one", "two")


def davis2017(root):
    root /= "DAVIS"
    _videos(root / "JPEGImages/480p", root / "Annotations/480p")
    write_lines(root / "ImageSets/2017/val.txt", "one", "two")


def youtube_vos(root):
    root /= "valid"
    _videos(root / "JPEGImages", root / "Annotations", starts=True)
    objects = {
        "1": {"category": "dog", "frames": ["00000", "00001", "00002", "00003"]},
        "2": {"category": "cat", "frames": ["00002", "00003"]},
    }
    videos = {video: {"objects": objects} for video in ("one", "two")}
    write_json(root / "meta.json", {"videos": videos})


def mose(root):
    root /= "valid"
    _videos(root / "JPEGImages", root / "Annotations")
    for path in (root / "Annotations").rglob("*.png"):
        if path.stem != "00000":
            path.unlink()


def ade20k(root):
    """Three classes in every image; the second training image is Painter's example."""
    root /= "ADEChallengeData2016"
    for number in range(6):
        training = number < 3
        name = f"ADE_train_{9573 + number:08}" if training else f"ADE_val_{number:08}"
        half = "training" if training else "validation"
        shown = np.array(_turned(number, (1, 2, 3, 2)))
        _picture(root / f"images/{half}/{name}.jpg", shown, number)
        mask(root / f"annotations/{half}/{name}.png", shown * 50, size=SIZE)


def coco_panoptic(root):
    """80 things, two kinds of stuff; images show two persons and a rug."""
    categories = [{"id": k, "name": f"thing {k}", "isthing": 1} for k in range(1, 81)]
    categories += [{"id": k, "name": f"stuff {k}", "isthing": 0} for k in (100, 200)]
    h, w = SIZE
    for split in ("train", "val"):
        images, notes = [], []
        for number in range(3):
            ident = 391459 + number + 10 * (split == "val")
            name = f"{ident:012}"
            shown = np.array(_turned(number, (1, 2, 2, 1, 2, 2, 2, 2)))
            own = number + 4 * (split == "val")
            _picture(root / f"{split}2017/{name}.jpg", shown, own)
            ids = np.where(shown == 1, 1 + (np.arange(8) > np.argmax(shown == 1)), 3)
            target = np.zeros((*SIZE, 3), np.uint8)
            target[..., 0] = stripes(ids, SIZE)
            folder = root / f"annotations/panoptic_{split}2017"
            save(folder / f"{name}.png", Image.fromarray(target))
            file = f"{name}.jpg"
            images.append({"id": ident, "file_name": file, "height": h, "width": w})
            segments = [
                {"id": k, "category_id": c, "iscrowd": 0, "area": 1, "bbox": [0] * 4}
                for k, c in ((1, 1), (2, 1), (3, 200))
            ]
            notes.append({
                "image_id": ident, "file_name": f"{name}.png",
                "segments_info": segments,
            })  # fmt: skip
        data = {"images": images, "categories": categories, "annotations": notes}
        write_json(root / f"annotations/panoptic_{split}2017.json", data)


def _polyps(images, masks, suffix, first):
    for number in range(first, first + 3):
        shown = np.array(_turned(number, (0, 1, 1, 0)))
        _picture(images / f"{number}{suffix}", shown, number)
        mask(masks / f"{number}{suffix}", 255 * shown, size=SIZE)


def kvasir_seg(root):
    root /= "Kvasir-SEG"
    _polyps(root / "images", root / "masks", ".jpg", 1)


def cvc_clinicdb(root):
    root /= "CVC-ClinicDB"
    _polyps(root / "Original", root / "Ground Truth", ".tif", 5)


def pairs(root):
    """The set that the row `indexed` finds, listed beside it."""
    rows = ["split\timage\tmask\twidth\theight\tclasses"]
    for number in range(4):
        shown = np.array(_turned(number, (0, 1, 1, 0))) * (1 + number % 2)
        _picture(root / f"{number}.png", shown, number)
        mask(root / f"{number}_mask.png", shown, size=SIZE)
        name = f"{number}.png\t{number}_mask.png"
        rows.append(f"val\t{name}\t{SIZE[1]}\t{SIZE[0]}\t{1 + number % 2}")
    write_lines(root / "index.tsv", *rows)
    write_lines(root / "classes.tsv", "id\tname\timages", "1\tcat\t2", "2\tdog\t2")
    write_lines(root.parent / "sets.tsv", "set\tkind", f"{root.name}\tsemantic")


SETS = {
    function.__name__: function
    for function in (
        ade20k, chest_xray, coco20i, coco_panoptic, cvc_clinicdb, davis2016, davis2017,
        fss1000, isaid5i, isic2018, kvasir_seg, lvis, mose, paco_part, pairs, pascal5i,
        pascal_part, permis, suim, youtube_vos,
    )
}  # fmt: skip


def heldout(root):
    """The validation halves that configs/vitl.py scores while it trains, beside the
    training halves of tests/support/miniatures.py."""
    for number in range(3):
        shown = np.array(_turned(number))
        name = f"2010_{number:06}"
        folder = root / "voc/VOC2012"
        _picture(folder / f"JPEGImages/{name}.jpg", shown, number)
        mask(folder / f"SegmentationClassAug/{name}.png", shown, size=SIZE)
        folder = root / "lip/TrainVal_images/TrainVal_images/val_images"
        _picture(folder / f"{name}.jpg", shown, number)
        folder = root / "lip/TrainVal_parsing_annotations/val_segmentations"
        mask(folder / f"{name}.png", shown, size=SIZE)
        name, folder = f"bonn_{number:06}_000000", root / "cityscapes"
        image = folder / f"leftImg8bit/val/bonn/{name}_leftImg8bit.png"
        _picture(image, shown, number)
        target = folder / f"gtFine/val/bonn/{name}_gtFine_labelIds.png"
        mask(target, np.array([0, 7, 26])[shown], size=SIZE)
    names = [f"2010_{number:06}" for number in range(3)]
    write_lines(root / "voc/VOC2012/ImageSets/Segmentation/val.txt", *names)


def reader(seen: set[tuple[bytes, bytes]]) -> dict:
    """An engine's functions that paint every query without a mistake, in the colours of
    their examples: what looks alike is painted alike, and what no example shows stays
    black. It takes from `seen` what it needs for nothing: (example, query), as shown.
    """

    def shown(images):
        bits = colors.denormalize(np.asarray(images)) > 127
        return bits @ np.array([1, 2, 4])

    def learn(images, targets):
        table = np.zeros((8, 3), np.float32)
        for image, target in zip(shown(images), np.asarray(targets), strict=True):
            for value in np.unique(image):
                table[value] = np.median(colors.denormalize(target[image == value]), 0)
        return table

    def answer(table, images, queries):
        seen.update((image.tobytes(), q.tobytes()) for image in images for q in queries)
        return jax.device_put(colors.normalize(table[shown(queries)]))

    def predict(params, images, targets, queries, kind):
        images, targets, queries = map(np.asarray, (images, targets, queries))
        rows = zip(images, targets, queries, strict=True)
        answers = [answer(learn(i, t), i, q[None])[0] for i, t, q in rows]
        return jax.device_put(np.stack(jax.device_get(answers)))

    def encode(params, images, targets, kind):
        images = np.asarray(images)[0]
        return images, learn(images, targets[0]), int(kind[0])

    def paint(params, prompts, queries):
        images, table, kind = prompts
        painted = answer(table, images, np.asarray(queries))
        if kind != INSTANCE:
            return painted
        places = [ndimage.label(x == 1)[0] for x in shown(queries)]
        located = [painter.paint_locations(x, range(1, x.max() + 1)) for x in places]
        return jax.device_put(colors.normalize(np.stack(located)))

    def start(params, images, targets, kind):
        return encode(params, images, targets, kind)

    def step(params, state, frame, palette):
        images, table, _ = state
        return answer(table, images, np.asarray(frame)), state

    return {
        "predict": predict,
        "prompts": PredictFns(encode, paint),
        "track": lambda memory: TrackFns(start, step),
    }


def blind() -> dict:
    """An engine's functions that paint everything black."""

    def black(queries):
        picture = np.zeros(np.shape(queries), np.uint8)
        return jax.device_put(colors.normalize(picture))

    return {
        "predict": lambda params, images, targets, queries, kind: black(queries),
        "prompts": PredictFns(
            lambda *given: None, lambda params, prompts, queries: black(queries)
        ),
        "track": lambda memory: TrackFns(
            lambda *given: None,
            lambda params, state, frame, palette: (black(frame), state),
        ),
    }
