"""Objects as the text that YOLO trains on: ultralytics' format of segmentation."""

from collections.abc import Iterable

import numpy as np

from seggpt_jax.results import outlines
from seggpt_jax.results.categories import Categories
from seggpt_jax.results.objects import Object

FILE = "classes.txt"


def lines(
    objects: Iterable[Object], size: tuple[int, int], categories: Categories
) -> str:
    """A line for each object of an image of size (h, w): the number of its class, and
    x and y of the corners of one polygon, 0..1. The polygons of an object in several
    parts are joined to its longest (`outlines.join`), as ultralytics joins them."""
    scale = np.array(size[::-1], np.float64)
    text = ""
    for each in objects:
        base, *others = sorted(each.polygons, key=len, reverse=True)
        points = (outlines.join(base, others) / scale).ravel()
        shares = " ".join(f"{share:.6g}" for share in points)
        text += f"{categories.place(each.label)} {shares}\n"
    return text


def class_list(categories: Categories) -> str:
    """A line for each class: its name. The first is class 0."""
    return "".join(f"{name}\n" for name in categories.names.values())
