"""Few-shot segmentation in episodes: right prompts, wrong prompts and baselines.

A model that ignores its prompts can still score. So every episode is answered four
times, by four arms: with its own prompts; with wrong prompts, which show other classes
in the same colours, where the source has any; by copying the prompts' masks; and by the
prompts' colours. The last two need no model (`baselines`). Only the distance to the
other arms shows that the model has read its prompts.
"""

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np

from seggpt_jax import colors
from seggpt_jax.data.sample import Source
from seggpt_jax.evaluators import baselines, candidates, common
from seggpt_jax.evaluators.cases import Cases
from seggpt_jax.evaluators.common import Episode
from seggpt_jax.evaluators.episodes import Drawing, Episodes, at_least
from seggpt_jax.evaluators.hsnet import HsnetEpisodes, episodes_of
from seggpt_jax.metrics import episode_iou, fewshot_scores, ratios
from seggpt_jax.pictures.sheets import Row
from seggpt_jax.prompts.search import Functions, bind
from seggpt_jax.runs import hosts

_ARMS = ("", "wrong", "copy", "color")  # the right prompts need no name
_WRONG = _ARMS[1]


@dataclasses.dataclass(kw_only=True, eq=False)
class Evaluator(common.Evaluator, Drawing):
    """Scores on the first `episodes` of `Episodes`, a case each; 0: as many as the
    protocol says, or as the source has records.

    `run(params)` yields `<name>/<k>shot/<score>` for every k of `shots`. The scores are
    `miou`, `fbiou` and `episode_miou` of `metrics`. Then come `.../wrong/<score>`,
    `.../copy/...` and `.../color/...`, then the same for each task,
    `<name>/<k>shot/<task>/...`. k-shot takes the first k prompts of the same episodes.
    All is scored at the model's size. The batch size and the devices change no score.

    ensemble: of several prompts (`predict.make_predict_fn`). protocol: episodes as
    HSNet draws them (`hsnet.PROTOCOLS`). search: the prompts are the best of `pool`
    candidates, by one of `search.WAYS`; "none": the first candidates. threads: they
    decode images ahead of the devices. How episodes are drawn: `Drawing`.
    """

    needs = ("wrong_sources",)
    headings = ("prompt", "target", "query", "truth", "painting", "decoded")

    source: Source
    episodes: int
    batch_size: int
    shots: Sequence[int] = (1,)
    ensemble: str = "feature"
    protocol: str = ""
    search: str = "none"
    pool: int = 0
    wrong_sources: Callable[[], Sequence[Source]] = tuple
    threads: int = 4

    def __post_init__(self) -> None:
        super().__post_init__()
        shots = self.shots
        if not shots or len(set(shots)) != len(shots):
            raise ValueError(f"shots is {shots}, must list one or more, each once")
        at_least(1, shots=min(shots), batch_size=self.batch_size, threads=self.threads)
        candidates.check(self.search, self.pool, max(shots))
        if self.search != "none" and self.protocol:
            raise ValueError(
                f"search {self.search!r} does not go with a protocol, whose prompts "
                "are given"
            )
        if self.protocol and len(shots) > 1:
            raise ValueError(f"shots is {shots}: a protocol takes one number")
        self.episodes = self.episodes or episodes_of(self.protocol, self.source)
        self._episodes = self._make_episodes()
        at_least(len(self._episodes.drawables), episodes=self.episodes)
        hosts.on_first(self._check_draws)
        self.count = self.episodes
        left_out = _WRONG if self._episodes.without_wrong else None
        self._arms = [arm for arm in _ARMS if arm != left_out]
        self._predict_fn = self.engine.predict_fn(self.ensemble)
        # An index per class; all instances of a task are one class, as their numbers
        # mean nothing across images.
        keys = [
            (task, label)
            for task, drawable in self._episodes.drawables.items()
            for label in drawable.classes or (None,)
        ]
        self._index = {key: index for index, key in enumerate(keys)}
        self._baselines: dict[int, dict[str, Any]] = {}

    def _make_episodes(self) -> Episodes:
        how: dict[str, Any] = {
            field.name: getattr(self, field.name)
            for field in dataclasses.fields(Drawing)
        }
        how["shots"] = max(self.shots) if self.search == "none" else self.pool
        how["wrong_sources"] = self.wrong_sources()
        if self.protocol:
            how |= {"protocol": self.protocol, "count": self.episodes}
        return (HsnetEpisodes if self.protocol else Episodes)(
            self.source, self.engine.size, **how
        )

    def _check_draws(self) -> None:
        """Draws an episode of every task: an impossible draw fails before training."""
        for task in range(len(self._episodes.drawables)):
            self._episodes.draw(task)

    @property
    def data(self) -> list[str]:
        return common.digests(self.source, *self._episodes.wrong_sources)

    def collect(self, params: Any, numbers: Sequence[int], cases: Cases) -> None:
        drawn = common.prefetch(self._draw, numbers, self.threads, 2 * self.batch_size)
        functions = bind(self.engine, self.ensemble, params)

        def start(batch):
            if self.search != "none":
                batch = [self._chosen(functions, *one) for one in batch]
            return batch, self._launch(params, batch)

        started = map(start, common.batched(drawn, self.batch_size))
        for batch, launched in common.behind(started):
            self._score(cases, batch, launched)

    def scores(self, weights: np.ndarray) -> dict[str, np.ndarray]:
        tasks = list(self._episodes.drawables)
        found: dict[str, np.ndarray] = {}
        own = np.array([record["task"] for record in self.records])
        for shots in self.shots:
            for part in dict.fromkeys(["", *tasks]):
                rows = np.flatnonzero((own == part) | (part == ""))
                for arm in self._arms:
                    values = self._arm_scores(f"{shots}/{arm}", rows, weights[:, rows])
                    found |= self.named(values, f"{shots}shot", part, arm)
        return found

    def _arm_scores(self, key: str, rows: np.ndarray, weights: np.ndarray):
        counts = np.zeros((len(rows), len(self._index), 2, 2))
        means = np.zeros(len(rows))
        for place, row in enumerate(rows.tolist()):
            record = self.records[row]
            answer = record["answers"][key]
            counts[place, record["classes"]] = answer["counts"]
            means[place] = np.nan if answer["iou"] is None else answer["iou"]
        summed = common.weighted(weights, counts)
        known = np.where(np.isnan(means), 0, weights)
        mean = ratios(known @ np.nan_to_num(means), known.sum(1))
        return fewshot_scores(summed) | {"episode_miou": mean}

    def ranked(self) -> list[int]:
        """By the right prompts' IoU at the fewest shots."""
        key = f"{min(self.shots)}/"
        return common.best_first(r["answers"][key]["iou"] for r in self.records)

    def rows(self, params: Any, numbers: Sequence[int]) -> list[Row]:
        """The episodes with the fewest shots."""
        shots, rows = min(self.shots), []
        functions = bind(self.engine, self.ensemble, params)
        drawn = common.prefetch(
            lambda number: self._episodes.draw(number)[0],
            numbers, self.threads, 2 * self.batch_size,
        )  # fmt: skip
        for batch in common.batched(drawn, self.batch_size):
            episodes = [self._sorted(functions, episode) for episode in batch]
            painted = self.engine.fetch(self._paint(params, episodes, shots))
            for episode, painting in zip(episodes, painted, strict=False):
                pred = colors.decode(painting, episode.palette)
                rows.append(self._row(episode, painting, pred))
        return rows

    def _draw(self, number: int) -> tuple[int, Episode, Episode | None, dict]:
        """Runs in a thread: an episode, its wrong prompts, and the baselines' answers.
        Baselines answer once: they do not change while the model trains."""
        right, wrong = self._episodes.draw(number)
        known = number in self._baselines or self.search != "none"
        return number, right, wrong, {} if known else self._answers(number, right)

    def _answers(self, number: int, right: Episode) -> dict[str, np.ndarray]:
        answers = {}
        for shots in self.shots:
            rng = np.random.default_rng([self.seed, number, 2])
            answers[f"{shots}/copy"] = baselines.copy(right, shots)
            answers[f"{shots}/color"] = baselines.color(right, shots, rng)
        return answers

    def _chosen(self, functions: Functions, number: int, right: Episode, wrong, _):
        """A drawn episode with the best prompts first. The baselines see the same."""
        right = self._sorted(functions, right)
        return number, right, wrong, self._answers(number, right)

    def _sorted(self, functions: Functions, episode: Episode) -> Episode:
        size = self.batch_size
        return candidates.sort_prompts(episode, self.search, functions, size)

    def _paint(self, params, episodes: Sequence[Episode], shots: int) -> jax.Array:
        placed = self.engine.put(common.stack(episodes, shots, self.batch_size))
        return self._predict_fn(params, *placed)

    def _launch(self, params, batch) -> dict[str, jax.Array]:
        return {
            f"{shots}/{arm}": self._paint(params, [drawn[place] for drawn in batch],
                                          shots)
            for shots in self.shots
            for place, arm in ((1, ""), (2, _WRONG))
            if arm in self._arms
        }  # fmt: skip

    def _score(self, cases: Cases, batch, launched) -> None:
        paintings = {key: self.engine.fetch(value) for key, value in launched.items()}
        for row, (number, episode, _, answers) in enumerate(batch):
            named = bool(self._episodes.drawables[episode.task].classes)
            indices = [
                self._index[episode.task, c if named else None]
                for c in episode.class_ids
            ]
            tally = functools.partial(common.tally, episode=episode, classes=indices)
            if answers:
                found = {key: tally(pred) for key, pred in answers.items()}
                self._baselines[number] = found
            tallies = {
                key: tally(colors.decode(painting[row], episode.palette))
                for key, painting in paintings.items()
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
        truth[episode.ignore] = common.GREY
        cells = (episode.images[0], episode.targets[0], episode.query, truth, painting)
        return Row(
            (*cells, episode.palette[pred]),
            f"{episode.source}: {', '.join(names)}   IoU {iou:.2f}",
        )
