"""Episodes and the few-shot evaluator, on a source whose answers are known."""

import collections
import dataclasses

import jax
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from seggpt_jax import colors
from seggpt_jax.data.sample import INSTANCE, BadRecord
from seggpt_jax.evaluators import baselines
from seggpt_jax.evaluators.cases import Cases
from seggpt_jax.evaluators.common import prefetch, stack
from seggpt_jax.evaluators.episodes import Episodes
from seggpt_jax.evaluators.fewshot import Evaluator
from seggpt_jax.metrics import interval, resample
from tests.support.blocks import (
    ARMS,
    METRICS,
    SIZE,
    Blocks,
    Tasked,
    copier,
    engine,
    evaluator,
    oracle,
    scores,
)


def test_names_in_order():
    names = list(scores(shots=(1, 2)))
    expected = [f"grey/{k}shot/{a}{m}" for k in (1, 2) for a in ARMS for m in METRICS]
    assert names == expected
    names = list(scores(source=Tasked()))
    parts = ("", "a/", "b/", "views/")
    assert names == [
        f"grey/1shot/{t}{a}{m}" for t in parts for a in ARMS for m in METRICS
    ]


@pytest.mark.parametrize("max_classes", [1, 3])
def test_oracle_scores_one_and_wrong_prompts_nothing(max_classes):
    settings = dict(source=Blocks(), size=SIZE, seed=3, max_classes=max_classes)
    predict = oracle(Episodes(**settings), 10)
    got = scores(predict, **settings)
    assert [got[f"grey/1shot/{m}"] for m in METRICS] == [1, 1, 1]
    assert got["grey/1shot/wrong/miou"] == got["grey/1shot/wrong/episode_miou"] == 0


def test_black_painting_scores_no_foreground():
    def black(params, images, targets, queries, kind):
        return 0 * queries + colors.normalize(np.zeros((1, 1, 1, 3), np.uint8))

    got = scores(black)
    assert got["grey/1shot/miou"] == got["grey/1shot/episode_miou"] == 0
    assert 0.3 < got["grey/1shot/fbiou"] < 0.5  # half of the background's IoU


def test_nan_painting_is_background_not_a_crash():
    got = scores(lambda p, i, t, queries, k: queries * np.nan)
    assert got["grey/1shot/miou"] == 0


def test_scores_depend_neither_on_batch_size_nor_on_devices():
    mesh = jax.make_mesh((8,), ("data",), axis_types=(AxisType.Auto,))
    rows = NamedSharding(mesh, PartitionSpec("data"))
    put = lambda batch: jax.device_put(batch, rows)  # noqa: E731
    settings = dict(shots=(1, 2), max_classes=2)
    expected = scores(jax.jit(copier), batch_size=1, **settings)
    assert 0 < expected["grey/1shot/miou"] < 1
    for other in (dict(batch_size=3), dict(batch_size=8), dict(batch_size=8, put=put)):
        # Exactly: the rows do not touch each other, and sums of counts are integers.
        assert scores(jax.jit(copier), **settings, **other) == expected


def test_runs_under_a_transfer_guard():
    jitted = jax.jit(copier)
    guarded = evaluator(jitted, shots=(1, 2))
    params = jax.device_put(np.float32(0.8))
    with jax.transfer_guard("disallow"):
        got = dict(guarded.run(params))
    assert got == scores(jitted, params, shots=(1, 2))


def test_same_seed_same_scores_and_baselines_once(monkeypatch):
    settings = dict(shots=(1, 2), source=Tasked())
    expected = scores(**settings)
    assert scores(threads=1, **settings) == expected
    assert scores(**settings, seed=1) != expected
    one = evaluator(**settings)
    assert dict(one.run(0.8)) == expected

    def fail(*_):
        raise AssertionError("baselines depend on the data only")

    monkeypatch.setattr("seggpt_jax.evaluators.baselines.color", fail)
    monkeypatch.setattr("seggpt_jax.evaluators.baselines.copy", fail)
    assert dict(one.run(0.8)) == expected
    other = dict(one.run(0.1))
    assert other["grey/1shot/copy/miou"] == expected["grey/1shot/copy/miou"]


def test_one_shot_episodes_are_those_of_more_shots():
    for source in (Blocks(), Blocks(same_image_only=True, kind=INSTANCE)):
        for i in range(6):
            one, _ = Episodes(source, SIZE, shots=1, max_classes=2).draw(i)
            many, _ = Episodes(source, SIZE, shots=4, max_classes=2).draw(i)
            assert len(many.images) == len(many.targets) == 4
            np.testing.assert_array_equal(one.query, many.query)
            np.testing.assert_array_equal(one.truth, many.truth)
            np.testing.assert_array_equal(one.palette, many.palette)
            np.testing.assert_array_equal(one.targets, many.targets[:1])


