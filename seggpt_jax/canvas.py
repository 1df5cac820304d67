"""Canvas geometry: a prompt stacked above a query, and its grid of patches.

The model sees nothing but canvases: it completes the lower half of the target canvas,
as in inpainting (paper section 3, figure 2). Every function works on NumPy and JAX
arrays alike and imports neither framework for the data it is given.
"""

import numpy as np


def stitch(prompt, query):
    """Stacks a prompt above a query: two `[..., h, w, c]` -> `[..., 2h, w, c]`."""
    xp = prompt.__array_namespace__()
    return xp.concatenate([prompt, query], axis=-3)


def split(canvas):
    """Undoes `stitch`: `[..., 2h, w, c]` -> prompt and query, each `[..., h, w, c]`."""
    h = canvas.shape[-3] // 2
    return canvas[..., :h, :, :], canvas[..., h:, :, :]


def query_half(grid: tuple[int, int]) -> np.ndarray:
    """Bool `[rows, cols]` of patches, true on the query (lower) half of the canvas."""
    rows, cols = grid
    return np.broadcast_to((np.arange(rows) >= rows // 2)[:, None], (rows, cols)).copy()


def to_pixels(patches, patch: int):
    """Repeats a value per patch over its pixels: `[..., gh, gw]` -> `[..., H, W]`."""
    xp = patches.__array_namespace__()
    return xp.repeat(xp.repeat(patches, patch, axis=-2), patch, axis=-1)


def patchify(image, patch: int):
    """Cuts `[b, H, W, c]` into rows of pixels `[b, gh, gw, patch * patch * c]`."""
    b, height, width, c = image.shape
    x = image.reshape(b, height // patch, patch, width // patch, patch, c)
    x = x.transpose(0, 1, 3, 2, 4, 5)
    return x.reshape(b, height // patch, width // patch, patch * patch * c)


def unpatchify(tokens, patch: int):
    """Undoes `patchify`: `[b, gh, gw, patch * patch * c]` -> `[b, H, W, c]`."""
    b, gh, gw, size = tokens.shape
    c = size // patch**2
    x = tokens.reshape(b, gh, gw, patch, patch, c).transpose(0, 1, 3, 2, 4, 5)
    return x.reshape(b, gh * patch, gw * patch, c)
