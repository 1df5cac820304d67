"""Mixture of sources -> batches, by grain, which no other module imports.

The training step is the position in the stream. `make_iterator` from a step on gives
the very batches that an uninterrupted run gives from there on, with any number of
threads, workers and hosts.
"""

import dataclasses
import hashlib
import itertools
import logging
import math
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import grain
import numpy as np
from absl import flags

from seggpt_jax.config import shorten
from seggpt_jax.data.augment import check_share
from seggpt_jax.data.context import NothingToAsk
from seggpt_jax.data.sample import BadRecord, Source

_MAX_LISTED = 100  # of the bad records in the error that stops a run
_MAX_REDRAWS = 20  # in a row: a source that yields nothing must not hang the run

# Makes the pair of a record of a source, as `data.context.Context` does.
MakePair = Callable[[Any, int, np.random.Generator], Mapping[str, Any]]

logger = logging.getLogger(__name__)


def make_dataset(
    sources: Sequence[Source],
    weights: Sequence[float | int],
    make_pair: MakePair,
    seed: int | str,
    bad_share: float = 0.01,
    own: Mapping[str, MakePair] | None = None,
) -> grain.MapDataset:
    """The endless mixture of pairs, each with `source`: int32, the place in `sources`.

    weights: relative; a source of weight 0 is left out. Grain takes turns in exact
    proportion, it does not draw. own: source name -> the function that makes its pairs
    instead of `make_pair`. bad_share: unreadable records are named in the log, and
    another record of the source takes their place. More than max(1, `bad_share` of a
    source) different ones, counted per process, stop the run.

    Each source is shuffled anew every epoch, by `seed` and its own name. So a new
    source leaves the order of the others as it is.
    """
    shares = _check(sources, weights, bad_share)
    streams = []
    for number, source in enumerate(sources):
        if not shares[number]:
            continue
        order, pairs = _seeds(seed, source.name)
        # Indices of records, in another order every epoch, without end. The number of
        # an element seeds its generator: what a pair shows depends on nothing else.
        stream = grain.MapDataset.range(len(source)).shuffle(seed=order).repeat()
        make = (own or {}).get(source.name, make_pair)
        streams.append(
            stream.random_map(_Pairs(source, number, make, bad_share), seed=pairs)
        )
    return grain.MapDataset.mix(streams, weights=[share for share in shares if share])


def in_turn(
    datasets: Sequence[grain.MapDataset], ends: Sequence[int]
) -> grain.MapDataset:
    """One endless dataset after the other. ends: for each but the last the place in the
    stream where the next one begins."""
    if not ends:
        return datasets[0]
    bounds = itertools.pairwise([0, *ends, None])
    return grain.MapDataset.concatenate([
        dataset.slice(slice(*bound))
        for dataset, bound in zip(datasets, bounds, strict=True)
    ])  # fmt: skip


def make_iterator(
    dataset: grain.MapDataset,
    batch_size: int,
    start_step: int = 0,
    *,
    rows: Sequence[int] | None = None,
    threads: int = 2,
    workers: int = 0,
    prefetch: int = 2,
) -> Iterator[dict[str, np.ndarray]]:
    """Batches of `batch_size` pairs, from `start_step` on.

    rows: the rows of each batch that this host feeds; by default all. A row shows the
    same pair, whichever host feeds it. threads: make a batch each. prefetch: batches
    made ahead. workers: processes that make the batches instead, each with so many
    threads and batches ahead. They are spawned: a script that has them needs
    `if __name__ == "__main__"`.

    The iterator has `close()`, which ends threads and workers.
    """
    if batch_size < 1:
        raise ValueError(f"batch_size={batch_size}: must be >= 1")
    settings = {"threads": threads, "workers": workers, "prefetch": prefetch}
    for name, value in (settings | {"start_step": start_step}).items():
        if value < 0:
            raise ValueError(f"{name}={value}: must be >= 0")
    rows = range(batch_size) if rows is None else rows
    if not rows or not 0 <= min(rows) <= max(rows) < batch_size:
        raise ValueError(f"rows={list(rows)}: must be some in [0, {batch_size})")
    if len(rows) < batch_size:
        # The stream itself is that of all hosts, so their number changes no batch.
        own = _Rows(dataset, batch_size, tuple(rows))
        dataset = grain.MapDataset.range(sys.maxsize).map(own)
    multiprocessing = None
    if workers:
        multiprocessing = grain.MultiprocessingOptions(num_workers=workers)
        if not flags.FLAGS.is_parsed():  # grain reads flags; notebooks parse none
            flags.FLAGS.mark_as_parsed()
    iterator = iter(
        grain.experimental.ElasticIterator(
            dataset,
            len(rows),
            grain.sharding.ShardOptions(0, 1, drop_remainder=True),
            # Counted in batches. Grain's default, 500, would be tens of gigabytes.
            read_options=grain.ReadOptions(
                num_threads=threads, prefetch_buffer_size=prefetch
            ),
            multiprocessing_options=multiprocessing,
        )
    )
    iterator.set_state({"global_next_index": start_step * len(rows)})
    return iterator


