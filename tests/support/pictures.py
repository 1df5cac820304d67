"""Drawn pictures and label maps."""

import numpy as np
from PIL import Image


def picture(h=40, w=30, seed=0):
    """Smooth, as pictures are: noise that was enlarged."""
    small = np.random.default_rng(seed).integers(0, 256, (4, 3, 3), np.uint8)
    return np.asarray(Image.fromarray(small).resize((w, h), Image.Resampling.BICUBIC))


def label_map(labels=(1, 2), h=40, w=30):
    cells = np.resize(np.array([0, *labels]), (2, 3))
    return np.kron(cells, np.ones((h // 2, w // 3), int)).astype(np.int32)
