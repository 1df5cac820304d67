"""The contract of evaluators: what each is given, what each offers, what they share."""

import abc
import collections
import concurrent.futures
import dataclasses
import functools
import itertools
import math
from collections.abc import (
    Callable,
    Generator,
    Iterable,
    Iterator,
    Mapping,
    Sequence,
)
from typing import Any, ClassVar, Protocol, TypeVar, cast, runtime_checkable

import numpy as np

from seggpt_jax import colors
from seggpt_jax.data.sample import require_whole
from seggpt_jax.evaluators.cases import Cases
from seggpt_jax.metrics import episode_iou, intersection_and_union
from seggpt_jax.pictures.sheets import Row
from seggpt_jax.runs import hosts

GREY = 128  # pixels that are not scored, in pictures
T = TypeVar("T")


@runtime_checkable
class Engine(Protocol):
    """A model on its devices, as evaluators are given it (`predict.Engine`).

    Images, targets and paintings of the functions are ImageNet-normalised float32, on
    the devices; parameters are their first argument.

    size: rows and columns of an image. parts: the number of devices that share the rows
    of a batch; the batch size must be a multiple of it. predict_fn(ensemble), as
    `predict.make_predict_fn`: `(params, images [b, p, h, w, 3], targets, queries
    [b, h, w, 3], kind [b]) -> painting [b, h, w, 3]`. prompt_fns(ensemble), as
    `predict.PredictFns`: the same in two steps, for prompts that serve many queries.
    track_fns(memory): `predict.TrackFns` that remember so many frames. features:
    `(params, images [b, h, w, 3], kind [b]) -> [b, c]`, to compare images by; its
    arrays are the host's. put: places host arrays, their rows shared out;
    put_everywhere: whole, on each device. fetch: a painting back on the host as float32
    colours 0..255, not clipped.
    """

    size: tuple[int, int]
    parts: int
    predict_fn: Callable[[str], Callable[..., Any]]
    prompt_fns: Callable[[str], tuple[Callable[..., Any], Callable[..., Any]]]
    track_fns: Callable[[int], Any]
    features: Callable[..., Any]
    put: Callable[[Any], Any]
    put_everywhere: Callable[[Any], Any]
    fetch: Callable[[Any], np.ndarray]


@dataclasses.dataclass(kw_only=True, eq=False)
class Evaluator(abc.ABC):
    """Scores a model on cases: episodes, images, videos or pairs.

    The evaluator of each type is a dataclass that derives from this class. Its further
    fields are the settings of that type in a config. name: the names of its scores
    begin with it. count: the number of cases, known after construction.

    needs: names of further fields, which are no settings: declare each. The builder
    (`evaluate`) gives them as functions without arguments: `dataset`, the training
    pairs; `prompts`, the source that the setting `prompts` describes; `wrong_sources`,
    other sources of the group. `source` is given for each of `sources`. headings: of
    the cells of `rows`.
    """

    needs: ClassVar[tuple[str, ...]] = ()
    headings: ClassVar[tuple[str, ...]]

    engine: Engine = dataclasses.field(kw_only=False)
    name: str
    count: int = dataclasses.field(init=False)
    rounds: int = dataclasses.field(init=False, default=1)  # records of a case
    records: list[Any] = dataclasses.field(init=False, default_factory=list)

    def __post_init__(self) -> None:
        """BadRecord for a source that lacks records of its split."""
        require_whole(getattr(self, "source", None))

    def run(
        self, params: Any, cases: Cases | None = None
    ) -> Iterator[tuple[str, float]]:
        """Evaluates the cases that are not in `cases` yet; yields `(name, value)`. A
        value without any evidence is nan."""
        cases = Cases() if cases is None else cases
        total = self.rounds * self.count
        self.collect(params, cases.left(total), cases)
        self.records = cases.records(total)
        for key, value in self.scores(np.ones((1, self.count))).items():
            yield key, float(value[0])

    def named(self, scores: Mapping[str, Any], *parts: str) -> dict[str, Any]:
        """Scores under `<name>/<parts>/<score>`; empty parts are left out."""
        place = "/".join(filter(None, (self.name, *parts)))
        return {f"{place}/{key}": value for key, value in scores.items()}

    @property
    def data(self) -> list[str]:
        """Digests of the sources that scores depend on, where these have any."""
        return digests(getattr(self, "source", None))

    @property
    def files(self) -> Mapping[str, str]:
        """Setting -> path of a file that scores depend on, such as a tuned prompt."""
        return {}

    @abc.abstractmethod
    def collect(self, params: Any, numbers: Sequence[int], cases: Cases) -> None:
        """Does the cases of these numbers, and adds a record of each to `cases`: the
        counts that its scores are made of, as plain data for JSON."""

    @abc.abstractmethod
    def scores(self, weights: np.ndarray) -> dict[str, np.ndarray]:
        """The scores of the last run `[n]`, case j counted `weights[:, j]` times; their
        names begin with the evaluator's."""

    @abc.abstractmethod
    def ranked(self) -> list[int]:
        """The cases of the last run that have a score of their own, best first."""

    @abc.abstractmethod
    def rows(self, params: Any, numbers: Sequence[int]) -> list[Row]:
        """Pictures of some cases, under `headings`."""


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
    rows = filled(episodes, batch_size)
    return (
        colors.normalize(np.stack([e.images[:shots] for e in rows])),
        colors.normalize(np.stack([e.targets[:shots] for e in rows])),
        colors.normalize(np.stack([e.query for e in rows])),
        np.array([e.kind for e in rows], np.int32),
    )