def by_pair(dataset: grain.MapDataset, prompts: int) -> grain.MapDataset:
    """Pairs one after the other, of elements that hold `prompts` pairs of one query: so
    neighbours in a batch show one query, as the feature ensemble wants them."""
    if prompts == 1:
        return dataset
    return grain.MapDataset.range(sys.maxsize).map(_Unstacked(dataset, prompts))


class _Unstacked:
    """Place in a stream of pairs -> pair. The last element of each thread is kept: its
    pairs are asked for in turn."""

    def __init__(self, dataset: grain.MapDataset, prompts: int):
        self.dataset, self.prompts = dataset, prompts
        self.last = threading.local()

    def __reduce__(self):  # what a thread keeps stays in its process
        return _Unstacked, (self.dataset, self.prompts)

    def __call__(self, place: int) -> dict[str, np.ndarray]:
        number, row = divmod(int(place), self.prompts)
        if getattr(self.last, "number", None) != number:
            self.last.element, self.last.number = self.dataset[number], number
        return {name: values[row] for name, values in self.last.element.items()}


@dataclasses.dataclass(frozen=True)
class _Rows:
    """Place in the stream of one host -> pair: its own rows of every batch."""

    dataset: grain.MapDataset
    batch_size: int
    rows: tuple[int, ...]

    def __call__(self, place: int) -> Any:
        batch, row = divmod(int(place), len(self.rows))
        return self.dataset[batch * self.batch_size + self.rows[row]]


class _Pairs:
    """Index -> pair, for one source. Another record takes the place of one of which no
    pair can be made."""

    def __init__(
        self, source: Source, number: int, make_pair: MakePair, bad_share: float
    ):
        self.source, self.number, self.make_pair = source, number, make_pair
        self.bad_share = bad_share
        self.limit = max(1, int(bad_share * len(source)))
        self.bad: list[str] = []
        self.lock = threading.Lock()

    def __reduce__(self):  # every process counts for itself
        return _Pairs, (self.source, self.number, self.make_pair, self.bad_share)

    def __call__(self, index: int, rng: np.random.Generator) -> dict[str, Any]:
        for _ in range(_MAX_REDRAWS):
            try:
                pair = self.make_pair(self.source, int(index), rng)
                shape = np.shape(pair["record"])  # of a pair, or of several
                return {**pair, "source": np.full(shape, self.number, np.int32)[()]}
            except BadRecord as error:
                self._count(error)
                reason: ValueError = error
            except NothingToAsk as error:
                reason = error
            index = int(rng.integers(len(self.source)))
        raise ValueError(
            f"source {self.source.name}: {_MAX_REDRAWS} records in a row cannot be "
            f"used, the last: {reason}"
        )

    def _count(self, error: BadRecord) -> None:
        """Logs each bad record once, and stops the run at too many of them."""
        with self.lock:
            if str(error) in self.bad:
                return
            self.bad.append(str(error))
            count = len(self.bad)
        if count > self.limit:
            raise ValueError(
                f"source {self.source.name}: more than {self.limit} of "
                f"{len(self.source)} records are bad (bad_share): "
                f"{shorten(self.bad, _MAX_LISTED)}"
            )
        logger.warning("source %s: skipped bad record %d: %s (%d stop the run)",
                       self.source.name, count, error, self.limit + 1)  # fmt: skip


def _check(
    sources: Sequence[Source], weights: Sequence[float | int], bad_share: float
) -> list[float]:
    """Weights normalised to sum 1; a ValueError names the source that is wrong."""
    names = [source.name for source in sources]
    if not sources or len(sources) != len(weights):
        raise ValueError(
            f"need one weight for each source: weights={list(weights)}, sources={names}"
        )
    for name, weight, source in zip(names, weights, sources, strict=True):
        if names.count(name) > 1:
            raise ValueError(f"source {name}: the name is taken twice in {names}")
        if not (math.isfinite(weight) and weight >= 0):
            raise ValueError(f"source {name}: weight={weight} must be >= 0 and finite")
        if not len(source):
            raise ValueError(f"source {name} is empty")
    if not any(weights):
        raise ValueError(f"all weights are 0, of {names}")
    check_share("bad_share", bad_share)
    return [weight / math.fsum(weights) for weight in weights]


def _seeds(seed: int | str, name: str) -> tuple[int, int]:
    """Two 32-bit seeds, of the order and of the pairs, from `seed` and a name. Python's
    `hash()` would differ from run to run."""
    digest = hashlib.sha256(f"{seed}/{name}".encode()).digest()
    return int.from_bytes(digest[:4], "big"), int.from_bytes(digest[4:8], "big")
