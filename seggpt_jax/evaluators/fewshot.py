"""Few-shot segmentation in episodes: right prompts, wrong prompts and baselines.

A model that ignores its prompts can still score, so every episode is answered four
times: with its own prompts; with wrong ones, which show other classes in the same
colours; by copying the prompts' masks; and by the prompts' colours (`baselines`).
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import jax
import numpy as np

from seggpt_jax import colors
from seggpt_jax.data.sample import Source
from seggpt_jax.evaluators import baselines, common
from seggpt_jax.evaluators import pool as candidates
from seggpt_jax.evaluators.cases import Cases
from seggpt_jax.evaluators.common import Episode
from seggpt_jax.evaluators.episodes import Episodes, at_least
from seggpt_jax.evaluators.hsnet import HsnetEpisodes
from seggpt_jax.metrics import episode_iou, fewshot_scores, ratios
from seggpt_jax.search import Functions
from seggpt_jax.sheets import Row

_GREY = 128  # ignored pixels of a truth in pictures
_ARMS = ("", "wrong", "copy", "color")  # the right prompts need no name


class Evaluator:
    """Scores of `predict_fn` on the first `episodes` of `Episodes`, a case each.

    predict_fn(params, images, targets, queries, kind) -> painting `[b, h, w, 3]`; its
    inputs are those of `common.stack`, as `put` placed them. The painting must be
    readable on this process: addressable, or replicated when there are several.

    `run(params)` yields `<name>/<k>shot/<score>` for every k of `shots`, the scores
    being `miou`, `fbiou` and `episode_miou` of `metrics`; then `.../wrong/<score>`,
    `.../copy/...` and `.../color/...`; then the same for each task,
    `<name>/<k>shot/<task>/...`. k-shot takes the first k prompts of the same episodes.
    All is scored at `size`. The batch size and the devices change no score.

    protocol: episodes as HSNet draws them (`hsnet.PROTOCOLS`) instead. search: the
    prompts are the best of `pool` candidates, by `search.WAYS`; "none": the first ones.
    make_search(params) -> `search.Functions`, for a search.
    put: places a tuple of host arrays with a leading batch axis on the devices.
    threads: that decode, ahead of the devices.
    """

    headings = ("prompt", "target", "query", "truth", "painting", "decoded")

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
        search: str = "none",
        pool: int = 0,
        make_search: Callable[[Any], Functions] | None = None,
        put: Callable[[Any], Any] = jax.device_put,
        threads: int = 4,
    ):
        if not shots or len(set(shots)) != len(shots):
            raise ValueError(f"shots is {shots}, must list one or more, each once")
        at_least(1, shots=min(shots), batch_size=batch_size, threads=threads)
        candidates.check(search, pool, max(shots))
        if search != "none" and (protocol or make_search is None):
            raise ValueError(f"search {search!r} goes neither with a protocol, whose "
                             "prompts are given, nor without functions")  # fmt: skip
        shown = max(shots) if search == "none" else pool
        drawn = (
            source, size, shown, seed, max_classes, min_pixels, min_distance,
            wrong_sources, tasks,
        )  # fmt: skip
        if protocol and len(shots) > 1:
            raise ValueError(f"shots is {shots}: a protocol takes one number")
        self._episodes = (
            HsnetEpisodes(*drawn, protocol, episodes) if protocol else Episodes(*drawn)
        )
        at_least(len(self._episodes.drawables), episodes=episodes)
        for task in range(len(self._episodes.drawables)):
            self._episodes.draw(task)  # what cannot be drawn is said before training
        self.count = episodes
        self._predict_fn, self._put = predict_fn, put
        self._name, self._batch_size = name, batch_size
        self._shots, self._seed, self._threads = tuple(shots), seed, threads
        self._search, self._make_search = search, make_search
        pools = self._episodes.drawables
        # An index per class; all instances of a task are one class, as their numbers
        # mean nothing across images.
        keys = [(t, c) for t, p in pools.items() for c in p.classes or (None,)]
        self._index = {key: index for index, key in enumerate(keys)}
        self._baselines: dict[int, dict[str, Any]] = {}
        self._records: list[Mapping[str, Any]] = []

    def run(
        self, params: Any, cases: Cases | None = None
    ) -> Iterator[tuple[str, float]]:
        """Evaluates what `cases` has not yet; yields `(name, value)`. A value without
        any evidence is nan."""
        cases = Cases() if cases is None else cases
        drawn = common.prefetch(
            self._draw, cases.left(self.count), self._threads, 2 * self._batch_size
        )
        waiting: list[tuple[list, dict]] = []
        functions = self._make_search(params) if self._make_search else None
        for batch in common.batched(drawn, self._batch_size):
            if functions:
                batch = [self._chosen(functions, *one) for one in batch]
            waiting.append((batch, self._launch(params, batch)))
            if len(waiting) > 1:  # The devices work on the newest batch meanwhile.
                self._score(cases, *waiting.pop(0))
        for last in waiting:
            self._score(cases, *last)
        self._records = cases.records(self.count)
        for key, value in self.scores(np.ones((1, self.count))).items():
            yield key, float(value[0])

    def scores(self, weights: np.ndarray) -> dict[str, np.ndarray]:
        """The scores of the last run `[n]`, case j counted `weights[:, j]` times."""
        tasks = list(self._episodes.drawables)
        found: dict[str, np.ndarray] = {}
        own = np.array([record["task"] for record in self._records])
        for shots in self._shots:
            for part in dict.fromkeys(["", *tasks]):
                rows = np.flatnonzero((own == part) | (part == ""))
                for arm in _ARMS:
                    place = "/".join(
                        filter(None, (self._name, f"{shots}shot", part, arm))
                    )
                    values = self._arm_scores(f"{shots}/{arm}", rows, weights[:, rows])
                    found |= {f"{place}/{key}": value for key, value in values.items()}
        return found

    def _arm_scores(self, key: str, rows: np.ndarray, weights: np.ndarray):
        counts = np.zeros((len(rows), len(self._index), 2, 2))
        means = np.zeros(len(rows))
        for place, row in enumerate(rows.tolist()):
            record = self._records[row]
            answer = record["answers"][key]
            counts[place, record["classes"]] = answer["counts"]
            means[place] = np.nan if answer["iou"] is None else answer["iou"]
        summed = common.weighted(weights, counts)
        known = np.where(np.isnan(means), 0, weights)
        mean = ratios(known @ np.nan_to_num(means), known.sum(1))
        return fewshot_scores(summed) | {"episode_miou": mean}

    def ranked(self) -> list[int]:
        """The cases of the last run, best first, by the right prompts' IoU at the
        fewest shots."""
        key = f"{min(self._shots)}/"
        values = [record["answers"][key]["iou"] for record in self._records]
        known = {n: value for n, value in enumerate(values) if value is not None}
        return sorted(known, key=lambda n: -known[n])

    def rows(self, params: Any, numbers: Sequence[int]) -> list[Row]:
        """Pictures of some cases, under `headings`, with the fewest shots."""
        shots, rows = min(self._shots), []
        functions = self._make_search(params) if self._make_search else None
        for batch in common.batched(numbers, self._batch_size):
            episodes = [self._episodes.draw(number)[0] for number in batch]
            if functions:
                episodes = [self._sorted(functions, episode) for episode in episodes]
            painted = self._paint(params, episodes, shots)
            for episode, painting in zip(episodes, common.fetch(painted), strict=False):
                pred = colors.decode(painting, episode.palette)
                rows.append(self._row(episode, painting, pred))
        return rows

    def _draw(self, number: int) -> tuple[int, Episode, Episode, dict]:
        """Runs in a thread: an episode, its wrong one, and what the baselines answer,
        once: it does not change while the model trains."""
        right, wrong = self._episodes.draw(number)
        known = number in self._baselines or self._search != "none"
        return number, right, wrong, {} if known else self._answers(number, right)

    def _answers(self, number: int, right: Episode) -> dict[str, np.ndarray]:
        answers = {}
        for shots in self._shots:
            rng = np.random.default_rng([self._seed, number, 2])
            answers[f"{shots}/copy"] = baselines.copy(right, shots)
            answers[f"{shots}/color"] = baselines.color(right, shots, rng)
        return answers

    def _chosen(self, functions: Functions, number: int, right: Episode, wrong, _):
        """A drawn episode with the best prompts first. The baselines see the same."""
        right = self._sorted(functions, right)
        return number, right, wrong, self._answers(number, right)

    def _sorted(self, functions: Functions, episode: Episode) -> Episode:
        size = self._batch_size
        return candidates.sort_prompts(episode, self._search, functions, size)

    def _paint(self, params, episodes: Sequence[Episode], shots: int) -> jax.Array:
        placed = self._put(common.stack(episodes, shots, self._batch_size))
        return self._predict_fn(params, *placed)

    def _launch(self, params, batch) -> dict[str, jax.Array]:
        return {
            f"{shots}/{arm}": self._paint(params, [drawn[place] for drawn in batch],
                                          shots)
            for shots in self._shots
            for place, arm in ((1, ""), (2, "wrong"))
        }  # fmt: skip

    def _score(self, cases: Cases, batch, launched) -> None:
        paintings = {key: common.fetch(value) for key, value in launched.items()}
        for row, (number, episode, _, answers) in enumerate(batch):
            decoded = {
                key: colors.decode(painting[row], episode.palette)
                for key, painting in paintings.items()
            }
            named = bool(self._episodes.drawables[episode.task].classes)
            indices = [
                self._index[episode.task, c if named else None]
                for c in episode.class_ids
            ]
            if answers:
                self._baselines[number] = {
                    key: common.tally(pred, episode, indices)
                    for key, pred in answers.items()
                }
            tallies = {
                key: common.tally(pred, episode, indices)
                for key, pred in decoded.items()
            }
            cases.add(number, {
                "task": episode.task,
                "query": episode.records[0],
                "classes": sorted(set(indices)),
                "answers": tallies | self._baselines[number],
            })  # fmt: skip

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
