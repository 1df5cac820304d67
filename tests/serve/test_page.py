"""The page in a real browser: what is drawn there is what the command line segments."""

import io
import json
import re
import shutil
import threading
import zipfile

import numpy as np
import pytest
import uvicorn
from PIL import Image
from pycocotools.coco import COCO

from seggpt_jax.cli import command
from seggpt_jax.inference import Predictor
from seggpt_jax.results import outlines
from seggpt_jax.serve.app import make_app
from seggpt_jax.serve.gate import Limits
from seggpt_jax.serve.run import bind
from tests.conftest import REPOSITORY
from tests.results.blobs import filled

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
EXAMPLES = REPOSITORY / "tests/support/scenes"
FLAGS = ["--headless", "--no-sandbox", "--disable-gpu",
         "--disable-background-networking"]  # fmt: skip
playwright = pytest.importorskip("playwright.sync_api")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        CHROMIUM is None, reason="chromium is missing: apt-get install chromium"
    ),
]


@pytest.fixture(scope="module")
def app():
    return make_app(Predictor.from_pretrained("shapes"), "shapes", Limits())


@pytest.fixture(scope="module")
def url(app):
    with bind("127.0.0.1", 0) as taken:
        taken.listen()
        server = uvicorn.Server(uvicorn.Config(app, log_level="warning"))
        thread = threading.Thread(target=server.run, args=[[taken]])
        thread.start()
        yield f"http://127.0.0.1:{taken.getsockname()[1]}/"
        server.should_exit = True
        thread.join()


@pytest.fixture(scope="module")
def browser():
    with playwright.sync_playwright() as started:
        opened = started.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield opened
        opened.close()


@pytest.fixture
def page(browser, url):
    """The open page. It loads nothing from elsewhere, and nothing in it fails."""
    opened = browser.new_page(viewport={"width": 1280, "height": 900})
    faults, addresses = [], []
    opened.on("pageerror", lambda error: faults.append(str(error)))
    opened.on("console", lambda line: faults.append(line.text))
    opened.on("request", lambda request: addresses.append(request.url))
    opened.goto(url)
    # No wait_for_function: the page's security policy forbids its scripts.
    opened.wait_for_selector("#model:not(:empty)")
    yield opened
    opened.close()
    assert not faults
    assert all(each.startswith((url, "blob:", "data:")) for each in addresses)


def drag(page, start, end):
    """From one place of the picture to another; places are shares of its sides."""
    box = page.locator("#stage").bounding_box()
    places = [(box["x"] + x * box["width"], box["y"] + y * box["height"])
              for x, y in (start, end)]  # fmt: skip
    page.mouse.move(*places[0])
    page.mouse.down()
    page.mouse.move(*places[1], steps=8)
    page.mouse.up()


def show(page, name="prompt.png"):
    page.set_input_files("#examples-input", EXAMPLES / name)
    page.wait_for_selector("#editor:not([hidden])")


@pytest.fixture
def masks(app, monkeypatch):
    """The masks that the page sends as examples."""
    sent, service = [], app.state.service
    remember = service.remember

    def listening(example):
        sent.extend(content for _, content in example.masks)
        return remember(example)

    monkeypatch.setattr(service, "remember", listening)
    return sent


def run(page, count):
    page.click("#run")
    page.wait_for_selector(f"#status:text-is('{count} segmented')")


def download(page, button):
    """name -> bytes of the files of a zip."""
    with page.expect_download() as saved:
        page.click(button)
    with zipfile.ZipFile(saved.value.path()) as content:
        assert content.testzip() is None
        return {name: content.read(name) for name in content.namelist()}


def opened(content):
    with Image.open(io.BytesIO(content)) as image:
        return np.array(image), image.getpalette()


def by_command(folder, mask, monkeypatch):
    """What the command line makes of the same example and the query."""
    monkeypatch.setattr(command, "cache_compiled", lambda: "elsewhere")
    (folder / "drawn.png").write_bytes(mask)
    with pytest.raises(SystemExit) as stop:
        command.main([
            "segment", "--model", "shapes", str(EXAMPLES / "query.png"), "--prompt",
            f"{EXAMPLES / 'prompt.png'}:{folder / 'drawn.png'}", "--out",
            str(folder / "out"),
        ])  # fmt: skip
    assert stop.value.code == 0
    return opened((folder / "out/query.png").read_bytes())


