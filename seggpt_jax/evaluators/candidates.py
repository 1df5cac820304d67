"""Episodes whose prompts are candidates, sorted so that the best stand first.

`Episodes` draws the candidates: one shot per candidate. No candidate is the query's
image, and all depend on (seed, index) alone. After sorting, the first k prompts of an
episode are the k chosen prompts, and `common.stack` takes them like any others.
"""

import dataclasses

import numpy as np

from seggpt_jax import colors
from seggpt_jax.config import suggest
from seggpt_jax.evaluators.common import Episode
from seggpt_jax.prompts import search
from seggpt_jax.prompts.read import Prompts

SEARCHES = ("none", *search.WAYS)


def check(how: str, pool: int, shots: int) -> None:
    """Refuses impossible settings `search` and `pool`, for so many shots."""
    if how not in SEARCHES:
        raise ValueError(f"search {how!r} is unknown{suggest(how, SEARCHES)}")
    if how != "none" and pool <= shots:
        raise ValueError(
            f"pool is {pool}, must be more than shots, {shots}: there is nothing to "
            "choose from"
        )


def sort_prompts(
    episode: Episode, how: str, functions: search.Functions, batch_size: int
) -> Episode:
    """The episode with its prompts sorted, the best first. `similarity`: by their
    likeness to the query. `score`: by the score of each as the only prompt of the
    others. Neither looks at the truth of the query."""
    if how == "none":
        return episode
    images = colors.normalize(episode.images)
    kind = np.array([episode.kind], np.int32)
    if how == "similarity":
        # The query goes last in one batch, of one size for every episode.
        shown = np.concatenate([images, colors.normalize(episode.query)[None]])
        found = search.features(functions, shown, kind, batch_size)
        choice = search.similar(found[-1], found[:-1], len(images))
    else:
        targets, labels = colors.normalize(episode.targets), range(len(episode.palette))
        examples = Prompts(
            images[None], targets[None], kind, np.array(labels), episode.palette
        )
        scores = search.leave_one_out(functions, examples, batch_size)
        choice = search.best(scores, len(images))
    order = list(choice.places)
    query, *prompts = episode.records
    return dataclasses.replace(
        episode,
        images=episode.images[order],
        targets=episode.targets[order],
        records=(query, *(prompts[place] for place in order)),
    )
