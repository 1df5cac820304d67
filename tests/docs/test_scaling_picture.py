"""The pictures that scripts draw: scores by compute, the method, examples, failures."""

import re

import matplotlib
import numpy as np
import pytest

from benchmarks import scaling, tables
from docs.pictures import failures, method, segment
from seggpt_jax.models.seggpt import SegGPTConfig


def row(change, flops, right):
    return {"change": change, "flops": flops, "mean": {"right": right, "wrong": 9.0}}


def test_lines_run_by_operations(tmp_path):
    found = scaling.lines([row("base", 3e12, 20), row("small", 1e12, 12),
                           row("base", 1e12, 15)])  # fmt: skip
    assert found["base"] == [(1e12, 15, 9), (3e12, 20, 9)]
    assert list(found) == ["base", "small"]
    scaling.draw(found, tmp_path / "picture.svg")
    text = (tmp_path / "picture.svg").read_text()
    assert text.count("<path") > 4 and "</svg>" in text


def test_the_method_is_drawn_with_the_numbers_of_the_model(tmp_path):
    blank = np.zeros((8, 8, 3), np.uint8)
    found = dict.fromkeys(("painting", "segments"), blank)
    found |= dict.fromkeys(("image", "target"), np.concatenate([blank, blank]))
    with matplotlib.rc_context({"svg.fonttype": "none"}):
        method.draw(SegGPTConfig.of("l16"), found, tmp_path / "picture.svg")
    text = (tmp_path / "picture.svg").read_text()
    for shown in ("896 × 448", "56 × 28 = 1568", "5, 11, 17, 23", "4096", "(784)"):
        assert shown in text, shown


@pytest.mark.parametrize("sheet", segment.SHEETS)
def test_the_photographs_are_drawn(sheet, tmp_path):
    rows = segment.panels(sheet)
    for *_, image, found in rows:
        changed = (np.asarray(image) != np.asarray(found)).any(-1).mean()
        assert 0.03 < changed < 0.4  # the things cover 0.05 to 0.3
    segment.draw(rows, tmp_path / "picture.png")
    assert (tmp_path / "picture.png").stat().st_size > 20_000


def test_the_failures_of_the_page_fail(data_dir):
    """Each row of the sheet is a failure, and the page describes each in its order."""
    found = list(failures.answers("mini", str(data_dir)))
    ious = {row.caption: iou for row, iou in found}
    assert all(iou < 0.3 for iou in ious.values()), ious
    assert {len(row.cells) for row, _ in found} == {len(failures.HEADINGS)}
    causes = [f"{n} {f.cause}" for n, f in enumerate(failures.FAILURES, 1)]
    page = tables.PAGE.read_text().split("### What makes it fail\n")[1].split("###")[0]
    assert re.findall(r"^\| (\d+ [^|]+) \|", page, re.M) == causes
    for failure in failures.FAILURES:
        assert failure.folder in page.split("The pictures are of")[1], failure
        # Open Images' names; COCO's photos are under other terms.
        if failure.folder == "endangered-animals":
            assert len(failure.prompt) == len(failure.query) == 16
