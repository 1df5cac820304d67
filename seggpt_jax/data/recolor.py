"""One random colour map per in-context pair (paper, "In-Context Coloring").

The paper gives neither the distribution of the colours nor their number: `max_colors`
and `min_distance` are values of this project.
"""

import dataclasses
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from seggpt_jax import colors
from seggpt_jax.data.augment import check_share
from seggpt_jax.data.decode import MAX_VALUE
from seggpt_jax.data.sample import Sample


class Recolored(NamedTuple):
    """Two painted targets and their colour map.

    prompt, query: targets uint8 `[h, w, 3]`. prompt_painted, query_painted: bool
    `[h, w]`, true where a label was painted. labels: the labels asked for. palette:
    their colours uint8 `[len(labels), 3]`. background: one more colour uint8 `[3]`,
    apart from black and the palette, for a background that is painted too.
    """

    prompt: np.ndarray
    query: np.ndarray
    prompt_painted: np.ndarray
    query_painted: np.ndarray
    labels: tuple[int, ...]
    palette: np.ndarray
    background: np.ndarray


@dataclasses.dataclass(frozen=True)
class Recolor:
    """Paints a random subset of the prompt's labels, in both targets alike.

    max_colors: most labels asked for at once. all_prob: probability to ask for all
    labels of the prompt, at most `max_colors`; otherwise their number is random.
    min_distance: least L1 distance, over RGB 0..255, between two colours and to black;
    if 100 draws do not keep it, the farthest is taken. fixed: label n has the nth
    colour of `colors.spread_palette` in all pairs, as in Painter. In-context colouring
    is compared with it (paper, "In-Context Coloring"). `min_distance` is then that of
    the background only.
    """

    max_colors: int = 10
    all_prob: float = 0.0
    min_distance: float = 120.0
    fixed: bool = False

    def __post_init__(self):
        if not 1 <= self.max_colors <= MAX_VALUE:
            raise ValueError(
                f"max_colors={self.max_colors}: must be in [1, {MAX_VALUE}], as masks "
                "have no more labels"
            )
        check_share("all_prob", self.all_prob)
        if not 0 <= self.min_distance <= 765:
            raise ValueError(f"min_distance={self.min_distance}: must be in [0, 765]")

    def __call__(
        self, prompt: Sample, query: Sample, rng: np.random.Generator
    ) -> Recolored:
        """Draws labels of `prompt.classes`, and paints them in both targets. At least
        one is in `query.classes` too, where the two share any. All other labels become
        background."""
        # One random map for both targets. A colour means nothing by itself, only what
        # it covers in the prompt. So the model must read the prompt: it cannot learn
        # which colour a class has (paper, "In-Context Coloring").
        labels = self._choose(prompt.classes, query.classes, rng)
        palette, background = self._colors(labels, rng)
        prompt_target, prompt_painted = colors.paint(prompt.segments, labels, palette)
        query_target, query_painted = colors.paint(query.segments, labels, palette)
        return Recolored(
            prompt_target,
            query_target,
            prompt_painted,
            query_painted,
            labels,
            palette,
            background,
        )

    def _colors(
        self, labels: Sequence[int], rng: np.random.Generator
    ) -> tuple[np.ndarray, np.ndarray]:
        """The colours of the labels uint8 `[n, 3]`, and of the background `[3]`."""
        if self.fixed:
            # A longer palette begins with the shorter one: no colour of a label depends
            # on the other labels.
            palette = colors.spread_palette(max(labels))[np.array(labels) - 1]
            apart = [colors.BLACK, *palette.tolist()]
            (background,) = colors.random_palette(rng, 1, self.min_distance, apart)
            return palette, background
        palette = colors.random_palette(rng, len(labels) + 1, self.min_distance)
        return palette[:-1], palette[-1]

    def _choose(
        self,
        prompt: tuple[int, ...],
        query: tuple[int, ...],
        rng: np.random.Generator,
    ) -> tuple[int, ...]:
        """The labels asked for, out of those that the prompt and the query show."""
        if not prompt:
            raise ValueError("the prompt shows no label: nothing can be asked for")
        # One label that both show comes first. The others may be in the prompt only:
        # the model learns that a colour may have no place in the query.
        shared = [label for label in prompt if label in query]
        first = int(rng.choice(shared or prompt))
        rest = [label for label in prompt if label != first]
        most = min(self.max_colors, len(prompt))
        every = self.all_prob and rng.random() < self.all_prob
        count = most if every else int(rng.integers(1, most + 1))
        others = rng.choice(rest, count - 1, replace=False) if rest else ()
        return (first, *(int(label) for label in others))
