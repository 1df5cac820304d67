"""The HTTP interface, in the process: answers, limits, and every error once."""

import asyncio
import io
import json
import struct
import threading
import time
import zlib
from concurrent.futures import ThreadPoolExecutor

import jax
import numpy as np
import pytest
from fastapi.testclient import TestClient
from PIL import Image
from pycocotools import mask as coco_mask

from seggpt_jax.inference import Predictor
from seggpt_jax.prompts import clicks
from seggpt_jax.prompts.read import read_prompts
from seggpt_jax.results.categories import categories
from seggpt_jax.results.forms import FORMS, Shown
from seggpt_jax.results.objects import find
from seggpt_jax.serve.app import make_app
from seggpt_jax.serve.gate import Gate, Limits
from tests.results.blobs import filled, result
from tests.support.models import SMALL, random_params, small
from tests.support.pictures import label_map, picture

PARAMS = jax.device_get(random_params(small()))
LOCAL = "http://127.0.0.1"
LIMITS = Limits()
IMAGES = [picture(30 + i, 40, seed=i) for i in range(6)]


def png(values, **options):
    file = io.BytesIO()
    Image.fromarray(np.asarray(values)).save(file, "PNG", **options)
    return file.getvalue()


PROMPT = png(picture(seed=1))
RED = np.full((40, 30, 3), (40, 90, 50), np.uint8)
RED[10:32, 8:22] = (220, 30, 20)
MASK = png(label_map().astype(np.uint8))
EXAMPLE = [("image", ("prompt.png", PROMPT)), ("mask", ("mask.png", MASK))]


def serving(limits=LIMITS, token="", **settings):
    ours = Predictor(SMALL, PARAMS, **settings)
    return TestClient(make_app(ours, "small", limits, token), LOCAL)


@pytest.fixture(scope="module")
def client():
    with serving() as client:
        yield client


def post_prompts(client, files=EXAMPLE, **data):
    answer = client.post("/api/prompts", files=files, data=data)
    assert answer.status_code == 200, answer.text
    return answer.json()


def segment(client, image, prompts, accept="image/png", name="query.png", **data):
    return client.post(
        "/api/segment", files={"image": (name, image)},
        data={"prompts": prompts, **data}, headers={"Accept": accept},
    )  # fmt: skip


def expected(image):
    """The PNG that the command line writes."""
    ours = Predictor(SMALL, PARAMS)
    ours.set_prompts(picture(seed=1), label_map())
    shown = Shown("", image, ours(image), [], categories([], "category", {}))
    return FORMS["segments"].content(shown)


def refused(answer, status, text):
    assert (answer.status_code, answer.json()) == (status, {"detail": text})


def test_a_png_has_the_bytes_that_the_command_line_writes(client):
    known = post_prompts(client)
    assert known["prompts"] == 1 and known["kind"] == "category"
    ours = Predictor(SMALL, PARAMS)
    ours.set_prompts(picture(seed=1), label_map())
    assert known["palette"] == {str(k): list(v) for k, v in ours.palette.items()}
    for accept in ("image/png", "*/*", "application/json;q=0.5, image/*"):
        answer = segment(client, png(IMAGES[0]), known["id"], accept)
        assert answer.headers["content-type"] == "image/png"
        assert answer.content == expected(IMAGES[0])


def test_a_set_has_several_examples(client):
    given = [picture(seed=1), picture(seed=2)], [label_map(), label_map((2, 1))]
    files = [("image", ("x.png", png(image))) for image in given[0]]
    files += [("mask", ("x.png", png(mask.astype(np.uint8)))) for mask in given[1]]
    known = post_prompts(client, files)
    assert known["prompts"] == 2
    kept = client.app.state.service._sets[known["id"]].result().prompts.prompts
    wanted = read_prompts(*given, "category", (16, 16))
    jax.tree.map(np.testing.assert_array_equal, kept, wanted)


def test_examples_can_come_with_the_query(client):
    answer = client.post("/api/segment", files=[
        ("image", ("query.png", png(IMAGES[0]))),
        ("prompt_image", ("prompt.png", PROMPT)), ("prompt_mask", ("mask.png", MASK)),
    ])  # fmt: skip
    assert answer.content == expected(IMAGES[0])


