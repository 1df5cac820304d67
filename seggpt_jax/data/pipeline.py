"""Mixture of sources -> batches, by grain, which no other module imports.

The position of the stream is the training step: `make_iterator` at a step gives the
very batches that an uninterrupted run gives from there on, with any number of threads,
workers and hosts.
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
from seggpt_jax.data.context import NothingToAsk
from seggpt_jax.data.sample import BadRecord, Source

_MAX_LISTED = 100  # of the bad records in the error that stops a run
_MAX_REDRAWS = 20  # in a row: a source that yields nothing must not hang the run

# What makes a pair of a record, as `data.context` describes it.
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
    """The endless mixture of pairs, as `make_pair` makes them, plus `source`: int32,
    the place in `sources`.

    own: source name -> what makes its pairs instead of `make_pair`.

    Each source is shuffled anew every epoch, by `seed` and its own name: adding a
    source leaves the order of the others alone. Weights are relative, and 0 leaves a
    source out; grain takes turns in exact proportion, it does not draw. Unreadable
    records are replaced by others of the source and named in the log; more than max(1,
    `bad_share` of a source) distinct ones, counted per process, stop the run.
    """
    shares = _check(sources, weights, bad_share)
    streams = []
    for number, source in enumerate(sources):
        if not shares[number]:
            continue
        order, pairs = _seeds(seed, source.name)
        stream = grain.MapDataset.range(len(source)).shuffle(seed=order).repeat()
        make = (own or {}).get(source.name, make_pair)
        streams.append(
            stream.random_map(_Pairs(source, number, make, bad_share), seed=pairs)
        )
    return grain.MapDataset.mix(streams, weights=[share for share in shares if share])


def in_turn(
    datasets: Sequence[grain.MapDataset], ends: Sequence[int]
) -> grain.MapDataset:
    """One endless dataset after the other; `ends`: the place where each but the last
    hands over."""
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
    """Batches of `batch_size`, from `start_step` on.

    rows: which rows of each of them this host feeds, all unless given. What a row shows
    does not depend on how rows are shared out.
    prefetch: batches made ahead, by `threads` threads, one batch each; with `workers`,
    that many processes do so instead, and each has the threads and the batches ahead.
    Workers are spawned: a script that has them needs `if __name__ == "__main__"`. The
    iterator has `close()`, which ends threads and workers.
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
    """Index -> pair, for one source; replaces records of which none can be made."""

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
                return {**pair, "source": np.int32(self.number)}
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
        """Logs a bad record once and stops the run at too many. The messages that are
        kept are as many as the limit, so memory is bounded."""
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
    if not 0 <= bad_share <= 1:
        raise ValueError(f"bad_share={bad_share}: must be in [0, 1]")
    return [weight / math.fsum(weights) for weight in weights]


def _seeds(seed: int | str, name: str) -> tuple[int, int]:
    """Two 32-bit seeds out of `seed` and a name; `hash()` differs from run to run."""
    digest = hashlib.sha256(f"{seed}/{name}".encode()).digest()
    return int.from_bytes(digest[:4], "big"), int.from_bytes(digest[4:8], "big")