def test_a_drawn_mask_segments_as_the_command_line_does(
    page, masks, tmp_path, monkeypatch
):
    show(page)
    page.locator("#size").fill("30")
    drag(page, (0.55, 0.43), (0.8, 0.5))  # the azure lens
    drag(page, (0.1, 0.9), (0.2, 0.9))
    page.check("[value=eraser]")
    drag(page, (0.02, 0.9), (0.3, 0.9))
    page.set_input_files("#images-input", EXAMPLES / "query.png")
    run(page, 1)
    (mask,) = masks
    drawn, _ = opened(mask)
    assert set(np.unique(drawn)) == {0, 1} and drawn[90, 125] == 1
    assert not drawn[165:180].any()  # erased
    found = download(page, "#masks")
    assert list(found) == ["query.png"]
    labels, palette = opened(found["query.png"])
    wanted, colors = by_command(tmp_path, mask, monkeypatch)
    np.testing.assert_array_equal(labels, wanted)
    assert palette[:6] == colors[:6] and set(np.unique(labels)) == {0, 1}


def test_boxes_and_points_find_objects_and_labels_have_names(page, masks, tmp_path):
    """Two labels; COCO JSON that pycocotools reads has the pixels of the PNGs."""
    show(page)
    page.fill("[aria-label='Name of label 1']", "azure lens")
    page.check("[value=box]")
    with page.expect_response("**/api/mask"):
        drag(page, (0.42, 0.32), (0.9, 0.62))
    page.click("#add-label")
    page.fill("[aria-label='Name of label 2']", "rose lens")
    page.check("[value=object]")
    with page.expect_response("**/api/mask"):
        drag(page, (0.7, 0.72), (0.7, 0.72))
    page.check("[value=background]")
    with page.expect_response("**/api/mask"):
        drag(page, (0.05, 0.05), (0.05, 0.05))
    page.wait_for_selector("#status:text-is('')", state="attached")
    page.set_input_files(
        "#images-input", [EXAMPLES / "query.png", EXAMPLES / "prompt.png"]
    )
    run(page, 2)
    (mask,) = masks
    drawn, _ = opened(mask)
    truth, _ = opened((EXAMPLES / "prompt-mask.png").read_bytes())
    with Image.open(EXAMPLES / "prompt.png") as image:
        red, green, blue = (
            np.asarray(image.convert("RGB")).astype(int).transpose(2, 0, 1)
        )
    rose = (red > 150) & (green < 150)
    for label, there in ((1, truth > 0), (2, rose)):
        own = drawn == label
        # The box cuts at edges of colour, the truth at edges that were drawn.
        assert (own & there).sum() / (own | there).sum() > 0.8
    files = download(page, "#masks")
    (tmp_path / "coco.json").write_bytes(download(page, "#coco")["coco.json"])
    coco = COCO(tmp_path / "coco.json")
    assert [c["name"] for c in coco.cats.values()] == ["azure lens", "rose lens"]
    card = page.inner_text("#images p")
    assert re.match(r".*: azure lens, score 0\.\d\d; rose lens, score 0\.\d\d$", card)
    for image in coco.imgs.values():
        painted = np.zeros((image["height"], image["width"]), np.uint8)
        for note in coco.imgToAnns[image["id"]]:
            painted[coco.annToMask(note) > 0] = note["category_id"]
            assert note["area"] == coco.annToMask(note).sum() and note["score"] > 0
        labels, _ = opened(files[image["file_name"]])
        np.testing.assert_array_equal(painted, labels)
        assert labels.any()


