"""launch/cvat_function.py through cvat-sdk's own driver, with a stand-in for the
server's tasks."""

import importlib.util
import logging
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from seggpt_jax import Predictor
from seggpt_jax.results.objects import find
from tests.conftest import REPOSITORY
from tests.results.blobs import filled

cvataa = pytest.importorskip("cvat_sdk.auto_annotation")
FILE = REPOSITORY / "launch/cvat_function.py"
EXAMPLES = REPOSITORY / "tests/support/scenes"
PROMPT = f"{EXAMPLES}/prompt.png:{EXAMPLES}/prompt-mask.png"
QUERY = EXAMPLES / "query.png"


@pytest.fixture(scope="module")
def module():
    spec = importlib.util.spec_from_file_location("cvat_function", FILE)
    loaded = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(loaded)
    return loaded


@pytest.fixture(scope="module")
def function(module):
    return module.create(prompt=PROMPT, names="1=thing", split=True)


@pytest.fixture(scope="module")
def wanted():
    ours = Predictor.from_pretrained("mini")
    ours.set_prompts(*PROMPT.split(":"))
    return find(ours(QUERY), split=True)


class Task:
    """A task of two frames, and what was uploaded to it."""

    def __init__(self, monkeypatch, label="thing", kind="any"):
        from cvat_sdk.auto_annotation import driver

        self.labels = [SimpleNamespace(name=label, id=90, type=kind, sublabels=[],
                                       attributes=[])]  # fmt: skip
        media = SimpleNamespace(load_image=lambda: Image.open(QUERY))
        self.samples = [
            SimpleNamespace(frame_name=QUERY.name, frame_index=k, media=media)
            for k in (3, 4)
        ]
        monkeypatch.setattr(driver, "TaskDataset", lambda *_, **__: self)
        self.uploaded = None
        api = SimpleNamespace(partial_update_annotations=self._upload)
        self.client = SimpleNamespace(
            logger=logging.getLogger(__name__), tasks=SimpleNamespace(api=api)
        )

    def _upload(self, action, number, patched_labeled_data_request):
        assert (action, number) == ("create", 7)
        self.uploaded = patched_labeled_data_request.shapes

    def annotate(self, function, **options):
        cvataa.annotate_task(self.client, 7, function, **options)
        return self.uploaded


def test_masks_are_those_of_the_predictor(function, wanted, monkeypatch):
    from cvat_sdk.masks import decode_mask

    shapes = Task(monkeypatch).annotate(function)
    assert len(shapes) == 2 * len(wanted) > 0
    size = {"image_width": 192, "image_height": 192}
    for shape, item in zip(shapes, [*wanted, *wanted], strict=True):
        assert (shape.type.value, shape.label_id) == ("mask", 90)
        mask = decode_mask(shape.points, **size)
        assert mask.sum() == item.area and shape.score == pytest.approx(item.score)
        rows, columns = item.mask.shape
        here = mask[item.top : item.top + rows, item.left : item.left + columns]
        np.testing.assert_array_equal(here, item.mask)
    assert {shape.frame for shape in shapes} == {3, 4}


def test_polygons_are_near_the_masks(function, wanted, monkeypatch):
    task = Task(monkeypatch, kind="polygon")
    shapes = task.annotate(function, conv_mask_to_poly=True)
    assert {shape.type.value for shape in shapes} == {"polygon"}
    union, truth = np.zeros((192, 192), bool), np.zeros((192, 192), bool)
    for shape in shapes[: len(wanted)]:
        union |= filled(np.reshape(shape.points, (-1, 2)), union.shape)
    for item in wanted:
        rows, columns = item.mask.shape
        place = slice(item.top, item.top + rows), slice(item.left, item.left + columns)
        truth[place] |= item.mask
    assert (union & truth).sum() / (union | truth).sum() > 0.9


def test_objects_below_the_threshold_are_left_out(function, wanted, monkeypatch):
    least = sorted(item.score for item in wanted)[-1]
    shapes = Task(monkeypatch).annotate(function, conf_threshold=least)
    assert len(shapes) == 2 * sum(item.score >= least for item in wanted) > 0


def test_a_label_that_the_task_has_not_is_refused(function, monkeypatch):
    with pytest.raises(
        cvataa.BadFunctionError, match="label 'thing' is not in dataset"
    ):
        Task(monkeypatch, label="other").annotate(function)
    assert not Task(monkeypatch, label="other").annotate(
        function, allow_unmatched_labels=True
    )


def test_cvat_cli_loads_it_with_its_parameters(wanted):
    common = pytest.importorskip("cvat_cli._internal.common")
    parsers = pytest.importorskip("cvat_cli._internal.parsers")
    given = dict(
        parsers.parse_function_parameter(text)
        for text in (f"prompt=str:{PROMPT}", "names=str:1=thing", "split=bool:false")
    )
    loaded = common.FunctionLoader(None, FILE, given).load()
    assert [label.name for label in loaded.spec.labels] == ["thing"]


@pytest.mark.parametrize(
    "settings, text",
    [
        ({"prompt": "nowhere.png"}, "IMAGE:MASK is wanted"),
        ({"prompt": PROMPT, "names": "1=thing,1=other"}, "label 1 is named twice"),
        ({"prompt": PROMPT, "names": "2=thing"}, "labels 1 have no name"),
        ({"prompt": PROMPT, "kind": "thing"}, "kind 'thing' is unknown"),
    ],
)
def test_parameters_that_cannot_be_used_are_named(module, settings, text):
    with pytest.raises(ValueError, match=text):
        module.create(**settings)
