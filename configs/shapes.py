"""In-context segmentation learned from scratch on procedural scenes, on two CPU cores.

python -m seggpt_jax.main --config=configs/shapes.py --workdir=runs/shapes
"""

from configs import common
from seggpt_jax.config import parse_argument


def get_config(argument=None):
    """`:steps=N` shortens or lengthens both stages in proportion."""
    arg = parse_argument(argument, steps=13000, batch=8)
    c = common.from_scratch()
    # Small patches: at 8 pixels the same time of training scored 0.1 lower.
    c.model = {
        "size": "ti16",
        "width": 64,
        "depth": 4,
        "heads": 2,
        "patch": 4,
        "canvas": (96, 48),
        "pos_grid": 24,
        "merge_after": 0,
        "taps": (1, 3),
        "decoder_width": 16,
        "dtype": "float32",
        "scan": False,
    }
    c.sources.shapes = {
        "type": "shapes",
        "weight": 1.0,
        "seed": 1,
        "length": 1_000_000,
        "size": (64, 64),
        "tasks": {
            "object": 3,
            "colour": 2,
            "instance": 2,
            "shape": 3,
            "texture": 5,
            "part": 1,
        },
    }
    c.view.crop_scale = (0.8, 1.0)
    c.view.vertical_flip = 0.5
    c.view.jitter_prob = 0.0
    c.context.same_image = 0.2
    c.context.mix_prob = 0.0
    c.recolor.max_colors = 3
    c.recolor.all_prob = 0.5
    c.loader.batch_size = arg["batch"]
    first = arg["steps"] * 5 // 7
    c.stages = common.ordered(
        find=common.stage(
            steps=first, lr=1e-3, warmup=min(150, first // 2), end_lr=3e-5, loss="l2",
            max_foreground_weight=12.0, background_prob=0.7,
        ),
        paint=common.stage(
            steps=arg["steps"] - first, lr=6e-4, warmup=min(50, first // 4),
            background_prob=0.3, loss="l2", max_foreground_weight=1.5,
        ),
    )  # fmt: skip
    c.ema = 0.998
    c.cpu_devices = 2  # a little faster than one that uses both cores
    c.log_every = 50
    c.save_every = 1000
    c.eval_every = 4000
    c.evals.heldout = {
        "type": "fewshot",
        "sources": {
            "shapes": {"type": "shapes", "seed": 2, "length": 20_000, "size": (64, 64),
                       "split": "heldout"},
        },
        "episodes": 600,
        "batch_size": 50,
        "max_classes": 3,
    }  # fmt: skip
    return c