def by_rule(answers):
    """Scores of answers: the class of each label, what was found and what is true."""
    counts, means = collections.defaultdict(lambda: np.zeros((2, 2))), []
    for classes, found, true in answers:
        own = []
        for label, key in enumerate(classes, 1):
            p, t = found == label, true == label
            own.append(np.sum(p & t) / np.sum(p | t))
            counts[key] += [[np.sum(p & t), np.sum(p | t)],
                            [np.sum(~p & ~t), np.sum(~p | ~t)]]  # fmt: skip
        means.append(np.mean(own))
    every = np.stack([*counts.values()])
    pooled = every.sum(0)
    return {
        "miou": np.mean(every[:, 0, 0] / every[:, 0, 1]),
        "fbiou": np.mean(pooled[:, 0] / pooled[:, 1]),
        "episode_miou": np.mean(means),
    }


def test_too_few_images_for_a_score_say_what_to_do():
    with pytest.raises(
        ValueError, match="no class with the 100 images .*: hold out more images, or "
    ):
        scores(source=Blocks(), shots=(99,))


@pytest.mark.parametrize("source, classes", [(Blocks(), 2), (Tasked(), 1)])
def test_scores_are_those_of_a_plain_computation(source, classes):
    """Every arm of every task: pixels are summed over the episodes of a class; of a
    task without classes all labels are one."""
    got = scores(source=source, max_classes=classes, shots=(1, 3), episodes=12)
    drawn = Episodes(source, SIZE, shots=3, max_classes=classes)

    def painted(episode, k):
        args = [
            colors.normalize(x[None, :k]) for x in (episode.images, episode.targets)
        ]
        query = colors.normalize(episode.query[None])
        painting = copier(0.8, *args, query, np.array([episode.kind]))
        return colors.decode(colors.denormalize(painting)[0], episode.palette)

    answers = collections.defaultdict(list)
    for number in range(12):
        right, wrong = drawn.draw(number)
        keys = [right.task if right.task == "views" else c for c in right.class_ids]
        for k in (1, 3):
            rng = np.random.default_rng([0, number, 2])
            found = {"": painted(right, k), "wrong/": painted(wrong, k),
                     "copy/": baselines.copy(right, k),
                     "color/": baselines.color(right, k, rng)}  # fmt: skip
            for arm, pred in found.items():
                row = keys, pred[~right.ignore], right.truth[~right.ignore]
                answers[f"grey/{k}shot/{arm}"].append(row)
                if right.task:
                    answers[f"grey/{k}shot/{right.task}/{arm}"].append(row)
    expected = {
        place + name: value
        for place, rows in answers.items()
        for name, value in by_rule(rows).items()
    }
    assert got == pytest.approx(expected)


def test_an_episode_that_shows_nothing_counts_in_no_mean():
    one = evaluator()
    dict(one.run(0.8))
    answers = [record["answers"]["1/"] for record in one.records]
    answers[0]["iou"] = None
    (mean,) = one.scores(np.ones((1, 10)))["grey/1shot/episode_miou"]
    assert mean == pytest.approx(np.mean([answer["iou"] for answer in answers[1:]]))


@pytest.mark.parametrize("max_classes", [1, 3])
def test_right_prompts_show_the_classes_asked_for(max_classes):
    source, sizes = Blocks(classes=4, block=8), set()
    settings = dict(shots=2, max_classes=max_classes, min_pixels=20)
    drawn = Episodes(source, SIZE, **settings, wrong_sources=[Blocks(prefix="foreign")])
    for i in range(40):
        right, _ = drawn.draw(i)
        count = len(right.class_ids)
        sizes.add(count)
        assert len(set(right.records)) == 3  # query and prompts are different images
        for label in range(1, count + 1):
            color = right.palette[label]
            assert np.sum(right.truth == label) >= 20
            assert np.sum((right.targets[0] == color).all(-1)) >= 20
        assert np.sum((right.targets[1] == right.palette[1]).all(-1)) >= 20
        apart = np.abs(np.diff(right.palette.astype(int), axis=0)).sum(-1)
        assert right.palette[0].tolist() == [0, 0, 0] and (apart >= 150).all()
        assert right.ignore.any() and right.truth.max() == count
    assert sizes == set(range(1, max_classes + 1))


