"""A closed set of classes by one prompt, with predictions that are known."""

import shutil

import numpy as np
import pytest
import torch
from PIL import Image

from seggpt_jax import colors, painter
from seggpt_jax.data.augment import resize
from seggpt_jax.evaluators.cases import Cases
from seggpt_jax.evaluators.closed import Evaluator
from seggpt_jax.predict import PredictFns
from seggpt_jax.prompts.file import PromptFile, save_prompts
from seggpt_jax.prompts.read import Prompts
from tests.support import blocks
from tests.support.layouts import mask, raw, save, stripes

SIZE = (48, 64)
IDS = {"ids": {"cat": 1, "dog": 2, "owl": 3}}
PALETTE = painter.semantic_palette(3, 2)


@pytest.fixture
def sets(tmp_path):
    """Images that show the value of each pixel's class, times 50; a strip is ignored,
    another of no class."""
    orders = [(1, 2, 3, 0), (2, 3, 1, 255), (3, 3, 1, 1), (1, 1, 2, 0), (2, 2, 2, 2)]
    for split, size in (("train", SIZE), ("val", (96, 128))):
        for k, values in enumerate(orders):
            mask(tmp_path / f"masks/{split}/{k}.png", values, size=size)
            grey = np.minimum(stripes(values, size) * 50, 255).astype(np.uint8)
            save(tmp_path / f"images/{split}/{k}.png", Image.fromarray(grey))
    return [raw("png_folders", tmp_path, split, **IDS) for split in ("train", "val")]


def seer(palette=PALETTE, shown=None):
    """Paints each pixel in the colour of the class that it shows."""
    table = np.zeros((256, 3), np.uint8)
    for k, color in enumerate(palette, start=1):
        table[50 * k - 20 : 50 * k + 20] = color

    def encode(params, images, targets, kind):
        if shown is not None:
            shown.append((images, targets, kind))

    def predict(params, prompts, queries):
        grey = colors.denormalize(np.asarray(queries)).round().astype(int)[..., 0]
        return colors.normalize(table[grey])

    return PredictFns(encode, predict)


def black(params, prompts, queries):
    return colors.normalize(np.zeros(queries.shape, np.uint8))


def build(sets, fns, **settings):
    train, val = sets
    given = {"prompts": lambda: train, "example": "1", "base": 2, "batch_size": 2}
    engine = blocks.engine(SIZE, prompts=fns)
    return Evaluator(engine, name="ade", source=val, **given | settings)


def test_the_painted_truth_is_right(sets):
    """Edges of stripes are resized: pixels beside them may differ."""
    shown: list = []
    evaluator = build(sets, seer(shown=shown))
    scores = dict(evaluator.run(None))
    assert scores.keys() == {"ade/miou", "ade/macc", "ade/pacc"}
    assert min(scores.values()) > 0.95
    # The prompt was encoded once: the example in Painter's colours, unlabelled black.
    ((images, targets, kind),) = shown
    assert images.shape == targets.shape == (1, 1, *SIZE, 3) and kind.tolist() == [0]
    target = colors.denormalize(np.asarray(targets[0, 0])).round()
    expected = [*PALETTE[[1, 2, 0]].tolist(), [0, 0, 0]]
    assert target[0, ::16].tolist() == expected
    assert sorted(evaluator.ranked()) == [0, 1, 2, 3, 4]
    rows = evaluator.rows(None, [0, 3])
    assert [len(row.cells) for row in rows] == [len(evaluator.headings)] * 2
    assert {cell.shape for row in rows for cell in row.cells} == {(*SIZE, 3)}


def test_black_is_the_class_of_the_darkest_colour(sets):
    """No class is black, so that something is found everywhere: one class, of three."""
    scores = dict(build(sets, PredictFns(seer().encode_prompts, black)).run(None))
    truth = np.concatenate([sample.segments.ravel() for sample in sets[1]])
    truth = truth[(truth > 0) & (truth < 255)]
    darkest = 1 + int(PALETTE.astype(int).sum(1).argmin())
    share = (truth == darkest).mean()
    assert scores["ade/pacc"] == pytest.approx(share)
    assert scores["ade/miou"] == pytest.approx(share / 3)
    assert scores["ade/macc"] == pytest.approx(1 / 3)


def test_paintings_come_back_smoothly(sets):
    """As torch interpolates; then every pixel is of the nearest colour. Between the
    first and the third colour lies the second, which nothing was painted in."""
    evaluator, sample = build(sets, seer(), base=3), sets[1][0]
    palette = painter.semantic_palette(3, 3)
    places = 2 * np.random.default_rng(0).integers(0, 2, SIZE)
    painting = palette[places].astype(np.float32)
    given = torch.tensor(painting).permute(2, 0, 1)[None]
    whole = torch.nn.functional.interpolate(given, (96, 128), mode="bilinear")[0]
    whole = whole.permute(1, 2, 0).int().numpy()
    expected = abs(whole[:, :, None] - palette.astype(int)).sum(-1).argmin(-1)
    pred, *_ = evaluator._compare(sample, painting)
    assert (pred != expected).mean() < 0.02  # a rounding turns a colour
    assert (pred == 1).mean() > 0.2