def test_a_correction_stays_and_becomes_an_example(page, masks, tmp_path):
    """By keyboard alone, but for the files."""
    show(page)
    page.keyboard.press("x")
    for key, times in (("ArrowUp", 4), ("ArrowLeft", 2), ("", 1), ("ArrowRight", 10),
                       ("ArrowDown", 7)):  # fmt: skip
        for _ in range(times):
            page.keyboard.press(f"Shift+{key}" if key else "Space")
    with page.expect_response("**/api/mask"):
        page.keyboard.press("Enter")
    page.set_input_files("#images-input", EXAMPLES / "query.png")
    run(page, 1)
    before, _ = opened(download(page, "#masks")["query.png"])
    page.locator("#images button", has_text="Correct").focus()
    page.keyboard.press("Enter")
    page.keyboard.press("b")
    for _ in range(40):
        page.keyboard.press("]")
    page.keyboard.press("Space")
    page.wait_for_selector("#images p:text-is('query.png: corrected')")
    after, _ = opened(download(page, "#masks")["query.png"])
    assert after[96, 96] == 1 and (after != before).any()
    assert (after >= before).all()
    (tmp_path / "coco.json").write_bytes(download(page, "#coco")["coco.json"])
    (note,) = COCO(tmp_path / "coco.json").anns.values()
    assert note["score"] == 1
    lines = [np.reshape(line, (-1, 2)) for line in note["polygons"]]
    np.testing.assert_array_equal(
        np.logical_xor.reduce([filled(line, after.shape) for line in lines]), after
    )
    assert note["area"] == after.sum()
    np.testing.assert_array_equal(COCO(tmp_path / "coco.json").annToMask(note), after)
    ys, xs = np.nonzero(after)
    assert note["bbox"] == [xs.min(), ys.min(), np.ptp(xs) + 1, np.ptp(ys) + 1]
    page.click("#images >> text=Make it an example")
    page.click("#run")
    page.wait_for_selector("#run:enabled")
    assert len(masks) == 3  # of one example, then of two
    np.testing.assert_array_equal(opened(masks[2])[0], after)
    stays, _ = opened(download(page, "#masks")["query.png"])
    np.testing.assert_array_equal(stays, after)


def test_outlines_are_those_of_the_server(page):
    """Of noise, which has holes, and parts that touch at corners and sides."""
    for size, share in (((1, 1), 1), ((7, 9), 0.5), ((20, 17), 0.6), ((30, 24), 0.9)):
        mask = np.random.default_rng(size[0]).random(size) < share
        found = page.evaluate(
            """async ([pixels, height, width]) => {
                const { polygons } = await import("/outlines.js");
                return polygons(Uint8Array.from(pixels), width, height, 1);
            }""",
            [mask.astype(int).ravel().tolist(), *size],
        )
        lines = [np.reshape(line, (-1, 2)) for line in found]
        np.testing.assert_array_equal(
            np.sum([filled(line, size) for line in lines], 0), mask
        )
        assert len(lines) == len(outlines.polygons(mask))
        assert sum(map(len, lines)) == sum(map(len, outlines.polygons(mask)))


def test_an_edit_in_the_midst_of_a_run_fails_nothing(page):
    """It drops the prompts whose answers are still to come."""

    def edit(route):
        page.fill("[aria-label='Name of label 1']", "lens")
        route.continue_()

    show(page)
    page.locator("#size").fill("30")
    drag(page, (0.55, 0.43), (0.8, 0.5))
    page.set_input_files("#images-input", EXAMPLES / "query.png")
    page.route("**/api/segment", edit, times=1)
    run(page, 1)
    assert "lens" in page.inner_text("#images p")


def stroke(page):
    page.check("[value=brush]")
    page.locator("#size").fill("30")
    drag(page, (0.55, 0.43), (0.8, 0.5))


def test_a_label_that_only_a_correction_has_is_in_the_files(page):
    show(page)
    stroke(page)
    page.set_input_files("#images-input", EXAMPLES / "query.png")
    run(page, 1)
    page.click("#add-label")
    page.click("#images >> text=Correct")
    drag(page, (0.1, 0.1), (0.2, 0.1))
    data = json.loads(download(page, "#coco")["coco.json"])
    assert [c["name"] for c in data["categories"]] == ["1", "2"]
    assert {note["category_id"] for note in data["annotations"]} >= {2}
    labels, palette = opened(download(page, "#masks")["query.png"])
    assert (labels == 2).any() and any(palette[6:9])


