"""Takes the picture of the page of `seggpt demo`, in chromium.

    seggpt serve --model mini &
    python docs/pictures/page.py --url http://127.0.0.1:8765 --out page.png

The cup and the spoon of docs/examples are marked by boxes, and two views of the same
photograph are segmented: mirrored, and cut out.
"""

import argparse
import io
import shutil
from pathlib import Path

from PIL import Image, ImageOps
from playwright.sync_api import Page, sync_playwright

PHOTO = Path(__file__).parents[1] / "examples/own/coffee.jpg"
FLAGS = ("--no-sandbox", "--disable-gpu", "--disable-background-networking")
BOXES = {
    "cup": ((0.28, 0.04), (0.69, 0.53)),
    "spoon": ((0.53, 0.6), (0.69, 0.83)),
}


def mark(page: Page, start: tuple[float, float], end: tuple[float, float]) -> None:
    """Drags a box; places are shares of the picture's sides."""
    box = page.locator("#stage").bounding_box()
    for (x, y), then in ((start, page.mouse.down), (end, page.mouse.up)):
        at = box["x"] + x * box["width"], box["y"] + y * box["height"]
        page.mouse.move(*at, steps=8)
        then()


def views() -> list[dict]:
    """The photograph mirrored, and a part of it, as uploads."""
    photo = Image.open(PHOTO)
    shown = {"mirrored": ImageOps.mirror(photo), "part": photo.crop((90, 0, 370, 300))}
    uploads = []
    for name, picture in shown.items():
        content = io.BytesIO()
        picture.save(content, "PNG")
        uploads.append(
            {
                "name": f"{name}.png",
                "mimeType": "image/png",
                "buffer": content.getvalue(),
            }
        )
    return uploads


def take(url: str, out: str) -> None:
    with sync_playwright() as started:
        chromium = shutil.which("chromium") or shutil.which("chromium-browser")
        browser = started.chromium.launch(executable_path=chromium, args=FLAGS)
        page = browser.new_page(viewport={"width": 1080, "height": 1000})
        page.goto(url)
        page.wait_for_selector("#model:not(:empty)")
        page.set_input_files("#examples-input", PHOTO)
        page.wait_for_selector("#editor:not([hidden])")
        page.check("[value=box]")
        for number, (name, box) in enumerate(BOXES.items(), start=1):
            if number > 1:
                page.click("#add-label")
            page.fill(f"[aria-label='Name of label {number}']", name)
            with page.expect_response("**/api/mask"):
                mark(page, *box)
        page.set_input_files("#images-input", views())
        page.click("#run")
        page.wait_for_selector("#status:text-is('2 segmented')")
        page.screenshot(path=out)
        browser.close()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--url", required=True)
    parser.add_argument("--out", required=True)
    args = parser.parse_args()
    take(args.url, args.out)
