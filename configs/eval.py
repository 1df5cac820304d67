"""Evaluations of the paper, each by its protocol (docs/evaluation.md).

    python -m seggpt_jax.main --config=configs/eval.py:davis17 --workdir=runs/davis17 \
        --config.checkpoint=runs/vitl/checkpoints --config.data_dir=DATA

The model is the checkpoint's; `--config.model.dtype=float32` and the like change what
is not geometry. Data sets are expected in the folders of their types (docs/data.md).
"""

from ml_collections import ConfigDict

from configs import common
from seggpt_jax.config import suggest


def davis16():
    """DAVIS 2016 val: one object, first frame given."""
    return _davis("davis2016")


def davis17():
    """DAVIS 2017 val: all objects of a video in one pass. Paper: 75.6 at K = 8."""
    return _davis("davis2017")


def _davis(kind):
    return {
        "type": "vos",
        "sources": {kind: {"type": kind, "folder": kind, "split": "val"}},
        "memories": (8,),  # (1, 4, 8, 12, 16) are those of the paper's table
    }


def indexed():
    """Every set of the folder's sets.tsv that has a split `val`: few-shot episodes."""
    return {
        "type": "fewshot",
        "sources": {"val": {"type": "indexed", "folder": "*", "split": "val"}},
        "episodes": 100,
        "batch_size": 8,
        "shots": (1,),
    }


ROWS = {row.__name__: row for row in (davis16, davis17, indexed)}


def get_config(argument=None):
    """`:NAME`, one of `ROWS`."""
    if argument not in ROWS:
        raise ValueError(f"configs/eval.py:{argument}{suggest(str(argument), ROWS)}")
    c = common.base()
    c.mode = "evaluate"
    c.model = ConfigDict()
    c.evals[argument] = ROWS[argument]()
    return c