def test_clear_and_undo_end_the_marks_of_an_object(page, app, monkeypatch):
    """Else a point after them would be of the object before."""
    boxes, service = [], app.state.service
    find = service.mask

    def listening(uploads, box, points):
        boxes.append(box)
        return find(uploads, box, points)

    monkeypatch.setattr(service, "mask", listening)
    show(page)
    stroke(page)
    page.check("[value=box]")
    with page.expect_response("**/api/mask"):
        drag(page, (0.42, 0.32), (0.9, 0.62))
    page.wait_for_selector("#status:text-is('')", state="attached")
    page.click("#clear")
    page.wait_for_selector("#examples p:text-is('prompt.png: draw its mask')")
    page.check("[value=object]")
    drag(page, (0.7, 0.45), (0.7, 0.45))
    page.wait_for_selector("#examples p:text-is('prompt.png')")
    assert boxes[0] and boxes[1:] == [None]
    page.click("#clear")
    stroke(page)
    page.check("[value=box]")
    page.route("**/api/mask", lambda route: None)  # a slow server
    drag(page, (0.42, 0.32), (0.9, 0.62))
    page.wait_for_selector("#status:text-is('Looking for the object ...')")
    page.click("#undo")
    page.wait_for_selector("#status:text-is('')", state="attached")
    assert page.inner_text("#examples p") == "prompt.png"  # the stroke stays
    page.click("#undo")
    assert page.inner_text("#examples p") == "prompt.png: draw its mask"


def test_a_point_beside_the_box_is_of_another_object(page, masks):
    show(page)
    page.check("[value=box]")
    with page.expect_response("**/api/mask"):
        drag(page, (0.42, 0.32), (0.9, 0.62))
    page.check("[value=background]")
    drag(page, (0.05, 0.05), (0.05, 0.05))
    page.wait_for_selector(
        "#status:text-is('all outside of the box is background already')"
    )
    page.check("[value=object]")
    with page.expect_response("**/api/mask") as answered:
        drag(page, (0.7, 0.72), (0.7, 0.72))
    assert answered.value.ok
    page.set_input_files("#images-input", EXAMPLES / "query.png")
    run(page, 1)
    (mask,) = masks
    drawn, _ = opened(mask)
    assert drawn[90, 125] == 1 and drawn[138, 134] == 1  # both


