"""SegGPT ViT-L/16 as the paper trains it, on all its data sets.

    python -m seggpt_jax.main --config=configs/vitl.py --workdir=DIR \
        --config.data_dir=DATA --config.init_from=BAAI/Painter

9,000 steps of 2,048 canvases of 896 x 448: about 8.7e19 FLOP. docs/datasets.md tells
how to get each data set. Other forms of the same program:

    configs/vitl.py:vitb      ViT-B, the smaller model of Table S3
    configs/vitl.py:scratch   from random parameters instead of Painter's
    configs/vitl.py:tiny      runs anywhere in minutes, on procedural scenes
    configs/vitl.py:rehearsal two steps of two small canvases, everything else as it is
    configs/vitl.py:overfit   memorises 8 fixed pairs: if it cannot, something is broken
"""

from configs import common
from seggpt_jax.config import parse_argument

HELD_OUT = ("ade20k", "cityscapes", "lip", "voc")  # training sets with a val split


def get_config(argument=None):
    """`:tiny`, `:overfit`, or the paper's run; `:vitb`, `:scratch` and `:rehearsal`
    change that."""
    forms = ("tiny", "overfit", "vitb", "scratch", "rehearsal")
    arg = parse_argument(argument, **dict.fromkeys(forms, False))
    c = common.base()
    c.sources = common.paper_sources()
    if arg["tiny"] or arg["overfit"]:
        _shrink(c)
    else:
        _watch(c)
    if arg["overfit"]:
        _overfit(c)
    if arg["vitb"]:
        c.model.size = "b16"
    if arg["scratch"]:
        _from_scratch(c)
    if arg["rehearsal"]:
        _rehearse(c)
    return c


def _watch(c):
    """Few-shot episodes of validation images, every 1,000 steps. They show whether the
    run learns; the paper's rows are those of configs/eval.py."""
    c.evals = common.ordered(
        heldout={
            "type": "fewshot",
            "sources": {
                name: {"type": name, "folder": name, "split": "val"}
                for name in HELD_OUT
            },
            "episodes": 200,
            "batch_size": 64,
            "shots": (1,),
        }
    )
    c.best = "heldout/mean/1shot/miou"


def _from_scratch(c):
    """A first stage that learns to paint (docs/train.md, "From scratch"), then the
    paper's. It was tried on small models only, never at this size."""
    c.optim.layer_decay = 1.0
    c.masking.half_prob = 0.5
    find = common.stage(
        steps=9000, lr=1e-4, warmup=1800, loss="l2",
        max_foreground_weight=12.0, background_prob=0.7,
    )  # fmt: skip
    c.stages = common.ordered(find=find, paint=c.stages.paint)


def _rehearse(c):
    """The whole model on canvases of 128 x 64, so that minutes show whether every set
    is read, trained on, scored and saved. `python -m tests.rehearse` does it on
    miniatures, from conversion to report."""
    c.model.canvas = (128, 64)
    c.loader = common.small_loader(2)
    for settings in c.stages.values():
        settings.steps, settings.warmup = 2, 1
    c.log_every = c.save_every = c.eval_every = c.keep = 1
    c.evals.heldout.episodes = c.evals.heldout.batch_size = 2


def _shrink(c):
    """The same program on procedural scenes, with a model of 0.4 million parameters."""
    c.model = {
        "size": "ti16",
        "width": 64,
        "depth": 4,
        "heads": 2,
        "patch": 8,
        "canvas": (96, 48),
        "pos_grid": 12,
        "merge_after": 0,
        "taps": (0, 1, 2, 3),
        "decoder_width": 16,
        "drop_path": 0.1,
    }
    c.sources = common.ordered(
        shapes={"type": "shapes", "weight": 1.0, "size": (64, 64)}
    )
    c.loader = common.small_loader(8)
    # From scratch the paper's stage alone paints black (docs/training.md).
    c.optim.layer_decay = 1.0
    c.masking.half_prob = 0.5
    c.stages = common.ordered(
        find=common.stage(
            steps=800, lr=1e-3, warmup=100, loss="l2",
            max_foreground_weight=12.0, background_prob=0.7,
        ),
        paint=common.stage(steps=200, lr=5e-4, warmup=20, max_foreground_weight=4.0),
    )  # fmt: skip
    c.log_every = 10
    c.save_every = 250
    c.eval_every = 500
    c.evals = common.ordered(
        heldout={
            "type": "fewshot",
            "sources": {
                "shapes": {
                    "type": "shapes",
                    "size": (64, 64),
                    "split": "heldout",
                    "seed": 1,
                    "length": 5000,
                }
            },
            "episodes": 48,
            "batch_size": 24,
            "shots": (1, 4),
        }
    )


def _overfit(c):
    c.fixed_pairs = 8
    c.model.drop_path = 0.0
    c.masking.half_prob = 1.0
    c.stages = common.ordered(
        paint=common.stage(
            steps=2000, lr=2e-3, warmup=100, loss="l2", max_foreground_weight=12.0
        )
    )
    c.save_every = 1000
    c.eval_every = 1000
    c.evals = common.ordered(memorised={"type": "pairs", "count": 8, "batch_size": 8})
