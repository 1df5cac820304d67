"""The paper's mixture: weights, groups, views, and what is missing."""

import json

import grain
import jax
import numpy as np
import pytest

from configs import common, vitl
from seggpt_jax import train
from seggpt_jax.config import plain
from seggpt_jax.data import pipeline
from seggpt_jax.data.sources import open_sources
from seggpt_jax.evaluators.episodes import Episodes
from seggpt_jax.training.mixture import (
    build_dataset,
    check_weights,
    pop_views,
    split_weights,
)
from seggpt_jax.training.settings import read_settings
from tests import tiny
from tests.support import miniatures


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return miniatures.write_all(tmp_path_factory.mktemp("data"))


def config(data, **settings):
    c = tiny.config(data_dir=str(data), **settings)
    c.sources = common.paper_sources()
    return c


def build(c):
    return build_dataset(read_settings(c), (32, 32), 8)


def expected(sources) -> dict[str, float]:
    """The paper's weights, normalised, those of groups divided by size."""
    shares = {}
    for name, weight in common.WEIGHTS.items():
        members = common.MEMBERS.get(name, (name,))
        total = sum(len(sources[one]) for one in members)
        shares |= {one: weight / 0.99 * len(sources[one]) / total for one in members}
    return shares


def test_observed_ratios_over_ten_thousand_draws(data, monkeypatch):
    """grain takes turns, by weights quantised to a hundredth of the smallest."""
    monkeypatch.setattr(  # only the source of a pair is looked at
        pipeline._Pairs, "__call__", lambda self, index, rng: self.number
    )
    # grain shuffles three records slower than three million.
    monkeypatch.setattr(grain.MapDataset, "shuffle", lambda self, **_: self)
    sources, dataset = build(config(data))
    drawn = np.array([dataset[k] for k in range(10_000)])
    shares = expected(sources)
    for number, name in enumerate(sources):
        share = (drawn == number).mean()
        assert abs(share - shares[name]) < 0.001, (name, share, shares[name])


def test_groups_are_printed_and_divided_by_size(data, caplog):
    with caplog.at_level("INFO", logger="absl"):
        sources, _ = build(config(data))
    assert [*sources][-6:] == ["isaid", "loveda", "chase_db1", "drive", "hrf", "stare"]
    lines = caplog.text.split("mixture:")[1].splitlines()
    assert "share    records  classes  source" in lines[0]
    rows = {line.split()[-1]: line.split()[:-1] for line in lines[1:15]}
    for name, share in expected(sources).items():
        assert float(rows[name][0]) == pytest.approx(share, abs=5e-5)
        assert int(rows[name][1]) == len(sources[name])


def test_a_missing_set_is_an_error_or_left_out(data, tmp_path, caplog):
    part = tmp_path / "data"
    part.mkdir()
    for name in ("voc", "drive", "isaid"):
        (part / name).symlink_to(data / name)
    with pytest.raises(ValueError) as error:
        build(config(part))
    for name in miniatures.SETS:
        named = f"{name} (folder {part / name})" in str(error.value)
        assert named == (name not in ("voc", "drive", "isaid"))
    sources, _ = build(config(part, skip_missing=True))
    assert [*sources] == ["voc", "isaid", "drive"]
    assert f"left out: hrf, no folder {part / 'hrf'}" in caplog.text
    views = pop_views(plain(common.paper_sources()))
    assert {*views} == {*common.MEMBERS["vessels"]}


def test_a_wrong_view_of_a_member_is_named(data):
    c = config(data)
    c.sources.vessels.members.hrf.view.crop_scale = (2.0, 1.0)
    with pytest.raises(ValueError, match=r"sources.hrf.view: crop_scale=\(2.0, 1.0\)"):
        build(c)


@pytest.mark.parametrize("weight", [0, -1, float("nan"), float("inf"), "much", None])
def test_weights_are_positive_numbers(weight):
    with pytest.raises(ValueError, match=r"sources.a.weight = .*a positive number"):
        check_weights({"b": 1, "a": weight})


def test_groups_share_their_weight_by_size_to_a_power():
    groups = {"a": {"x": [0] * 4, "y": [0]}, "b": {"z": [0] * 9}}
    weights = {"a": 1, "b": 1}
    assert split_weights(weights, groups, 1.0) == {"x": 0.4, "y": 0.1, "z": 0.5}
    assert split_weights(weights, groups, 0) == {"x": 0.25, "y": 0.25, "z": 0.5}
    groups = {"a": {"x": range(1), "y": range(9)}, "b": {"z": range(5)}}
    shares = split_weights({"a": 3, "b": 1}, groups, power=0.5)
    assert shares == pytest.approx({"x": 3 / 16, "y": 9 / 16, "z": 1 / 4})


