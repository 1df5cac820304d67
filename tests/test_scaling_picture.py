"""The picture of scores against training compute."""

from benchmarks import scaling


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
