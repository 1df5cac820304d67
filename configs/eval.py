"""Evaluations of the paper, each by its protocol (docs/evaluation.md).

    python -m seggpt_jax.main --config=configs/eval.py:davis17 --workdir=runs/davis17 \
        --config.checkpoint=runs/vitl/checkpoints --config.data_dir=DATA

A row takes arguments: `:fss1000,shots=5,ensemble=spatial`, `:davis17,memory=7`, and
`:coco_panoptic_tuned,side=560` for images of another size. `:all` are all rows of the
paper whose data is there; `seggpt report` makes a page of results.

The model is the checkpoint's. `--config.model.dtype=float32` changes its dtype, and so
on for all settings that are not geometry. Data sets are expected in the folders of
their types (docs/datasets.md).
"""

import inspect

from ml_collections import ConfigDict

from configs import common
from seggpt_jax.config import parse_argument, suggest


def ade20k_examples():
    """ADE20K by N training images per class (Table S1): 18.8 mIoU at N = 1 to 33.0 at
    N = 32, the best of the four seeds."""
    spec = {"type": "ade20k", "folder": "ade20k"}
    return {
        "type": "examples",
        "sources": {"ade20k": {**spec, "split": "val"}},
        "prompts": {**spec, "split": "train"},
        "examples": (1, 2, 4, 8, 16, 32),
        "seeds": (1000, 2000, 3000, 4000),
        "batch_size": 8,
    }


def polyp():
    """CVC-ClinicDB (Table S2: 76.3 mIoU), prompted by images of Kvasir-SEG. Our own
    protocol: the paper says neither where its examples come from nor how many, nor
    whether its mIoU averages the background in (`miou`) or images (`image_iou`)."""
    prompts = {"type": "kvasir_seg", "folder": "kvasir_seg", "split": "all"}
    source = {"type": "cvc_clinicdb", "folder": "cvc_clinicdb", "split": "all"}
    return {
        "type": "examples",
        "sources": {"cvc_clinicdb": source},
        "prompts": prompts,
        "background": True,
        "examples": (1, 8),
        "seeds": (1000, 2000, 3000, 4000),
        "batch_size": 8,
    }


def davis16(memory=8):
    """DAVIS 2016 val: one object, first frame given."""
    return _davis("davis2016", memory)


def davis17(memory=8):
    """DAVIS 2017 val: all objects of a video in one pass. Paper: 75.6 at 8 frames."""
    return _davis("davis2017", memory)


def ytvos18(memory=8):
    """YouTube-VOS 2018 valid (paper: 74.7): writes ytvos18.zip for its server."""
    source = {"type": "youtube_vos", "folder": "youtube_vos", "split": "valid"}
    return {
        "type": "vos",
        "sources": {"youtube_vos": source},
        "memories": (memory,),
        "appear": True,
        "export": "ytvos18.zip",
        "export_folder": "Annotations",
    }


def mose(memory=8):
    """MOSE valid (paper: 45.1): writes mose.zip for its server."""
    return {
        "type": "vos",
        "sources": {"mose": {"type": "mose", "folder": "mose", "split": "valid"}},
        "memories": (memory,),
        "export": "mose.zip",
        "export_folder": "",  # VIDEO/FRAME.png at the top
    }


def _davis(kind, memory):
    return {
        "type": "vos",
        "sources": {kind: {"type": kind, "folder": kind, "split": "val"}},
        "memories": (memory,),
    }


def fss1000(shots=1, ensemble="feature"):
    """FSS-1000, all images of the 240 test classes. Paper: 85.6, few-shot 89.3. Its
    ablation: four examples, spatial, 89.3, feature, 87.8; eight, feature, 89.8."""
    sources = {"fss1000": {"type": "fss1000", "folder": "fss1000", "split": "test"}}
    return _hsnet("fss1000", sources, 2400, shots, ensemble)


def pascal5i(shots=1, ensemble="feature"):
    """PASCAL-5i, four folds of 1,000 episodes. Paper: 83.2, few-shot 89.8."""
    return _hsnet("pascal5i", _folds("pascal5i"), 1000, shots, ensemble)


def coco20i(shots=1, ensemble="feature"):
    """COCO-20i, four folds of 1,000 episodes. Paper: 56.1, few-shot 67.9."""
    return _hsnet("coco20i", _folds("coco20i"), 1000, shots, ensemble)


def lvis92i(shots=1, ensemble="feature"):
    """LVIS-92i, ten folds of 2,300 episodes by Matcher's protocol. SegGPT by Matcher:
    18.6, few-shot 25.4."""
    spec = {"type": "lvis92i", "folder": "lvis", "split": "val", "shots": shots}
    sources = {f"fold{fold}": {**spec, "fold": fold} for fold in range(10)}
    return _hsnet("lvis92i", sources, 2300, shots, ensemble)


def isaid5i(shots=1, ensemble="feature"):
    """iSAID-5i, aerial images, three folds, by INSID3's protocol: every line of the
    lists is a query."""
    spec = {"type": "isaid5i", "folder": "isaid5i", "split": "val"}
    sources = {f"fold{fold}": {**spec, "fold": fold} for fold in range(3)}
    return _hsnet("isaid5i", sources, 0, shots, ensemble)


def isic(shots=1, ensemble="feature"):
    """ISIC 2018, three kinds of skin lesions, 600 episodes by INSID3's protocol. SegGPT
    by REBASE: 37.5."""
    return _insid3("isic2018", 600, shots, ensemble)