def test_groups_that_cannot_share_a_weight():
    with pytest.raises(ValueError, match="source z is empty"):
        split_weights({"b": 1}, {"b": {"z": []}}, power=1.0)
    with pytest.raises(ValueError, match="source x is in two groups"):
        split_weights({"a": 3, "b": 1}, {"a": {"x": [1]}, "b": {"x": [1]}}, power=1.0)


def in_stages(**weights):
    """Two sources of scenes in three stages of a step of 8: with these weights, as they
    are, and with these again."""
    c = tiny.get_config("batch=8")
    c.sources.more = {**plain(c.sources.shapes), "seed": 3, "name": "more"}
    c.stages = common.ordered(
        first=common.stage(steps=1, lr=1e-3, weights=weights),
        then=common.stage(steps=1, lr=1e-3),
        last=common.stage(steps=1, lr=1e-3, weights=weights),
    )
    return c


def test_a_stage_may_weigh_sources_anew():
    sources, dataset = build(in_stages(shapes=3, more=0))
    assert [*sources] == ["shapes", "more"]
    drawn = [int(dataset[k]["source"]) for k in range(40)]
    assert drawn[:8] == [0] * 8 and sorted(drawn[8:16]) == [0] * 4 + [1] * 4
    assert drawn[16:] == [0] * 24  # and so on after the end
    batches = pipeline.make_iterator(dataset, 8, start_step=1)
    for step in (1, 2):
        batch = next(batches)
        assert batch["source"].tolist() == drawn[8 * step : 8 * step + 8]
    batches.close()
    # No stage goes through what the one before it showed, whatever their weights.
    first, second = ({dataset[k]["images"].tobytes() for k in span}
                     for span in (range(8), range(8, 16)))  # fmt: skip
    assert not first & second
    records = [str(dataset[k]["record"]) for k in (*range(8), *range(16, 24))]
    assert len(set(records)) > 12


def test_stages_without_weights_go_on_with_one_mixture():
    c = in_stages()
    in_parts = build(c)[1]
    c.stages = common.ordered(whole=common.stage(steps=3, lr=1e-3))
    once = build(c)[1]
    for k in (0, 7, 8, 23):
        same = zip(*(jax.tree.leaves(one[k]) for one in (in_parts, once)), strict=True)
        assert all(np.array_equal(a, b) for a, b in same)


@pytest.mark.parametrize(
    "weights, message",
    [
        ({"shape": 1}, r"stages.first.weights.shape: no source; did you mean 'shapes'"),
        ({"shapes": -1}, r"stages.first.weights.shapes = -1: must be a number, at"),
        ({"shapes": "a"}, r"stages.first.weights.shapes = 'a': must be a number"),
        (
            {"shapes": 0, "more": 0},
            r"stages.first.weights = .*: must be above 0 for one",
        ),
    ],
)
def test_weights_of_stages_are_checked(weights, message):
    with pytest.raises(ValueError, match=message):
        build(in_stages(**weights))


def test_the_papers_run_trains_on_miniatures(data, tmp_path, monkeypatch):
    """configs/vitl.py, as it is, but for the size of the model and of the batch, random
    parameters, and the split of its episodes. It has the score that `best` names."""
    c = vitl.get_config()
    c.data_dir = str(data)
    c.model = tiny.config().model
    c.loader = {"batch_size": 8, "threads": 2, "workers": 0, "prefetch": 2}
    c.stages.paint.steps, c.stages.paint.warmup, c.log_every = 3, 1, 1
    c.optim.layer_decay = 1.0
    c.evals.heldout.episodes, c.evals.heldout.batch_size = 2, 4
    for spec in c.evals.heldout.sources.values():
        spec.split = "train"
    tiny.one_device(monkeypatch)
    train.train(c, str(tmp_path / "run"))
    rows = [
        json.loads(line)
        for line in (tmp_path / "run/metrics.jsonl").read_text().splitlines()
    ]
    losses = [row["loss"] for row in rows if "loss" in row]
    assert len(losses) == 3 and np.isfinite(losses).all()
    assert 0 <= rows[-1][c.best] <= 1


def test_episodes_of_layouts(data):
    """Any layout can be evaluated on; one gives the other its wrong prompts."""
    specs = {kind: {"type": kind, "split": "train"} for kind in ("voc", "lip")}
    voc, lip = open_sources(specs, data).values()
    episode, wrong = Episodes(voc, (48, 64), wrong_sources=(lip,)).draw(0)
    assert episode.query.shape == wrong.query.shape == (48, 64, 3)
    np.testing.assert_array_equal(episode.query, wrong.query)
    assert (episode.targets != wrong.targets).any()
