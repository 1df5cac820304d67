"""The rehearsal of the paper's run, with a small model."""

import json

import pytest

from configs import eval as eval_config
from configs import vitl
from seggpt_jax.training.settings import read_settings
from tests import rehearse


def test_only_lengths_and_sizes_differ_from_the_papers_run():
    paper, small = (vitl.get_config(form) for form in ("", "rehearsal"))
    assert small.sources == paper.sources and small.optim == paper.optim
    assert small.model.size == "l16" and small.model.canvas == (128, 64)
    assert read_settings(small).steps == 2
    with pytest.raises(SystemExit, match="error: exit status 1 of the command above"):
        rehearse.run(["-c", "raise SystemExit(1)"])


@pytest.mark.slow
def test_from_weights_to_the_page(tmp_path):
    page = rehearse.main(["--out", str(tmp_path / "run"), "--size", "ti16"])
    report = json.loads((page.parent / "report.json").read_text())
    rows = {row["row"] for row in report["rows"]}
    assert rows == eval_config.ROWS.keys() - {"indexed"} and not report["left_out"]
    text = page.read_text()
    assert all(row in text for row in rows)
