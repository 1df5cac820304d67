"""Prompts: tuned ones, lists of pictures and masks, COCO files, and texts.

The second reading: label maps that are known, resized by index; and pycocotools alone,
for objects that are as COCO wants them.
"""

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from pycocotools import mask as rle
from safetensors.numpy import load_file, save_file

from seggpt_jax.cli import prompt_args
from seggpt_jax.prompts import clicks
from seggpt_jax.prompts.annotations import Annotations
from seggpt_jax.prompts.file import PromptFile, load_prompts, save_prompts
from seggpt_jax.prompts.read import Prompts, read_prompts
from seggpt_jax.results.categories import read_names
from seggpt_jax.runs import paths
from tests.fuzz import nasty
from tests.fuzz.outcomes import Wrong, check_equal, damaged, refusing

SIZE = (16, 16)


def start(home: Path) -> Prompts:
    """Prompts whose file is damaged."""
    labels = np.kron(np.arange(4).reshape(2, 2), np.ones((8, 8), int))
    image = np.full((*SIZE, 3), 99, np.uint8)
    return read_prompts([image], [labels], "category", SIZE)


def attempt(rng: np.random.Generator, folder: Path, started: Prompts) -> None:
    os.chdir(folder)
    form = (_file, _file, _lists, _lists, _lists, _coco, _coco, _coco, _texts, _texts)[
        rng.integers(10)
    ]
    form(rng, folder, started)


def _file(rng: np.random.Generator, folder: Path, prompts: Prompts) -> None:
    """A tuned prompt, intact, with other bytes, with other arrays, or other words."""
    path = folder / "tuned.safetensors"
    names = {1: "cat", 2: "dog", 3: "é"}
    save_prompts(path, PromptFile(prompts, names, {"width": 3}, {"step": 1}, {}))
    way, fault, same = "", False, True
    form = rng.random()
    if form < 0.4:
        way, content = damaged(rng, path.read_bytes())
        path.write_bytes(content)
        same = way == "whole"
    elif form < 0.7:
        arrays = load_file(path)
        name = str(rng.choice(list(arrays)))
        x = arrays[name]
        turns: list[Any] = [
            lambda: x[..., None], lambda: x[:0], lambda: x.astype("f8"),
            lambda: np.concatenate([x, x]), lambda: np.ascontiguousarray(x.T),
            lambda: np.zeros((), x.dtype), lambda: x.astype("i8"), lambda: None,
        ]  # fmt: skip
        changed = turns[rng.integers(len(turns))]()
        if changed is None:
            del arrays[name]
        else:
            arrays[name] = changed
        fault = changed is None or changed.shape != x.shape or changed.dtype != x.dtype
        words = _words(path)
        save_file(arrays, path, metadata=words)
        same = False
    elif form < 0.9:
        words = _words(path)
        key = next(iter(words))
        about = json.loads(words[key])
        part = str(rng.choice(list(about)))
        if rng.random() < 0.3:
            del about[part]
        else:
            about[part] = nasty.value(rng)
        words[key] = json.dumps(about)
        if rng.random() < 0.2:
            words[key] = str(rng.choice(["", "{", "[]", "null", "3", "[" * 3000]))
        save_file(load_file(path), path, metadata=words)
        same = False
    size = SIZE if rng.random() < 0.9 else (16, 24)
    with refusing(str(path), quoted="damaged:"):
        found = load_prompts(path, size)
        if fault or size != SIZE:
            raise Wrong(f"a prompt file with a fault was read {way}")
        if not all(isinstance(x, dict) for x in found[1:]):
            raise Wrong(f"the words of a prompt file are {found[1:]}")
        if same:
            for one, right in zip(found.prompts, prompts, strict=True):
                np.testing.assert_array_equal(one, right)


def _words(path: Path) -> dict[str, str]:
    content = path.read_bytes()
    head = int.from_bytes(content[:8], "little")
    return json.loads(content[8 : 8 + head])["__metadata__"]


def _lists(rng: np.random.Generator, folder: Path, _: Prompts) -> None:
    """Images and label maps: their labels, and the meaning of 255 in a prompt."""
    pictures, targets, wanted, two, others = [], [], [], [], set()
    for i in range(rng.integers(1, 4)):
        h, w = (int(n) for n in rng.integers(8, 40, 2))
        values = np.zeros((h, w), np.int64)
        some = [1], [255], [1, 2], [3, 255], [300], [7], [0]
        for value in some[rng.integers(len(some))]:
            y, x = rng.integers(0, h - 4), rng.integers(0, w - 4)
            values[y : y + 4, x : x + 4] = value
        shown = set(np.unique(values).tolist()) - {0}
        two.append(shown == {255})
        others |= shown - {255} if shown != {1} and shown != {255} else set()
        wanted.append(np.where(values == 255, 1 if shown == {255} else 0, values))
        image = rng.integers(0, 256, (h, w, 3)).astype(np.uint8)
        if rng.random() < 0.5:
            Image.fromarray(image).save(folder / f"{i}.png")
            dtype = np.uint16 if values.max() > 255 else np.uint8
            Image.fromarray(values.astype(dtype)).save(folder / f"{i}m.png")
            pictures.append(folder / f"{i}.png")
            targets.append(folder / f"{i}m.png")
        else:
            pictures.append(image)
            targets.append(values)
    kind, fault = "category", False
    if rng.random() < 0.2:
        kind, fault = str(rng.choice(["Category", "", "x", "semantic"])), True
    if rng.random() < 0.1:
        targets, fault = targets[1:], True
    if rng.random() < 0.1 and targets:
        targets[0], fault = np.ones((9, 64), np.uint8), True
    with refusing("prompt", "kind", str(folder)):
        found = read_prompts(pictures, targets, kind, SIZE)
        empty = not any(x.any() for x in wanted)
        if fault or empty or (any(two) and others):
            raise Wrong("prompts with a fault were read")
        right = sorted({int(v) for x in wanted for v in np.unique(x)} | {0})
        if found.labels.tolist() != right:
            raise Wrong(f"labels {found.labels.tolist()} were read, right is {right}")
        for read, values in zip(found.decoded(), wanted, strict=True):
            h, w = values.shape
            rows = ((np.arange(SIZE[0]) + 0.5) * h / SIZE[0]).astype(int)
            columns = ((np.arange(SIZE[1]) + 0.5) * w / SIZE[1]).astype(int)
            resized = values[rows[:, None], columns]
            check_equal(found.labels[read], resized, "a target")


