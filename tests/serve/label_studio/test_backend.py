"""The back end over loopback, asked as Label Studio asks.

`requests.jsonl` is what Label Studio 1.23.2 sent when a project was connected, labelled
and pre-labelled. Names of images and regions are put in here.
"""

import base64
import copy
import json
import threading
from http.client import HTTPConnection
from pathlib import Path

import numpy as np
import pytest
import uvicorn

from seggpt_jax.inference import Predictor
from seggpt_jax.results.categories import categories
from seggpt_jax.results.forms import Shown
from seggpt_jax.results.objects import find
from seggpt_jax.serve.app import make_app
from seggpt_jax.serve.gate import Limits
from seggpt_jax.serve.label_studio import brush
from seggpt_jax.serve.label_studio.backend import Settings
from seggpt_jax.serve.label_studio.interface import Control, Interface
from seggpt_jax.serve.label_studio.regions import answer
from seggpt_jax.serve.run import bind
from tests.results.blobs import result
from tests.serve.test_api import IMAGES, PARAMS, RED, png
from tests.support.models import SMALL
from tests.support.pictures import label_map, picture

RECORDED = [
    json.loads(line)
    for line in (Path(__file__).parent / "requests.jsonl").read_text().splitlines()
]
TOKEN = "secret"  # the recorded requests have it as the password
H, W = 40, 30
PROMPT, TARGET = picture(seed=1), label_map()
VIEW = '<View><Image name="image" value="$image"/>{}</View>'
BRUSH = (
    '<BrushLabels name="tag" toName="image">'
    '<Label value="cat"/><Label value="dog"/></BrushLabels>'
)


def recorded(path, **wanted):
    """The first recorded request of a route, whose body has some values."""
    for row in RECORDED:
        body = row["body"] or {}
        if row["path"] == path and all(body.get(k) == v for k, v in wanted.items()):
            return copy.deepcopy(row)
    raise AssertionError(f"no request {path} {wanted} was recorded")


class Server:
    """A server on loopback."""

    def __init__(self, settings, limits=Limits(), token=TOKEN):  # noqa: B008
        app = make_app(Predictor(SMALL, PARAMS), "small", limits, token, settings)
        self._taken = bind("127.0.0.1", 0)
        self._taken.listen()
        self.address = self._taken.getsockname()
        self._server = uvicorn.Server(uvicorn.Config(app, log_level="warning"))
        self._thread = threading.Thread(target=self._server.run, args=[[self._taken]])

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._server.should_exit = True
        self._thread.join()
        self._taken.close()

    def send(self, row):
        """The status and the body of the answer to a recorded request."""
        connection = HTTPConnection(*self.address, timeout=60)
        body = row["body"] and json.dumps(row["body"])
        connection.request(row["method"], row["path"], body, row["headers"])
        answer = connection.getresponse()
        status, content = answer.status, answer.read()
        connection.close()
        return status, json.loads(content)


@pytest.fixture
def media(tmp_path):
    folder = tmp_path / "images"
    folder.mkdir()
    (folder / "one.png").write_bytes(png(PROMPT))
    (folder / "two.png").write_bytes(png(IMAGES[0]))
    (folder / "red.png").write_bytes(png(RED))
    return folder


def region(form, value, size=(H, W)):
    height, width = size
    return {"id": "x", "type": form, "from_name": "tag", "to_name": "image",
            "original_width": width, "original_height": height, "image_rotation": 0,
            "value": value}  # fmt: skip


def painted(target=TARGET):
    return [
        region("brushlabels", {"format": "rle", "rle": brush.encode(target == label),
                               "brushlabels": [name]})
        for label, name in ((1, "cat"), (2, "dog"))
    ]  # fmt: skip


def event(action, regions=None, number=1, task=1, image="one.png", view=VIEW, **more):
    """A recorded event with other regions. Webhooks have no token by themselves; the
    header of a project's webhook has it."""
    row = recorded("/webhook", action=action)
    row["headers"]["Authorization"] = f"Bearer {TOKEN}"
    body = row["body"]
    if "annotation" in body:
        body["annotation"] |= {"id": number, "task": task, **more}
        body["task"]["id"] = task
        body["task"]["data"]["image"] = f"/data/local-files/?d=a/{image}"
        body["annotation"]["result"] = painted() if regions is None else regions
    body["project"]["label_config"] = view.format(BRUSH)
    return row


def asking(*images, view=VIEW, controls=BRUSH, annotations=()):
    row = recorded("/predict")
    first = row["body"]["tasks"][0]
    row["body"]["label_config"] = view.format(controls)
    row["body"]["tasks"] = [
        {**first, "id": number, "annotations": list(annotations),
         "data": {"image": f"/data/local-files/?d=a/{image}"}}
        for number, image in enumerate(images, 2)
    ]  # fmt: skip
    return row


