"""What it costs to open a data set of COCO's size, first and later, as JSON lines.

    python -m benchmarks.catalog --out benchmarks/results/catalog.jsonl

Writes a JSON like instances_train2017.json (118,287 images, 860,001 polygons of 24
corners, 514 MB) and as many empty image files, then opens it in processes of its own.
"""

import argparse
import json
import math
import random
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from benchmarks.rows import parse, report

CORNERS = 24
OPEN = """
import json, resource, sys, time
from seggpt_jax.data.sources import open_sources
memory = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
before, begin = memory(), time.perf_counter()
spec = {"type": "coco_instance", "split": "train"}
source = open_sources({"coco": spec}, sys.argv[1])["coco"]
row = {"open_s": round(time.perf_counter() - begin, 4), "records": len(source)}
begin, count = time.perf_counter(), 1000
for number in range(count):
    members = source.by_class[1 + number % 80]
    source.store.catalog.entry(int(members[number % len(members)]))
row["partner_us"] = round((time.perf_counter() - begin) / count * 1e6, 1)
print(json.dumps({**row, "peak_mib": memory(), "peak_before_mib": before}))
"""


def write_data(root: Path, images: int, objects: int) -> None:
    (root / "annotations").mkdir(parents=True)
    (root / "train2017").mkdir()
    rng = random.Random(0)
    names = [f"{k:012}.jpg" for k in range(images)]
    for name in names:
        (root / "train2017" / name).touch()
    with (root / "annotations/instances_train2017.json").open("w") as file:
        file.write('{"categories": ')
        json.dump([{"id": i, "name": f"class {i}"} for i in range(1, 81)], file)
        file.write(', "images": ')
        size = {"height": 480, "width": 640}
        json.dump(
            [{"id": k, "file_name": n, **size} for k, n in enumerate(names)], file
        )
        file.write(', "annotations": [')
        for number in range(objects):
            file.write(", " * (number > 0) + json.dumps(_object(number, images, rng)))
        file.write("]}")


def _object(number: int, images: int, rng: random.Random) -> dict:
    """A jagged disc, somewhere in one of the images."""
    x, y = rng.uniform(50, 590), rng.uniform(50, 430)
    radius, corners = rng.uniform(5, 50), []
    for k in range(CORNERS):
        far, turn = radius * rng.uniform(0.7, 1), 2 * math.pi * k / CORNERS
        corners += [x + far * math.cos(turn), y + far * math.sin(turn)]
    return {
        "id": number + 1,
        "image_id": number % images,
        "category_id": 1 + number % 80,
        "iscrowd": 0,
        "area": radius**2,
        "bbox": [x - radius, y - radius, 2 * radius, 2 * radius],
        "segmentation": [[round(c, 2) for c in corners]],
    }


def rows(args: argparse.Namespace) -> Iterator[dict]:
    with tempfile.TemporaryDirectory() as data:
        write_data(Path(data) / "coco_instance", args.images, args.objects)
        for time in ("first", "second", "third"):
            command = [sys.executable, "-c", OPEN, data]
            done = subprocess.run(command, stdout=subprocess.PIPE, check=True)
            row = {"benchmark": "catalog", "time": time, **json.loads(done.stdout)}
            yield {
                k: round(v, 4) if isinstance(v, float) else v for k, v in row.items()
            }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=118_287)
    parser.add_argument("--objects", type=int, default=860_001)
    parser.add_argument("--out", type=Path, help="file that the rows are appended to")
    args = parse(parser)
    report("benchmarks.catalog", rows(args), args.out)


if __name__ == "__main__":
    main()