@pytest.mark.parametrize("split", [False, True])
def test_json_is_a_coco_data_set_with_labels(client, split):
    id = post_prompts(client, names=json.dumps({1: "cat", 2: "dog"}))["id"]
    answer = segment(client, png(IMAGES[0]), id, "application/json", "a/b\\c.png",
                     split=split)  # fmt: skip
    assert answer.headers["content-type"] == "application/json"
    found = answer.json()
    (image,) = found["images"]
    assert image == {"id": 1, "file_name": "c.png", "height": 30, "width": 40}
    assert found["categories"] == [{"id": 1, "name": "cat"}, {"id": 2, "name": "dog"}]
    with Image.open(io.BytesIO(expected(IMAGES[0]))) as label_png:
        labels = np.array(label_png)
    painted = np.zeros_like(labels)
    for note in found["annotations"]:
        mask = coco_mask.decode(note["segmentation"]).astype(bool)
        painted[mask] = note["label"]
        outlines = [np.reshape(line, (-1, 2)) for line in note["polygons"]]
        parts = [filled(line, mask.shape) for line in outlines]
        np.testing.assert_array_equal(np.logical_xor.reduce(parts), mask)
        assert note["area"] == mask.sum() and 0 < note["score"] <= 1
        assert note["bbox"] == coco_mask.toBbox(note["segmentation"]).tolist()
    np.testing.assert_array_equal(painted, labels)
    ours = Predictor(SMALL, PARAMS)
    ours.set_prompts(picture(seed=1), label_map())
    assert len(found["annotations"]) == len(find(ours(IMAGES[0]), split))


def test_parts_are_objects_of_their_own_if_asked_for(client, monkeypatch):
    segments = np.zeros((30, 40), int)
    segments[:5, :5] = segments[20:, 20:] = 1
    monkeypatch.setattr(Predictor, "__call__", lambda *_: iter([result(segments)]))
    id = post_prompts(client)["id"]
    for split, count in ((False, 1), (True, 2)):
        query = png(IMAGES[0])
        answer = segment(client, query, id, "application/json", split=split)
        assert len(answer.json()["annotations"]) == count


def test_marks_make_the_mask_that_the_command_line_makes(client):
    files = [("image", ("red.png", png(RED)))]
    answer = client.post("/api/mask", files=files, data={
        "box": "4,6,25,36", "points": ["14,20,+", "2,2,-"]})  # fmt: skip
    with Image.open(io.BytesIO(answer.content)) as image:
        assert image.mode == "P"
        made = np.array(image)
    wanted = clicks.example(RED, (4, 6, 25, 36), [(14, 20, 1), (2, 2, 0)]).target
    np.testing.assert_array_equal(made, wanted)
    strokes = np.zeros((40, 30), np.uint8)
    strokes[20, 10:20], strokes[2, 2:20] = 1, 2
    answer = client.post(
        "/api/mask", files=[*files, ("scribble", ("s.png", png(strokes)))]
    )
    with Image.open(io.BytesIO(answer.content)) as image:
        wanted = clicks.example(RED, scribble=strokes).target
        np.testing.assert_array_equal(np.array(image), wanted)


@pytest.mark.parametrize(
    "data, text",
    [
        ({}, "the image: mark the object by a box, points or a scribble"),
        ({"box": "1,2,3"},
         "box 1,2,3: left,top,right,bottom are wanted, whole numbers of pixels"),
        ({"points": "3,4"}, "points 3,4: x,y,+ or x,y,- is wanted"),
        ({"points": "99,4,+"},
         "point 99,4 is outside of the image, which is 30 x 40"),
    ],
)  # fmt: skip
def test_marks_that_cannot_be_used_are_named(client, data, text):
    answer = client.post(
        "/api/mask", files=[("image", ("red.png", png(RED)))], data=data
    )
    refused(answer, 422, text)


def test_instances_keep_their_labels(client):
    id = post_prompts(client, kind="instance")["id"]
    found = segment(client, png(IMAGES[0]), id, "application/json").json()
    assert {note["label"] for note in found["annotations"]} == {2}
    assert {note["category_id"] for note in found["annotations"]} == {1}
    assert found["categories"] == [{"id": 1, "name": "object"}]


def test_the_same_examples_are_encoded_once(client, monkeypatch):
    def encode(*given, **more):
        calls.append(None)
        return encoded(*given, **more)

    calls, service = [], client.app.state.service
    encoded = service.predictor.encode_prompts
    monkeypatch.setattr(service.predictor, "encode_prompts", encode)
    mask = png(label_map(h=35, w=40).astype(np.uint8))
    files = [("image", ("a.png", png(IMAGES[5]))), ("mask", ("b.png", mask))]
    with ThreadPoolExecutor(3) as pool:
        ids = [
            x["id"] for x in pool.map(lambda _: post_prompts(client, files), range(3))
        ]
    assert len(set(ids)) == 1 and len(calls) == 1
    other = post_prompts(client, files, kind="instance")["id"]
    named = post_prompts(client, files, names='{"1": "a", "2": "b"}')["id"]
    assert len({*ids, other, named}) == 3


