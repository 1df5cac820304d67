"""Data sets of every format, with the label maps that they are made of."""

import io
import itertools
import json
import pickle
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow
import pyarrow.ipc
import pyarrow.parquet
from PIL import Image

from seggpt_jax.data.sample import IGNORE
from tests.support.layouts import write_json, write_lines

SIZES = ((24, 32), (20, 44), (33, 25))


class Made(NamedTuple):
    """A data set. truth: record -> label map, or numbers of objects where `objects` is
    true; None where the reading is not known. files: record -> its picture and its
    mask, below the root. lists: files whose content lists the records."""

    type: str
    split: str
    settings: dict[str, Any]
    truth: dict[str, np.ndarray | None]
    files: dict[str, tuple[str, str]]
    lists: tuple[str, ...] = ()
    objects: bool = False


def photo(rng: np.random.Generator, path: Path, size: tuple[int, int]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(rng.integers(0, 256, (*size, 3)).astype(np.uint8)).save(path)


def save(path: Path, values: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(values.astype(np.uint8)).save(path)


def png(values: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(values.astype(np.uint8)).save(file, "PNG")
    return file.getvalue()


def values_of(rng: np.random.Generator, choice: Any, size: tuple[int, int]):
    """Stripes of some of the values; all of the first, so that a class is shown."""
    some = [choice[0], *rng.choice(choice, rng.integers(1, 5)).tolist()]
    at = np.arange(size[1]) * len(some) // size[1]
    return np.broadcast_to(np.array(some)[at], size).copy()


def boxes(rng, size: tuple[int, int], count: int) -> list[tuple[int, int, int, int]]:
    """Boxes x0, y0, x1, y1 of different areas, in columns of their own."""
    h, w = size
    edges = np.linspace(0, w, count + 1).astype(int)
    found = []
    for n in range(count):
        y0 = int(rng.integers(0, h - 8))
        found.append((int(edges[n]), y0, int(edges[n + 1]), y0 + 4 + n))
    return found


def filled(size, box) -> np.ndarray:
    mask = np.zeros(size, bool)
    x0, y0, x1, y1 = box
    mask[y0:y1, x0:x1] = True
    return mask


def polygon(box) -> list[list[float]]:
    x0, y0, x1, y1 = box
    return [[x0, y0, x1, y0, x1, y1, x0, y1]]


def run_lengths(mask: np.ndarray) -> dict[str, Any]:
    flat = mask.ravel(order="F").astype(np.int8)
    edges = np.flatnonzero(np.diff(flat)) + 1
    counts = np.diff([0, *edges.tolist(), flat.size]).tolist()
    return {"size": list(mask.shape), "counts": [0, *counts] if flat[0] else counts}


def document(rng, names: list[str], categories: list[dict], each: int) -> dict:
    """COCO's JSON of `each` objects an image, the last of them a crowd, or none."""
    data: dict[str, Any] = {"images": [], "annotations": [], "categories": categories}
    for k, name in enumerate(names):
        size = SIZES[k % len(SIZES)]
        data["images"].append(
            {"id": k + 1, "file_name": name, "height": size[0], "width": size[1]}
        )
        for n, box in enumerate(boxes(rng, size, each)):
            crowd = int(n == each - 1 and n > 0 and rng.random() < 0.3)
            coded = crowd or rng.random() < 0.3
            x0, y0, x1, y1 = box
            data["annotations"].append({
                "id": 100 * k + n + 1, "image_id": k + 1, "iscrowd": crowd,
                "category_id": categories[(k + n) % len(categories)]["id"],
                "area": float((x1 - x0) * (y1 - y0)),
                "bbox": [x0, y0, x1 - x0, y1 - y0],
                "segmentation": run_lengths(filled(size, box)) if coded
                else polygon(box),
            })  # fmt: skip
    return data


def coco(rng, root: Path) -> Made:
    """Instances, and JSON in their format: by class or by object."""
    own = rng.random() < 0.5
    folder, listed = "train2017", "annotations/instances_train2017.json"
    settings: dict[str, Any] = {}
    if not own:
        folder, listed = "train", "annotations/train.json"
        settings = {"kind": str(rng.choice(["category", "instance"]))}
    names = [f"{k:03}.jpg" for k in range(3)]
    for k, name in enumerate(names):
        photo(rng, root / folder / name, SIZES[k])
    kinds = [{"id": 3, "name": "cat"}, {"id": 7, "name": "dog"}]
    write_json(root / listed, document(rng, names, kinds, 3))
    objects = own or settings["kind"] == "instance"
    files = {name: (f"{folder}/{name}", "") for name in names}
    kind = "coco_instance" if own else "coco_json"
    return Made(kind, "train", settings, {}, files, (listed,), objects)


def lvis(rng, root: Path) -> Made:
    names = [f"train2017/{k:03}.jpg" for k in range(3)]
    for k, name in enumerate(names):
        photo(rng, root / name, SIZES[k])
    kinds = [{"id": 3, "name": "cat"}, {"id": 7, "name": "dog"},
             {"id": 9, "name": "owl"}]  # fmt: skip
    listed = "annotations/lvis_v1_train.json"
    write_json(root / listed, document(rng, names, kinds, 3))
    return Made("lvis", "train", {}, {}, {n: (n, "") for n in names}, (listed,))


def lvis92i(rng, root: Path) -> Made:
    names = [f"val2017/{k:03}.jpg" for k in range(2)]
    for name in names:
        photo(rng, root / name, (24, 40))
    kinds = [{"id": k, "name": f"kind{k}"} for k in range(1, 11)]
    data = document(rng, names, kinds, 10)
    for image in data["images"]:
        image["height"], image["width"] = 24, 40
    for note in data["annotations"]:
        x = 4 * ((note["id"] - 1) % 100)
        note |= {"iscrowd": 0, "segmentation": polygon((x, 3, x + 4, 9)),
                 "category_id": note["id"] % 100, "bbox": [x, 3, 4, 6]}  # fmt: skip
    listed = "annotations/lvis_v1_val.json"
    write_json(root / listed, data)
    files = {n: (n, "") for n in names}
    return Made("lvis92i", "val", {"fold": int(rng.integers(10))}, {}, files, (listed,))


def paco(rng, root: Path) -> Made:
    names = [f"train2017/{k:03}.jpg" for k in range(3)]
    for k, name in enumerate(names):
        photo(rng, root / name, SIZES[k])
    kinds = [{"id": 3, "name": "dog"}, {"id": 77, "name": "dog:ear"}]
    data = document(rng, names, kinds, 3)
    for note in data["annotations"]:
        if not note["iscrowd"]:
            del note["iscrowd"]
    listed = "annotations/paco_lvis_v1_train.json"
    write_json(root / listed, data)
    return Made("paco", "train", {}, {}, {n: (n, "") for n in names}, (listed,))


def panoptic(rng, root: Path) -> Made:
    objects = rng.random() < 0.5
    data: dict[str, Any] = {"images": [], "annotations": [], "categories": [
        {"id": 1, "name": "person", "isthing": 1},
        {"id": 200, "name": "rug", "isthing": 0}]}  # fmt: skip
    files = {}
    for k in range(3):
        size, name = SIZES[k], f"{k:03}"
        photo(rng, root / f"train2017/{name}.jpg", size)
        ids = [0, *rng.choice(2**24 - 1, 3, replace=False).tolist()]
        ids = [int(i) for i in ids]
        at = np.arange(size[1]) * len(ids) // size[1]
        segments = np.broadcast_to(np.array(ids)[at], size)
        colors = np.stack([segments >> 8 * c & 255 for c in range(3)], -1)
        mask = f"annotations/panoptic_train2017/{name}.png"
        save(root / mask, colors)
        files[name] = (f"train2017/{name}.jpg", mask)
        data["images"].append({"id": k + 1, "file_name": f"{name}.jpg",
                               "height": size[0], "width": size[1]})  # fmt: skip
        info = [{"id": i, "category_id": int(rng.choice([1, 200])), "area": 1,
                 "iscrowd": int(n == 2 and rng.random() < 0.3), "bbox": [0, 0, 1, 1]}
                for n, i in enumerate(ids[1:])]  # fmt: skip
        data["annotations"].append(
            {"image_id": k + 1, "file_name": f"{name}.png", "segments_info": info}
        )
    listed = "annotations/panoptic_train2017.json"
    write_json(root / listed, data)
    kind = "coco_panoptic_segments" if objects else "coco_panoptic"
    return Made(kind, "train", {}, {}, files, (listed,), objects)


def _folders(rng, root, kind, images, masks, names, labels, endings=(".jpg", ".png"),
             settings=None, split="train") -> Made:  # fmt: skip
    """labels: value -> label. images, masks: folders, before each name."""
    truth: dict[str, np.ndarray | None] = {}
    files = {}
    for k, name in enumerate(names):
        size = SIZES[k % len(SIZES)]
        values = values_of(rng, list(labels), size)
        image, mask = images + name + endings[0], masks + name + endings[1]
        photo(rng, root / image, size)
        save(root / mask, values)
        truth[name] = np.vectorize(labels.get)(values)
        files[name] = (image, mask)
    return Made(kind, split, settings or {}, truth, files)


def folders(rng, root: Path) -> Made:
    """PNG folders of one's own, and of owners."""
    own = {1: 1, 5: 5, 200: 200, 0: 0, 9: 0, 255: IGNORE}
    ids = {"cat": 1, "dog": 5, "owl": 200}
    forms = [
        lambda: _folders(rng, root, "png_folders", "images/train/", "masks/train/",
                         ["a", "b/c", "é"], own, settings={"ids": ids}),
        lambda: _folders(rng, root, "png_folders", "photos/", "targets/x/",
                         ["a_left", "b/c_left"], own, (".png", ".png"),
                         {"ids": ids, "images": "photos", "masks": "targets/x"},
                         "any"),
        lambda: _folders(rng, root, "ade20k", "images/training/",
                         "annotations/training/", ["ADE_1", "ADE_2"],
                         {1: 1, 150: 150, 0: IGNORE}),
        lambda: _folders(rng, root, "coco_stuff", "train2017/",
                         "stuffthingmaps/train2017/", ["01", "02"],
                         {0: 1, 181: 182, 255: IGNORE, 91: 92}),
        lambda: _folders(rng, root, "lip", "train_images/", "train_segmentations/",
                         ["1_1", "2_1"], {1: 1, 19: 19, 0: 0, 5: 5}),
        lambda: _folders(rng, root, "drive", "training/images/",
                         "training/1st_manual/", ["21", "22"], {255: 1, 0: 0},
                         ("_training.png", "_manual1.png")),
    ]  # fmt: skip
    return forms[rng.integers(len(forms))]()


def cities(rng, root: Path) -> Made:
    labels = {7: 7, 33: 33, 0: IGNORE, 26: 26}
    return _folders(rng, root, "cityscapes", "leftImg8bit/train/", "gtFine/train/",
                    ["aachen/a_0", "ulm/u_1"], labels,
                    ("_leftImg8bit.png", "_gtFine_labelIds.png"))  # fmt: skip


def loveda(rng, root: Path) -> Made:
    labels = {2: 2, 7: 7, 0: IGNORE, 1: 0}
    truth, files = {}, {}
    for k, name in enumerate(("Rural/0", "Urban/1")):
        values = values_of(rng, list(labels), SIZES[k])
        area, number = name.split("/")
        image = f"Train/{area}/images_png/{number}.png"
        mask = f"Train/{area}/masks_png/{number}.png"
        photo(rng, root / image, SIZES[k])
        save(root / mask, values)
        truth[name], files[name] = np.vectorize(labels.get)(values), (image, mask)
    return Made("loveda", "train", {}, truth, files)


_VOC = {1: 1, 20: 20, 0: 0, 255: IGNORE, 6: 6}


def voc(rng, root: Path) -> Made:
    names = ["2007_1", "2007_2", "2007_3"]
    made = _folders(rng, root, "voc", "JPEGImages/", "SegmentationClassAug/", names,
                    _VOC, split="val")  # fmt: skip
    listed = "ImageSets/Segmentation/val.txt"
    write_lines(root / listed, *names)
    return made._replace(lists=(listed,))


def _only(values: np.ndarray, label: int) -> np.ndarray:
    return np.where(np.isin(values, [label, IGNORE]), values, 0)


def pascal5i(rng, root: Path) -> Made:
    labels = {1: 1, 2: 2, 20: 20, 0: 0, 255: IGNORE}
    names = ["2007_1", "2007_2", "2007_3"]
    made = _folders(rng, root, "pascal5i", "JPEGImages/", "SegmentationClassAug/",
                    names, labels, settings={"fold": 0}, split="val")  # fmt: skip
    lines = [f"{name}__01" for name in names]
    write_lines(root / "ImageSets/Segmentation/val.txt", *names)
    write_lines(root / "splits/pascal/val/fold0.txt", *lines)
    truth, files = made.truth, made.files
    return made._replace(
        truth={f"{n}__01": _only(x, 1) for n, x in truth.items()},
        files={f"{n}__01": x for n, x in files.items()},
        lists=("splits/pascal/val/fold0.txt",),
    )


def coco20i(rng, root: Path) -> Made:
    labels = {1: 1, 2: 2, 80: 80, 0: 0, 255: IGNORE}
    names = [f"val2014/{k}" for k in range(3)]
    made = _folders(rng, root, "coco20i", "", "annotations/", names, labels,
                    settings={"fold": 0}, split="val")  # fmt: skip
    listed = "splits/coco/val/fold0.pkl"
    path = root / listed
    path.parent.mkdir(parents=True)
    lists = {k: [] for k in range(80)}
    lists[0] = [f"{n}.jpg" for n in names]
    path.write_bytes(pickle.dumps(lists))
    truth, files = made.truth, made.files
    return made._replace(
        truth={f"{n}.jpg#1": _only(x, 1) for n, x in truth.items()},
        files={f"{n}.jpg#1": x for n, x in files.items()},
        lists=(listed,),
    )


def fss1000(rng, root: Path) -> Made:
    truth, files = {}, {}
    for number, name in enumerate(("abacus", "cat"), 1):
        for k in range(2):
            inside = filled(SIZES[k], boxes(rng, SIZES[k], 2)[0])
            image, mask = f"{name}/{k}.jpg", f"{name}/{k}.png"
            photo(rng, root / image, SIZES[k])
            save(root / mask, inside * 255)
            truth[f"{name}/{k}"] = inside * number
            files[f"{name}/{k}"] = image, mask
    write_lines(root / "splits/test.txt", "abacus", "cat")
    return Made("fss1000", "test", {}, truth, files, ("splits/test.txt",))


def _frames(rng, root, images, masks, values) -> tuple[dict, dict]:
    truth, files = {}, {}
    for k, video in enumerate(("bear", "swan")):
        for n in range(2):
            name = f"{video}/{n:05}"
            image, mask = f"{images}/{name}.jpg", f"{masks}/{name}.png"
            photo(rng, root / image, SIZES[k])
            truth[name] = values_of(rng, values, SIZES[k])
            save(root / mask, truth[name])
            files[name] = image, mask
    return truth, files


def davis(rng, root: Path) -> Made:
    year = int(rng.choice([2016, 2017]))
    values = [255, 0] if year == 2016 else [1, 2, 0, 255, 7]
    truth, files = _frames(rng, root, "JPEGImages/480p", "Annotations/480p", values)
    listed = f"ImageSets/{year}/val.txt"
    write_lines(root / listed, "bear", "swan")
    if year == 2016:
        truth = {name: (x > 0) * 1 for name, x in truth.items()}
        if rng.random() < 0.3:
            listed = "ImageSets/480p/val.txt"
            (root / "ImageSets/2016/val.txt").unlink()
            (root / "ImageSets/2016").rmdir()
            write_lines(root / listed,
                        *(f"/{a} /{b}" for a, b in files.values()))  # fmt: skip
    return Made(f"davis{year}", "val", {}, truth, files, (listed,), True)


def youtube(rng, root: Path) -> Made:
    where = "train/JPEGImages", "train/Annotations"
    truth, files = _frames(rng, root, *where, [1, 2, 0])
    meta = {
        "videos": {
            v: {
                "objects": {
                    str(i): {"category": kind, "frames": ["00000", "00001"]}
                    for i, kind in ((1, "cat"), (2, "dog"))
                }
            }
            for v in ("bear", "swan")
        }
    }
    write_json(root / "train/meta.json", meta)
    return Made("youtube_vos", "train", {}, truth, files, ("train/meta.json",), True)


def mose(rng, root: Path) -> Made:
    where = "train/JPEGImages", "train/Annotations"
    truth, files = _frames(rng, root, *where, [1, 2, 0])
    return Made("mose", "train", {}, truth, files, (), True)


def indexed(rng, root: Path) -> Made:
    labels = {1: 1, 3: 3, 0: 0, 255: IGNORE}
    names = ["a", "b/c", "d e"]
    made = _folders(rng, root, "indexed", "images/", "masks/", names, labels)
    lines = ["split\timage\tmask\twidth\theight\tclasses"]
    for name, (image, mask) in made.files.items():
        values = made.truth[name]
        assert values is not None
        shown = sorted(set(np.unique(values).tolist()) - {0, IGNORE})
        h, w = values.shape
        lines.append("\t".join(map(str, ["train", image, mask, w, h,
                                         ",".join(map(str, shown))])))  # fmt: skip
    write_lines(root / "index.tsv", *lines)
    write_lines(root / "classes.tsv", "id\tname\timages", "1\tcat\t3", "3\tdog\t2")
    return made._replace(
        truth={made.files[n][0]: x for n, x in made.truth.items()},
        files={x[0]: x for x in made.files.values()},
        lists=("index.tsv", "classes.tsv"),
        settings={"folder": root.name, "strict": bool(rng.random() < 0.5)},
    )


def hugging(rng, root: Path) -> Made:
    """Parquet and Arrow, with bytes or with files beside."""
    embed = rng.random() < 0.7
    cells, truth = [], {}
    for k in range(4):
        size = SIZES[k % 3]
        values = values_of(rng, [1, 2, 0, 9, 255], size)
        image = png(rng.integers(0, 256, (*size, 3)))
        cells.append(
            [
                {"bytes": image if embed else None, "path": f"i{k}.png"},
                {"bytes": png(values) if embed else None, "path": f"m{k}.png"},
            ]
        )
        if not embed:
            (root / f"i{k}.png").write_bytes(image)
            save(root / f"m{k}.png", values)
        truth[k] = np.vectorize({1: 1, 2: 2, 0: 0, 9: 0, 255: IGNORE}.get)(values)
    kind = pyarrow.struct({"bytes": pyarrow.binary(), "path": pyarrow.string()})
    table = pyarrow.table({
        name: pyarrow.array([row[n] for row in cells], kind)
        for n, name in enumerate(("image", "label"))
    })  # fmt: skip
    form, named, files = str(rng.choice(["parquet", "arrow"])), {}, {}
    parts = {0: table[:3], 1: table[3:]}
    for number, part in parts.items():
        if form == "parquet":
            name = f"data/train-{number:05}-of-00002.parquet"
            (root / "data").mkdir(exist_ok=True)
            pyarrow.parquet.write_table(part, root / name, row_group_size=2)
        else:
            name = f"train/data-{number:05}-of-00002.arrow"
            (root / "train").mkdir(exist_ok=True)
            with pyarrow.ipc.new_stream(root / name, part.schema) as stream:
                stream.write_table(part)
        for row in range(len(part)):
            record = f"{name}#{row}"
            named[record] = truth[3 * number + row]
            files[record] = name, name
    lists: tuple[str, ...] = ()
    if form == "arrow":
        lists = ("train/state.json",)
        state = {"_data_files": [{"filename": f"data-{k:05}-of-00002.arrow"}
                                 for k in range(2)]}  # fmt: skip
        write_json(root / lists[0], state)
    settings = {"ids": {"bread": 1, "rice": 2}}
    return Made("hf_dataset", "train", settings, named, files, lists)


EVERY = tuple(itertools.chain(
    (coco, coco, lvis, lvis92i, paco, panoptic, panoptic, folders, folders, cities,
     loveda, voc, pascal5i, coco20i, fss1000, davis, davis, youtube, mose, indexed,
     indexed, hugging, hugging),
))  # fmt: skip


def load(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))
