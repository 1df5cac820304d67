"""Trains a model further on your own data: an indexed folder, as `seggpt index` makes.

    python -m seggpt_jax.main --config=configs/finetune.py --workdir=runs/mine \
        --config.data_dir=my-data

`:model=NAME` takes another model than the bundled `mini`: a path, or one of the hub,
such as BAAI/seggpt-vit-large. Its split `val` is scored before, in the midst and at the
end, with the baselines (docs/evaluation.md), and with wrong prompts where there is more
than one class.
"""

from configs import common
from seggpt_jax.config import parse_argument, require

# What is trained, and its learning rate (docs/own-data.md compares them).
FORMS = {"all": (".*", 1e-4), "decoder": ("decoder/.*", 1e-3)}


def get_config(argument=None):
    """`:steps=N,batch=B` sets the length and the batch. `:form=decoder` trains the
    decoder alone: less memory, and less is forgotten. `:train=SPLIT,val=SPLIT` names
    the splits; `val=` scores nothing. `:lr=RATE`; `:dtype=bfloat16` for GPUs and TPUs.
    """
    arg = parse_argument(
        argument, steps=300, batch=4, form="all", model="mini", train="train",
        val="val", lr=0.0, dtype="float32",
    )  # fmt: skip
    steps, form = arg["steps"], arg["form"]
    require(form in FORMS, "form", form, " or ".join(FORMS))
    trainable, lr = FORMS[form]
    c = common.base()
    c.init_from = arg["model"]
    # All else is the geometry of the weights.
    c.model = {"dtype": arg["dtype"], "remat": "none"}
    own = {"type": "indexed", "folder": "."}
    c.sources = common.ordered(own=own | {"split": arg["train"], "weight": 1.0})
    c.view.crop_scale = (0.5, 1.0)
    c.view.jitter_prob = 0.3
    c.context.same_image = 0.2
    # Without such prompts the model paints whatever a photo shows, asked for or not.
    c.context.absent_prob = 0.3
    c.context.mix_prob = 0.0
    c.recolor.max_colors = 4
    c.masking.half_prob = 1.0
    c.optim.trainable = trainable
    c.optim.layer_decay = 1.0
    c.optim.clip = 1.0
    c.loader = common.small_loader(arg["batch"])
    c.stages = common.ordered(
        paint=common.stage(
            steps=steps, lr=arg["lr"] or lr, warmup=steps // 10, loss="l2",
            max_foreground_weight=4.0,
        ),
    )  # fmt: skip
    c.ema = 0.99
    c.save_every = 100
    c.eval_every = max(1, steps // 2)
    if arg["val"]:
        c.evals.val = {
            "type": "fewshot",
            "sources": common.ordered(own=own | {"split": arg["val"]}),
            "episodes": 100,
            "batch_size": 4,
        }
    return c
