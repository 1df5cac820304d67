"""Panoptic segmentation by two prompts, with predictions that are known."""

import json
import shutil

import numpy as np
import pytest
import torch

from seggpt_jax import colors, painter
from seggpt_jax.data.augment import cut_segments, resize, whole
from seggpt_jax.data.sample import Sample
from seggpt_jax.data.sources.coco_panoptic import read_segments
from seggpt_jax.evaluators.cases import Cases
from seggpt_jax.evaluators.panoptic import Evaluator, _read
from seggpt_jax.predict import PredictFns
from seggpt_jax.prompts.file import PromptFile, save_prompts
from tests.support import blocks, miniatures
from tests.support.layouts import raw, write_json

SIZE = (48, 64)


@pytest.fixture
def source(tmp_path):
    """A person, a rug and void, side by side; in the last image the rug is a person
    and the person a crowd."""
    miniatures.coco_panoptic(tmp_path, (96, 128), 3)
    path = tmp_path / "annotations/panoptic_train2017.json"
    data = json.loads(path.read_text())
    person, rug = data["annotations"][2]["segments_info"]
    person["iscrowd"], rug["category_id"] = 1, 1
    write_json(path, data)
    return raw("coco_panoptic_segments", tmp_path, "train")


def truths(source, size):
    """Of each image as the model sees it: itself, and its two targets."""
    labels = [*source.class_names]
    base = 7 if len(labels) > 8 else 2
    palette = painter.semantic_palette(len(labels), base)
    for number in range(len(source)):
        encoded = source.store[number]
        ids, segments = read_segments(encoded.mask, encoded.annotation)
        ids = cut_segments(ids.astype(np.int32), whole(ids.shape), size)
        classes = np.zeros(size, np.int32)
        for segment in segments:
            classes[ids == segment["id"]] = segment["category_id"]
        things = [
            s["id"] for s in segments if s["category_id"] <= 90 and not s["iscrowd"]
        ]
        image = source.sample(encoded).image
        empty = Sample(image, np.zeros(image.shape[:2], np.int32), 0, ())
        yield (
            colors.normalize(resize(empty, size).image),
            colors.paint(classes, labels, palette)[0],
            painter.paint_locations(ids, things),
        )


def seer(source, size=SIZE, shown=None):
    """Paints what is true by either prompt, which it tells by its kind."""
    known = list(truths(source, size))

    def encode(params, images, targets, kind):
        if shown is not None:
            shown.append((images, targets))
        return int(kind[0])

    def predict(params, kind, queries):
        rows = [
            next(own for own in known if np.array_equal(own[0], query))
            for query in np.asarray(queries)
        ]
        return colors.normalize(np.stack([row[1 + kind] for row in rows]))

    return PredictFns(encode, predict)


def build(source, fns, **settings):
    given = {
        "prompts": lambda: source, "example": "000000000000", "things": 1, "base": 2,
        "batch_size": 2, "stuff_area": 100,
    }  # fmt: skip
    engine = blocks.engine(SIZE, prompts=fns)
    return Evaluator(engine, name="coco", source=source, **given | settings)


def test_the_painted_truth_is_right(source):
    shown: list = []
    evaluator = build(source, seer(source, shown=shown))
    scores = dict(evaluator.run(None))
    assert set(scores) == {
        f"coco/{name}{part}" for name in ("pq", "sq", "rq")
        for part in ("", "_things", "_stuff")
    }  # fmt: skip
    assert min(scores.values()) > 0.95 and scores["coco/rq"] == 1
    # Two prompts, each encoded once: classes in their colours, the person in its place.
    (_, semantic), (_, instance) = shown
    palette = painter.semantic_palette(2, 2)
    row = colors.denormalize(semantic[0, 0, 0, ::16]).round().tolist()
    assert row == [[0, 0, 0], palette[0].tolist(), *[palette[1].tolist()] * 2]
    row = colors.denormalize(instance[0, 0, 0, ::16]).round().tolist()
    centre = painter.location_palette()[int(23.5 / 48 * 79), int(23.5 / 64 * 79)]
    assert row == [[0] * 3, centre.tolist(), [0] * 3, [0] * 3]
    assert sorted(evaluator.ranked()) == [0, 1, 2]
    (picture,) = evaluator.rows(None, [1])
    assert len(picture.cells) == len(evaluator.headings)
    assert {cell.shape for cell in picture.cells} == {(*SIZE, 3)}


