"""All rows whose data is there, and the page of their results."""

import json
import math
import re
import types
from pathlib import Path

import pytest

from configs import eval as eval_config
from seggpt_jax import cli, evaluate
from seggpt_jax.evaluators import page
from seggpt_jax.evaluators.published import published
from tests.evaluators.test_rows import lvis, mose
from tests.support.models import write_release


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
    """Of `:all`, where only two rows have data, drawn and small."""
    folder = tmp_path_factory.mktemp("all")
    config = eval_config.get_config("all")
    config.data_dir = str(folder / "data")
    config.checkpoint = write_release(folder / "release")
    for make in (lvis, mose):
        make(None, folder / "data" / make.__name__)
    row = config.evals.lvis92i
    row.episodes, row.sources = 4, {k: row.sources[k] for k in ("fold0", "fold7")}
    config.evals.mose.memories = (2,)
    evaluate.evaluate(config, str(folder / "run"))
    return folder / "run"


def test_rows_without_data_are_left_out_and_named(workdir):
    results = {path.name for path in (workdir / "results").glob("*.json")}
    assert results == {"lvis92i.json", "mose.json", "left_out.json"}
    left_out = json.loads((workdir / "results/left_out.json").read_text())
    assert {*left_out} == {*eval_config.ROWS} - {"lvis92i", "mose", "indexed"}
    folder = workdir.parent / "data/pascal5i"
    assert left_out["pascal5i"] == f"no folder {folder}"


def test_one_row_is_no_rows(tmp_path, monkeypatch, capsys):
    found = types.SimpleNamespace(rows=[None], left_out={})
    monkeypatch.setattr(page, "read", lambda folders: found)
    monkeypatch.setattr(page, "write", lambda found, new: None)
    with pytest.raises(SystemExit):
        cli.main(["report", str(tmp_path), "--out", str(tmp_path / "report")])
    assert capsys.readouterr().out.startswith("1 row, 0 left out: ")


def test_nothing_to_score_is_an_error(tmp_path):
    config = eval_config.get_config("all")
    config.data_dir, config.checkpoint = str(tmp_path), "shapes"
    with pytest.raises(
        ValueError, match="no row of evals has its data: no folder .*fss1000, "
    ):
        evaluate.evaluate(config, str(tmp_path / "run"))


def test_report(workdir, tmp_path, capsys):
    out = tmp_path / "report"
    for _ in range(2):  # the second replaces the first
        with pytest.raises(SystemExit) as ended:
            cli.main(["report", str(workdir), "--out", str(out)])
        assert not ended.value.code
    others = len(eval_config.ROWS) - len(("lvis92i", "mose", "indexed"))
    assert f"2 rows, {others} left out" in capsys.readouterr().out
    results = json.loads((workdir / "results/lvis92i.json").read_text())["scores"]
    value, low, high = (
        f"{100 * results['lvis92i/mean/1shot/miou'][k]:.1f}"
        for k in ("value", "low", "high")
    )
    wrong = f"{100 * results['lvis92i/mean/1shot/wrong/miou']['value']:.1f}"
    markdown, text = (out / "report.md").read_text(), (out / "index.html").read_text()
    line = f"| mean 1shot/miou | {value} [{low}, {high}] | {wrong} |"
    assert line in markdown and "| 18.6 | Matcher's measurement |" in markdown
    assert f">{value} [{low}, {high}]</td>" in text and "Left out" in text
    assert "scored by a server" in markdown and "fold0 1shot/miou" in markdown
    assert "fold0 1shot/fbiou" not in markdown  # of single folds only the first score
    pictures = re.findall(r"!\[.*?\]\((.*?)\)", markdown)
    assert pictures and all((out / name).is_file() for name in pictures)
    assert text.count("<img") == len(pictures)
    rows = {
        row["row"]: row for row in json.loads((out / "report.json").read_text())["rows"]
    }
    found = {s["source"] + s["key"]: s for s in rows["lvis92i"]["scores"]}
    assert (
        found["mean1shot/miou"]["value"] == results["lvis92i/mean/1shot/miou"]["value"]
    )