def test_every_prompt_shows_enough_of_its_class():
    """Not the query and the first prompt alone."""

    class Specks(Blocks):
        def __getitem__(self, index):
            sample = super().__getitem__(index)
            (first,) = sample.classes
            segments = np.where(sample.segments == first, 0, sample.segments)
            size = 20 if index % 4 < 2 else 3
            segments[8 : 8 + size, 5 : 5 + size] = first
            return dataclasses.replace(sample, segments=segments)

    drawn = Episodes(Specks(classes=3), SIZE, shots=4, min_pixels=30)
    for i in range(10):
        right, _ = drawn.draw(i)
        for target in right.targets:
            assert np.sum((target == right.palette[1]).all(-1)) >= 30


def test_a_class_is_drawn_as_often_as_any_other():
    """Its number of images does not matter: class 10 has ten times as many."""

    class Common(Blocks):
        def __post_init__(self):
            super().__post_init__()
            self.by_class[10] = [*self.by_class[10]] * 10

    drawn = Episodes(Common(classes=4), SIZE)
    asked = [drawn.draw(i)[0].class_ids[0] for i in range(200)]
    # Four standard deviations of a share.
    shares = [asked.count(label) / 200 for label in (10, 20, 30, 40)]
    np.testing.assert_allclose(shares, 1 / 4, atol=0.13)


@pytest.mark.parametrize("max_classes", [1, 2])
def test_wrong_prompts_are_disjoint(max_classes):
    source = Blocks()
    drawn = Episodes(source, SIZE, shots=2, max_classes=max_classes)
    unlisted = 0
    for i in range(20):
        right, wrong = drawn.draw(i)
        np.testing.assert_array_equal(right.query, wrong.query)
        np.testing.assert_array_equal(right.truth, wrong.truth)
        for record, target in zip(wrong.records[1:], wrong.targets, strict=True):
            shown = set(np.unique(source[record].segments).tolist())
            assert not shown & set(right.class_ids)
            painted = np.unique(target.reshape(-1, 3), axis=0).tolist()
            asked = right.palette.tolist()
            assert len(painted) > 1 and all(color in asked for color in painted)
        unlisted += len(np.unique(source[right.records[0]].segments)) > 3
    assert unlisted  # by_class alone could not have told


def test_wrong_prompts_come_from_the_same_task():
    source = Tasked()
    drawn = Episodes(source, SIZE)
    for i in range(15):
        right, wrong = drawn.draw(i)
        assert right.task == ("a", "b", "views")[i % 3]
        if right.task == "views":
            assert right.records[0] in range(3, 9)
            assert right.records[0] == right.records[1] != wrong.records[1]
            continue
        (asked,) = right.class_ids
        twin = {10: 20, 20: 10, 30: 40, 40: 30}[asked]
        segments = source[wrong.records[1]].segments
        assert asked in source.families[right.task]
        assert twin in segments and asked not in segments


def test_wrong_sources_serve_a_source_of_one_class():
    source = Blocks(classes=1)
    alone = Episodes(source, SIZE)
    assert alone.without_wrong == "source 'grey' has no other class"
    assert alone.draw(0)[1] is None
    other = Blocks(name="other", classes=3)  # its class 10 has the very same name
    specks = Blocks(name="specks", prefix="speck", block=3)  # all too small
    drawn = Episodes(source, SIZE, wrong_sources=[specks, other])
    for i in range(10):
        right, wrong = drawn.draw(i)
        assert right.class_ids == (10,)
        assert 10 not in other[wrong.records[1]].segments
    twin = Blocks(name="twin", classes=1)
    for useless in (twin, specks):
        with pytest.raises(ValueError, match=r"no wrong prompts where \['class 10'\]"):
            Episodes(source, SIZE, wrong_sources=[useless]).draw(0)


def test_what_has_no_wrong_prompts_is_scored_without_them():
    """One class, one image, or a class that every image shows."""
    everywhere = Blocks()
    everywhere.by_class = everywhere.by_class | {10: np.arange(len(everywhere))}
    for settings, why in (
        (dict(source=Blocks(classes=1)), "no other class"),
        (dict(source=Tasked(), max_classes=2), "task 'a', has no other class"),
        (dict(source=Blocks(same_image_only=True, length=1)), "no other image"),
        (dict(source=everywhere), "'class 10' in every image"),
    ):
        assert why in evaluator(**settings)._episodes.without_wrong
    got = scores(source=Blocks(classes=1))
    assert {n.split("/")[2] for n in got if n.endswith("/fbiou")} == {
        "fbiou", "copy", "color",
    }  # fmt: skip
    both = scores(source=Blocks(classes=1), wrong_sources=lambda: [Blocks(prefix="x")])
    assert got.items() <= both.items() and "grey/1shot/wrong/miou" in both


