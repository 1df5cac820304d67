"""Few-shot segmentation in episodes: right prompts, wrong prompts and baselines.

A model that ignores its prompts can still score, so every episode is answered four
times: with its own prompts; with wrong ones, which show other classes in the same
colours; by copying the prompts' masks; and by the prompts' colours (`baselines`).
"""

import collections
import functools
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import numpy as np

from seggpt_jax import colors
from seggpt_jax.data.sample import Source
from seggpt_jax.evaluators import baselines, common
from seggpt_jax.evaluators.common import Episode, Scores
from seggpt_jax.evaluators.episodes import Episodes, at_least
from seggpt_jax.evaluators.hsnet import HsnetEpisodes
from seggpt_jax.metrics import FewShotIoU, episode_iou
from seggpt_jax.sheets import Row, contact_sheet

_GREY = 128  # ignored pixels of a truth in pictures
_HEADINGS = ("prompt", "target", "query", "truth", "painting", "decoded")
_ARMS = ("", "wrong", "copy", "color")  # the right prompts need no name


class Evaluator:
    """Scores of `predict_fn` on the first `episodes` of `Episodes`.

    predict_fn(params, images, targets, queries, kind) -> painting `[b, h, w, 3]`; its
    inputs are those of `common.stack`, as `put` placed them. The painting must be
    readable on this process: addressable, or replicated when there are several.

    `run(params)` yields `<name>/<k>shot/<score>` for every k of `shots`, the scores
    being `miou`, `fbiou` and `episode_miou` of `metrics`; then `.../wrong/<score>`,
    `.../copy/...` and `.../color/...`; then the same for each task,
    `<name>/<k>shot/<task>/...`. k-shot takes the first k prompts of the same episodes.
    All is scored at `size`. The batch size and the devices change no score.

    protocol: episodes as HSNet draws them (`hsnet.PROTOCOLS`) instead.
    put: places a tuple of host arrays with a leading batch axis on the devices.
    pictures: episodes kept for `sheet`. threads: that decode, ahead of the devices.
    """

    def __init__(
        self,
        predict_fn: Callable[..., jax.Array],
        *,
        name: str,
        source: Source,
        size: tuple[int, int],
        episodes: int,
        batch_size: int,
        shots: Sequence[int] = (1,),
        seed: int = 0,
        max_classes: int = 1,
        min_pixels: int = 16,
        min_distance: float = 150.0,
        wrong_sources: Sequence[Source] = (),
        tasks: Sequence[str] | None = None,
        protocol: str = "",
        put: Callable[[Any], Any] = jax.device_put,
        pictures: int = 8,
        threads: int = 4,
    ):
        if not shots or len(set(shots)) != len(shots):
            raise ValueError(f"shots is {shots}, must list one or more, each once")
        at_least(1, shots=min(shots), batch_size=batch_size, threads=threads)
        drawn = (
            source, size, max(shots), seed, max_classes, min_pixels, min_distance,
            wrong_sources, tasks,
        )  # fmt: skip
        if protocol and len(shots) > 1:
            raise ValueError(f"shots is {shots}: a protocol takes one number")
        self._episodes = (
            HsnetEpisodes(*drawn, protocol, episodes) if protocol else Episodes(*drawn)
        )
        at_least(len(self._episodes.pools), episodes=episodes)
        for task in range(len(self._episodes.pools)):
            self._episodes.draw(task)  # what cannot be drawn is said before training
        self._predict_fn, self._put = predict_fn, put
        self._name, self._count, self._batch_size = name, episodes, batch_size
        self._shots, self._seed = tuple(shots), seed
        self._pictures, self._threads = pictures, threads
        pools = self._episodes.pools
        # An index per class; all instances of a task are one class, as their numbers
        # mean nothing across images.
        keys = [(t, c) for t, p in pools.items() for c in p.classes or (None,)]
        self._index = {key: index for index, key in enumerate(keys)}
        self._baselines: dict[tuple[int, str, str], Scores] | None = None
        self._rows: list[Row] = []

    def run(self, params: Any) -> Iterator[tuple[str, float]]:
        """Evaluates; yields `(name, value)`. A value without any evidence is nan."""
        self._rows = []
        scores = collections.defaultdict(
            lambda: Scores(FewShotIoU(len(self._index))), self._baselines or {}
        )
        drawn = common.prefetch(
            self._draw, range(self._count), self._threads, 2 * self._batch_size
        )
        waiting: list[tuple[list, dict]] = []
        for batch in common.batched(drawn, self._batch_size):
            waiting.append((batch, self._launch(params, batch)))
            if len(waiting) > 1:  # The devices work on the newest batch meanwhile.
                self._score(scores, *waiting.pop(0))
        self._score(scores, *waiting.pop())
        self._baselines = {k: v for k, v in scores.items() if k[1] in ("copy", "color")}
        tasks = list(self._episodes.pools)
        for shots in self._shots:
            for part in dict.fromkeys(["", *tasks]):
                for arm in _ARMS:
                    parts = [scores[shots, arm, t] for t in tasks if part in ("", t)]
                    whole = functools.reduce(Scores.merge, parts)
                    place = (self._name, f"{shots}shot", part, arm)
                    for key, value in whole.compute().items():
                        yield "/".join(filter(None, (*place, key))), value

    def sheet(self, count: int) -> np.ndarray:
        """Contact sheet uint8 `[H, W, 3]` of the last run: its first `count` episodes
        (at most `pictures`), the same ones after every run, at the fewest shots."""
        if not self._rows:
            raise ValueError(f"evaluator {self._name!r} has no pictures: run it first")
        return contact_sheet(self._rows[:count], _HEADINGS)

    def _draw(self, index: int) -> tuple[Episode, Episode, dict]:
        """Runs in a thread: an episode, its wrong one, and what the baselines answer,
        once: it does not change while the model trains."""
        right, wrong = self._episodes.draw(index)
        answers = {}
        for shots in self._shots if self._baselines is None else ():
            rng = np.random.default_rng([self._seed, index, 2])
            answers[shots, "copy"] = baselines.copy(right, shots)
            answers[shots, "color"] = baselines.color(right, shots, rng)
        return right, wrong, answers

    def _launch(self, params, batch) -> dict[tuple[int, str], jax.Array]:
        launched = {}
        for shots in self._shots:
            for place, arm in enumerate(("", "wrong")):
                episodes = [drawn[place] for drawn in batch]
                inputs = common.stack(episodes, shots, self._batch_size)
                placed = self._put(inputs)
                launched[shots, arm] = self._predict_fn(params, *placed)
        return launched

    def _score(self, scores, batch, launched) -> None:
        paintings = {key: common.fetch(value) for key, value in launched.items()}
        for row, (episode, _, answers) in enumerate(batch):
            decoded = {
                key: colors.decode(painting[row], episode.palette)
                for key, painting in paintings.items()
            }
            named = bool(self._episodes.pools[episode.task].classes)
            indices = [
                self._index[episode.task, c if named else None]
                for c in episode.class_ids
            ]
            for (shots, arm), pred in (decoded | answers).items():
                scores[shots, arm, episode.task].update(pred, episode, indices)
            if len(self._rows) < self._pictures:
                key = min(self._shots), ""
                self._rows.append(self._row(episode, paintings[key][row], decoded[key]))

    def _row(self, episode: Episode, painting: np.ndarray, pred: np.ndarray) -> Row:
        names = [self._episodes.class_name(c) for c in episode.class_ids]
        iou = episode_iou(pred, episode.truth, episode.ignore)
        truth = episode.palette[episode.truth]
        truth[episode.ignore] = _GREY
        cells = (episode.images[0], episode.targets[0], episode.query, truth, painting)
        return Row(
            (*cells, episode.palette[pred]),
            f"{episode.source}: {', '.join(names)}   IoU {iou:.2f}",
        )