def version(server):
    status, body = server.send(recorded("/setup"))
    assert status == 200
    return body["model_version"]


def masks_of(prediction):
    """Label -> mask of a prediction's brush regions."""
    return {
        each["value"]["brushlabels"][0]: brush.decode(
            each["value"]["rle"], (each["original_height"], each["original_width"])
        )
        for each in prediction["result"]
    }


def expected(image, prompts=PROMPT, target=TARGET):
    ours = Predictor(SMALL, PARAMS)
    ours.set_prompts(prompts, target)
    return ours(image)


def test_a_project_is_connected_labelled_and_pre_labelled(media, caplog):
    with Server(Settings(media)) as server:
        assert server.send(recorded("/health")) == (200, {"status": "UP"})
        assert version(server) == "small 0 examples"
        assert server.send(asking("two.png"))[1]["results"] == [[]]
        assert server.send(event("ANNOTATION_CREATED")) == (201, {"status": "ok"})
        named = version(server)
        assert named.startswith("small 1 example ")
        status, body = server.send(asking("two.png", "gone.png", "one.png"))
        assert status == 200 and body["model_version"] == named
        first, none, _ = body["results"]
        assert none == [] and body["errors"] == [
            "task 3: image '/data/local-files/?d=a/gone.png': no file in the server's "
            "folder of images is named 'gone.png'"
        ]
        result = expected(IMAGES[0])
        found = find(result)
        assert first["model_version"] == named and len(first["result"]) == len(found)
        assert first["score"] == pytest.approx(np.mean([x.score for x in found]), 1e-3)
        for label, name in ((1, "cat"), (2, "dog")):
            wanted = result.segments == label
            mask = masks_of(first).get(name, np.zeros_like(wanted))
            np.testing.assert_array_equal(mask, wanted)
        for each, item in zip(first["result"], found, strict=True):
            assert (each["type"], each["from_name"]) == ("brushlabels", "tag")
            assert (each["to_name"], each["value"]["format"]) == ("image", "rle")
            assert each["score"] == pytest.approx(item.score, abs=1e-4)
        assert server.send(event("START_TRAINING"))[1] == {
            "status": "ok",
            "examples": 1,
        }
        # Skipped, deleted with its task, and deleted: no prompt any more.
        server.send(event("ANNOTATION_UPDATED", number=2, task=2))
        assert version(server).startswith("small 2 examples ")
        server.send(event("ANNOTATION_CREATED", number=2, task=2, was_cancelled=True))
        assert version(server) == named
        deleted = event("TASKS_DELETED")
        deleted["body"]["tasks"] = [{"id": 1}]
        server.send(deleted)
        assert version(server) == "small 0 examples"
        server.send(event("ANNOTATION_CREATED"))
        server.send(event("ANNOTATIONS_DELETED"))
        assert version(server) == "small 0 examples"
        assert server.send(event("PROJECT_UPDATED")) == (200, {"status": "ignored"})


def test_the_newest_annotations_are_the_prompts_and_show_every_label(media):
    only_dog = [painted()[1]]
    with Server(Settings(media, examples=2)) as server:
        server.send(event("ANNOTATION_CREATED", number=1, task=1))
        for number in (2, 3):
            server.send(event("ANNOTATION_CREATED", only_dog, number, number))
        server.send(event("ANNOTATION_CREATED", [], number=4, task=4))
        body = server.send(asking("two.png"))[1]
        # The third, and the first for the cat; the second is neither.
        result = expected(
            IMAGES[0], [PROMPT, PROMPT], [np.where(TARGET == 2, 2, 0), TARGET]
        )
        np.testing.assert_array_equal(
            masks_of(body["results"][0]).get("dog", False), result.segments == 2
        )
        before = version(server)
        server.send(event("ANNOTATION_UPDATED", only_dog, number=3, task=3))
        assert version(server) == before
        server.send(event("ANNOTATION_UPDATED", painted(), number=3, task=3))
        assert version(server) != before


def test_projects_and_installations_are_apart(media):
    with Server(Settings(media)) as server:
        server.send(event("ANNOTATION_CREATED"))
        other, later = recorded("/setup"), recorded("/setup")
        other["body"]["project"] = "2.1795938038"
        later["body"]["project"] = "1.1795938039"
        for row in (other, later):
            assert server.send(row)[1]["model_version"] == "small 0 examples"


