"""The training loop of the documents runs as it is written."""

import runpy
import sys

import numpy as np
import pytest
from PIL import Image

from tests.conftest import REPOSITORY


@pytest.mark.slow
def test_a_few_steps_end_in_a_picture(tmp_path, monkeypatch, capsys):
    out = tmp_path / "minimal.png"
    monkeypatch.setattr(sys, "argv", ["minimal_train.py", "--steps=2", f"--out={out}"])
    runpy.run_path(str(REPOSITORY / "docs/examples/minimal_train.py"))
    losses = [line for line in capsys.readouterr().out.splitlines() if "loss" in line]
    assert len(losses) == 2 and "nan" not in "".join(losses)
    picture = np.asarray(Image.open(out))
    assert picture.shape == (192, 960, 3)
    assert len(np.unique(picture[:, 192:384].reshape(-1, 3), axis=0)) == 2  # a target
