"""Which patches of the canvas are hidden: random blocks, or the query half."""

import dataclasses
import math

import numpy as np

from seggpt_jax import canvas
from seggpt_jax.data.augment import check_share


@dataclasses.dataclass(frozen=True)
class Masking:
    """Draws `hidden` for the grid of a canvas (rows and columns of patches).

    share: exactly this share of the patches is hidden, by random blocks. half_prob:
    probability that exactly the query half is hidden instead. block_share: smallest and
    largest block, in shares of the patches (16 to 392 of 1568). aspect: bounds of a
    block's rows / columns.

    The values are Painter's.
    """

    share: float = 0.5
    half_prob: float = 0.1
    block_share: tuple[float, float] = (16 / 1568, 392 / 1568)
    aspect: tuple[float, float] = (0.3, 1 / 0.3)

    def __post_init__(self):
        if not 0 < self.share <= 1:
            raise ValueError(f"share={self.share}: must be in (0, 1]")
        check_share("half_prob", self.half_prob)
        low, high = self.block_share
        if not 0 < low <= high <= 1:
            raise ValueError(
                f"block_share={self.block_share}: need 0 < low <= high <= 1"
            )
        low, high = self.aspect
        if not 0 < low <= high < math.inf:
            raise ValueError(f"aspect={self.aspect}: need 0 < low <= high")

    @property
    def query_only(self) -> bool:
        """Whether every pair has exactly its query half hidden. The model then paints
        nothing else."""
        return self.half_prob == 1

    def __call__(self, grid: tuple[int, int], rng: np.random.Generator) -> np.ndarray:
        """Bool `[rows, cols]`, true where hidden."""
        if rng.random() < self.half_prob:
            return canvas.query_half(grid)  # as at prediction time
        # Blocks, as in BEiT. A single hidden patch could be filled in
        # from its neighbours without a look at the prompt; a block could not.
        hidden = np.zeros(grid, bool)
        remaining = round(self.share * hidden.size)
        smallest, largest = (s * hidden.size for s in self.block_share)
        while remaining > 0:
            # No block much larger than the rest: few patches of it would be cut off.
            area = rng.uniform(smallest, max(smallest, min(largest, remaining)))
            block = np.zeros(grid, bool)
            block[self._block(area, hidden, rng)] = True
            # The last block is cut off where the count is reached: it is exact.
            new = np.flatnonzero(block & ~hidden)[:remaining]
            hidden.ravel()[new] = True
            remaining -= len(new)
        return hidden

    def _block(
        self, area: float, hidden: np.ndarray, rng: np.random.Generator
    ) -> tuple[slice, slice]:
        """The rows and columns of a random block of `area` patches.

        It covers a patch that is still visible, so that every block makes progress.
        BEiT's generator draws blocks in vain, and gives up short of the count.
        """
        # Log-uniform: a block twice as high as wide is as likely as one twice as wide.
        aspect = math.exp(rng.uniform(*np.log(self.aspect)))
        lengths = math.sqrt(area * aspect), math.sqrt(area / aspect)
        anchor = np.unravel_index(rng.choice(np.flatnonzero(~hidden)), hidden.shape)
        slices = []
        for at, length, limit in zip(anchor, lengths, hidden.shape, strict=True):
            length = min(max(round(length), 1), limit)
            # All starts at which the block lies in the canvas and covers the anchor.
            first, last = max(0, at - length + 1), min(at, limit - length)
            start = int(rng.integers(first, last + 1))
            slices.append(slice(start, start + length))
        return slices[0], slices[1]
