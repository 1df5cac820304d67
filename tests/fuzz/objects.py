"""Sets whose records are objects: parts of objects, and PerMIS. What they show is read
again from their lists (`again`), but for PerMIS."""

import pickle
from pathlib import Path

import numpy as np

from tests.fuzz.sets import SIZES, Made, boxes, filled, photo, polygon, run_lengths
from tests.support.layouts import write_json

GROUPS = {"animals": "bird", "indoor": "bottle", "person": "person", "vehicles": "bus"}
_NAMES = ("2008_1", "2008_2", "2008_3")


def pascal_part(rng: np.random.Generator, root: Path) -> Made:
    """One object of a kind in each image, which has one part or both."""
    fold = int(rng.integers(4))
    group, kind = [*GROUPS.items()][fold]
    where = "Annotations_Part_json_merged_part_classes"
    files: dict[str, tuple[str, str]] = {}
    shown: dict[str, list[str]] = {"FACE": [], "LEG": []}
    for number, name in enumerate(_NAMES):
        size = SIZES[number]
        image, note = f"VOC2010/JPEGImages/{name}.jpg", f"VOC2010/{where}/{name}.json"
        photo(rng, root / image, size)
        own = [*shown][: 1 + number % 2]
        left, right = int(rng.integers(4)), size[1] - 2
        sides = {"xmin": left, "ymin": 0, "xmax": right, "ymax": size[0] - 1}
        parts = [
            {"name": part, "mask": [run_lengths(filled(size, box))]}
            for part, box in zip(own, boxes(rng, size, len(own)), strict=True)
        ]
        thing = {"name": kind, "bndbox": sides, "parts": parts}
        write_json(root / note, {"object": [{**thing, "name": "tree"}, thing]})
        for part in own:
            shown[part].append(name)
            files[f"{name}#1 {kind}+{part}"] = image, note
    listed = "VOC2010/all_obj_part_to_image.json"
    parts = {part: {"train": ["2008_9"], "val": names} for part, names in shown.items()}
    write_json(root / listed, {group: {"object": {kind: {"part": parts}}}})
    lists = listed, *dict.fromkeys(note for _, note in files.values())
    return Made("pascal_part", "val", {"fold": fold}, {}, files, lists)


def paco_part(rng: np.random.Generator, root: Path) -> Made:
    """Two classes of a fold; boxes are of whole images or smaller."""
    fold = int(rng.integers(4))
    paths = [f"val2017/{number}.jpg" for number in range(3)]
    notes: dict[int, list] = {}
    files: dict[str, tuple[str, str]] = {}
    for number, path in enumerate(paths):
        size = SIZES[number]
        photo(rng, root / "coco" / path, size)
        notes[number] = []
        for category, box in zip((fold, fold + 4), boxes(rng, size, 2), strict=True):
            coded = rng.random() < 0.5
            notes[number].append({
                "category_id": category, "obj_ann_id": 10 * number,
                "obj_bbox": [0.5, 1.25, size[1] - 4.0, float(size[0])],
                "segmentation": run_lengths(filled(size, box)) if coded
                else polygon(box),
            })  # fmt: skip
            files[f"{path}#{10 * number} part {category}"] = f"coco/{path}", ""
    images = [{number: path} for number, path in enumerate(paths)]
    train = {"cid2img": {c: [] for c in range(8)}, "img2anno": {}}
    val = {"cid2img": {fold: images, fold + 4: images}, "img2anno": notes}
    (root / "paco").mkdir()
    lists = []
    for half, data in (("train", train), ("val", val)):
        lists.append(f"paco/paco_part_{half}.pkl")
        (root / lists[-1]).write_bytes(pickle.dumps(data))
    return Made("paco_part", "val", {"fold": fold}, {}, files, tuple(lists))


def permis(rng: np.random.Generator, root: Path) -> Made:
    truth: dict[str, np.ndarray | None] = {}
    files = {}
    for number, folder in enumerate(("4", "17")):
        size, masks = SIZES[number], f"PerMIRS/{folder}/masks.npz.npy"
        shown = [filled(size, box) for box in boxes(rng, size, 3)]
        for frame, mask in enumerate(shown):
            image = f"PerMIRS/{folder}/{frame}.jpg"
            photo(rng, root / image, size)
            truth[f"{folder}/{frame}"] = mask * 1
            files[f"{folder}/{frame}"] = image, masks
        np.save(root / masks, [{5: mask} for mask in shown], allow_pickle=True)
    return Made("permis", "all", {}, truth, files)


EVERY = (pascal_part, paco_part, permis)
