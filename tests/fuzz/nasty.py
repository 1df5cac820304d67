"""Values that settings and arguments should not have."""

import json
from typing import Any

import numpy as np

NUMBERS: list[Any] = [
    0, -1, 1, 2, 3, 10**6, -(10**9), 10**30, 0.0, 0.5, -0.5, 1.5, 1e308, -1e308, 1e-320,
    float("nan"), float("inf"), float("-inf"),
]  # fmt: skip
VALUES: list[Any] = [
    *NUMBERS, True, False, None, "", "x", "0", "1.5", "none", "é", "x" * 300, "a b",
    "../x", "{split}", (), (1,), (0, 0), (1, 2), (2, 1), (0.5, 0.5), (-1, 1), (1, 2, 3),
    (float("nan"), 1.0), (1.0, float("inf")), (0.1, 0.2, 0.3, 0.4), ("a",), ("a", "b"),
    ((1, 2), 3), (None,), {}, {"a": 1}, {"a": {"b": 2}}, {"weight": 1.0}, {"type": "x"},
    {"steps": 3, "lr": 0.1}, {"type": "shapes"}, {"a": None}, {"": 1},
]  # fmt: skip
WORDS = [
    "", " ", "x", "é∂", "x" * 400, "a b", "../x", "./x", "~", "*", "?", "[", "[a",
    "a:b",
    ":", "::", "a:", ":a", "a:b:c", "=", "a=", "=a", ",", "a,b", ",,", "-", "--", "-1",
    "0", "1", "-0", "1.5", "nan", "inf", "1e9", "9" * 25, "0x10", "١", "None", "True",
    "none.png", "photos", "photos/a.jpg", "prompt.png", "mask.png", "coco.json",
    "empty",
    "data", "clip.mp4", "model", "text.txt", "gs://x/y", "http://127.0.0.1:9/x",
    "file:///x", "/dev/null", "/dev/null/x", "/proc/self/x", "photos/a.jpg/x", "{}",
    "%05d", "%s", "\n", "a\nb", "\t", "\x7f", "con", ".", "..", "tuned.safetensors",
    "auto", "auto:1", "auto:0", "auto:9", "auto:x", "auto:1:score", "auto:1:similarity",
    "auto:1:x", "photos:masks", "data:data", "photos:coco.json", "prompt.png:coco.json",
    "prompt.png:mask.png", "1=cat", "1=cat,2=dog", "cat", "cat,dog", "0,0,9,9",
    "5,5,20,20", "9,9,+", "1,1,-", "mini", "shapes", "BAAI/x@y", "segments", "overlay",
    "coco-json", "yolo", "table", "category", "instance", "feature", "float32",
]  # fmt: skip


def value(rng: np.random.Generator) -> Any:
    return VALUES[rng.integers(len(VALUES))]


def number(rng: np.random.Generator) -> Any:
    return NUMBERS[rng.integers(len(NUMBERS))]


def word(rng: np.random.Generator) -> str:
    return WORDS[rng.integers(len(WORDS))]


def in_json(rng: np.random.Generator) -> Any:
    """A value as JSON gives it."""
    return json.loads(json.dumps(value(rng)))