def _coco(rng: np.random.Generator, folder: Path, _: Prompts) -> None:
    """A COCO file of the user, right or spoiled."""
    h, w = (int(n) for n in rng.integers(10, 60, 2))
    notes, masks = [], []
    for i in range(rng.integers(1, 5)):
        x, y = rng.uniform(0, w - 6), rng.uniform(0, h - 6)
        points = [x, y, x + 5, y, x + 5.5, y + 5, x, y + 4.5]
        given: Any = [points]
        coded = rle.merge(rle.frPyObjects(given, h, w))
        if rng.random() < 0.3:
            given = {"size": [h, w], "counts": coded["counts"].decode()}
        masks.append(np.asarray(rle.decode(coded)).astype(bool))
        owner = int(rng.integers(1, 3))
        notes.append({"id": i + 1, "image_id": 1, "category_id": owner,
                      "iscrowd": 0, "segmentation": given, "area": 20.0,
                      "bbox": [x, y, 5, 5]})  # fmt: skip
    categories = [{"id": i, "name": name} for i, name in ((1, "cat"), (2, "dog"))]
    data: Any = {
        "images": [{"id": 1, "file_name": "a.png", "height": h, "width": w}],
        "categories": categories, "annotations": notes,
    }  # fmt: skip
    owners = [note["category_id"] for note in notes]
    right = rng.random() < 0.4
    if not right:
        for _ in range(rng.integers(1, 3)):
            _spoil(rng, data)
    path = folder / "coco.json"
    path.write_text(json.dumps(data))
    if rng.random() < 0.1:
        right = False
        path.write_bytes(damaged(rng, path.read_bytes())[1])
    with refusing("coco.json", "a.png"):
        file = Annotations(path)
        found, shown = file.segments(folder / "a.png", (h, w), list(file.names))
    if not right:
        return
    covered = np.sum(masks, 0)
    for mask, owner in zip(masks, owners, strict=True):
        if (found[mask & (covered == 1)] != owner).any():
            raise Wrong(f"an object of category {owner} was read as another")
    if found[covered == 0].any() or set(shown.values()) != set(owners):
        raise Wrong(f"labels {shown} were read for categories {set(owners)}")


def _spoil(rng: np.random.Generator, data: Any) -> None:
    """Gives another value to some place of a JSON value."""
    while True:
        if isinstance(data, dict) and data:
            key: Any = list(data)[rng.integers(len(data))]
        elif isinstance(data, list) and data:
            key = int(rng.integers(len(data)))
        else:
            return
        inside = data[key]
        if isinstance(inside, (dict, list)) and inside and rng.random() < 0.8:
            data = inside
            continue
        if rng.random() < 0.2:
            del data[key]
        else:
            data[key] = nasty.in_json(rng)
        return


def _texts(rng: np.random.Generator, folder: Path, _: Prompts) -> None:
    """Texts of the command line."""
    (folder / "photos").mkdir()
    (folder / "empty").mkdir()
    for name in ("prompt.png", "mask.png", "photos/a.jpg"):
        Image.new("L", (9, 9)).save(folder / name)
    word = nasty.word(rng)
    form = int(rng.integers(5))
    if form == 0:
        words = [word, *(nasty.word(rng) for _ in range(rng.integers(0, 3)))]
        with refusing("--prompt", "coco.json", *filter(None, words)):
            for text in words:
                paths.check("--prompt", text, paths.PROMPT)
            given = prompt_args.read(words)
            if len(given.images) != len(given.masks) and given.masks:
                raise Wrong(f"{words} were read as {given}")
    elif form == 1:
        with refusing("--names", "classes.tsv"):
            names = read_names(word)
            if not names or not all(k > 0 and v for k, v in names.items()):
                raise Wrong(f"{word!r} was read as {names}")
    elif form == 2:
        with refusing("--box"):
            box = clicks.read_box(word, "--box")
            if [int(x) for x in word.split(",")] != box:
                raise Wrong(f"{word!r} was read as {box}")
    elif form == 3:
        with refusing("--points"):
            clicks.read_point(word, "--points")
    else:
        whole = [n for n in nasty.NUMBERS if isinstance(n, int)]
        given_box = [whole[i] for i in rng.integers(0, len(whole), rng.integers(3, 6))]
        points = [[whole[rng.integers(len(whole))], 3, 1]]
        with refusing("box", "point", "the image", "prompt.png"):
            clicks.example(folder / "prompt.png", given_box, points)
