"""`configs/mini.py` with ten million parameters and without scores: `gpu_mini.sh`."""

from configs import mini


def get_config(argument=None):
    """`argument` is that of configs/mini.py."""
    c = mini.get_config(argument)
    c.model.update({
        "width": 256, "depth": 12, "heads": 8, "canvas": (256, 128), "pos_grid": 16,
        "taps": (2, 5, 8, 11), "dtype": "bfloat16", "scan": True,
    })  # fmt: skip
    c.save_every = 500
    c.evals = {}
    return c
