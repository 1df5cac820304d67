"""Two answers without a model: the prompt's mask, and the prompt's colours.

A score of in-context segmentation means little without these baselines: a copied mask
does well on centred objects, and nearest colours solve many easy scenes
(docs/evaluation.md).
"""

import numpy as np

from seggpt_jax import colors
from seggpt_jax.evaluators.common import Episode

_NEIGHBOURS = 5
_SAMPLES = 4096  # prompt pixels kept: enough colours, and a tree that stays fast


def prompt_labels(episode: Episode, shots: int) -> np.ndarray:
    """The first `shots` prompts as label maps int32 `[p, h, w]` into the palette."""
    # int16: differences of uint8 colours wrap around.
    targets = episode.targets[:shots].astype(np.int16)
    return np.stack([colors.decode(target, episode.palette) for target in targets])


def copy(episode: Episode, shots: int) -> np.ndarray:
    """The prompts' masks pasted onto the query, int32 `[h, w]` into the palette.

    Several prompts vote per pixel; of labels with as many votes the first one in the
    palette wins, background before all.
    """
    return _majority(prompt_labels(episode, shots), 0, len(episode.palette))


def color(episode: Episode, shots: int, rng: np.random.Generator) -> np.ndarray:
    """Each query pixel by its nearest prompt pixels in RGB, int32 `[h, w]`.

    Majority of the 5 nearest (Euclidean) of at most 4096 pixels drawn by `rng` from all
    prompts; ties as in `copy`.
    """
    seen = episode.images[:shots].reshape(-1, 3)
    labels = prompt_labels(episode, shots).reshape(-1)
    kept = rng.permutation(len(seen))[:_SAMPLES]
    from scipy.spatial import cKDTree  # late: a third of a second

    tree = cKDTree(seen[kept].astype(np.float64))
    # Photographs repeat colours: each colour is looked up once.
    asked, inverse, _ = colors.unique_colors(episode.query)
    _, near = tree.query(asked, k=range(1, min(_NEIGHBOURS, len(kept)) + 1))
    votes = _majority(labels[kept][near], 1, len(episode.palette))
    return votes[inverse]


def _majority(labels: np.ndarray, axis: int, count: int) -> np.ndarray:
    """The most frequent label of 0..count - 1 along an axis, the lowest of ties."""
    votes = np.stack([np.sum(labels == label, axis=axis) for label in range(count)])
    return votes.argmax(0).astype(np.int32)
