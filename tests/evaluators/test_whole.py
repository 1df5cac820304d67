"""An evaluation of a split that lacks records is refused: its scores would be those of
another set. The lists: tests/data/test_lists.py."""

import pytest

from seggpt_jax import evaluate
from seggpt_jax.config import counted
from seggpt_jax.predict import Engine
from seggpt_jax.runs import sharding
from seggpt_jax.weights import build
from tests import tiny
from tests.data.test_lists import KINDS
from tests.support.layouts import mask, photo

TYPES = {
    "davis2016": "vos", "davis2017": "vos", "mose": "vos", "youtube_vos": "vos",
    "coco_panoptic": "examples", "png_folders": "examples", "voc": "closed",
}  # fmt: skip


def build_one(root, kind, split="val", examples="val", **settings):
    """An evaluator of a source; examples: the split of its prompts."""
    spec = {"type": kind, "folder": kind, "split": split, **settings}
    prompts = spec | {"split": examples}
    own = {
        "vos": {"memories": (1,)},
        "fewshot": {"episodes": 1, "batch_size": 1},
        "examples": {"batch_size": 1, "prompts": prompts},
        "closed": {"batch_size": 1, "prompts": prompts, "example": "a"},
    }
    name = TYPES.get(kind, "fewshot")
    evals = {"one": {"type": name, "sources": {kind: spec}, **own[name]}}
    engine = Engine(build.build_model(tiny.config().model), sharding.make_mesh())
    return evaluate.build_groups(evals, str(root), engine)


@pytest.mark.parametrize("kind", KINDS)
def test_incomplete_lists_are_refused(kind, tmp_path):
    split, settings, lost = KINDS[kind](tmp_path / kind)
    records = counted(len(lost), "record")
    message = f"evals.one: source '{kind}' lacks {records} of its split"
    with pytest.raises(ValueError, match=message) as caught:
        build_one(tmp_path, kind, split, **settings)
    assert all(name in str(caught.value) for name in lost)


def test_examples_come_from_a_whole_source(tmp_path):
    """Which examples are drawn depends on all records of their split."""
    for split in ("train", "val"):
        for k in range(2):
            photo(tmp_path / f"png_folders/images/{split}/{k}.jpg", k)
            mask(tmp_path / f"png_folders/masks/{split}/{k}.png", (0, 1))
    settings = {"examples": "train", "ids": {"a": 1}}
    assert build_one(tmp_path, "png_folders", **settings)
    (tmp_path / "png_folders/masks/train/1.png").unlink()
    (tmp_path / "png_folders/masks/train/1.png").write_bytes(b"\x89PNG torn")
    with pytest.raises(ValueError, match="lacks 1 record .*train/1.png cannot be read"):
        build_one(tmp_path, "png_folders", **settings)


def test_an_unreadable_mask_is_no_fewer_episode(tmp_path):
    """By the masks alone FSS-1000's classes are known: nobody would miss a record."""
    for name in ("abacus", "bell"):
        for k in range(1, 5):
            photo(tmp_path / f"fss1000/{name}/{k}.jpg", k)
            mask(tmp_path / f"fss1000/{name}/{k}.png", (0, 255))
    assert build_one(tmp_path, "fss1000", "all")
    (tmp_path / "fss1000/bell/3.png").unlink()
    (tmp_path / "fss1000/bell/3.png").write_bytes(b"version https://git-lfs")
    with pytest.raises(ValueError, match="lacks 1 record .*bell/3.png cannot be read"):
        build_one(tmp_path, "fss1000", "all")
