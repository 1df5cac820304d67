"""A prompt learned for one task on frozen weights (paper, "In-Context Tuning").

    python -m seggpt_jax.main --config=configs/tune.py --workdir=runs/droplets \
        --config.checkpoint=runs/mini --config.data_dir=../shared/data

`seggpt tune` does the same for any indexed folder, without a config. The prompts of the
paper's tuned rows, which configs/eval.py scores (docs/evaluation.md has the commands):

    configs/tune.py:ade20k          150 classes of ADE20K in one prompt
    configs/tune.py:coco_semantic   133 classes of COCO panoptic in one prompt
    configs/tune.py:coco_instance   instances of COCO by their places
"""

from configs import common
from seggpt_jax.config import parse_argument
from seggpt_jax.tune import learning

# Forms of the paper's tuned rows. A prompt of 150 classes has to be shown each of them
# many times: 10,000 steps of 16 are 8 epochs of ADE20K. The paper gives no length.
_STEPS, _BATCH = 10_000, 16
ROWS = {
    "ade20k": ({"type": "ade20k", "folder": "ade20k"}, "painter"),
    "coco_semantic": ({"type": "coco_panoptic", "folder": "coco_panoptic"}, "painter"),
    "coco_instance": (
        {"type": "coco_instance", "folder": "coco_instance"},
        "locations",
    ),
}


def get_config(argument=None):
    """`:set=NAME,train=SPLIT,heldout=SPLIT,steps=N,batch=B`: an indexed set and its
    splits. Or one of `ROWS`, with `steps` and `batch`. `side=N`: for images of N x N,
    not of the checkpoint's size. `:tiny` runs in a minute, on the
    bundled model and drawn scenes unless a set is named."""
    arg = parse_argument(
        argument, set="", train="train", heldout="", steps=0, batch=0, side=0,
        tiny=False, **dict.fromkeys(ROWS, False),
    )  # fmt: skip
    row = next((name for name in ROWS if arg[name]), "")
    steps = 150 if arg["tiny"] else arg["steps"] or (_STEPS if row else 400)
    c = common.base()
    c.mode = "tune"
    how = learning(steps, arg["batch"] or (_BATCH if row else 4))
    c.stages = common.ordered(tune=common.stage(**how.pop("stages")["tune"]))
    c.update(how)
    c.model = common.ordered()  # the checkpoint's own
    if row:
        _tune_row(c, *ROWS[row], heldout=arg["heldout"] or "val")
    elif arg["tiny"] and not arg["set"]:
        _tune_scenes(c)
    else:
        name = arg["set"] or "droplets"
        one = {"type": "indexed", "folder": name}
        c.sources[name] = one | {"split": arg["train"]}
        c.tune.heldout = common.ordered(**one, split=arg["heldout"] or "test")
    if arg["side"]:
        c.model.canvas = (2 * arg["side"], arg["side"])
    return c


def _tune_row(c, source, palette, heldout):
    c.model = common.ordered(dtype="bfloat16", remat="full")
    c.sources[source["type"]] = source | {"split": "train"}
    c.tune.palette = palette
    c.save_every, c.loader.threads = 500, 16
    if palette != "locations":  # instances are scored by configs/eval.py
        c.tune.heldout = common.ordered(**source, split=heldout)
        c.tune.images = 500


def _tune_scenes(c):
    scenes = {"type": "shapes", "size": (64, 64), "tasks": {"texture": 1}}
    c.checkpoint = "shapes"
    c.sources.shapes = scenes | {"seed": 1, "length": 4000}
    c.tune.heldout = common.ordered(**scenes, seed=2, length=4000)
    c.tune.classes = ("texture: checkered",)
    c.tune.images = 100
    c.stages.tune.loss = "l2"  # as that model was trained
