"""The training records of a folder of sets, small enough to carry to another machine.

    python -m benchmarks.carry --data ../shared/data --out carried --side 160

Pictures are shrunk to a longest side of so many pixels, except those of sets of thin
things (configs/mini.py), whose lines would vanish, and every set is prepared:
ArrayRecord files, for `benchmarks/gpu_mini.sh`.
"""

import argparse
import csv
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from PIL import Image

from benchmarks.rows import parse, report
from configs import mini
from seggpt_jax.data.prepare import prepare
from seggpt_jax.data.sources import make_layout
from seggpt_jax.data.sources.indexed import CLASSES, INDEX, SETS

_SPLIT = "train"
_QUALITY = 90  # of JPEG


Table = list[dict[str, Any]]


def read_table(path: Path) -> tuple[list[str], Table]:
    """Columns and rows of a file with tabs between its values."""
    with path.open(newline="") as file:
        reader = csv.DictReader(file, delimiter="\t")
        return list(reader.fieldnames or ()), list(reader)


def write_table(path: Path, columns: list[str], rows: Table) -> None:
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, columns, delimiter="\t", lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def shrink(path: Path, new: Path, side: int) -> None:
    """Writes a picture of at most that side; a mask keeps its values and colours."""
    with Image.open(path) as picture:
        scale = side / max(picture.size)
        if scale >= 1:
            shutil.copyfile(path, new)
            return
        size = tuple(max(1, round(scale * n)) for n in picture.size)
        photo = picture.format == "JPEG"
        how = Image.Resampling.BOX if photo else Image.Resampling.NEAREST
        picture.resize(size, how).save(
            new, picture.format, **({"quality": _QUALITY} if photo else {})
        )


def shrink_set(folder: Path, new: Path, side: int) -> int:
    """The training records of an indexed set as another one; how many there are."""
    names, rows = read_table(folder / INDEX)
    rows = [row for row in rows if row["split"] == _SPLIT]
    for part in {row[part] for row in rows for part in ("image", "mask")} - {""}:
        (new / part).parent.mkdir(parents=True, exist_ok=True)
        shrink(folder / part, new / part, side)
    for row in rows:
        with Image.open(new / row["image"]) as picture:
            row["width"], row["height"] = picture.size
    if rows:
        shutil.copyfile(folder / CLASSES, new / CLASSES)
        write_table(new / INDEX, names, rows)
    return len(rows)


def rows(args: argparse.Namespace) -> Iterator[dict[str, Any]]:
    names, listed = read_table(args.data / SETS)
    carried, total = [], 0
    with tempfile.TemporaryDirectory() as root:
        # Beside the sets, so that each knows its kind.
        shutil.copyfile(args.data / SETS, Path(root) / SETS)
        for entry in listed:
            name = entry["set"]
            if not (args.data / name / INDEX).exists():
                continue
            side = 10**6 if name in mini.THIN else args.side
            small, out = Path(root) / name, args.out / name
            count = shrink_set(args.data / name, small, side)
            if count:
                prepare(make_layout("indexed", {}), small, out, [_SPLIT], quiet=True)
                found = sum(file.stat().st_size for file in out.rglob("*.*"))
                total += found
                carried.append(entry)
                yield {"benchmark": "carry", "set": name, "records": count,
                       "mib": round(found / 2**20, 2)}  # fmt: skip
    # What configs/mini.py excludes must be listed, to be no misspelt name.
    excluded = mini.get_config().sources.photos.exclude
    carried += [e for e in listed if e["set"] in excluded and e not in carried]
    write_table(args.out / SETS, names, carried)
    yield {"benchmark": "carry", "set": "all", "mib": round(total / 2**20, 2)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="folder of sets")
    parser.add_argument("--out", type=Path, required=True, help="for prepared sets")
    parser.add_argument("--side", type=int, default=160, help="longest, in pixels")
    args = parse(parser)
    report("benchmarks.carry", rows(args), None)


if __name__ == "__main__":
    main()
