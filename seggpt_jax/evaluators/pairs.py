"""How well the training pairs themselves are painted: what a model has memorised.

A model that cannot fit a handful of fixed pairs (`configs/vitl.py:overfit`) has a bug.
"""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from seggpt_jax import canvas, colors
from seggpt_jax.evaluators import common
from seggpt_jax.evaluators.cases import Cases
from seggpt_jax.evaluators.common import Episode
from seggpt_jax.evaluators.episodes import at_least
from seggpt_jax.metrics import episode_iou, ratios
from seggpt_jax.pictures.sheets import Row


@dataclasses.dataclass(kw_only=True, eq=False)
class Evaluator(common.Evaluator):
    """Paints the query halves of the first `count` pairs of the training mixture, each
    a case.

    dataset() -> pairs as data.context makes them, by index. `run(params)` yields
    `<name>/episode_miou`: the mean over pairs of the mean IoU over the pair's colours.
    """

    needs = ("dataset",)
    headings = ("prompt", "target", "query", "truth", "painting", "decoded")

    count: int
    batch_size: int
    dataset: Callable[[], Any]

    def __post_init__(self) -> None:
        at_least(1, count=self.count, batch_size=self.batch_size)
        self._pairs = self.dataset()
        self._predict_fn = self.engine.predict_fn("none")  # there is one prompt

    def collect(self, params: Any, numbers: Sequence[int], cases: Cases) -> None:
        answers = self._answers(params, numbers)
        for number, answer in zip(numbers, answers, strict=True):
            cases.add(number, {"iou": _iou(*answer)})

    def scores(self, weights: np.ndarray) -> dict[str, np.ndarray]:
        values = np.array([record["iou"] for record in self.records])
        mean = ratios(weights @ values, weights.sum(1))
        return self.named({"episode_miou": mean})

    def ranked(self) -> list[int]:
        return common.best_first(record["iou"] for record in self.records)

    def rows(self, params: Any, numbers: Sequence[int]) -> list[Row]:
        return [_row(*answer) for answer in self._answers(params, numbers)]

    def _answers(self, params, numbers: Sequence[int]):
        """Episodes, their paintings and what these are decoded to."""

        def read(number: int) -> Episode:
            return _episode(self._pairs[number])

        reading = common.prefetch(read, numbers, threads=1, ahead=self.batch_size)
        for episodes in common.batched(reading, self.batch_size):
            inputs = self.engine.put(common.stack(episodes, 1, self.batch_size))
            paintings = self.engine.fetch(self._predict_fn(params, *inputs))
            for episode, painting in zip(episodes, paintings, strict=False):
                yield episode, painting, colors.decode(painting, episode.palette)


def _iou(episode: Episode, _, decoded: np.ndarray) -> float:
    return episode_iou(decoded, episode.truth, episode.ignore)


def _episode(pair: dict[str, Any]) -> Episode:
    """A pair as an episode; its palette is read off what is painted in the query."""
    prompt, query = canvas.split(pair["images"])
    target, truth = canvas.split(pair["targets"])
    rows = len(query)
    painted = np.unique(truth[pair["foreground"][rows:]], axis=0)
    palette = colors.with_black(painted)
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
    iou = _iou(episode, painting, decoded)
    truth, answer = episode.palette[episode.truth], episode.palette[decoded]
    prompt = episode.images[0], episode.targets[0]
    cells = (*prompt, episode.query, truth, painting, answer)
    return Row(cells, f"record {episode.records[0]}   IoU {iou:.2f}")