def chest_xray(shots=1, ensemble="feature"):
    """Lungs in chest X-rays, 600 episodes by INSID3's protocol. SegGPT by REBASE:
    87.5."""
    return _insid3("chest_xray", 600, shots, ensemble)


def suim(shots=1, ensemble="feature"):
    """SUIM, underwater images of seven classes, by INSID3's protocol: as many episodes
    as there are masks that show their class."""
    return _insid3("suim", 0, shots, ensemble)


def pascal_part(shots=1, ensemble="feature"):
    """PASCAL-Part, parts of objects that are cut out, four folds of up to 2,500
    episodes by Matcher's protocol. SegGPT by REBASE: 35.8."""
    return _hsnet("pascal_part", _folds("pascal_part"), 0, shots, ensemble)


def paco_part(shots=1, ensemble="feature"):
    """PACO-Part, parts of objects that are cut out, four folds of 2,500 episodes by
    Matcher's protocol. SegGPT by REBASE: 13.5."""
    sources = _folds("paco_part", shots=shots)
    return _hsnet("paco_part", sources, 0, shots, ensemble)


def permis():
    """PerMIS, one object of a video in two other frames, by INSID3's protocol."""
    sources = {"permis": {"type": "permis", "folder": "permis", "split": "all"}}
    return _hsnet("permis", sources, 0, 1, "feature")


def ade20k_tuned():
    """ADE20K by one prompt for all classes, painted and decoded as Painter's. Paper,
    tuned: 39.6 mIoU, 50.7 mAcc."""
    spec = {"type": "ade20k", "folder": "ade20k"}
    return {
        "type": "closed",
        "sources": {"ade20k": {**spec, "split": "val"}},
        "prompt": "",  # a tuned one; without it the example below, Painter's
        "prompts": {**spec, "split": "train"},
        "example": "ADE_train_00009574",
        "base": 6,
        "batch_size": 8,
    }


def coco_panoptic_tuned():
    """COCO panoptic by two prompts for all images, painted and decoded as Painter's.
    Paper, tuned: 34.4 PQ. Painter's images are 560 x 560 (`side=560`)."""
    spec = {"type": "coco_panoptic_segments", "folder": "coco_panoptic"}
    return {
        "type": "panoptic",
        "sources": {"coco_panoptic": {**spec, "split": "val"}},
        "semantic": "",  # tuned ones; without both the example below, Painter's
        "instance": "",
        "prompts": {**spec, "split": "train"},
        "example": "000000391460",
        "things": 80,
        "base": 7,
        "batch_size": 8,
    }


def _folds(kind, **settings):
    spec = {"type": kind, "folder": kind, "split": "val", **settings}
    return {f"fold{fold}": {**spec, "fold": fold} for fold in range(4)}


def _insid3(kind, episodes, shots, ensemble):
    sources = {kind: {"type": kind, "folder": kind, "split": "all"}}
    return _hsnet("insid3", sources, episodes, shots, ensemble)


def _hsnet(protocol, sources, episodes, shots, ensemble):
    return {
        "type": "fewshot",
        "protocol": protocol,
        "sources": sources,
        "episodes": episodes,
        "batch_size": 8,
        "shots": (shots,),  # one number: the episodes depend on it
        "ensemble": ensemble,  # "feature", "spatial" or "both"
    }


def indexed():
    """Few-shot episodes of every set in the folder's sets.tsv that has the split."""
    return {
        "type": "fewshot",
        "sources": {"sets": {"type": "indexed", "folder": "*", "split": "val"}},
        "episodes": 100,
        "batch_size": 8,
        "shots": (1,),
        "search": "none",  # or "score", or "similarity": prompts chosen from a pool
        "pool": 0,
    }


ROWS = {
    row.__name__: row
    for row in (
        fss1000,
        pascal5i,
        coco20i,
        lvis92i,
        isaid5i,
        isic,
        chest_xray,
        suim,
        pascal_part,
        paco_part,
        permis,
        ade20k_examples,
        ade20k_tuned,
        coco_panoptic_tuned,
        polyp,
        davis16,
        davis17,
        ytvos18,
        mose,
        indexed,
    )
}


def get_config(argument=None):
    """`:NAME`, one of `ROWS`, with arguments of its function; or `:all`, the paper's
    rows whose data is there. Both take `side=N`: images are N x N, not of the
    checkpoint's size."""
    name, _, rest = (argument or "").partition(",")
    c = common.base()
    c.mode = "evaluate"
    c.model = ConfigDict()
    if name == "all":
        side = parse_argument(rest, side=0)["side"]
        c.skip_missing = True
        c.evals = common.ordered(**{n: _row(n) for n in ROWS if n != "indexed"})
    elif name in ROWS:
        given = inspect.signature(ROWS[name]).parameters.values()
        own = {parameter.name: parameter.default for parameter in given}
        arguments = parse_argument(rest, **own, side=0)
        side = arguments.pop("side")
        c.evals[name] = _row(name, **arguments)
    else:
        choices = [*ROWS, "all"]
        what = f":{argument} is unknown" if argument else ": give a row, as :davis17"
        raise ValueError(f"configs/eval.py{what}{suggest(name, choices)}")
    if side:
        c.model.canvas = (2 * side, side)
    return c


def _row(name, **arguments):
    row = ROWS[name]
    return {"about": " ".join(row.__doc__.split()), **row(**arguments)}
