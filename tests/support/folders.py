"""A small indexed folder, written for tests."""

import numpy as np
from PIL import Image

from seggpt_jax.data.sources import open_sources

HEADER = "split\timage\tmask\twidth\theight\tclasses\n"
HEAD = "id\tname\timages\n"
CLASSES = HEAD + "1\tdog\t2\n2\tcat\t2\n3\towl\t0\n"
ROW = "train\ta.png\ta_mask.png\t9\t6\t1"
SIZE = (6, 9)  # h, w


def picture(mode="RGB", size=SIZE):
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (*size, 3)).astype(np.uint8)
    return Image.fromarray(pixels).convert(mode)


def mask_values():
    values = np.zeros(SIZE, np.uint8)
    values[:2], values[2:4], values[4, :3], values[5, 0] = 1, 2, 255, 77
    return values


def write(root, rows=None, classes=CLASSES, header=HEADER):
    root.mkdir(parents=True, exist_ok=True)
    if rows is None:
        rows = [
            "train\ta.png\ta_mask.png\t9\t6\t1,2",
            "train\ta.png\ta_mask.png\t9\t6\t",
            "val\ta.png\ta_mask.png\t9\t6\t2",
        ]
    (root / "index.tsv").write_text(header + "".join(row + "\n" for row in rows))
    (root / "classes.tsv").write_text(classes)
    picture().save(root / "a.png")
    Image.fromarray(mask_values()).save(root / "a_mask.png")
    return root


def indexed(root, split, **settings):
    """The set as a source of its folder's name."""
    spec = {"type": "indexed", "folder": root.name, "split": split, **settings}
    return open_sources({root.name: spec}, root.parent)[root.name]


def one(root, image, mask, classes=CLASSES, **settings):
    """The sample of a set of one row."""
    write(root, [f"train\t{image}\t{mask}\t9\t6\t1"], classes)
    return lambda: indexed(root, "train", **settings)[0]
