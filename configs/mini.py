"""A small SegGPT from scratch on every set of a folder, plus procedural scenes.

    python -m seggpt_jax.main --config=configs/mini.py --workdir=runs/mini \
        --config.data_dir=../shared/data

Trains on the `train` splits of all sets listed in `<data_dir>/sets.tsv`, this project's
collection (for your own folder: docs/data.md), and evaluates on their `val` and `test`
splits. docs/results.md has the scores, hardware and time. In the second stage there are
fewer scenes, and painted pixels weigh less, so that objects which do not fit the prompt
stay black. The second stage alone, from the model of another run; so the bundled model
went on, and later twice more (docs/notes/mini.md has every command):

    python -m seggpt_jax.main --config=configs/mini.py:more,steps=22000 \
        --workdir=runs/mini-more --config.data_dir=../shared/data \
        --config.init_from=runs/mini --config.stages.paint.lr=0.0012 --config.seed=1

The scores in docs/results.md, of the bundled model or of another `--config.checkpoint`:

    python -m seggpt_jax.main --config=configs/mini.py:results \
        --workdir=runs/mini-results --config.data_dir=../shared/data

`:twin` trains without the classes of COCO-20i's fold 0 and PASCAL-5i's fold 2, by the
names in the sets. (Regions without a name, and clothes, still show some.)
`:results,twin` scores its `--config.checkpoint` with one prompt only; its `folds` are
these classes.
"""

from ml_collections import ConfigDict

from configs import common
from seggpt_jax.config import parse_argument
from seggpt_jax.data.sources import coco20i, voc

# Too few images of any class for an episode, or one object per clip: not few-shot.
NOT_EPISODES = ("davis2016-val", "seggpt-examples")
# Held out of training: classes of one set, and whole domains.
UNSEEN_CLASSES = ("fray", "uneven")
UNSEEN_DOMAINS = ("drishti-gs", "fss1000-sample", "isprs-sample")
# Of common things, without a train split: neither seen nor unseen.
UNTRAINED = ("ade20k-sample", "coco-panoptic-sample")
# By the names of coco-mini and of the two VOC sets.
COCO_FOLD = tuple(coco20i.NAMES.values())[::4]
PASCAL_FOLD = {
    "voc2012-mini": tuple(voc.NAMES.values())[10:15],
    "voc2012-more": ("dog", "horse", "person"),  # the others of the fold it lacks
}
# Classes that show the same objects under other names.
ALIKE = ("horse", "motorcycle", "american_bulldog", "pedestrian", "bicyclist")
TWIN_CLASSES = tuple(sorted({*COCO_FOLD, *PASCAL_FOLD["voc2012-mini"], *ALIKE}))
# Sets with too few held-out images of any class for eight prompts and a query.
FEW = {
    "val": ("coco-stuff-sample", "desk-objects", "grabcut-sample", "building-facade"),
    "test": ("busi-ultrasound", "car-damage", "chase-db1", "cwfid-crop-weed",
             "droplets", "flood-area", "glas-glands", "hrsid-ship", "isbi2012-em",
             "isic2017-skin", "magnetic-tile-defect", "uwm-gi-tract"),
}  # fmt: skip
# Sets of thin things, and the share of an image that shows them some pixels wide.
THIN = {
    "chase-db1": (0.01, 0.06),
    "crackforest": (0.04, 0.3),
    "drive": (0.03, 0.15),
    "isbi2012-em": (0.04, 0.3),
}
# Side, in pixels, of the tiles that retinas are cut into; chosen on training images.
VESSELS = {"drive": 64, "chase-db1": 80}