def test_by_a_tuned_prompt(sets, tmp_path):
    """Its palette decodes; classes that it does not paint are never found."""
    palette = np.array([[0, 0, 0], [0, 255, 0], [255, 0, 255]], np.uint8)
    zeros = np.zeros((1, 2, *SIZE, 3), np.float32)
    kind, labels = np.zeros(1, np.int32), np.array([0, 1, 3], np.int32)
    prompt = Prompts(zeros, zeros, kind, labels, palette)
    fns = seer((palette[1], palette[1], palette[2]))
    names, path = dict(sets[1].class_names), str(tmp_path / "tuned.safetensors")
    content = PromptFile(prompt, names, {}, {}, {})
    save_prompts(path, content)
    settings = {"prompt": path}  # takes the place of the example
    found = dict(build(sets, fns, **settings).run(None))
    # All of dog is taken for cat.
    truth = np.concatenate([sample.segments.ravel() for sample in sets[1]])
    truth = truth[(truth > 0) & (truth < 255)]
    assert found["ade/pacc"] == pytest.approx((truth != 2).mean(), abs=0.02)
    assert found["ade/macc"] == pytest.approx(2 / 3, abs=0.02)
    assert build(sets, fns, **settings).files == settings
    odd = prompt._replace(labels=np.array([0, 1, 7], np.int32))
    for change, message in [
        ({"prompts": odd}, r"prompt has labels \[7\]"),
        ({"names": names | {3: "elk"}}, "prompt: .*'elk'.* are its classes, and not"),
    ]:
        save_prompts(path, content._replace(**change))
        with pytest.raises(ValueError, match=message):
            build(sets, fns, **settings)


def test_no_score_depends_on_the_batch_or_on_a_stop(sets, tmp_path):
    reference = dict(build(sets, seer()).run(None))
    for size in (1, 3, 8):
        assert dict(build(sets, seer(), batch_size=size).run(None)) == reference
    with Cases(tmp_path / "cases") as cases:
        dict(build(sets, seer(), images=3).run(None, cases))
    with Cases(tmp_path / "cases") as cases:
        assert cases.left(5) == [3, 4]
        assert dict(build(sets, seer()).run(None, cases)) == reference


def test_scores_are_those_of_the_weighted_images(sets):
    evaluator = build(sets, PredictFns(seer().encode_prompts, black))
    all_five = dict(evaluator.run(None))
    weights = np.array([[1, 1, 1, 1, 1], [3, 3, 3, 3, 3], [1, 1, 1, 0, 0]])
    scores = evaluator.scores(weights)
    first = build(sets, PredictFns(seer().encode_prompts, black), images=3)
    three = dict(first.run(None))
    for key, values in scores.items():
        expected = [all_five[key], all_five[key], three[key]]
        assert values.tolist() == pytest.approx(expected)


@pytest.mark.parametrize(
    "settings, message",
    [
        ({"example": "9"}, "example is '9': source 'png_folders' has no such record"),
        ({"example": ""}, "a tuned prompt, or an example"),
        ({"base": 1}, "base is 1: it has 1 colours, not 3"),
        ({"batch_size": 0}, "batch_size is 0, must be at least 1"),
    ],
)
def test_what_does_not_fit(sets, settings, message):
    with pytest.raises(ValueError, match=message):
        build(sets, seer(), **settings)


def test_real_ade20k(data_dir, tmp_path):
    """All 150 classes: the painted truth of the sample, at its own resolution."""
    shutil.copytree(data_dir / "ade20k-sample", tmp_path / "ade")
    source = raw("ade20k", tmp_path / "ade", "val")
    size = (448, 448)
    labels, palette = [*source.class_names], painter.semantic_palette(150, 6)
    painted = [
        colors.paint(resize(sample, size).segments, labels, palette)[0]
        for sample in source
    ]
    queries = [colors.normalize(resize(sample, size).image) for sample in source]

    def predict(params, prompts, given):
        rows = [
            next(k for k, own in enumerate(queries) if np.array_equal(own, query))
            for query in np.asarray(given)
        ]
        return colors.normalize(np.stack([painted[k] for k in rows]))

    fns = PredictFns(lambda *_: None, predict)
    evaluator = Evaluator(
        blocks.engine(size, prompts=fns), name="ade", source=source, batch_size=2,
        prompts=lambda: source, example="ADE_val_00000001",
    )  # fmt: skip
    scores = dict(evaluator.run(None))
    # Small classes lose to blended colours at their edges.
    assert scores["ade/pacc"] > 0.95 and scores["ade/miou"] > 0.7