@pytest.mark.parametrize(
    "content, message",
    [
        (None, "no results of evaluations in .*run: give workdirs of config.mode"),
        ("{", "g.json: no results of an evaluation"),
        ('{"group": "g"}', "g.json: no results of an evaluation .KeyError"),
    ],
)
def test_workdirs_without_results_are_refused(content, message, tmp_path, capsys):
    (tmp_path / "run/results").mkdir(parents=True)
    if content:
        (tmp_path / "run/results/g.json").write_text(content)
    with pytest.raises(SystemExit) as ended:
        cli.main(["report", str(tmp_path / "run"), "--out", str(tmp_path / "report")])
    assert ended.value.code == 2 and re.search(message, capsys.readouterr().err)
    assert not (tmp_path / "report").exists()


def test_a_folder_of_other_things_is_kept(workdir, tmp_path, capsys):
    (tmp_path / "mine.txt").write_text("")
    with pytest.raises(SystemExit):
        cli.main(["report", str(workdir), "--out", str(tmp_path)])
    assert "holds other things" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


def test_text_of_results_cannot_become_markup(tmp_path):
    scores = {"g/a/miou": {"value": 0.5}}
    content = {"group": "g", "settings": {}, "about": "<b>|", "scores": scores}
    (tmp_path / "results").mkdir()
    (tmp_path / "results/g.json").write_text(json.dumps(content))
    found = page.read([tmp_path])
    assert "<b>" not in page.as_html(found) and "&lt;b&gt;" in page.as_html(found)


def test_pictures_are_those_of_their_own_row(tmp_path):
    (tmp_path / "results").mkdir()
    (tmp_path / "pictures/0000005").mkdir(parents=True)
    for row in ("cats", "cats_tuned"):
        content = {"group": row, "settings": {}, "step": 5,
                   "scores": {f"{row}/a/miou": {"value": 0.5}}}  # fmt: skip
        (tmp_path / f"results/{row}.json").write_text(json.dumps(content))
        (tmp_path / f"pictures/0000005/{row}-a.png").write_bytes(b"")
    rows = page.read([tmp_path]).rows
    shown = {row.row: [path.name for path in row.pictures] for row in rows}
    assert shown == {"cats": ["cats-a.png"], "cats_tuned": ["cats_tuned-a.png"]}


# Written down from the paper; (row, score, ensemble) -> percent.
PAPER = {
    ("fss1000", "1shot/miou", "feature"): 85.6,
    ("fss1000", "4shot/miou", "spatial"): 89.3,
    ("fss1000", "4shot/miou", "feature"): 87.8,
    ("fss1000", "8shot/miou", "feature"): 89.8,
    ("fss1000", "8shot/fbiou", "feature"): 93.8,
    ("fss1000", "8shot/miou", "spatial"): None,
    ("pascal5i", "1shot/miou", "feature"): 83.2,
    ("pascal5i", "5shot/miou", "spatial"): 89.8,
    ("coco20i", "1shot/miou", "feature"): 56.1,
    ("coco20i", "5shot/miou", "feature"): 67.9,
    ("davis17", "K8/jf", None): 75.6,
    ("davis17", "K7/jf", None): 75.6,
    ("davis17", "K0/j", None): 66.4,
    ("davis17", "K16/f", None): 77.8,
    ("davis17", "K5/jf", None): None,
    ("ade20k_examples", "N1/miou", None): 18.8,
    ("ade20k_examples", "N32/macc", None): 42.0,
    ("ade20k_tuned", "miou", None): 39.6,
    ("coco_panoptic_tuned", "pq", None): 34.4,
    ("polyp", "N1/miou", None): 76.3,
    ("indexed", "1shot/miou", "feature"): None,
}


@pytest.mark.parametrize("case", PAPER)
def test_published_figures(case):
    row, score, ensemble = case
    found = published(row, score, {"ensemble": ensemble} if ensemble else {})
    if PAPER[case] is None:
        assert found is None
    else:
        assert math.isclose(100 * found.value, PAPER[case]) and found.where


def test_a_row_without_published_figures_shows_its_mean_first():
    scores = [
        page.Score(source, "1shot/miou", 0.5, 0.4, 0.6, {}, None)
        for source in ("fold0", "fold1", "mean")
    ]
    row = page.Scored("isaid5i", Path("run"), {}, scores, [])
    assert "| isaid5i | mean 1shot/miou |" in page.as_markdown(page.Page([row], []))
