"""A prompt learned for one task on frozen weights (paper, "In-Context Tuning").

    python -m seggpt_jax.main --config=configs/tune.py --workdir=runs/droplets \
        --config.checkpoint=runs/mini --config.data_dir=../shared/data

`seggpt tune` does the same for any indexed folder, without a config.
"""

from configs import common
from seggpt_jax.config import parse_argument
from seggpt_jax.tune import learning


def get_config(argument=None):
    """`:set=NAME,train=SPLIT,heldout=SPLIT,steps=N,batch=B`: an indexed set and its
    splits. `:tiny` runs in a minute, on the bundled model and drawn scenes unless a set
    is named."""
    arg = parse_argument(
        argument, set="", train="train", heldout="test", steps=400, batch=4, tiny=False
    )
    steps = 150 if arg["tiny"] else arg["steps"]
    c = common.base()
    c.mode = "tune"
    how = learning(steps, arg["batch"])
    c.stages = common.ordered(tune=common.stage(**how.pop("stages")["tune"]))
    c.update(how)
    c.model = common.ordered()  # the checkpoint's own
    if arg["tiny"] and not arg["set"]:
        scenes = {"type": "shapes", "size": (64, 64), "tasks": {"texture": 1}}
        c.checkpoint = "shapes"
        c.sources.shapes = scenes | {"seed": 1, "length": 4000}
        c.tune.heldout = common.ordered(**scenes, seed=2, length=4000)
        c.tune.classes = ("texture: checkered",)
        c.tune.images = 100
        c.stages.tune.loss = "l2"  # as that model was trained
        return c
    name = arg["set"] or "droplets"
    one = {"type": "indexed", "folder": name}
    c.sources[name] = one | {"split": arg["train"]}
    c.tune.heldout = common.ordered(**one, split=arg["heldout"])
    return c
