"""In-context segmentation learned from scratch on procedural scenes, on two CPU cores.

python -m seggpt_jax.main --config=configs/shapes.py --workdir=runs/shapes
"""

from configs import common
from seggpt_jax.config import parse_argument


def get_config(argument=None):
    """`:steps=N` shortens or lengthens the stages in proportion."""
    arg = parse_argument(argument, steps=12500, batch=8)
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
        "decoder_width": 8,
        "dtype": "float32",
        "scan": False,
    }
    scenes = {"type": "shapes", "seed": 1, "length": 1_000_000, "size": (64, 64)}
    # Two things of one colour differ in shape or texture: both must be whole in sight.
    subtle = scenes | {
        "tasks": {"shape": 2, "texture": 1},
        "view": {"crop_scale": (1.0, 1.0)},
    }
    c.sources = common.ordered(
        shapes=scenes | {
            "tasks": {"object": 3, "colour": 3, "instance": 2, "part": 1},
            "weight": 0.65,
        },
        plain=subtle | {"name": "plain", "plain": True, "weight": 0.1},
        subtle=subtle | {"name": "subtle", "weight": 0.25},
    )  # fmt: skip
    c.view.crop_scale = (0.8, 1.0)
    c.view.flip = 0.0
    c.view.jitter_prob = 0.0
    c.context.same_image = 0.0
    c.context.mix_prob = 0.0
    c.recolor.max_colors = 3
    c.recolor.all_prob = 0.5
    c.loader.batch_size = arg["batch"]
    c.optim.algorithm = "muon"
    # Colours are learned first and easily. Shapes and textures are learned in a stage
    # with nothing else, and shapes only if they are upright and of one size at first.
    # This stage forgets other tasks, which the last stage learns again soon
    # (docs/notes/shapes.md).
    find, paint = arg["steps"] // 5, arg["steps"] * 7 // 25
    c.stages = common.ordered(
        find=common.stage(
            steps=find, lr=2e-3, end_lr=1e-3, warmup=min(150, find // 2), loss="l2",
            max_foreground_weight=12.0, background_prob=0.7,
            weights={"shapes": 0.5, "plain": 0.5, "subtle": 0.0},
        ),
        compare=common.stage(
            steps=arg["steps"] - find - paint, lr=2e-3, end_lr=5e-4,
            warmup=min(50, find // 4), loss="l2", max_foreground_weight=1.2,
            background_prob=0.3, weights={"shapes": 0.0, "subtle": 0.0},
        ),
        paint=common.stage(
            steps=paint, lr=1e-3, warmup=min(50, paint // 4), loss="l2",
            max_foreground_weight=1.5, background_prob=0.3,
        ),
    )  # fmt: skip
    c.ema = 0.998
    c.cpu_devices = 2  # a little faster than one that uses both cores
    c.log_every = 50
    c.save_every = 500
    c.eval_every = 6250
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