def test_a_second_finger_does_not_draw(page, browser, url, masks):
    context = browser.new_context(has_touch=True)
    page = context.new_page()  # the first one waited for the server
    page.goto(url)
    page.wait_for_selector("#model:not(:empty)")
    show(page)
    page.locator("#size").fill("10")
    box = page.locator("#stage").bounding_box()
    remote = context.new_cdp_session(page)

    def touch(kind, *places):
        points = [{"x": box["x"] + x * box["width"], "y": box["y"] + y * box["height"]}
                  for x, y in places]  # fmt: skip
        remote.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": points})

    touch("touchStart", (0.2, 0.3), (0.8, 0.3))
    touch("touchMove", (0.2, 0.4), (0.8, 0.4))
    touch("touchEnd")
    page.set_input_files("#images-input", EXAMPLES / "query.png")
    run(page, 1)
    drawn, _ = opened(masks[0])
    wide = drawn.shape[1]
    assert drawn[:, : wide // 2].any() and not drawn[:, wide // 2 :].any()
    context.close()


def test_keys_work_on_the_tools_but_not_in_names(page):
    show(page)
    page.check("[value=box]")  # it has the focus then
    page.keyboard.press("E")
    assert page.is_checked("[value=eraser]")
    page.focus("[aria-label='Name of label 1']")
    page.keyboard.type("box")
    assert page.is_checked("[value=eraser]")
    assert page.input_value("[aria-label='Name of label 1']") == "box"


def test_colours_of_labels_are_far_apart(page):
    show(page)
    for _ in range(19):
        page.click("#add-label")
    shown = page.locator(".swatch").evaluate_all(
        "all => all.map((one) => getComputedStyle(one).backgroundColor)"
    )
    colors = np.array([re.findall(r"\d+", color)[:3] for color in shown], int)
    gaps = np.abs(colors[:, None] - colors).sum(-1)[np.triu_indices(20, 1)]
    assert len(colors) == 20 and gaps.min() >= 90 and colors.sum(-1).min() > 100


def test_what_is_removed_is_not_edited(page):
    show(page)
    page.set_input_files("#images-input", EXAMPLES / "query.png")
    page.click("#images >> text=Correct")
    page.click("#images >> text=Remove")
    assert page.is_hidden("#editor")


def test_work_is_not_lost_by_a_drop_beside_or_a_reload(page):
    def dropped(x, y):
        remote = page.context.new_cdp_session(page)
        data = {"items": [], "files": [str(EXAMPLES / "query.png")],
                "dragOperationsMask": 1}  # fmt: skip
        for kind in ("dragEnter", "dragOver", "drop"):
            remote.send(
                "Input.dispatchDragEvent", {"type": kind, "x": x, "y": y, "data": data}
            )

    dialogs = []
    page.on("dialog", lambda dialog: (dialogs.append(dialog.type), dialog.accept()))
    show(page)
    page.reload()
    assert not dialogs  # nothing was drawn
    page.wait_for_selector("#model:not(:empty)")
    show(page)
    stroke(page)
    page.locator("#drop-images").scroll_into_view_if_needed()
    box = page.locator("#drop-images").bounding_box()
    dropped(box["x"] + 20, box["y"] + 20)
    page.wait_for_selector("#images li")
    dropped(box["x"] + 20, 880)
    page.wait_for_timeout(300)
    assert len(page.context.pages) == 1 and page.locator("#images li").count() == 1
    page.reload()
    assert dialogs == ["beforeunload"]


def test_a_server_that_was_stopped_is_said(browser, url):
    page = browser.new_page(viewport={"width": 390, "height": 740})
    page.goto(url)
    page.wait_for_selector("#model:not(:empty)")
    show(page)
    page.route("**/api/mask", lambda route: route.abort("connectionrefused"))
    page.check("[value=box]")
    drag(page, (0.42, 0.32), (0.9, 0.62))
    page.wait_for_selector(
        "#status.fault:text-is('the server does not answer: was it stopped?')"
    )
    line = page.locator("#status").bounding_box()
    assert 0 <= line["y"] <= 740 - line["height"]  # in sight, beside what is drawn
    page.close()


def test_what_cannot_be_shown_is_said(page):
    page.set_input_files(
        "#examples-input",
        files={"name": "x.txt", "mimeType": "text/plain", "buffer": b"no picture"},
    )
    sentence = "{} is no picture that this browser can show: JPEG or PNG is"
    page.wait_for_selector(f"#status.fault:text-is('{sentence.format('x.txt')}')")
    files = [
        {"name": name, "mimeType": "image/tiff", "buffer": b"no picture"}
        for name in ("a.tif", "b.tif")
    ]
    page.set_input_files("#images-input", files)
    both = "; ".join(sentence.format(file["name"]) for file in files)
    page.wait_for_selector(f"#status.fault:text-is('{both}')")
    show(page)  # a good one
    page.wait_for_selector("#status:text-is('')", state="attached")


def test_dropped_prompts_are_sent_again_and_a_full_server_is_waited_for(
    browser, url, app, masks
):
    page = browser.new_page()
    page.goto(url)
    show(page)
    drag(page, (0.55, 0.43), (0.8, 0.5))
    page.set_input_files("#images-input", EXAMPLES / "query.png")
    run(page, 1)
    app.state.service._sets.clear()
    full = {"status": 429, "headers": {"Retry-After": "0"}, "body": "{}"}
    page.route("**/api/segment", lambda route: route.fulfill(**full), times=1)
    run(page, 1)
    assert len(masks) == 2 and masks[0] == masks[1]
    assert list(download(page, "#masks")) == ["query.png"]
    page.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_fits_a_narrow_window_and_both_schemes(page, scheme):
    page.emulate_media(color_scheme=scheme)
    page.set_viewport_size({"width": 360, "height": 740})
    show(page)
    page.set_input_files("#images-input", EXAMPLES / "query.png")
    page.wait_for_selector("#images li")
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    back, text = page.evaluate(
        "(({backgroundColor, color}) => [backgroundColor, color])"
        "(getComputedStyle(document.body))"
    )
    dark = [sum(map(int, c[4:-1].split(","))) < 384 for c in (back, text)]
    assert dark == ([True, False] if scheme == "dark" else [False, True])
    small = page.locator("#stage").bounding_box()
    assert 300 < small["width"] <= 360


def test_the_interface_is_described(page, url):
    page.set_viewport_size({"width": 390, "height": 740})
    page.goto(f"{url}docs")
    page.wait_for_selector("h2:text-is('POST /api/segment')")
    page.wait_for_selector("h2:text-is('POST /webhook')")
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    text = page.inner_text("main")
    assert "left,top,right,bottom around it, in pixels" in text
    assert "Too many requests wait" in text
