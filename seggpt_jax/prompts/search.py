"""Chooses prompts from many candidates: the candidates that look like the query, or the
candidates that do best as prompts of the other candidates.

The paper's supplementary asks what makes a good example. Both ways take the model as
functions, and hold no parameters.
"""

from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

import numpy as np

from seggpt_jax import colors
from seggpt_jax.config import suggest
from seggpt_jax.metrics import episode_iou, mean_known
from seggpt_jax.prompts.read import Prompts

WAYS = ("score", "similarity")


class Functions(NamedTuple):
    """A model with its parameters; images and targets are ImageNet-normalised.

    features: `(images [b, h, w, 3], kind [b]) -> [b, c]`. encode: `(images
    [1, p, h, w, 3], targets, kind [1]) -> prompts`. paint: `(prompts, queries
    [b, h, w, 3]) -> colours float [b, h, w, 3]`. Features and colours are NumPy arrays.
    """

    features: Callable[..., np.ndarray]
    encode: Callable[..., Any]
    paint: Callable[..., np.ndarray]


class Choice(NamedTuple):
    """Places among the candidates, best first, and the score of each."""

    places: tuple[int, ...]
    scores: tuple[float, ...]


def bind(engine: Any, ensemble: str, params: Any) -> Functions:
    """The functions of an engine (`predict.Engine`), with these parameters."""
    encode, paint = engine.prompt_fns(ensemble)
    put = engine.put_everywhere
    return Functions(
        lambda *shown: engine.features(params, *shown),
        lambda *shown: encode(params, *put(shown)),
        lambda prompts, queries: engine.fetch(paint(params, prompts, put(queries))),
    )


def check(by: str, count: int, candidates: int) -> None:
    """Refuses an impossible search."""
    if by not in WAYS:
        raise ValueError(f"by {by!r} is unknown{suggest(by, WAYS)}")
    if not 1 <= count <= candidates:
        raise ValueError(
            f"count is {count}, must be 1 to {candidates}, the number of candidates"
        )
    if by == "score" and candidates < 2:
        raise ValueError("by 'score' needs 2 candidates or more, to try on each other")


def best(scores: np.ndarray, count: int) -> Choice:
    """The `count` highest of scores `[n]`; of ties the lower place, nan last.

    Each candidate is scored alone. Trying whole sets gives better prompts, at a cost
    that grows with the size of the set (docs/notes/choosing-prompts.md).
    """
    known = np.where(np.isnan(scores), -np.inf, scores)
    places = np.argsort(-known, kind="stable")[:count]
    return Choice(tuple(places.tolist()), tuple(float(scores[i]) for i in places))


def similar(query: np.ndarray, candidates: np.ndarray, count: int) -> Choice:
    """The `count` of features `[n, c]` nearest to those of a query `[c]`, by the cosine
    of their angle."""
    lengths = np.linalg.norm(candidates, axis=1) * np.linalg.norm(query)
    # Rounded to float32's accuracy: equal images tie, whatever the order of their sums.
    cosines = np.round(candidates @ query / np.maximum(lengths, 1e-12), 6)
    return best(cosines, count)


def features(functions: Functions, images, kind, batch_size: int) -> np.ndarray:
    """Features `[n, c]` of images `[n, h, w, 3]` of a kind `[1]`."""
    size = min(batch_size, len(images))
    parts = [
        functions.features(rows, np.repeat(kind, size))[:count]
        for count, rows in _batches(images, size)
    ]
    return np.concatenate(parts)


def leave_one_out(
    functions: Functions,
    candidates: Prompts,
    batch_size: int,
    show: Callable[[Iterable[int]], Iterable[int]] = iter,
) -> np.ndarray:
    """Scores `[n]` of n candidates. Each candidate in turn is the only prompt of all
    others; its score is the mean of their IoUs. Each is encoded once. show: wraps the
    numbers of the candidates, as a bar does."""
    truths = candidates.decoded()
    scores = np.full(len(truths), np.nan)
    for i in show(range(len(scores))):
        own = np.s_[:, i : i + 1]
        prompts = functions.encode(
            candidates.images[own], candidates.targets[own], candidates.kind
        )
        others = np.delete(np.arange(len(scores)), i)
        size = min(batch_size, len(others))
        answers = (
            colors.decode(painting, candidates.palette)
            for count, rows in _batches(candidates.images[0, others], size)
            for painting in functions.paint(prompts, rows)[:count]
        )
        ious = [
            episode_iou(answer, truths[j])
            for j, answer in zip(others, answers, strict=True)
        ]
        scores[i] = mean_known(np.array(ious))
    return scores


def _batches(rows: np.ndarray, size: int) -> Iterator[tuple[int, np.ndarray]]:
    """Batches of one size, each with the number of its real rows: the last batch is
    filled up, so that one size is compiled."""
    for start in range(0, len(rows), size):
        batch = rows[start : start + size]
        filled = np.concatenate([batch, np.repeat(batch[-1:], size - len(batch), 0)])
        yield len(batch), filled