class Held:
    """The device of a client's service, busy until it is let go."""

    def __init__(self, client):
        self.worker = client.app.state.service.worker

    def __enter__(self):
        self.go = threading.Event()
        self.worker.call(self.go.wait)
        return self

    def __exit__(self, *_):
        self.go.set()

    def wait_for(self, count):
        """Until so many tasks wait."""
        until = time.monotonic() + 20
        while len(self.worker._waiting) < count:
            assert time.monotonic() < until, "no tasks came"
            time.sleep(0.01)


@pytest.mark.parametrize("batch_size", [1, 4])
def test_queries_of_the_same_prompts_go_together(batch_size, monkeypatch):
    """And are answered as if each had been alone."""
    batches, wanted = [], expected(IMAGES[0])
    with serving(batch_size=batch_size) as client, ThreadPoolExecutor(8) as pool:
        service = client.app.state.service
        call = type(service.predictor).__call__

        def counting(self, pictures, prompts):
            pictures = list(pictures)
            batches.append(len(pictures))
            return call(self, iter(pictures), prompts)

        monkeypatch.setattr(Predictor, "__call__", counting)
        one = post_prompts(client)["id"]
        two = post_prompts(client, kind="instance")["id"]
        asked = [(image, id) for image in IMAGES[:3] for id in (one, two)]
        alone = [segment(client, png(image), id).content for image, id in asked]
        batches.clear()
        with Held(client) as held:
            answers = [pool.submit(segment, client, png(x), id) for x, id in asked]
            held.wait_for(6)
        assert [answer.result().content for answer in answers] == alone
        assert batches == [3, 3] and alone[0] == wanted


def test_the_oldest_prompts_are_dropped():
    with serving(Limits(sets=2)) as client:
        first, second = (post_prompts(client, kind=k)["id"]
                         for k in ("category", "instance"))  # fmt: skip
        assert segment(client, png(IMAGES[0]), first).status_code == 200
        post_prompts(client, names='{"1": "a", "2": "b"}')
        assert segment(client, png(IMAGES[0]), first).status_code == 200
        refused(
            segment(client, png(IMAGES[0]), second), 404,
            f"prompts '{second}' are not known, or no longer: post them again to "
            "/api/prompts",
        )  # fmt: skip


def test_a_full_queue_says_when_to_come_again():
    with serving(Limits(queue=2)) as client, ThreadPoolExecutor(2) as pool:
        id = post_prompts(client)["id"]
        with Held(client) as held:
            waiting = [pool.submit(segment, client, png(x), id) for x in IMAGES[:2]]
            held.wait_for(2)
            answer = segment(client, png(IMAGES[2]), id)
            refused(answer, 429, "2 requests are worked on or wait: ask again later")
            assert int(answer.headers["Retry-After"]) >= 1
            assert client.get("/health").json() == {"status": "UP"}
        for each, image in zip(waiting, IMAGES, strict=False):
            assert each.result().content == expected(image)
        assert segment(client, png(IMAGES[2]), id).status_code == 200


@pytest.mark.parametrize(
    "headers, status",
    [
        ({}, 401),
        ({"Authorization": "Bearer wrong"}, 401),
        ({"Authorization": "Digest secret"}, 401),
        ({"Authorization": "Basic secret"}, 401),
        ({"Authorization": "Bearer secret"}, 200),
    ],
)
def test_a_token_is_asked_for(headers, status):
    with serving(token="secret") as client:
        for path in ("/api/model", "/", "/main.js", "/docs", "/openapi.json"):
            answer = client.get(path, headers=headers)
            assert answer.status_code == status
            if status == 401:
                refused(answer, 401, "no token, or a wrong one: send Authorization: "
                        "Bearer TOKEN")  # fmt: skip
                assert answer.headers["WWW-Authenticate"].startswith("Basic ")
        assert client.get("/health").status_code == 200
        assert client.get("/api/model", auth=("any", "secret")).status_code == 200


def test_without_a_token_only_this_machine_is_answered(client):
    """A page of another site cannot ask, even where its name leads here."""
    elsewhere = {"Host": "rebound.example"}
    refused(client.get("/api/model", headers=elsewhere), 400,
            "this server answers to 127.0.0.1, localhost, ::1 only")  # fmt: skip
    for origin in ("http://other.example", "null"):
        refused(client.get("/api/model", headers={"Origin": origin}), 403,
                f"{origin} is another site")  # fmt: skip
    for host in ("localhost:8765", "[::1]:80"):
        assert client.get("/api/model", headers={"Host": host}).status_code == 200
    mine = client.get("/api/model", headers={"Origin": LOCAL})
    assert mine.status_code == 200 and mine.json()["device"] == "cpu"