def test_annotations_are_kept_for_the_next_start(media, tmp_path):
    settings = Settings(media, tmp_path / "keep")
    with Server(settings) as server:
        server.send(event("ANNOTATION_CREATED"))
        server.send(event("ANNOTATION_CREATED", number=2, task=2))
        gone = event("ANNOTATIONS_DELETED")
        gone["body"]["annotations"] = [{"id": 2}]
        server.send(gone)
        named = version(server)
    files = [x for x in settings.keep.rglob("*") if x.is_file()]
    assert [x.name for x in files] == ["1.json"]
    files[0].with_name("7.json").write_text("{")
    with Server(settings) as server:
        assert version(server) == named
        assert server.send(asking("two.png"))[1]["results"][0]["result"]


def test_annotations_that_tasks_bring_along_are_prompts_too(media):
    """Those of before the server was there: Retrieve Predictions sends them."""
    one = {"id": 9, "was_cancelled": False, "result": painted()}
    with Server(Settings(media)) as server:
        body = server.send(asking("one.png", annotations=[one]))[1]
        assert body["model_version"].startswith("small 1 example ")
        assert server.send(asking("two.png"))[1]["results"][0]["result"]


def test_labels_come_as_the_interface_has_them(media):
    """Boxes and polygons where there is no brush, of every connected part."""
    controls = (
        '<PolygonLabels name="line" toName="image"><Label value="dog"/></PolygonLabels>'
        '<RectangleLabels name="box" toName="image"><Label value="cat"/><Label '
        'value="dog"/></RectangleLabels>'
    )
    lines = [
        region("polygonlabels", {"points": [[20, 20], [80, 20], [80, 70], [20, 70]],
                                 "polygonlabels": ["dog"]}),
        region("rectanglelabels", {"x": 10, "y": 10, "width": 70, "height": 80,
                                   "rotation": 0, "rectanglelabels": ["cat"]}),
    ]  # fmt: skip
    with Server(Settings(media)) as server:
        server.send(event("ANNOTATION_CREATED", lines, image="red.png"))
        body = server.send(asking("two.png", controls=controls))[1]
        (prediction,) = body["results"]
    forms = {"cat": "rectanglelabels", "dog": "polygonlabels"}
    assert prediction["result"]
    for each in prediction["result"]:
        value, form = each["value"], each["type"]
        assert forms[value[form][0]] == form
        assert (
            each["from_name"]
            == {"rectanglelabels": "box", "polygonlabels": "line"}[form]
        )
        if form == "rectanglelabels":
            assert value["x"] >= 0 and value["x"] + value["width"] <= 100 + 1e-9
        else:
            assert np.shape(value["points"])[1] == 2 and value["closed"]


def test_boxes_are_of_connected_parts_and_of_no_speck():
    segments = np.zeros((50, 200), int)
    segments[10:20, 40:100] = segments[30, 150:153] = segments[45, 5] = 1
    one = result(segments)
    known = categories([1], "category", {})
    shown = Shown("x.png", np.zeros((50, 200, 3), np.uint8), one, find(one), known)
    control = Control("rectanglelabels", "box", ("cat",))
    interface = Interface("image", "image", (control,))
    values = [x["value"] for x in answer(shown, interface, "1")["result"]]
    boxes = [[x[name] for name in ("x", "y", "width", "height")] for x in values]
    np.testing.assert_allclose(boxes, [[20, 20, 30, 20], [75, 60, 1.5, 2]])


def test_a_smart_box_or_point_gets_the_mask_it_marks(media):
    row = asking("red.png")
    box = {"x": 13, "y": 15, "width": 70, "height": 75, "rotation": 0}
    mark = region("rectanglelabels", {**box, "rectanglelabels": ["dog"]})
    dot = region("keypointlabels", {"x": 50, "y": 50, "keypointlabels": ["dog"]})
    red = RED[..., 0] > 200
    with Server(Settings(media)) as server:
        for marks in ([mark], [dot], [mark, dot | {"is_positive": True}]):
            row["body"]["params"]["context"] = {"result": marks}
            status, body = server.send(row)
            (prediction,) = body["results"]
            mask = masks_of(prediction)["dog"]
            assert status == 200 and (mask & red).sum() / (mask | red).sum() > 0.9
        row["body"]["params"]["context"] = {"result": [dot | {"is_positive": False}]}
        status, body = server.send(row)
        assert status == 422 and body["detail"].endswith("mark the object too")


def test_regions_of_no_known_form_are_left_out(media):
    """Whatever they hold: they are a client's."""
    odd = [{}, {"type": []}, {"type": "brushlabels"}, {"type": "choices", "value": 3},
           {"type": "rectanglelabels", "value": []}]  # fmt: skip
    row = asking("two.png")
    with Server(Settings(media)) as server:
        server.send(event("ANNOTATION_CREATED", [*odd, *painted()]))
        assert server.send(row)[1]["results"][0]["result"]
        row["body"]["params"]["context"] = {"result": odd}
        status, body = server.send(row)
        assert status == 422 and body["detail"].startswith("the mark has no label")


