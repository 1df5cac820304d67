"""Command lines of `seggpt`: right ones, and what becomes of them by slips.

A command ends with status 0 or 1, or with 2 and one error in words. It never changes a
file that it was given, and leaves no half-written one.
"""

import contextlib
import functools
import hashlib
import io
import json
import os
import shutil
from pathlib import Path
from typing import Any

import jax
import numpy as np
from PIL import Image

from seggpt_jax import predict, train
from seggpt_jax.cli import command, serve_command
from seggpt_jax.inference import predictor
from seggpt_jax.prompts.file import PromptFile, save_prompts
from seggpt_jax.prompts.read import read_prompts
from seggpt_jax.weights import release
from tests.fuzz import nasty
from tests.fuzz.outcomes import Refused, Wrong, check_message
from tests.support import folders
from tests.support.models import SMALL, random_params, small
from tests.support.videos import write_clip

_MODEL = ["--model", "model"]
# Commands that are right in the folder of `start`.
_RIGHT = [
    ["segment", *_MODEL, "--prompt", "prompt.png:mask.png", "photos", "--out", "out"],
    ["segment", *_MODEL, "--prompt", "prompt.png:mask.png", "photos/a.jpg", "--out",
     "out", "--as", "segments,overlay,colors,coco-json", "--names", "1=cat,2=dog"],
    ["segment", *_MODEL, "--prompt", "photos:masks", "--prompt", "auto:1",
     "prompt.png", "--out", "out", "--kind", "instance", "--split", "--as", "yolo"],
    ["segment", *_MODEL, "--prompt", "photos:coco.json", "prompt.png", "--out", "out",
     "--classes", "cat", "--as", "coco-json,csv"],
    ["segment", *_MODEL, "--prompt", "tuned.safetensors", "photos", "--out", "out"],
    ["segment", *_MODEL, "--prompt", "prompt.png:mask.png", "photos/b.png", "--out",
     "out", "--tile", "20", "--batch", "2", "--ensemble", "both"],
    ["segment", *_MODEL, "--prompt", "photos/a.jpg:coco.json", "photos", "--out", "out",
     "--coco", "coco.json", "--as", "coco-json"],
    ["video", *_MODEL, "--first", "first.png", "clip.mp4", "--out", "out"],
    ["video", *_MODEL, "--prompt", "prompt.png:mask.png", "photos", "--out", "out",
     "--as", "segments", "--memory", "1"],
    ["video", *_MODEL, "--first", "first.png", "clip.mp4", "--out", "out", "--at",
     "1:first.png", "--add", "2:other.png", "--as", "segments,overlay"],
    ["mask", "prompt.png", "--box", "4,4,24,22", "--out", "new.png"],
    ["mask", "prompt.png", "--points", "9,9,+", "1,1,-", "--out", "new.png"],
    ["mask", "prompt.png", "--scribble", "strokes.png", "--out", "new.png"],
    ["tune", *_MODEL, "--data", "data", "--out", "new.safetensors", "--steps", "2"],
    ["index", "photos", "masks", "--out", "new"],
    ["check", "--config", "configs/shapes.py"],
    ["check", "indexed", "--root", "data"],
    ["prepare", "indexed", "--root", "data", "--out", "new", "--workers", "0"],
    ["show", "--config", "configs/shapes.py", "--out", "sheet.png", "--rows", "2"],
    ["configs", "new"],
    ["serve", *_MODEL, "--port", "0"],
    ["demo", *_MODEL, "--port", "0", "--host", "localhost"],
    ["convert", "--input", "model", "--output", "new"],
    ["convert", "--input", "model", "--output", "new", "--raw"],
    ["models"], ["doctor"], [], ["--help"], ["segment", "--help"], ["models", "--help"],
]  # fmt: skip
_OPTIONS = ["--model", "--prompt", "--out", "--as", "--names", "--classes", "--split",
            "--coco", "--kind", "--tile", "--batch", "--ensemble", "--dtype", "--bits",
            "--attention", "--first", "--memory", "--fps", "--camera", "--at", "--add",
            "--box", "--points", "--scribble", "--data", "--steps", "--lr", "--prompts",
            "--seed", "--port", "--host", "--token", "--queue", "--sets", "--input",
            "--output", "--to", "--license", "--raw", "--config", "--config.seed=x",
            "--root", "--set", "--splits", "--rows", "--step", "--workers", "--none",
            "--max-megabytes", "--max-megapixels", "-h", "-v", "--"]  # fmt: skip


class Began(Exception):
    """A run came to its first step."""


class _Still(train.Loop):
    def prepare(self, checkpoints):
        raise Began