def test_classes_come_back_smoothly_and_places_by_nearest_pixel(source):
    evaluator = build(source, seer(source), min_score=0.2)
    rng = np.random.default_rng(0)
    classes = evaluator._prompts[0].palette[1:][rng.integers(0, 2, SIZE)]
    cells = painter.location_palette()[::40, ::40][rng.integers(0, 2, (6, 8)), 0]
    places = np.kron(cells, np.ones((8, 8, 1)))[: SIZE[0], : SIZE[1]]
    places[:, SIZE[1] // 2 :] = 0  # no thing: all is stuff or nothing
    # At twice the size the nearest pixel has more than half of the weight.
    truth = _read(source, 0)._replace(ids=np.zeros((144, 256), np.int32))
    ids, found = evaluator._decode(truth, np.float32(classes), np.float32(places))

    def theirs(painting, mode):
        given = torch.tensor(np.float32(painting)).permute(2, 0, 1)[None]
        size = truth.ids.shape
        whole = torch.nn.functional.interpolate(given, size, mode=mode)[0]
        return whole.permute(1, 2, 0).int().numpy().astype(np.uint8)

    expected, segments = painter.merge(
        theirs(classes, "bilinear"), evaluator._prompts[0].palette[1:], 1,
        painter.find_instances(theirs(places, "nearest")), min_score=0.2,
        stuff_area=100,
    )  # fmt: skip
    assert len(segments) > 1 and len(found) == len(segments)
    assert (ids != expected).mean() < 0.001  # a rounding turns a colour


def test_the_rules_of_merging_are_settings(source):
    for change, part in (
        ({"min_score": 2.0}, "things"),
        ({"stuff_area": 9999}, "stuff"),
    ):
        assert (
            dict(build(source, seer(source), **change).run(None))[f"coco/pq_{part}"]
            == 0
        )


def test_a_crowd_is_no_thing_of_an_example(source):
    """Of the last image only the second person is shown by its place."""
    shown: list = []
    evaluator = build(source, seer(source, shown=shown), example="000000000002")
    dict(evaluator.run(None))
    row = colors.denormalize(shown[1][1][0, 0, 0, ::16]).round()
    assert row.any(-1).tolist() == [False, False, True, True]


def test_black_finds_no_thing(source):
    def black(params, kind, queries):
        return colors.normalize(np.zeros(queries.shape, np.uint8))

    fns = PredictFns(seer(source).encode_prompts, black)
    scores = dict(build(source, fns).run(None))
    assert scores["coco/pq_things"] == 0
    # The darkest of both classes is the rug, half of the image, where nothing is void.
    assert scores["coco/pq_stuff"] < 0.7


def test_no_score_depends_on_the_batch_or_on_a_stop(source, tmp_path):
    reference = dict(build(source, seer(source)).run(None))
    for size in (1, 3, 4):
        found = dict(build(source, seer(source), batch_size=size).run(None))
        assert found == reference
    with Cases(tmp_path / "cases") as cases:
        dict(build(source, seer(source), images=2).run(None, cases))
    with Cases(tmp_path / "cases") as cases:
        evaluator = build(source, seer(source))
        assert cases.left(3) == [2] and dict(evaluator.run(None, cases)) == reference
    weights = np.array([[1, 1, 1], [5, 5, 5], [0, 0, 1]])
    scores = evaluator.scores(weights)
    for key, values in scores.items():
        assert values[:2].tolist() == pytest.approx([reference[key]] * 2)
    assert np.isnan(scores["coco/pq_stuff"][2])  # no rug in the last


def test_tuned_prompts(source, tmp_path):
    example, names = build(source, seer(source)), dict(source.class_names)
    paths = [str(tmp_path / f"{name}.safetensors") for name in ("classes", "places")]
    for path, prompts in zip(paths, example._prompts, strict=True):
        save_prompts(path, PromptFile(prompts, names, {}, {}, {}))
    tuned, both = {"semantic": paths[0]}, {"semantic": paths[0], "instance": paths[1]}
    evaluator = build(source, seer(source), **both)  # in place of the example
    assert evaluator.files == both and example.files == {}
    assert dict(evaluator.run(None)) == dict(example.run(None))
    for settings, message in [
        (tuned, "tuned prompts, semantic and instance, or an example"),
        ({"example": ""}, "tuned prompts, semantic and instance, or an example"),
        ({"things": 3}, "things is 3: 'coco_panoptic_segments' has 2 classes"),
        (both | {"semantic": paths[1]}, "has the labels .1.,"),
    ]:
        with pytest.raises(ValueError, match=message):
            build(source, seer(source), **settings)


def test_real_panoptic(data_dir, tmp_path):
    """Both images with all 133 classes, at their own resolution."""
    root = shutil.copytree(data_dir / "coco-panoptic-sample", tmp_path / "coco")
    source = raw(
        "coco_panoptic_segments", root, "val", images="input_images",
        annotations="panoptic_examples.json", masks="panoptic_examples",
    )  # fmt: skip
    size = (320, 320)
    engine = blocks.engine(size, prompts=seer(source, size))
    evaluator = Evaluator(
        engine, name="coco", source=source, batch_size=2, prompts=lambda: source,
        example=source.record_id(0), threads=1,
    )  # fmt: skip
    scores = dict(evaluator.run(None))
    # Small things vanish in the smaller painting or share a place, and stuff of fewer
    # than 8192 pixels, a strip of sky, is left out.
    assert scores["coco/sq"] > 0.9 and scores["coco/pq_stuff"] > 0.85
    assert scores["coco/pq"] > 0.8
