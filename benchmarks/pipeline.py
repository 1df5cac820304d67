"""Training pairs per second of the data pipeline, as JSON lines.

    python -m benchmarks.pipeline --out benchmarks/results/pipeline.jsonl

Writes every data set of the paper in its owners' layout, with textured pictures of
640 x 480 (JPEG quality 90 where the owners have JPEGs) and masks, and its prepared
form; then runs everything training does before the device: read, decode, crop, flip,
jitter, recolour, stitch, hide, batch.
"""

import argparse
import gzip
import io
import resource
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
from PIL import Image

from benchmarks.rows import parse, report
from configs import common
from seggpt_jax.config import plain
from seggpt_jax.data import pipeline
from seggpt_jax.data.context import Context
from seggpt_jax.data.prepare import prepare
from seggpt_jax.data.sample import Source
from seggpt_jax.data.sources import make_layout, open_sources
from seggpt_jax.training.mixture import own_view, pop_views, split_weights
from seggpt_jax.training.settings import read_settings
from tests.support import miniatures


def write_data(raw: Path, prepared: Path, images: int, size: tuple[int, int]) -> None:
    """All sets, raw and prepared, with photographs' textures instead of noise."""
    miniatures.write_all(raw, size, images)
    rng = np.random.default_rng(0)
    scenes = [texture(size, rng) for _ in range(8)]
    for name in miniatures.SETS:
        layout = make_layout(name, {})
        source = open_sources({name: {"type": name, "split": "train"}}, raw)[name]
        catalog = source.store.catalog
        files = {catalog.entry(k).image for k in range(len(catalog))}
        for number, file in enumerate(sorted(files)):
            _paint(raw / name / file, scenes[number % len(scenes)])
        prepare(layout, raw / name, prepared / name, ["train"])


def _paint(path: Path, scene: np.ndarray) -> None:
    """Puts a scene in the place of a picture, of its size and format."""
    packed = path.suffix == ".gz"
    data = gzip.decompress(path.read_bytes()) if packed else path.read_bytes()
    with Image.open(io.BytesIO(data)) as old:
        size, form = old.size, old.format
    file = io.BytesIO()
    picture = Image.fromarray(scene)
    if picture.size != size:
        picture = picture.resize(size, Image.Resampling.BICUBIC)
    picture.save(file, form, **({"quality": 90} if form == "JPEG" else {}))
    data = file.getvalue()
    path.write_bytes(gzip.compress(data) if packed else data)


def texture(size: tuple[int, int], rng: np.random.Generator) -> np.ndarray:
    """Noise with amplitude falling as scale, like the spectrum of photographs."""
    total = np.zeros((*size, 3), np.float32)
    for cell in (2, 4, 8, 16, 32, 64, 128):
        coarse = rng.normal(0, 255, (size[0] // cell + 1, size[1] // cell + 1, 3))
        coarse = np.clip(coarse / 4 + 128, 0, 255).astype(np.uint8)
        layer = Image.fromarray(coarse).resize(size[::-1], Image.Resampling.BICUBIC)
        total += (np.asarray(layer, np.float32) - 128) * cell**0.5 / 8
    return np.clip(total + rng.uniform(64, 192, 3), 0, 255).astype(np.uint8)


def measure(dataset, batch_size: int, batches: int, **how: int) -> dict:
    """Pairs per second of wall time, and what this process spends on a pair."""
    iterator = pipeline.make_iterator(dataset, batch_size, prefetch=2, **how)
    for _ in range(4):  # fills the buffers, so that none of the batches counted is free
        next(iterator)
    wall, cpu = time.perf_counter(), time.process_time()
    for _ in range(batches):
        next(iterator)
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    iterator.close()
    pairs = batches * batch_size
    row = {
        "pairs_per_s": round(pairs / wall, 1),
        "cpu_ms_per_pair": round(1000 * cpu / pairs, 2),
    }
    if not how.get("workers"):  # the work of workers is not counted here
        row["pairs_per_s_per_core"] = round(pairs / cpu, 1)
    return row


def memory(dataset, batch_size: int, pairs: int) -> Iterator[dict]:
    """The process's memory, ten times over that many pairs."""
    iterator = pipeline.make_iterator(dataset, batch_size, threads=2, prefetch=2)
    for number in range(1, pairs // batch_size + 1):
        next(iterator)
        if number % (pairs // batch_size // 10) == 0:
            yield {"pairs": number * batch_size, "rss_mib": _resident()}
    iterator.close()


def _resident() -> int:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() >> 20


def make_mixture(data: Path, size: int) -> tuple[dict[str, Source], Mapping, Mapping]:
    """The paper's sources, their shares and what makes their pairs."""
    specs = plain(common.paper_sources())
    weights = {name: spec.pop("weight") for name, spec in specs.items()}
    views, base = pop_views(specs), read_settings(common.base())
    sources = open_sources(specs, data)
    groups = {
        name: {n: sources[n] for n in spec.get("members", {name: spec})}
        for name, spec in specs.items()
    }
    contexts = {
        name: Context(
            base.context, own_view(base.view, name, views.get(name, {})),
            size=(size, size),
        )
        for name in sources
    }  # fmt: skip
    return sources, split_weights(weights, groups, 1.0), contexts


def rows(args: argparse.Namespace) -> Iterator[dict]:
    with tempfile.TemporaryDirectory() as root:
        forms = {"raw": Path(root) / "raw", "prepared": Path(root) / "prepared"}
        write_data(*forms.values(), args.images, tuple(args.photo))
        for form, data in forms.items():
            where = {"benchmark": "pipeline", "size": args.size, "form": form}
            sources, shares, contexts = make_mixture(data, args.size)
            for name, source in sources.items():
                alone = pipeline.make_dataset([source], [1.0], contexts[name], seed=0)
                how = {"threads": 1}
                result = measure(alone, args.batch_size, args.batches, **how)
                yield {**where, "source": name, **how, **result}
            mixture = pipeline.make_dataset(
                list(sources.values()), [shares[name] for name in sources],
                Context(), seed=0, own=contexts,
            )  # fmt: skip
            where["source"] = "mixture"
            for how in ({"threads": 1}, {"threads": 2}, {"threads": 1, "workers": 2}):
                result = measure(mixture, args.batch_size, 3 * args.batches, **how)
                yield {**where, **how, **result}
            if form == "prepared" and args.memory_pairs:
                for row in memory(mixture, args.batch_size, args.memory_pairs):
                    yield {**where, **row}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", type=int, default=448, help="pixels of one image")
    parser.add_argument("--photo", type=int, nargs=2, default=(480, 640),
                        help="rows and columns of a picture on disk")  # fmt: skip
    parser.add_argument("--images", type=int, default=12, help="of each data set")
    parser.add_argument("--batch_size", type=int, default=8)
    parser.add_argument("--batches", type=int, default=20, help="counted per source")
    parser.add_argument("--memory_pairs", type=int, default=10_000)
    parser.add_argument("--out", type=Path, help="file that the rows are appended to")
    args = parse(parser)
    report("benchmarks.pipeline", rows(args), args.out)


if __name__ == "__main__":
    main()