def start(home: Path) -> tuple[Path, dict[str, str]]:
    """A folder to copy for each command, and the sums of its files."""
    here = home / "given"
    (here / "photos").mkdir(parents=True)
    (here / "masks").mkdir()
    (here / "empty").mkdir()
    rng = np.random.default_rng(0)
    blob = np.zeros((30, 40), np.uint8)
    blob[8:18, 8:20], blob[20:28, 25:38] = 1, 2
    for name in ("prompt.png", "photos/a.jpg", "photos/b.png"):
        noise = rng.integers(0, 30, (30, 40, 3)).astype(np.uint8)
        noise[blob > 0] += 120
        Image.fromarray(noise).save(here / name)
    for name in ("mask.png", "masks/a.png", "masks/b.png", "first.png"):
        Image.fromarray(blob).save(here / name)
    Image.fromarray((blob == 1) * np.uint8(1)).save(here / "strokes.png")
    Image.fromarray((blob == 1) * np.uint8(5)).save(here / "other.png")
    (here / "text.txt").write_text("text\n")
    square = [8, 8, 20, 8, 20, 18, 8, 18]
    coco: dict[str, Any] = {
        "images": [{"id": i, "file_name": name, "width": 40, "height": 30}
                   for i, name in ((1, "a.jpg"), (2, "b.png"))],
        "categories": [{"id": 1, "name": "cat"}, {"id": 2, "name": "dog"}],
        "annotations": [{"id": i, "image_id": i, "category_id": 1, "iscrowd": 0,
                         "bbox": [8, 8, 12, 10], "area": 120, "segmentation": [square]}
                        for i in (1, 2)],
    }  # fmt: skip
    (here / "coco.json").write_text(json.dumps(coco))
    write_clip(here / "clip.mp4", [np.asarray(Image.open(here / "prompt.png"))] * 3)
    folders.write(here / "data")
    params = jax.device_get(random_params(small()))
    release.export_params(here / "model", params, dict(SMALL.__dict__))
    prompts = read_prompts(
        [here / "prompt.png"], [here / "mask.png"], "category", SMALL.half
    )
    content = PromptFile(prompts, {1: "cat", 2: "dog"}, SMALL.geometry, {}, {})
    save_prompts(here / "tuned.safetensors", content)
    _patch(home)
    return here, _sums(here)


def _patch(home: Path) -> None:
    """Programs are compiled once, servers end at once, and nothing is fetched."""
    os.environ |= {"HF_HUB_OFFLINE": "1", "XDG_CACHE_HOME": str(home / "cache"),
                   "COLUMNS": "200"}  # fmt: skip
    predictor.Engine = functools.cache(predict.Engine)
    command.cache_compiled = lambda: str(home / "cache")
    train.Loop = _Still
    serve_command.webbrowser.open = lambda url: True
    from seggpt_jax.serve import run as serving

    serving.serve = lambda app, taken: None


def attempt(rng: np.random.Generator, folder: Path, started: Any) -> None:
    given, sums = started
    shutil.copytree(given, folder, dirs_exist_ok=True)
    os.chdir(folder)
    argv = list(_RIGHT[rng.integers(len(_RIGHT))])
    slips = int(rng.integers(0, 4))
    for _ in range(slips):
        argv = _slip(rng, argv)
    out, error, status = io.StringIO(), io.StringIO(), None
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(error):
        try:
            command.main(argv)
        except SystemExit as stopped:
            status = stopped.code
        except Began:
            status = 0
    said = f"seggpt {argv}: status {status}, stdout {out.getvalue()[-300:]}, stderr "
    text = error.getvalue()
    if status not in (0, 1, 2) or "Traceback" in text:
        raise Wrong(said + text)
    found = _sums(folder)
    if changed := [name for name, one in sums.items() if found.get(name) != one]:
        raise Wrong(f"{changed} was changed by {said}{text}")
    if half := [n for n in found if n.endswith(".part") or "/.new" in n]:
        raise Wrong(f"{half} was left by {said}{text}")
    if not slips and argv and status == 2:
        raise Wrong(said + text)
    if status != 2:
        return
    lines = [line for line in text.splitlines() if "error: " in line]
    if len(lines) != 1:
        raise Wrong(f"{len(lines)} errors: {said}{text}")
    check_message(lines[0].split("error: ")[1], [], quoted="cannot be read")
    if new := sorted(found.keys() - sums.keys()):
        raise Wrong(f"{new} is there after an error: {said}{text}")
    raise Refused(f"{' '.join(argv)[:300]} -> {lines[0]}")


def _slip(rng: np.random.Generator, argv: list[str]) -> list[str]:
    """The arguments with one of them lost, doubled, replaced, moved or added."""
    argv = list(argv)
    place = int(rng.integers(len(argv) + 1))
    way = int(rng.integers(8))
    if way == 0 and argv:
        del argv[min(place, len(argv) - 1)]
    elif way == 1 and argv:
        place = min(place, len(argv) - 1)
        argv[place:place] = argv[place : place + 2]
    elif way in (2, 3, 4) and len(argv) > 1:
        argv[max(1, min(place, len(argv) - 1))] = nasty.word(rng)
    elif way == 5 and len(argv) > 2:
        other = 1 + int(rng.integers(len(argv) - 1))
        place = max(1, min(place, len(argv) - 1))
        argv[place], argv[other] = argv[other], argv[place]
    elif way == 6:
        option = _OPTIONS[rng.integers(len(_OPTIONS))]
        argv[place:place] = [option, nasty.word(rng)]
    else:
        argv.insert(place, nasty.word(rng))
    return [text.replace("\0", "") for text in argv]


def _sums(folder: Path) -> dict[str, str]:
    """The sums of the files below a folder; a folder without files counts as one."""
    found = {}
    for path in folder.rglob("*"):
        name = str(path.relative_to(folder))
        if path.is_file():
            found[name] = hashlib.sha1(path.read_bytes()).hexdigest()
        elif not any(path.iterdir()):
            found[f"{name}/"] = ""
    return found
