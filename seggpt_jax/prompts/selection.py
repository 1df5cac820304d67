"""Users' examples of which an image, or every image, is shown the best few."""

import functools
from typing import Any

import numpy as np

from seggpt_jax import colors
from seggpt_jax.prompts import search
from seggpt_jax.prompts.read import Prompts

_KEPT = 8  # encoded sets of prompts: neighbours in a folder look alike


def by_score(
    prompts: Prompts, count: int, functions: search.Functions, batch_size: int
) -> tuple[Prompts, search.Choice]:
    """The prompts that do best on each other (`search.leave_one_out`), best first."""
    candidates = search.Candidates(
        prompts.images[0],
        prompts.targets[0],
        prompts.kind,
        prompts.palette,
        np.zeros(prompts.images.shape[1:4], bool),
    )
    choice = search.best(search.leave_one_out(functions, candidates, batch_size), count)
    return pick(prompts, choice.places), choice


def pick(prompts: Prompts, places: tuple[int, ...]) -> Prompts:
    """Some of the prompts, with the labels that these show."""
    some = list(places)
    targets = prompts.targets[:, some]
    shown = np.unique(
        np.stack(
            [
                colors.decode(colors.denormalize(target), prompts.palette)
                for target in targets[0]
            ]
        )
    )
    kept = np.union1d([0], shown)
    return Prompts(
        prompts.images[:, some],
        targets,
        prompts.kind,
        prompts.labels[kept],
        prompts.palette[kept],
    )


class Nearest:
    """`nearest(image) -> prompts, encoded, choice`: the candidates that look most
    like an image uint8 `[h, w, 3]` of the model's size.

    The features of the candidates are made once, and a set of prompts that comes again
    while it is remembered is not encoded again.
    """

    def __init__(
        self,
        prompts: Prompts,
        count: int,
        functions: search.Functions,
        batch_size: int,
    ):
        self.prompts, self._count, self._functions = prompts, count, functions
        self._features = search.features(
            functions, prompts.images[0], prompts.kind, batch_size
        )
        self._set = functools.lru_cache(_KEPT)(self._encode)

    def __call__(self, image: np.ndarray) -> tuple[Prompts, Any, search.Choice]:
        shown = colors.normalize(image)[None]
        own = search.features(self._functions, shown, self.prompts.kind, 1)[0]
        choice = search.similar(own, self._features, self._count)
        # In one order: the same set is the same prompts, whichever is the nearest.
        return *self._set(tuple(sorted(choice.places))), choice

    def _encode(self, places: tuple[int, ...]) -> tuple[Prompts, Any]:
        some = pick(self.prompts, places)
        return some, self._functions.encode(some.images, some.targets, some.kind)
