"""An evaluator of one's own, by the recipe of CONTRIBUTING.md."""

import dataclasses
import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from seggpt_jax import colors, evaluate
from seggpt_jax.evaluators import common
from seggpt_jax.pictures.sheets import Row
from seggpt_jax.predict import Engine
from seggpt_jax.runs import sharding
from seggpt_jax.weights import build, release
from tests import tiny
from tests.support import blocks
from tests.support.layouts import mask, photo
from tests.support.models import random_params


@dataclasses.dataclass(kw_only=True, eq=False)
class Evaluator(common.Evaluator):
    """How much of an image turns bright where the image itself, in white, is the
    prompt; the first `images` of a source."""

    needs = ("dataset",)
    headings = ("query", "painting")

    source: Any
    dataset: Callable[[], Any]
    images: int
    batch_size: int
    level: float = 128.0

    def __post_init__(self) -> None:
        self.count = self.images
        self._paint = self.engine.predict_fn("none")

    def collect(self, params, numbers, cases):
        for batch in common.batched(numbers, self.batch_size):
            for number, _, painting in self._answers(params, batch):
                bright = int((painting > self.level).all(-1).sum())
                cases.add(number, {"bright": bright, "pixels": painting[..., 0].size})

    def scores(self, weights):
        counts = np.array([[r["bright"], r["pixels"]] for r in self.records])
        bright, pixels = common.weighted(weights, counts).T
        return {f"{self.name}/share": bright / pixels}

    def ranked(self):
        return sorted(range(self.count), key=lambda n: -self.records[n]["bright"])

    def rows(self, params, numbers):
        return [
            Row((image, painting), f"#{n}")
            for batch in common.batched(numbers, self.batch_size)
            for n, image, painting in self._answers(params, batch)
        ]

    def _answers(self, params, numbers):
        size = self.batch_size
        read = common.prefetch(self.source.__getitem__, numbers, threads=1, ahead=size)
        rows = common.filled([sample.image for sample in read], size)
        images = colors.normalize(np.stack(rows))
        white = colors.normalize(np.full(images.shape, 255, np.uint8))
        kind = np.zeros(len(images), np.int32)
        placed = self.engine.put((images[:, None], white[:, None], images, kind))
        painted = self.engine.fetch(self._paint(params, *placed))
        yield from zip(numbers, rows, painted, strict=False)


@pytest.fixture
def config(monkeypatch):
    monkeypatch.setitem(evaluate.EVALUATORS, "bright", __name__)
    settings = tiny.config("evals")
    shown = settings.evals.heldout.to_dict()["sources"]
    settings.evals.heldout = {"type": "bright", "sources": shown, "images": 5,
                              "batch_size": 2}  # fmt: skip
    return settings


def test_its_scores_are_known_for_a_known_model():
    """By the recipe: the same scores at two batch sizes."""
    scenes = blocks.Blocks()
    engine = blocks.engine(
        (32, 30), predict=lambda params, images, targets, queries, kind: queries
    )
    share = np.mean([(scenes[n].image > 200).all(-1) for n in range(5)])
    for size in (1, 2, 5):
        one = Evaluator(
            engine, name="b", source=scenes, dataset=list, images=5, batch_size=size,
            level=200.5,
        )  # fmt: skip
        assert dict(one.run(None)) == {"b/share": pytest.approx(share)}


def test_a_config_names_it(config, tmp_path, monkeypatch):
    model = build.build_model(config.model)
    params = random_params(model)
    release.export_params(tmp_path / "release", params, config.model.to_dict())
    config.mode, config.checkpoint = "evaluate", str(tmp_path / "release")
    scores = evaluate.evaluate(config, str(tmp_path / "run"))
    assert scores.keys() == {"heldout/shapes/share"}
    results = json.loads((tmp_path / "run/results/heldout.json").read_text())
    assert results["scores"]["heldout/shapes/share"]["value"] in scores.values()
    lines = (tmp_path / "run/results/heldout-shapes/cases.jsonl").read_text()
    assert len(lines.splitlines()) == 6  # what they are about, and five cases
    assert (tmp_path / "run/pictures/0000000/heldout-shapes.png").exists()
    # Once more: no case is left to do, and the scores are the same.
    left: list = []
    monkeypatch.setattr(
        Evaluator, "collect", lambda s, p, numbers, c: left.extend(numbers)
    )
    assert evaluate.evaluate(config, str(tmp_path / "run")) == scores and not left


def test_the_builder_says_what_it_lacks(config):
    engine = Engine(build.build_model(config.model), sharding.make_mesh())
    for settings, offers, message in [
        ({}, {}, "setting evals.heldout.dataset is missing"),
        ({"level": 1.0, "leval": 1}, {"dataset": list}, "leval is unknown; did you"),
        ({"prompts": {}}, {"dataset": list}, "evals.heldout.prompts is unknown"),
        ({"prompt": "a.safetensors"}, {"dataset": list}, "heldout.prompt is unknown"),
    ]:
        evals = {"heldout": config.evals.heldout.to_dict() | settings}
        with pytest.raises(ValueError, match=message):
            evaluate.build_groups(evals, "", engine, **offers)


def test_sources_of_prompts_are_opened_when_they_are_asked_for(tmp_path):
    """A tuned prompt takes the place of an example: its source need not be there."""
    config = tiny.config()
    engine = Engine(build.build_model(config.model), sharding.make_mesh())
    photo(tmp_path / "some/images/val/0.png")
    mask(tmp_path / "some/masks/val/0.png", (0, 1))
    some = {"type": "png_folders", "folder": "some", "split": "val", "ids": {"a": 1}}
    absent = some | {"folder": "absent"}
    settings = {"type": "closed", "sources": {"some": some}, "prompts": absent,
                "example": "0", "batch_size": 1}  # fmt: skip
    with pytest.raises((ValueError, OSError), match="absent"):
        evaluate.build_groups({"some": settings}, str(tmp_path), engine)
    tuned = settings | {"prompt": str(tmp_path / "no.safetensors")}
    with pytest.raises(FileNotFoundError, match="no.safetensors: there is no such"):
        evaluate.build_groups({"some": tuned}, str(tmp_path), engine)


@pytest.mark.parametrize(
    "settings",
    [
        {"type": "closed", "example": "0"},
        {"type": "panoptic", "example": "0"},
        {"type": "fewshot", "episodes": 2, "shots": (1,), "protocol": "fss1000"},
    ],
)
def test_drawn_scenes_have_no_names(settings):
    """Refused before anything is scored."""
    engine = Engine(build.build_model(tiny.config().model), sharding.make_mesh())
    scenes = {"type": "shapes", "size": (32, 32), "length": 9}
    settings = settings | {"sources": {"scenes": scenes}, "batch_size": 1}
    with pytest.raises(ValueError, match="evals.some: source 'shapes' draws its rec"):
        evaluate.build_groups({"some": settings}, "", engine)
