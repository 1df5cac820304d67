"""The base of every config: the paper's training, setting by setting."""

from ml_collections import ConfigDict

# Sampling weights of the paper's supplementary. They sum to 0.99; runs normalise them.
WEIGHTS = {
    "coco_instance": 0.22,
    "ade20k": 0.15,
    "coco_panoptic": 0.15,
    "cityscapes": 0.07,
    "coco_stuff": 0.07,
    "lip": 0.07,
    "voc": 0.07,
    "paco": 0.07,
    "aerial": 0.06,
    "vessels": 0.06,
}
# The two weights that several sets share.
MEMBERS = {
    "aerial": ("isaid", "loveda"),
    "vessels": ("chase_db1", "drive", "hrf", "stare"),
}
# "High-res images augmented by random crops" (paper). The crops, as shares of the area,
# keep vessels at about their own scale when a crop becomes 448 x 448 pixels.
CROPS = {
    "chase_db1": (0.2, 0.8),
    "drive": (0.3, 1.0),
    "hrf": (0.025, 0.2),
    "stare": (0.3, 1.0),
}


def paper_sources() -> ConfigDict:
    """The training data of the paper, each set in the folder of its name."""
    c = ordered()
    for name, weight in WEIGHTS.items():
        if name in MEMBERS:
            members = {one: _trained_on(one) for one in MEMBERS[name]}
            c[name] = {"weight": weight, "members": members}
        else:
            c[name] = {"weight": weight, **_trained_on(name)}
    return c


def _trained_on(name: str) -> dict:
    spec = {"type": name, "folder": name, "split": "train"}
    if name in CROPS:
        spec["view"] = {"crop_scale": CROPS[name]}
    return spec


def ordered(**settings) -> ConfigDict:
    """A ConfigDict that keeps its order: stages run, and sources mix, in that order."""
    return ConfigDict(settings, sort_keys=False)


def base() -> ConfigDict:
    """The paper's ViT-L training ("One-Shot Training Details"). Where the paper states
    no value it is ours (docs/training.md gives the reasons)."""
    c = ConfigDict()
    c.mode = "train"
    c.seed = 0
    c.data_dir = ""
    c.checkpoint = ""  # the model of the modes "evaluate" and "tune"
    c.init_from = ""  # parameters to start from; empty: random

    c.model = ConfigDict(
        {
            "size": "l16",
            "canvas": (896, 448),
            "drop_path": 0.1,
            "dtype": "bfloat16",
            "remat": "full",
            "attention": "auto",
        }
    )
    c.sources = ordered()
    c.skip_missing = False  # True: leave out sources whose folder is not there
    c.group_power = 1.0  # inside a group of sources: share ~ size ** group_power
    c.bad_share = 0.01
    c.fixed_pairs = 0  # train on so many fixed pairs only; 0: the endless mixture

    c.view = ConfigDict(
        {
            "crop_scale": (0.3, 1.0),
            "crop_ratio": (3 / 4, 4 / 3),
            "flip": 0.5,
            "vertical_flip": 0.0,
            "jitter": (0.4, 0.4, 0.2, 0.1),
            "jitter_prob": 0.8,
            "swap_sides": True,
        }
    )
    c.context = ConfigDict(
        {
            "same_image": 0.5,
            "prompts": 1,
            "one_prompt": 0.0,
            "absent_prob": 0.0,
            "mix_prob": 0.2,
            "mix_grid": (2, 2),
            "tries": 8,
            "min_share": 0.002,
        }
    )
    c.recolor = ConfigDict(
        {"max_colors": 10, "all_prob": 0.0, "min_distance": 120.0, "fixed": False}
    )
    c.masking = ConfigDict(
        {
            "share": 0.5,
            "half_prob": 0.1,
            "block_share": (16 / 1568, 392 / 1568),
            "aspect": (0.3, 1 / 0.3),
        }
    )

    c.loader = ConfigDict(
        {"batch_size": 2048, "threads": 16, "workers": 0, "prefetch": 2}
    )
    c.accumulate = 1
    c.optim = ConfigDict(
        {
            "algorithm": "adamw",
            "weight_decay": 0.05,
            "betas": (0.9, 0.999),
            "eps": 1e-8,
            "clip": 3.0,
            "layer_decay": 0.8,
            "trainable": ".*",  # regex of the parameters that change
        }
    )
    c.stages = ordered(paint=stage(steps=9000, lr=1e-4, warmup=1800))
    c.ema = 0.0  # decay of the parameters' moving average; 0: none

    c.mesh = ConfigDict({"data": -1, "fsdp": 1, "tensor": 1})
    c.cpu_devices = 1  # devices that a CPU is cut into; they share a batch
    c.log_every = 10
    c.save_every = 500
    c.keep = 3
    c.best = ""  # a score, as in the log: the checkpoint where it was highest stays too
    c.checkpoints = ""  # their folder; empty: WORKDIR/checkpoints
    c.eval_every = 1000
    c.evals = ordered()
    c.tune = ConfigDict(
        {
            "classes": (),
            "palette": "spread",
            "prompts": 1,
            "init": "example",
            "images": 0,
            "heldout": {},
        }
    )
    return c


def from_scratch() -> ConfigDict:
    """`base` for a small model that starts from random parameters."""
    c = base()
    c.optim.layer_decay = 1.0
    c.optim.betas = (0.9, 0.98)
    c.optim.clip = 1.0
    c.masking.half_prob = 1.0
    c.loader = small_loader(8)
    return c


def small_loader(batch_size: int) -> ConfigDict:
    """The loader for a machine of few cores."""
    return ConfigDict(
        {"batch_size": batch_size, "threads": 2, "workers": 0, "prefetch": 4}
    )


def stage(**settings) -> ConfigDict:
    """A stage of training: the paper's loss unless told otherwise."""
    values = {
        "steps": 0,
        "lr": 0.0,
        "warmup": 0,
        "end_lr": 0.0,
        "loss": "smooth_l1",
        "beta": 0.01,
        "max_foreground_weight": 1.0,
        "background_prob": 0.0,
        "weights": {},
    }
    return ConfigDict(values | settings)
