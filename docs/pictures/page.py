"""Takes the picture of the page of `seggpt demo`, in chromium.

    seggpt serve --model shapes &
    python docs/pictures/page.py --url http://127.0.0.1:8765 --out page.png

Two labels are marked by boxes in the example of docs/examples, and two images are
segmented.
"""

import argparse
import shutil
from pathlib import Path

from playwright.sync_api import Page, sync_playwright

EXAMPLES = Path(__file__).parents[1] / "examples"
FLAGS = ("--no-sandbox", "--disable-gpu", "--disable-background-networking")
BOXES = {
    "blue lens": ((0.44, 0.34), (0.86, 0.59)),
    "arrow": ((0.01, 0.17), (0.45, 0.63)),
}


def mark(page: Page, start: tuple[float, float], end: tuple[float, float]) -> None:
    """Drags a box; places are shares of the picture's sides."""
    box = page.locator("#stage").bounding_box()
    for (x, y), then in ((start, page.mouse.down), (end, page.mouse.up)):
        at = box["x"] + x * box["width"], box["y"] + y * box["height"]
        page.mouse.move(*at, steps=8)
        then()


def take(url: str, out: str) -> None:
    with sync_playwright() as started:
        chromium = shutil.which("chromium") or shutil.which("chromium-browser")
        browser = started.chromium.launch(executable_path=chromium, args=FLAGS)
        page = browser.new_page(viewport={"width": 1080, "height": 1000})
        page.goto(url)
        page.wait_for_selector("#model:not(:empty)")
        page.set_input_files("#examples-input", EXAMPLES / "prompt.png")
        page.wait_for_selector("#editor:not([hidden])")
        page.check("[value=box]")
        for number, (name, box) in enumerate(BOXES.items(), start=1):
            if number > 1:
                page.click("#add-label")
            page.fill(f"[aria-label='Name of label {number}']", name)
            with page.expect_response("**/api/mask"):
                mark(page, *box)
        queries = [EXAMPLES / f"{name}.png" for name in ("query", "prompt")]
        page.set_input_files("#images-input", queries)
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
