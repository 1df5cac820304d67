"""The agreement of masks in both dtypes."""

import argparse
from types import SimpleNamespace

import numpy as np
import pytest

from benchmarks import agreement

SIZE = (4, 4)
MASKS = {  # of three episodes, in float32 and in bfloat16
    "float32": [np.ones(SIZE, int), np.zeros(SIZE, int), np.eye(4, dtype=int)],
    "bfloat16": [np.ones(SIZE, int), np.zeros(SIZE, int), np.ones(SIZE, int)],
}


def test_masks_that_are_both_empty_do_not_count(monkeypatch):
    class Predictor:
        model_name, size = "fake", SIZE

        @classmethod
        def from_pretrained(cls, name, dtype):
            found = cls()
            found.masks = iter(MASKS[dtype])
            return found

        def set_prompts(self, image, target):
            pass

        def __call__(self, query):
            return SimpleNamespace(segments=next(self.masks))

    episode = SimpleNamespace(images=[None], targets=[None], query=None)
    monkeypatch.setattr(agreement, "Predictor", Predictor)
    monkeypatch.setattr(agreement, "draw", lambda args, size: [(episode, None)] * 3)
    (row,) = agreement.rows(argparse.Namespace(model="fake"))
    assert row["masks"] == 2
    assert row["iou"] == pytest.approx((1 + 4 / 16) / 2)
    assert row["low"] == 0.5
