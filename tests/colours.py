"""configs/shapes.py with one task, things of a colour, and larger patches: a model
learns to follow its prompt within a minute. `--config=tests/colours.py`"""

from configs import common, shapes


def get_config():
    """500 steps; configs/shapes.py needs 1,500 for its four tasks."""
    c = shapes.get_config("steps=10")
    c.model.patch, c.model.pos_grid = 8, 12
    colours = {"shapes": c.sources.shapes.to_dict() | {"tasks": {"colour": 1}}}
    c.sources = common.ordered(**colours)
    c.stages = common.ordered(
        find=common.stage(
            steps=500, lr=2e-3, end_lr=1e-3, warmup=50, loss="l2",
            max_foreground_weight=12.0, background_prob=0.7,
        )
    )  # fmt: skip
    c.evals.heldout.sources.shapes.tasks = {"colour": 1}
    c.evals.heldout.episodes = 100
    c.eval_every = 0
    c.cpu_devices = 1
    return c
