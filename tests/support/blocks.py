"""A source whose answers are known, and models of it, for tests of evaluators."""

import dataclasses

import jax
import numpy as np

from seggpt_jax import colors
from seggpt_jax.data.sample import CATEGORY, IGNORE, Sample
from seggpt_jax.evaluators.fewshot import Evaluator
from seggpt_jax.predict import Engine

SIZE = (24, 20)
ARMS = ("", "wrong/", "copy/", "color/")
METRICS = ("miou", "fbiou", "episode_miou")


@dataclasses.dataclass
class Blocks:
    """Noise with three blocks of classes 1..classes; `by_class` lists the first only,
    so that a class may be visible where nobody was told."""

    name: str = "grey"
    classes: int = 6
    length: int = 40
    same_image_only: bool = False
    kind: int = CATEGORY
    prefix: str = "class"
    block: int = 9

    def __post_init__(self):
        ids = [10 * c for c in range(1, self.classes + 1)]
        self.class_names = {c: f"{self.prefix} {c}" for c in ids}
        self.by_class = {
            c: range(i, self.length, self.classes) for i, c in enumerate(ids)
        }
        if self.same_image_only:
            self.class_names, self.by_class = {}, {}

    def __len__(self):
        return self.length

    def record_id(self, index):
        return f"noise/{index}"

    def __getitem__(self, index):
        rng = np.random.default_rng([9, index])
        image = rng.integers(0, 256, (32, 30, 3), np.uint8)
        segments = np.zeros((32, 30), np.int32)
        first = 10 * (index % self.classes + 1)
        labels = [10 * int(rng.integers(1, self.classes + 1)) for _ in range(2)]
        for label in (*labels, first):  # the listed class on top
            y, x = rng.integers(0, (32 - self.block, 30 - self.block))
            segments[y : y + self.block, x : x + self.block] = label
            image[segments == label] = (label * 4, 255 - label * 4, 128)
        segments[:2] = IGNORE
        return Sample(image, segments, self.kind, (first,))


@dataclasses.dataclass
class Tasked(Blocks):
    """Classes 10, 20 are of task `a`, 30, 40 of `b`; `views` has no classes."""

    classes: int = 4
    families = {"a": (10, 20), "b": (30, 40), "views": ()}

    def indices_of(self, task):
        assert task == "views"
        return range(3, 9)


def copier(params, images, targets, queries, kind):
    """Paints a blend that depends on prompts, query, kind and parameters."""
    shift = kind[:, None, None, None] * 0.1
    return params * targets.mean(1) + 0.2 * queries - 0.1 * images[:, 0] + shift


def oracle(episodes, count):
    """Knows the painting of `count` episodes by their pictures, else paints black. What
    is ignored it takes for a class, which no score may see."""
    known = {}
    for i in range(count):
        right, _ = episodes.draw(i)
        known[right.query.tobytes(), right.images[:1].tobytes()] = right

    def predict(params, images, targets, queries, kind):
        images, queries = jax.device_get((images[:, :1], queries))
        raw = [
            colors.denormalize(x).round().astype(np.uint8) for x in (images, queries)
        ]
        painting = np.zeros_like(raw[1])
        for row, (prompt, query) in enumerate(zip(*raw, strict=True)):
            if episode := known.get((query.tobytes(), prompt.tobytes())):
                painting[row] = episode.palette[episode.truth]
                painting[row][episode.ignore] = episode.palette[1]
        return jax.device_put(colors.normalize(painting))

    return predict


def engine(
    size=SIZE, *, predict=None, prompts=(None, None), track=None, features=None,
    put=jax.device_put, put_everywhere=jax.device_put,
):  # fmt: skip
    """An engine whose functions are given, the same for every ensemble."""
    made = Engine.__new__(Engine)  # without a model
    vars(made).update(
        size=size, parts=1, predict_fn=lambda ensemble: predict,
        prompt_fns=lambda ensemble: prompts, track_fns=track, features=features,
        put=put, put_everywhere=put_everywhere,
    )  # fmt: skip
    return made


def evaluator(predict_fn=copier, size=SIZE, put=jax.device_put, **settings):
    given = engine(size, predict=predict_fn, put=put)
    defaults = dict(name="grey", source=Blocks(), episodes=10, batch_size=4)
    return Evaluator(given, **(defaults | settings))


def scores(predict_fn=copier, params=0.8, **settings):
    return dict(evaluator(predict_fn, **settings).run(params))
