"""How well the training pairs themselves are painted: what a model has memorised.

A model that cannot fit a handful of fixed pairs (`configs/vitl.py:overfit`) has a bug.
"""

from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np

from seggpt_jax import canvas, colors
from seggpt_jax.evaluators import common
from seggpt_jax.evaluators.common import Episode
from seggpt_jax.metrics import EpisodeIoU, episode_iou
from seggpt_jax.sheets import Row, contact_sheet

_HEADINGS = ("prompt", "target", "query", "truth", "painting", "decoded")


class Evaluator:
    """Paints the query halves of the first `count` pairs of the training mixture.

    dataset: pairs as data.context makes them, by index. `run(params)` yields
    `<name>/episode_miou`: the mean over pairs of the mean IoU over the pair's colours.
    """

    def __init__(
        self,
        predict_fn: Callable[..., jax.Array],
        *,
        name: str,
        size: tuple[int, int],
        dataset: Any,
        count: int,
        batch_size: int,
        put: Callable[[Any], Any] = jax.device_put,
    ):
        if count < 1 or batch_size < 1:
            raise ValueError(f"count {count} and batch_size {batch_size} must be >= 1")
        self._predict_fn, self._put, self._name = predict_fn, put, name
        self._dataset, self._count, self._batch_size = dataset, count, batch_size
        self._rows: list[Row] = []

    def run(self, params: Any) -> Iterator[tuple[str, float]]:
        """Evaluates; yields `(name, value)`."""
        self._rows, score = [], EpisodeIoU()
        episodes = (_episode(self._dataset[i]) for i in range(self._count))
        for batch in common.batched(episodes, self._batch_size):
            inputs = self._put(common.stack(batch, 1, self._batch_size))
            paintings = common.fetch(self._predict_fn(params, *inputs))
            for episode, painting in zip(batch, paintings, strict=False):
                decoded = colors.decode(painting, episode.palette)
                score.update(decoded, episode.truth, episode.ignore)
                self._rows.append(_row(episode, painting, decoded))
        for key, value in score.compute().items():
            yield f"{self._name}/{key}", value

    def sheet(self, count: int) -> np.ndarray:
        """Contact sheet uint8 `[H, W, 3]` of the last run's first `count` pairs."""
        return contact_sheet(self._rows[:count], _HEADINGS)


def _episode(pair: dict[str, Any]) -> Episode:
    """A pair as an episode; its palette is read off what is painted in the query."""
    prompt, query = canvas.split(pair["images"])
    target, truth = canvas.split(pair["targets"])
    rows = len(query)
    painted = np.unique(truth[pair["foreground"][rows:]], axis=0)
    palette = np.concatenate([np.array([colors.BLACK], np.uint8), painted])
    return Episode(
        images=prompt[None],
        targets=target[None],
        query=query,
        truth=colors.decode(truth.astype(np.float32), palette),
        ignore=~pair["valid"][rows:],
        palette=palette,
        kind=int(pair["kind"]),
        class_ids=tuple(range(1, len(palette))),
        source="pair",
        records=(int(pair["record"]),),
    )


def _row(episode: Episode, painting: np.ndarray, decoded: np.ndarray) -> Row:
    iou = episode_iou(decoded, episode.truth, episode.ignore)
    truth, answer = episode.palette[episode.truth], episode.palette[decoded]
    prompt = episode.images[0], episode.targets[0]
    cells = (*prompt, episode.query, truth, painting, answer)
    return Row(cells, f"record {episode.records[0]}   IoU {iou:.2f}")
