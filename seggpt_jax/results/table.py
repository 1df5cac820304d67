"""Objects as a table of comma-separated values."""

import csv
import io
from collections.abc import Iterable, Sequence

from seggpt_jax.results.categories import Categories
from seggpt_jax.results.objects import Object
from seggpt_jax.runs.paths import AnyPath

FILE = "results.csv"
COLUMNS = ("image", "label", "name", "part", "area", "left", "top", "width", "height",
           "score")  # fmt: skip


def rows(
    source: str, objects: Iterable[Object], categories: Categories
) -> list[list[str]]:
    """A row for each object of an image; sizes in pixels, score 0..1. An image without
    objects has one row with its name alone."""
    found = [
        [source, each.label, categories.name(each.label), each.part or "", each.area,
         *each.box, f"{each.score:.6f}"]
        for each in objects
    ]  # fmt: skip
    found = found or [[source, *[""] * (len(COLUMNS) - 1)]]
    return [[str(cell) for cell in row] for row in found]


def text(rows: Iterable[Sequence[str]]) -> str:
    """The table, with its columns in the first line."""
    file = io.StringIO()
    csv.writer(file, lineterminator="\n").writerows([COLUMNS, *rows])
    return file.getvalue()


def read(path: AnyPath) -> list[list[str]]:
    """The rows of a table that an earlier run wrote; none without one. Raises
    ValueError for a file of another origin or a damaged one."""
    if not path.exists():
        return []
    try:
        head, *found = csv.reader(io.StringIO(path.read_text(encoding="utf-8")))
    except (ValueError, csv.Error):
        head, found = [], []
    if tuple(head) != COLUMNS or any(len(row) != len(COLUMNS) for row in found):
        raise ValueError(
            f"{path} is damaged, or of another program: move it away, or choose "
            "another --out"
        )
    return found


def join(
    old: Iterable[list[str]], new: Iterable[Sequence[list[str]]]
) -> list[list[str]]:
    """The rows of all images: those of `new`, a list for each image, take the place of
    older rows of the same image."""
    by_image: dict[str, list[list[str]]] = {}
    for row in old:
        by_image.setdefault(row[0], []).append(row)
    for rows in new:
        by_image[rows[0][0]] = list(rows)
    return [row for rows in by_image.values() for row in rows]
