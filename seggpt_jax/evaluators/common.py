"""Episodes, and how they pass through a model in batches of fixed size."""

import collections
import concurrent.futures
import dataclasses
import itertools
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import jax
import numpy as np

from seggpt_jax import colors, hosts
from seggpt_jax.metrics import episode_iou, intersection_and_union


@dataclasses.dataclass(frozen=True)
class Episode:
    """One query with its prompts and ground truth.

    images, targets: uint8 `[p, h, w, 3]`, the prompts. query: uint8 `[h, w, 3]`.
    truth: int32 `[h, w]` into palette, 0 background, j the j-th asked class. ignore:
    bool `[h, w]`, pixels not scored. palette: uint8 `[c + 1, 3]`, black first.
    class_ids: the asked classes, `[c]`, as the source numbers them. records: indices
    into `source` (a name), the query's first; those of the prompts follow.
    """

    images: np.ndarray
    targets: np.ndarray
    query: np.ndarray
    truth: np.ndarray
    ignore: np.ndarray
    palette: np.ndarray
    kind: int
    class_ids: tuple[int, ...]
    source: str
    records: tuple[int, ...]
    task: str = ""


def stack(
    episodes: Sequence[Episode], shots: int, batch_size: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """The inputs of a model: images and targets `[b, p, h, w, 3]`, queries
    `[b, h, w, 3]`, all ImageNet-normalised float32, and kind int32 `[b]`.

    A batch that is not full repeats its last episode: whoever reads the result keeps
    the first `len(episodes)` rows.
    """
    rows = [*episodes, *[episodes[-1]] * (batch_size - len(episodes))]
    return (
        colors.normalize(np.stack([e.images[:shots] for e in rows])),
        colors.normalize(np.stack([e.targets[:shots] for e in rows])),
        colors.normalize(np.stack([e.query for e in rows])),
        np.array([e.kind for e in rows], np.int32),
    )


def fetch(painting: jax.Array | np.ndarray) -> np.ndarray:
    """A painting `[..., 3]` from the device, as float32 colours, not clipped.

    Asked for by name: the train loop forbids implicit transfers.
    """
    return colors.denormalize(hosts.fetch(painting).astype(np.float32))


def tally(pred: np.ndarray, episode: Episode, classes: Sequence[int]) -> dict[str, Any]:
    """What an answer, labels int `[h, w]` into the episode's palette, adds to scores.

    classes: the index of each asked class among all that are scored. Returns `counts`,
    `metrics.intersection_and_union` of each class (of `sorted(set(classes))`), and
    `iou`, the episode's own (None of one that shows nothing).
    """
    counts = {index: np.zeros((2, 2), np.int64) for index in sorted(set(classes))}
    for label, index in enumerate(classes, start=1):
        counts[index] += intersection_and_union(
            pred == label, episode.truth == label, episode.ignore
        )
    iou = episode_iou(pred, episode.truth, episode.ignore)
    return {
        "counts": [count.tolist() for count in counts.values()],
        "iou": None if math.isnan(iou) else iou,
    }


def weighted(weights: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Counts `[e, ...]` of e cases, summed with weights `[n, e]`: `[n, ...]`. Sums of
    whole numbers are exact in float64, whatever the order."""
    rows = counts.reshape(len(counts), -1)
    return (weights @ rows).reshape(len(weights), *counts.shape[1:])


def check_classes(source: Any, prompts: Any) -> None:
    """Refuses prompts that are of other classes than what is scored."""
    if dict(source.class_names) != dict(prompts.class_names):
        raise ValueError(
            f"sources {source.name!r} and {prompts.name!r} have different classes"
        )


def prefetch(
    function: Callable[[int], Any], indices: Iterable[int], threads: int, ahead: int
) -> Iterator[Any]:
    """`map(function, indices)` in order, computed in `threads` threads, at most `ahead`
    results before they are asked for (they would fill the memory)."""
    indices = iter(indices)
    with concurrent.futures.ThreadPoolExecutor(threads) as pool:
        waiting = collections.deque(
            pool.submit(function, i) for i in itertools.islice(indices, ahead)
        )
        try:
            while waiting:
                result = waiting.popleft().result()
                waiting.extend(
                    pool.submit(function, i) for i in itertools.islice(indices, 1)
                )
                yield result
        finally:  # After an error, or when the caller stops early.
            pool.shutdown(wait=True, cancel_futures=True)


def batched(items: Iterable[Any], size: int) -> Iterator[list[Any]]:
    """Lists of `size` items in order; the last one may be shorter."""
    items = iter(items)
    while batch := list(itertools.islice(items, size)):
        yield batch