SMALL_LIMITS = Limits(megabytes=1, megapixels=1, prompts=2)
WIDE = png(np.zeros((1000, 1001), np.uint8))
HALF = png(np.zeros((1000, 700), np.uint8))


def head_of(side):
    """A PNG that says it has side x side pixels, and has none."""
    chunk = b"IHDR" + struct.pack(">IIBBBBB", side, side, 1, 0, 0, 0, 0)
    return PROMPT[:8] + struct.pack(">I", 13) + chunk + struct.pack(
        ">I", zlib.crc32(chunk)) + struct.pack(">I", 9) + b"IDAT"  # fmt: skip


def two_pages():
    file = io.BytesIO()
    first, second = (Image.fromarray(picture(seed=k)).convert("P") for k in (1, 2))
    first.save(file, "GIF", save_all=True, append_images=[second])
    return file.getvalue()


TWO_PAGES = two_pages()


def of(*files):
    return [(field, (name, content)) for field, name, content in files]


@pytest.mark.parametrize(
    "files, data, status, text",
    [
        (of(("image", "x.bin", b"\0" * 1_000_001)), {}, 413,
         "the request is longer than 1 MB"),
        (of(("image", "dir/wide.png", WIDE)), {"prompts": "KNOWN"}, 413,
         "wide.png (1001 x 1000) has more than 1 megapixel, this server's limit"),
        (of(("image", "bomb.png", head_of(10_000))), {"prompts": "KNOWN"}, 413,
         "bomb.png (10000 x 10000) has more than 1 megapixel, this server's limit"),
        (of(("image", "bomb.png", head_of(20_000))), {"prompts": "KNOWN"}, 413,
         "bomb.png has too many pixels: Image size (400000000 pixels) exceeds limit"),
        (of(("image", "a.png", HALF), ("mask", "b.png", HALF)), {}, 413,
         "b.png (700 x 1000) with the pictures before it has more than 1 megapixel, "
         "this server's limit"),
        (3 * EXAMPLE, {}, 413, "3 prompts are more than 2, this server's limit"),
        (of(("image", "x.txt", b"no picture")), {"prompts": "KNOWN"}, 415,
         "x.txt is no picture of PNG, JPEG, WEBP, GIF, BMP, TIFF"),
        (of(("image", "x.gif", TWO_PAGES)), {"prompts": "KNOWN"}, 415,
         "x.gif has 2 pages, and one picture is wanted: save each page as a file of"),
        (of(("image", "", b"no picture")), {"prompts": "KNOWN"}, 422,
         "image: Value error, Expected UploadFile, received: <class 'str'>"),
        (of(("image", "cut.png", PROMPT[:200])), {"prompts": "KNOWN"}, 422,
         "cut.png cannot be read: image file is truncated"),
        (of(("image", "a.png", PROMPT), ("mask", "b.png", MASK[:60])), {}, 422,
         "prompt target 1 cannot be read: "),
        (of(("image", "a.png", PROMPT),
            ("mask", "b.png", png(np.zeros((40, 30), np.uint8)))), {}, 422,
         "prompt targets are empty: they show no label at all"),
        (of(("image", "a.png", PROMPT), ("mask", "b.png", png(label_map(
            h=40, w=60).astype(np.uint8)))), {}, 422,
         "prompt target 1 is 60 x 40, and its image 30 x 40: they must show the same"),
        (EXAMPLE[:1], {}, 422, "mask: Field required"),
        (EXAMPLE, {"kind": "categroy"}, 422,
         "kind: Input should be 'category' or 'instance'"),
        (EXAMPLE, {"names": '{"1": "cat"}'}, 422,
         "labels 2 have no name; named are 1"),
        (EXAMPLE, {"names": "cat"}, 422, "names: Invalid JSON"),
        (of(("image", "a.png", PROMPT)), {}, 422,
         "either prompts, an id that /api/prompts gave, or prompt_image and "
         "prompt_mask are wanted"),
        (of(("image", "a.png", PROMPT)), {"prompts": "f00"}, 404,
         "prompts 'f00' are not known, or no longer: post them again to /api/prompts"),
    ],
)  # fmt: skip
@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_bad_requests_are_refused_in_one_sentence(files, data, status, text):
    with serving(SMALL_LIMITS) as client:
        if data.get("prompts") == "KNOWN":
            data = data | {"prompts": post_prompts(client)["id"]}
        asks_prompts = status in (413, 422) and "prompts" not in data
        whole = text.startswith("either")
        path = "/api/prompts" if asks_prompts and not whole else "/api/segment"
        answer = client.post(path, files=files, data=data)
        assert answer.status_code == status, answer.text
        said = answer.json()["detail"]
        assert said.startswith(text) and "\n" not in said
        # What was refused is not kept, and the next request is answered.
        assert len(client.app.state.service._sets) <= 1
        assert post_prompts(client)["id"]