def test_no_token_no_answer(media):
    with Server(Settings(media)) as server:
        for row in (recorded("/setup"), recorded("/predict"), event("START_TRAINING")):
            row["headers"]["Authorization"] = "Bearer wrong"
            assert server.send(row)[0] == 401
        # As Label Studio sends it until the header is set in the project's webhook.
        assert server.send(recorded("/webhook"))[0] == 401


def broken(row, **values):
    row["body"] |= values
    return row


@pytest.mark.parametrize(
    "row, text",
    [
        (broken(recorded("/setup"), project="1/../2"), "project '1/../2' is no number"),
        (broken(recorded("/setup"), schema="<View>"), "is no XML"),
        (broken(recorded("/setup"), schema="<!DOCTYPE x><View/>"), "document type"),
        (broken(recorded("/setup"), schema="<View/>"), "needs one image"),
        (broken(recorded("/setup"), schema=VIEW.format("")), "needs labels in Brush"),
        (broken(recorded("/setup"), schema="x" * 1_000_001), "longer than 1000000"),
        (broken(event("ANNOTATION_CREATED"), annotation=None), "no annotation with"),
        (broken(event("ANNOTATION_CREATED"), task={"id": 1}), "the task has no image"),
        (broken(event("ANNOTATION_CREATED"), project={"id": 1}), "no id and created"),
        (event("ANNOTATION_CREATED", ["x"]), "annotation 1 has no list of regions"),
        (event("ANNOTATION_CREATED", number="1"), "annotation has no number `id`"),
        (broken(event("ANNOTATIONS_DELETED"), annotations=[{}]), "has no number"),
    ],
)  # fmt: skip
def test_requests_that_cannot_be_used_are_named(media, row, text, caplog):
    row["headers"]["Authorization"] = f"Bearer {TOKEN}"
    with Server(Settings(media)) as server:
        status, body = server.send(row)
        assert status == 422 and text in body["detail"]
    assert body["detail"] in caplog.text  # Label Studio shows only the status


@pytest.mark.parametrize(
    "regions, text",
    [
        ([region("brushlabels", {"brushlabels": ["cat"]})], "no run lengths `rle`"),
        ([region("brushlabels", {"rle": [1, 2], "brushlabels": ["cat"]})],
         "the run lengths are not of a mask of 30 x 40"),
        ([region("brushlabels", {"rle": [], "brushlabels": ["cat"]}, (9, 9))],
         "a region is of an image of 9 x 9, and the image is 30 x 40"),
        ([region("polygonlabels", {"polygonlabels": ["cat"], "points": [[1, 2]]})],
         "a polygon has 1 point: 3 are wanted at least"),
        ([region("polygonlabels", {"polygonlabels": ["cat"], "points": "x"})],
         "a polygon has no list of `points`"),
        ([region("rectanglelabels", {"rectanglelabels": ["cat"], "x": None})],
         "a region has no numbers x, y, width, height in percent"),
        ([region("rectanglelabels", {"rectanglelabels": ["cat"], "rotation": 9})],
         "a rectangle is rotated: draw it along the image's sides"),
        ([region("brushlabels", {"brushlabels": ["cat"]}) | {"image_rotation": 90}],
         "a region is of a rotated view: turn the image back"),
    ],
)  # fmt: skip
def test_an_annotation_that_cannot_be_used_is_left_out(media, regions, text, caplog):
    with Server(Settings(media)) as server:
        server.send(event("ANNOTATION_CREATED", regions, number=7, task=7))
        status, body = server.send(asking("two.png"))
        assert (
            status == 422
            and body["detail"] == f"annotation 7: {text}"
            or (text in body["detail"])
        )
        server.send(event("ANNOTATION_CREATED"))
        status, body = server.send(asking("two.png"))
        assert status == 200 and body["results"][0]["result"]
    assert "annotation 7: " in caplog.text


def test_images_in_tasks_have_the_limits_of_uploads(media):
    large = base64.b64encode(png(np.zeros((1000, 1001), np.uint8))).decode()
    row = asking("x")
    row["body"]["tasks"][0]["data"]["image"] = f"data:image/png;base64,{large}"
    with Server(Settings(media), Limits(megapixels=1)) as server:
        server.send(event("ANNOTATION_CREATED"))
        status, body = server.send(row)
        assert status == 422 and "has more than 1 megapixel," in body["detail"]