def tally(pred: np.ndarray, episode: Episode, classes: Sequence[int]) -> dict[str, Any]:
    """The counts of an answer, labels int `[h, w]` into the episode's palette.

    classes: the index of each asked class among all scored classes. Returns `counts`,
    `metrics.intersection_and_union` of each of `sorted(set(classes))`, and `iou`, the
    IoU of this episode alone (None where its truth shows nothing).
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


def class_areas_of(records: Sequence[Any], classes: int) -> np.ndarray:
    """`metrics.class_areas` of images that were kept as `areas`, `[n, c, 3]`."""
    areas = np.zeros((len(records), classes, 3))
    for row, record in enumerate(records):
        for label, values in record["areas"].items():
            areas[row, int(label)] = values
    return areas


def best_first(scores: Iterable[float | None]) -> list[int]:
    """The numbers of the cases that have a score (not None), the best case first."""
    known = {n: score for n, score in enumerate(scores) if score is not None}
    return sorted(known, key=lambda n: -known[n])


def ranked_by_pixels(records: Sequence[Any]) -> list[int]:
    """Images with scored pixels, best first, by the share of these that is right."""
    sums = [np.sum([[0, 0, 0], *record["areas"].values()], 0) for record in records]
    return best_first(right / shown if shown else None for right, shown, _ in sums)


def compared(
    pred: np.ndarray, truth: np.ndarray, ignore: np.ndarray, palette: np.ndarray
) -> tuple[np.ndarray, np.ndarray, str]:
    """Pictures of a truth and of an answer, places int `[h, w]` in a palette, and the
    share of the scored pixels that is right, in words."""
    shown = np.where(ignore[..., None], np.uint8(GREY), palette[truth])
    right = (pred == truth)[~ignore]
    share = right.mean() if right.size else np.nan
    return shown, palette[pred], f"{share:.2f} of pixels right"


def digests(*sources: Any) -> list[str]:
    """What tells the data of sources from other data, as of `Dataset.digest`."""
    found = (getattr(source, "digest", None) for source in sources)
    return [digest for digest in found if digest]


def check_classes(source: Any, prompts: Any) -> None:
    """Refuses a source of prompts whose classes are not the scored source's."""
    if dict(source.class_names) != dict(prompts.class_names):
        raise ValueError(
            f"sources {source.name!r} and {prompts.name!r} have different classes"
        )


def prefetch(
    function: Callable[[int], T], indices: Sequence[int], threads: int, ahead: int
) -> Iterator[T]:
    """`map(function, indices)` in order, computed in `threads` threads. At most `ahead`
    results wait to be asked for: more would fill the memory.

    Of several processes each computes its share of the results, and all have all of
    them (`hosts.deal`). So a record is read once, and every process must ask for the
    same ones."""
    work = functools.partial(_compute_ahead, function, threads, ahead)
    return hosts.deal(work, indices)


def _compute_ahead(
    function: Callable[[int], T], threads: int, ahead: int, items: Sequence[int]
) -> Generator[T, None, None]:
    indices = iter(items)
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


def filled(rows: Sequence[Any], batch_size: int) -> list[Any]:
    """The rows of a batch, filled up to `batch_size` with copies of the last row, so
    that one size is compiled."""
    return [*rows, *[rows[-1]] * (batch_size - len(rows))]


def behind(started: Iterable[T]) -> Iterator[T]:
    """The items in order, each one after the next has been started: the devices work
    on the next batch while the host scores this one."""
    for item, _ in itertools.pairwise(itertools.chain(started, [None])):
        yield cast(T, item)


def batched(items: Iterable[Any], size: int) -> Iterator[list[Any]]:
    """Lists of `size` items in order; the last one may be shorter."""
    items = iter(items)
    while batch := list(itertools.islice(items, size)):
        yield batch