def test_views_of_one_image():
    source = Blocks(same_image_only=True, kind=INSTANCE, length=6)
    drawn = Episodes(source, (32, 30), shots=3, max_classes=2)
    for i in range(6):
        right, wrong = drawn.draw(i)
        assert right.kind == INSTANCE and len(set(right.records)) == 1
        assert wrong.records[0] not in wrong.records[1:]
        np.testing.assert_array_equal(right.images[0], source[right.records[0]].image)
        assert (right.query != right.images[0]).any()
        for label in range(1, len(right.class_ids) + 1):
            assert np.sum(right.truth == label) >= 16
    got = scores(source=source, max_classes=2)
    assert all(0 <= value <= 1 for value in got.values())
    # At the size of a crop nothing is resized: three quarters of a side, mirrored.
    right, _ = Episodes(source, (24, 22)).draw(0)
    whole = np.lib.stride_tricks.sliding_window_view(
        source[right.records[0]].image[:, ::-1], (24, 22), (0, 1)
    )
    same = np.moveaxis(whole, 2, -1) == right.query
    assert same.all((2, 3, 4)).any()


def test_class_with_too_few_images_is_left_out_or_named():
    source = Blocks(classes=4, length=11)  # 3, 3, 3 and 2 images
    drawn = Episodes(source, SIZE, shots=2)
    assert {drawn.draw(i)[0].class_ids for i in range(30)} == {(10,), (20,), (30,)}
    with pytest.raises(ValueError, match="the 4 images .* shots=3 .* 'class 10', 3"):
        Episodes(source, SIZE, shots=3)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (dict(source=Blocks(length=0)), "source 'grey' is empty"),
        (dict(source=Blocks(classes=0)), "'grey' has .*no classes"),
        (dict(tasks=("a",)), r"tasks has \['a'\], source 'grey' has \[''\]"),
        (dict(source=Tasked(), tasks=("a", "c")), r"has \['a', 'b', 'views'\]"),
        (dict(shots=()), r"shots is \(\)"),
        (dict(shots=(1, 1)), r"shots is \(1, 1\)"),
        (dict(shots=(0,)), "shots is 0, must be at least 1"),
        (dict(episodes=-1), "episodes is -1, must be at least 1"),
        (dict(source=Tasked(), episodes=2), "episodes is 2, must be at least 3"),
        (dict(batch_size=0), "batch_size is 0"),
        (dict(max_classes=0), "max_classes is 0"),
        (dict(min_pixels=0), "min_pixels is 0"),
        (dict(size=(0, 8)), "size is 0"),
    ],
)
def test_settings_are_checked_before_anything_runs(settings, message):
    with pytest.raises(ValueError, match=message):
        evaluator(**settings)


def test_objects_too_small_to_ask_for_are_named():
    with pytest.raises(ValueError, match="episode 0 .*class 10.* min_pixels=9999"):
        scores(min_pixels=9999)


def test_a_bad_record_stops_the_evaluation_by_name():
    class Torn(Blocks):
        def __getitem__(self, index):
            raise BadRecord(f"record {index} of grey: folder/torn.jpg is truncated")

    with pytest.raises(BadRecord, match="torn.jpg"):
        scores(source=Torn())


def test_stack_pads_with_rows_of_the_batch():
    right, _ = Episodes(Blocks(), SIZE, shots=2).draw(0)
    images, targets, queries, kind = stack([right], 1, 3)
    assert images.shape == targets.shape == (3, 1, *SIZE, 3) and kind.dtype == np.int32
    assert images.dtype == queries.dtype == np.float32
    np.testing.assert_array_equal(queries[0], queries[2])
    back = colors.denormalize(targets[0]).round().astype(np.uint8)
    np.testing.assert_array_equal(back, right.targets[:1])


def test_prefetch_keeps_order_is_bounded_and_stops_at_an_error():
    started = []

    def work(i):
        started.append(i)
        if i == 30:
            raise BadRecord("thirty")
        return i

    results = prefetch(work, range(100), threads=2, ahead=5)
    assert [next(results) for _ in range(10)] == list(range(10))
    assert max(started) < 10 + 5
    with pytest.raises(BadRecord, match="thirty"):
        list(results)
    assert max(started) <= 35


