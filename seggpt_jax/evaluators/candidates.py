"""Episodes whose prompts are candidates, sorted so that the best stand first.

`Episodes` draws the candidates: as many shots as there are to be candidates. None of
them is the query's image, and all depend on (seed, index) alone. Sorted, the first k
prompts of an episode are the k chosen ones, and `common.stack` takes them as any.
"""

import dataclasses

import numpy as np

from seggpt_jax import colors
from seggpt_jax.config import suggest
from seggpt_jax.evaluators.common import Episode
from seggpt_jax.prompts import search

SEARCHES = ("none", *search.WAYS)


def check(how: str, pool: int, shots: int) -> None:
    """Refuses settings `search` and `pool` that cannot be, for so many shots."""
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
    """The episode with its prompts sorted, those to be shown first: by their likeness
    to the query, or by what each scores as the prompt of the others. The truth of the
    query is not looked at."""
    if how == "none":
        return episode
    choice = _sorted(episode, how, functions, batch_size)
    order = list(choice.places)
    query, *prompts = episode.records
    return dataclasses.replace(
        episode,
        images=episode.images[order],
        targets=episode.targets[order],
        records=(query, *(prompts[place] for place in order)),
    )


def _sorted(
    episode: Episode, how: str, functions: search.Functions, batch_size: int
) -> search.Choice:
    count = len(episode.images)
    images = colors.normalize(episode.images)
    kind = np.array([episode.kind], np.int32)
    if how == "similarity":
        # The query goes last in one batch, of one size for every episode.
        shown = np.concatenate([images, colors.normalize(episode.query)[None]])
        found = search.features(functions, shown, kind, batch_size)
        return search.similar(found[-1], found[:-1], count)
    candidates = search.Candidates(
        images,
        colors.normalize(episode.targets),
        kind,
        episode.palette,
        np.zeros(episode.images.shape[:3], bool),  # a target does not tell the ignored
    )
    return search.best(search.leave_one_out(functions, candidates, batch_size), count)