def test_names_that_are_no_json_are_shown_their_form(client):
    """The command line has another one."""
    answer = client.post("/api/prompts", files=EXAMPLE, data={"names": "1=cat"})
    assert answer.json()["detail"].endswith('; {"1": "cat"} is wanted')


def test_a_picture_that_the_library_does_not_take_has_too_many_pixels(client):
    id = post_prompts(client)["id"]
    text = "query.png has 9000 x 9000 pixels, more than 67108864; scale it down"
    refused(segment(client, head_of(9_000), id), 413, text)


def test_what_is_asked_for_must_be_known(client):
    id = post_prompts(client)["id"]
    refused(segment(client, png(IMAGES[0]), id, "text/html"), 406,
            "Accept: text/html: image/png or application/json is wanted")  # fmt: skip


def test_a_broken_body_is_refused(client):
    head = {"Content-Type": "multipart/form-data; boundary=x"}
    for body in (b"--x\r\nContent-Disposition", b"nonsense"):
        answer = client.post("/api/prompts", content=body, headers=head)
        assert answer.status_code in (400, 422) and isinstance(
            answer.json()["detail"], str
        )
    answer = client.post("/api/prompts", content=b"",
                         headers={"Content-Type": "multipart/form-data"})  # fmt: skip
    refused(answer, 400, "Missing boundary in multipart.")


def test_a_body_without_a_length_is_counted():
    def body():
        yield b"--x\r\nContent-Disposition: form-data; name=image; filename=a\r\n\r\n"
        for _ in range(100):
            yield bytes(100_000)

    with serving(SMALL_LIMITS) as client:
        answer = client.post("/api/prompts", content=body(), headers={
            "Content-Type": "multipart/form-data; boundary=x"})  # fmt: skip
        refused(answer, 413, "the request is longer than 1 MB")


def test_a_refused_body_is_read_first_as_far_as_it_may_be_long():
    """Many clients send all before they look for an answer."""
    taken, sent = [], []

    async def receive():
        taken.append(None)
        return {"type": "http.request", "body": bytes(300_000), "more_body": True}

    async def send(message):
        sent.append(message)

    async def gone(scope, receive, send):
        raise AssertionError("the request was let through")

    scope = {"type": "http", "method": "POST", "path": "/api/prompts",
             "headers": [(b"host", b"127.0.0.1")]}  # fmt: skip
    gate = Gate(gone, SMALL_LIMITS, "token", lambda: 0.0)
    asyncio.run(gate(scope, receive, send))
    assert sent[0]["status"] == 401 and len(taken) == 4


def test_a_failure_is_said_and_the_next_request_is_answered(monkeypatch):
    def fail(*given):
        raise RuntimeError("out of memory")

    with serving() as client:
        quiet = TestClient(client.app, LOCAL, raise_server_exceptions=False)
        quiet.portal = client.portal
        id = post_prompts(client)["id"]
        with monkeypatch.context() as patch:
            patch.setattr(Predictor, "__call__", fail)
            patch.setattr(Predictor, "encode_prompts", fail)
            answer = quiet.post(
                "/api/prompts", files=EXAMPLE, data={"kind": "instance"}
            )
            assert answer.status_code == 500
            refused(segment(quiet, png(IMAGES[0]), id), 500,
                    "the server failed: RuntimeError")  # fmt: skip
        assert segment(client, png(IMAGES[0]), id).content == expected(IMAGES[0])
        post_prompts(client, kind="instance")  # they are encoded anew


def test_the_model_and_the_limits_are_told(client):
    told = client.get("/api/model").json()
    assert told["model"] == "small" and told["size"] == [16, 16]
    assert told["limits"]["megabytes"] == 64 and "image/png" in told["formats"]
    paths = client.get("/openapi.json").json()["paths"]
    assert {"/health", "/api/model", "/api/prompts", "/api/segment"} <= set(paths)
    statuses = set(paths["/api/segment"]["post"]["responses"])
    assert statuses == {"200", "400", "401", "403", "404", "406", "413", "415",
                        "422", "429"}  # fmt: skip


def test_limits_are_numbers_above_0():
    with pytest.raises(ValueError, match="limit queue = 0: must be at least 1"):
        Limits(queue=0)