def test_pictures_are_of_the_cases_asked_for():
    one = evaluator(batch_size=2)
    list(one.run(0.8))
    rows = one.rows(0.8, [4, 0, 7])
    assert len(rows) == 3 and all(len(row.cells) == len(one.headings) for row in rows)
    right, _ = Episodes(Blocks(), SIZE).draw(4)
    np.testing.assert_array_equal(rows[0].cells[2], right.query)
    assert (one.rows(0.1, [4])[0].cells[4] != rows[0].cells[4]).any()


def test_cases_are_ranked_by_their_iou():
    one = evaluator(max_classes=2)
    list(one.run(0.8))
    ranked = one.ranked()
    assert sorted(ranked) == list(range(10))
    captions = [float(row.caption.split()[-1]) for row in one.rows(0.8, ranked)]
    assert captions == sorted(captions, reverse=True) and captions[0] > captions[-1]


def test_a_stopped_run_goes_on_where_it_was(tmp_path):
    """Whatever was finished, in whatever order; a line cut by a kill is done again."""
    settings = dict(shots=(1, 2), source=Tasked())
    expected = scores(**settings)
    with Cases(tmp_path, {"weights": 1}) as cases:
        assert dict(evaluator(**settings).run(0.8, cases)) == expected
    head, *lines = (tmp_path / "cases.jsonl").read_text().splitlines(keepends=True)
    kept = [lines[k] for k in (7, 2, 5)]
    (tmp_path / "cases.jsonl").write_text("".join([head, *kept, lines[0][:20]]))
    asked = []

    def counting(params, images, targets, queries, kind):
        asked.append(len(queries))
        return copier(params, images, targets, queries, kind)

    with Cases(tmp_path, {"weights": 1}) as cases:
        assert cases.left(10) == [0, 1, 3, 4, 6, 8, 9]
        assert dict(evaluator(counting, **settings).run(0.8, cases)) == expected
    assert len(asked) == 2 * 2 * 2  # batches of 4, by two numbers of shots and two arms
    with Cases(tmp_path, {"weights": 2}) as cases:
        assert len(cases.left(10)) == 10  # of other weights: nothing is kept


def test_without_a_number_there_is_an_episode_for_each_record():
    assert evaluator(source=Blocks(length=12), episodes=0).count == 12


def test_scores_of_resampled_episodes():
    """Weights count episodes: twice the same is no news, and one alone is its own."""
    one = evaluator(max_classes=2, shots=(1, 2))
    expected = dict(one.run(0.8))
    weights = np.concatenate([np.full((1, 10), w) for w in (1.0, 2.0)])
    for name, values in one.scores(weights).items():
        # Means over episodes round in another order; sums of pixels are exact.
        np.testing.assert_allclose(values, expected[name], rtol=1e-12)
    alone = one.scores(np.eye(10))["grey/1shot/episode_miou"]
    assert np.mean(alone) == pytest.approx(expected["grey/1shot/episode_miou"])
    spread = one.scores(resample(10, 200))["grey/1shot/miou"]
    assert np.ptp(spread) > 0
    low, high = interval(spread)
    assert low < expected["grey/1shot/miou"] < high


def test_prompts_are_searched_for(tmp_path):
    """Of the candidates the one that looks like the query: here of its own grey."""
    given = engine(
        predict=copier, prompts=(None, None),
        features=lambda params, images, kind: images.mean((1, 2)),
    )  # fmt: skip
    settings = dict(source=Blocks(), name="grey", episodes=10, batch_size=4)
    settings |= dict(search="similarity", pool=4)
    one = Evaluator(given, **settings)
    found = dict(one.run(0.8))
    assert dict(one.run(0.8)) == found
    drawn = Episodes(Blocks(), SIZE, shots=4)
    for number, row in enumerate(one.rows(0.8, range(5))):
        right, _ = drawn.draw(number)
        means = colors.normalize(right.images).mean((1, 2))
        asked = colors.normalize(right.query).mean((0, 1))
        cosine = means @ asked / np.linalg.norm(means, axis=1) / np.linalg.norm(asked)
        np.testing.assert_array_equal(row.cells[0], right.images[cosine.argmax()])
    assert found != scores(shots=(1,))
    for change, message in [
        ({"pool": 1}, "pool is 1, must be more than shots, 1"),
        ({"protocol": "fss1000"}, "search 'similarity' does not go with a protocol"),
        ({"search": "score!"}, "search 'score!' is unknown; did you mean"),
    ]:
        with pytest.raises(ValueError, match=message):
            Evaluator(given, **settings | change)
