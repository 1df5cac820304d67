"""Training pairs per second of the data pipeline, as JSON lines.

    python -m benchmarks.pipeline --out benchmarks/results/pipeline.jsonl

Writes a folder of 640x480 JPEGs (quality 90: textured scenes with shapes) with PNG
masks, then runs everything training does before the device: decode, crop, flip, jitter,
recolour, stitch, hide, batch.
"""

import argparse
import resource
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from benchmarks.rows import report
from seggpt_jax.data import pipeline
from seggpt_jax.data.augment import View
from seggpt_jax.data.context import Context
from seggpt_jax.data.sample import CATEGORY, Sample

CLASSES = 8


class Folder:
    """Image and mask files of one folder, named by number."""

    name = "benchmark"
    class_names: Mapping[int, str] = {c: str(c) for c in range(1, CLASSES + 1)}
    by_class: Mapping[int, Sequence[int]]
    same_image_only = False

    def __init__(self, root: Path, count: int):
        self.root, self.count = root, count
        present = [self[index].classes for index in range(count)]
        self.by_class = {
            c: [k for k in range(count) if c in present[k]] for c in self.class_names
        }

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> Sample:
        image = np.asarray(Image.open(self.root / f"{index}.jpg").convert("RGB"))
        mask = np.asarray(Image.open(self.root / f"{index}.png"))
        classes = np.flatnonzero(np.bincount(mask.ravel(), minlength=256)[1:255]) + 1
        return Sample(image, mask.astype(np.int32), CATEGORY, tuple(classes.tolist()))


def write_scene(path: Path, rng: np.random.Generator) -> None:
    """A textured background with 3 to 6 textured ellipses, and their mask."""
    size = (480, 640)
    image = texture(size, rng)
    mask = np.zeros(size, np.uint8)
    y, x = np.mgrid[: size[0], : size[1]]
    for _ in range(rng.integers(3, 7)):
        cy, cx = rng.uniform(0, size[0]), rng.uniform(0, size[1])
        ry, rx = rng.uniform(40, 160, 2)
        inside = ((y - cy) / ry) ** 2 + ((x - cx) / rx) ** 2 < 1
        image[inside] = texture(size, rng)[inside]
        mask[inside] = rng.integers(1, CLASSES + 1)
    Image.fromarray(image).save(path.with_suffix(".jpg"), quality=90)
    Image.fromarray(mask).save(path.with_suffix(".png"))


def texture(size: tuple[int, int], rng: np.random.Generator) -> np.ndarray:
    """Noise with amplitude falling as scale, like the spectrum of photographs."""
    total = np.zeros((*size, 3), np.float32)
    for cell in (2, 4, 8, 16, 32, 64, 128):
        coarse = rng.normal(0, 255, (size[0] // cell + 1, size[1] // cell + 1, 3))
        coarse = np.clip(coarse / 4 + 128, 0, 255).astype(np.uint8)
        layer = Image.fromarray(coarse).resize(size[::-1], Image.Resampling.BICUBIC)
        total += (np.asarray(layer, np.float32) - 128) * cell**0.5 / 8
    return np.clip(total + rng.uniform(64, 192, 3), 0, 255).astype(np.uint8)


def measure(
    source: Folder, context: Context, batch_size: int, batches: int, **how: int
) -> dict:
    """Pairs per second of wall time, and per second of CPU time of this process."""
    dataset = pipeline.make_dataset([source], [1.0], context, seed=0)
    iterator = pipeline.make_iterator(dataset, batch_size, prefetch=2, **how)
    for _ in range(4):  # fills the buffers, so that none of the batches counted is free
        next(iterator)
    wall, cpu = time.perf_counter(), time.process_time()
    for _ in range(batches):
        next(iterator)
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    iterator.close()  # type: ignore[attr-defined]
    pairs = batches * batch_size
    row = {"pairs_per_s": round(pairs / wall, 1)}
    if not how.get("workers"):
        row["cpu_ms_per_pair"] = round(1000 * cpu / pairs, 1)
        row["pairs_per_s_per_core"] = round(pairs / cpu, 1)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return row | {"peak_mib": round(peak)}


def rows(args: argparse.Namespace) -> Iterator[dict]:
    context = Context(view=View(size=(args.size, args.size)))
    ways = [{"threads": 1}, {"threads": 2}, {"threads": 1, "workers": 2}]
    with tempfile.TemporaryDirectory() as root:
        rng = np.random.default_rng(0)
        for index in range(args.images):
            write_scene(Path(root) / str(index), rng)
        source = Folder(Path(root), args.images)
        for how in ways:
            result = measure(source, context, args.batch_size, args.batches, **how)
            yield {"benchmark": "pipeline", "size": args.size, **how, **result}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", type=int, default=448, help="pixels of one image")
    parser.add_argument("--images", type=int, default=64)
    parser.add_argument("--batch_size", type=int, default=8)
    parser.add_argument("--batches", type=int, default=40, help="counted per row")
    parser.add_argument("--out", type=Path, help="file that the rows are appended to")
    args = parser.parse_args()
    report("benchmarks.pipeline", rows(args), args.out)


if __name__ == "__main__":
    main()