def get_config(argument=None):
    """`:steps=N,batch=B` sets the length and the batch; `:tiny` runs in minutes;
    `:more` has the last stage alone; `:results` scores a model on all there is."""
    defaults = {"steps": 9600, "batch": 8, "tiny": False, "more": False, "twin": False,
                "results": False}  # fmt: skip
    arg = parse_argument(argument, **defaults)
    if arg["results"]:
        allowed = ("results", "twin")
        others = [k for k in arg if k not in allowed and arg[k] != defaults[k]]
        if others:
            raise ValueError(
                f"`results` goes with `twin` only, not {', '.join(others)}"
            )
        return _results(arg["twin"])
    steps = 60 if arg["tiny"] else arg["steps"]
    c = common.from_scratch()
    c.model = {
        "size": "ti16",
        "width": 96,
        "depth": 6,
        "heads": 2,
        "patch": 8,
        "canvas": (192, 96),
        "pos_grid": 12,
        "merge_after": 0,
        "taps": (2, 5),
        "decoder_width": 8,
        "dtype": "float32",
        "scan": False,
    }
    c.sources = common.ordered(
        photos={
            "type": "indexed",
            "folder": "*",
            "split": "train",
            "exclude": ("seggpt-examples", *THIN),
            "exclude_classes": UNSEEN_CLASSES + (TWIN_CLASSES if arg["twin"] else ()),
            "weight": 0.6,
        },
        thin={
            "members": {
                name: {
                    "type": "indexed",
                    "folder": name,
                    "split": "train",
                    "view": {"crop_scale": scale},
                }
                for name, scale in THIN.items()
            },
            "weight": 0.15,
        },
        shapes={
            "type": "shapes",
            "size": (96, 96),
            "length": 1_000_000,
            "weight": 0.4,
        },
    )
    c.group_power = 0.5
    c.view.crop_scale = (0.5, 1.0)
    c.view.jitter_prob = 0.3
    c.recolor.max_colors = 4
    c.recolor.all_prob = 0.5
    c.context.absent_prob = 0.4
    c.context.mix_prob = 0.1
    c.loader.batch_size = arg["batch"]
    c.optim.algorithm = "muon"
    first = 0 if arg["more"] else steps * 5 // 8
    # Fewer scenes and a lower weight: objects that do not fit the prompt stay black.
    c.stages = common.ordered(
        paint=common.stage(
            steps=steps - first, lr=8e-4, warmup=(steps - first) // 30, loss="l2",
            background_prob=0.3, max_foreground_weight=4.0,
            weights={"photos": 0.75, "thin": 0.15, "shapes": 0.1},
        ),
    )  # fmt: skip
    if first:
        find = common.stage(
            steps=first, lr=1.6e-3, warmup=first // 20, end_lr=8e-4, loss="l2",
            max_foreground_weight=8.0, background_prob=0.7,
        )  # fmt: skip
        c.stages = common.ordered(find=find, **c.stages)
    c.ema = 0.999
    c.log_every = 20
    c.save_every = 1000
    c.eval_every = 0
    sets = {"type": "indexed", "folder": "*", "exclude": NOT_EPISODES}
    c.evals = common.ordered(
        heldout={
            "type": "fewshot",
            "sources": {
                "val": sets | {"split": "val"},
                "test": sets | {"split": "test"},
            },
            "episodes": 4 if arg["tiny"] else 40,
            "batch_size": 4 if arg["tiny"] else 20,
        },
    )
    return c


def _results(twin):
    """Classes and sets of the training in other images, with one prompt, and with up to
    eight where there are so many; then classes and sets never trained on; then videos.
    """
    c = common.base()
    c.mode = "evaluate"
    c.checkpoint = "" if twin else "mini"
    c.model = ConfigDict()
    how = {"type": "fewshot", "episodes": 100, "batch_size": 20}
    sets = {"type": "indexed", "folder": "*"}
    unseen = (*NOT_EPISODES, *UNSEEN_DOMAINS, *UNTRAINED)
    seen = {
        "val": sets | {"split": "val", "exclude": unseen},
        "test": sets | {"split": "test", "exclude": unseen,
                        "exclude_classes": UNSEEN_CLASSES},
    }  # fmt: skip
    many = {
        split: sets | {"split": split, "exclude": (*unseen, *FEW[split])}
        for split in ("val", "test")
    }
    tiles = "magnetic-tile-defect"
    defects = {tiles: sets | {"folder": tiles, "split": "test",
                              "classes": UNSEEN_CLASSES}}  # fmt: skip
    domains = {n: sets | {"folder": n, "split": "test"} for n in UNSEEN_DOMAINS}
    vessels = {
        name: {
            "type": "examples",
            "sources": {name: sets | {"folder": name, "split": "test"}},
            "prompts": sets | {"folder": name, "split": "train"},
            "background": True,
            "examples": (1, 4, 8),
            "tile": tile,
            "batch_size": 20,
        }
        for name, tile in VESSELS.items()
    }
    video = {"type": "davis2016", "folder": "davis2016-val/DAVIS-small", "split": "val"}
    folds = {
        name: sets | {"folder": name, "split": "val", "classes": classes}
        for name, classes in {"coco-mini": COCO_FOLD, **PASCAL_FOLD}.items()
    }
    c.evals = common.ordered(
        seen=how | {"sources": seen},
        folds=how | {"sources": folds},
        unseen_classes=how | {"sources": defects},
        unseen_domains=how | {"sources": domains},
    )
    if not twin:
        c.evals.update(
            feature=how | {"sources": many, "shots": (1, 4, 8)},
            spatial=how | {"sources": many, "shots": (4, 8), "ensemble": "spatial"},
            **vessels,
            davis16={"type": "vos", "sources": {"davis16": video},
                     "memories": (0, 4, 8)},
        )  # fmt: skip
    return c
