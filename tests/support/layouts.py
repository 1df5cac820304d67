"""Miniatures of data sets, written for tests: pictures, masks and their folders."""

import json
from pathlib import Path

import numpy as np
from PIL import Image

from seggpt_jax.data.dataset import Dataset, Raw
from seggpt_jax.data.sample import CATEGORY, Sample
from seggpt_jax.data.sources import make_layout

SIZE = (24, 32)  # h, w


def photo(path: Path, number: int = 0, size=SIZE, mode="RGB") -> Path:
    """A picture with the number's own texture, in the format of the path's ending."""
    rng = np.random.default_rng(number)
    pixels = rng.integers(0, 256, (*size, 3)).astype(np.uint8)
    return save(path, Image.fromarray(pixels).convert(mode))


def mask(path: Path, values, mode="L", size=SIZE) -> Path:
    """A mask whose columns take the values in turn, as equal stripes."""
    picture = Image.fromarray(stripes(values, size).astype(np.uint8))
    if mode == "P":  # a palette of its own: without one Pillow renumbers the values
        picture.putpalette(np.random.default_rng(0).bytes(768))
    elif mode != "L":
        picture = picture.convert(mode)
    return save(path, picture)


def stripes(values, size=SIZE) -> np.ndarray:
    at = np.arange(size[1]) * len(values) // size[1]
    return np.broadcast_to(np.array(values)[at], size)


def labels(sample: Sample, count: int) -> list[int]:
    """The labels in the middles of so many stripes, in the middle row."""
    h, w = sample.segments.shape
    columns = [(2 * k + 1) * w // (2 * count) for k in range(count)]
    return sample.segments[h // 2, columns].tolist()


def save(path: Path, picture: Image.Image) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    picture.save(path)
    return path


def write_json(path: Path, data) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(data), encoding="utf-8")
    return path


def write_lines(path: Path, *lines: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def raw(kind: str, root: Path, split: str, /, **settings) -> Dataset:
    """The owners' files of a type as a source."""
    return Dataset(Raw(make_layout(kind, settings), root, split), kind)


def shown(source) -> dict[str, list[str]]:
    """Record id -> names of the classes that it shows, by the catalog."""
    catalog = source.store.catalog
    names = {
        catalog[i][0]: [
            n for k, n in catalog.names.items() if i in source.by_class.get(k, ())
        ]
        for i in range(len(source))
    }
    return names


def faults(source) -> dict[str, str]:
    """Record id -> why it is none."""
    return {s.id: s.reason for s in source.store.catalog.skipped if s.fault}


def agrees(source) -> None:
    """Every record reads, its image has its mask's size, and what a source of classes
    shows is what its catalog says."""
    for index in range(len(source)):
        sample = source[index]
        assert sample.image.shape[:2] == sample.segments.shape
        assert sample.image.dtype == np.uint8 and sample.segments.dtype == np.int32
        if sample.kind == CATEGORY:
            listed = {k for k, members in source.by_class.items() if index in members}
            assert set(sample.classes) == listed
