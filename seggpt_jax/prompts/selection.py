"""The best few of a user's examples, for all images or for each image anew."""

import functools
from typing import Any

import numpy as np

from seggpt_jax import colors
from seggpt_jax.prompts import search
from seggpt_jax.prompts.read import Prompts

_KEPT = 8  # encoded sets of prompts: neighbours in a folder look alike


def pick(prompts: Prompts, places: tuple[int, ...]) -> Prompts:
    """Some of the prompts, and only the labels that these prompts show."""
    own = np.s_[:, list(places)]
    some = prompts._replace(images=prompts.images[own], targets=prompts.targets[own])
    kept = np.union1d([0], some.decoded())
    return some._replace(labels=some.labels[kept], palette=some.palette[kept])


class Nearest:
    """`nearest(image) -> prompts, encoded, choice`: the candidates that look most
    like an image uint8 `[h, w, 3]` of the model's size.

    The features of the candidates are made once. The last encoded sets of prompts are
    kept: a set that comes again is not encoded again.
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
        # Sorted: the same set is the same prompts, whichever of them is the nearest.
        return *self._set(tuple(sorted(choice.places))), choice

    def _encode(self, places: tuple[int, ...]) -> tuple[Prompts, Any]:
        some = pick(self.prompts, places)
        return some, self._functions.encode(some.images, some.targets, some.kind)
