"""Commands and snippets of the documents are run, or their page says why not.

The blocks of a page run in their order, in a folder that holds pictures of the names
that the pages use, with a bundled model in place of larger ones. A comment
`<!-- not run: why -->` above a block, or at the top of a page, keeps blocks from being
run; their options and configs are read all the same.
"""

import json
import re
import shlex
import shutil
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from PIL import Image

from seggpt_jax.cli import command
from seggpt_jax.training import config_file
from tests.conftest import REPOSITORY

PAGES = [
    path
    for pattern in ("*.md", "docs/**/*.md", "launch/*.md")
    for path in sorted(REPOSITORY.glob(pattern))
]
MODELS = re.compile(r"BAAI/seggpt-vit-large|weights/vitl|runs/mine")
REASON = re.compile(r" *<!-- not run: (.+) -->\n")
OPEN = re.compile(r"( *)```(\w+)\n")
SLOW = {"export.md", "models.md", "prompts.md", "pytorch.md", "tune.md", "video.md"}
MORE = {"tune": ("--steps", "4")}  # to be quick
OTHERS = ("pip install", "cd ")  # of the shell; what else there is must not be run


class Block(NamedTuple):
    language: str
    text: str
    line: int
    reason: str  # why it is not run


def blocks(path: Path) -> list[Block]:
    """The fenced blocks of a page."""
    lines = path.read_text().splitlines(keepends=True)
    whole = REASON.fullmatch(lines[0])
    found, number = [], 0
    while number < len(lines):
        if opened := OPEN.fullmatch(lines[number]):
            end = lines.index(f"{opened[1]}```\n", number)
            above = whole or REASON.fullmatch(lines[number - 1])
            text = "".join(line[len(opened[1]) :] for line in lines[number + 1 : end])
            reason = above[1] if above else ""
            found.append(Block(opened[2], text, number + 1, reason))
            number = end
        number += 1
    return found


def commands(text: str) -> list[list[str]]:
    """The words of each command of a shell."""
    text = text.replace("\\\n", " ")
    parts = re.split(r"\n|&&", text) if "'\n" not in text else [text]
    words = [shlex.split(part, comments=True) for part in parts if "`" not in part]
    return [one for one in words if one]


def read(words: list[str]) -> None:
    """Fails where a command of this project has no such option, config or setting."""
    if words[0] == "seggpt":
        command._read(words[1:])
    if words[:3] == ["python", "-m", "seggpt_jax.main"]:
        (config,) = (w.split("=", 1)[1] for w in words if w.startswith("--config="))
        if config != "configs/mine.py":  # the reader's own
            config_file.read(config, [w for w in words if w.startswith("--config.")])


def of_this_project(path: Path) -> list[tuple[int, list[str]]]:
    shells = [block for block in blocks(path) if block.language == "bash"]
    return [
        (block.line, words)
        for block in shells
        for words in commands(block.text)
        if words[0] in ("seggpt", "python")
    ]


@pytest.mark.filterwarnings(
    "ignore:the load_module:DeprecationWarning"
)  # ml_collections
@pytest.mark.parametrize("path", PAGES, ids=lambda p: p.name)
def test_options_and_configs_exist(path, monkeypatch, capsys):
    monkeypatch.chdir(REPOSITORY)
    for line, words in of_this_project(path):
        try:
            read(words)
        except (SystemExit, ValueError) as error:
            text = capsys.readouterr().err or error
            pytest.fail(f"{path.name}:{line}: {shlex.join(words)}: {text}")


@pytest.mark.parametrize("path", PAGES, ids=lambda p: p.name)
def test_every_block_names_its_language(path):
    fences = re.findall(r"^ *```(.*)$", path.read_text(), re.MULTILINE)
    assert all(fences[::2]), "blocks begin with ```bash, ```python or ```text"


@pytest.fixture
def world(tmp_path, monkeypatch) -> Path:
    """A folder with the files that the pages name, drawn scenes all of them."""
    examples = tmp_path / "docs/examples"
    shutil.copytree(REPOSITORY / "docs/examples", examples)
    first = Image.open(examples / "prompt.jpg").convert("RGB")
    mask = Image.open(examples / "prompt-mask.png")
    query = Image.open(examples / "query.jpg").convert("RGB")
    values = np.asarray(mask.convert("L")) > 0
    labels = np.uint8(values)
    labels[-40:, :40] = 2
    for name in ("cat", "dog"):
        first.save(tmp_path / f"{name}.jpg", quality=95)
        mask.save(tmp_path / f"{name}-mask.png")
    second = first.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    second.save(tmp_path / "cat2.jpg", quality=95)
    Image.fromarray(values[:, ::-1]).save(tmp_path / "cat2-mask.png")
    Image.fromarray(labels).save(tmp_path / "labels.png")
    query.save(tmp_path / "query.jpg", quality=95)
    strokes = Image.new("RGBA", first.size)
    strokes.paste((0, 255, 0, 255), (95, 85, 110, 95))
    strokes.paste((255, 0, 0, 255), (5, 5, 25, 15))
    strokes.save(tmp_path / "strokes.png")
    for folder in ("photos", "images", "masks"):
        (tmp_path / folder).mkdir()
    query.save(tmp_path / "photos/1.jpg", quality=95)
    second.save(tmp_path / "photos/2.jpg", quality=95)
    for k in range(1, 6):
        turned = np.rot90(np.asarray(first), k).copy()
        Image.fromarray(turned).save(tmp_path / f"images/{k}.jpg", quality=95)
        Image.fromarray(np.uint8(np.rot90(values, k))).save(tmp_path / f"masks/{k}.png")
    (tmp_path / "annotations.json").write_text(json.dumps(coco(values.shape)))
    shutil.copy(examples / "clip.mp4", tmp_path)
    start = np.asarray(Image.open(examples / "clip-first-mask.png").convert("L"))
    Image.fromarray(start).save(tmp_path / "first-mask.png")
    Image.fromarray(start).save(tmp_path / "mask-of-frame-2.png")
    new = np.zeros_like(start)
    new[:20, :20] = 255
    Image.fromarray(new).save(tmp_path / "new-object.png")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(command, "cache_compiled", lambda: "")
    return tmp_path


def coco(shape: tuple[int, int]) -> dict:
    """A COCO file with a box-shaped cat in each of the images."""
    height, width = shape
    image = {"width": width, "height": height}
    box = [60, 60, 120, 60, 120, 120, 60, 120]
    shown = {"category_id": 1, "iscrowd": 0, "bbox": [60, 60, 60, 60], "area": 3600}
    return {
        "images": [image | {"id": k, "file_name": f"{k}.jpg"} for k in range(1, 6)],
        "annotations": [
            shown | {"id": k, "image_id": k, "segmentation": [box]} for k in range(1, 6)
        ],
        "categories": [{"id": 1, "name": "cat"}],
    }


def run(words: list[str], monkeypatch) -> None:
    """One command of a shell, in this process."""
    if words[0] == "cd":
        monkeypatch.chdir(words[1])
    elif words[0] == "seggpt":
        with pytest.raises(SystemExit) as stopped:
            command.main([*words[1:], *MORE.get(words[1], ())])
        assert stopped.value.code == 0, shlex.join(words)
    else:
        assert shlex.join(words).startswith(OTHERS), (
            f"{shlex.join(words)}: cannot be run here: <!-- not run: why --> above it"
        )


def run_page(path: Path, monkeypatch) -> None:
    names: dict = {}
    model = "shapes"
    if path.name == "pytorch.md":
        model = "in-transformers-layout"
        convert = ("--input", "shapes", "--output", model, "--to", "hub-folder")
        run(["seggpt", "convert", *convert], monkeypatch)
    for block in blocks(path):
        if block.reason or block.language not in ("bash", "python"):
            continue
        text = MODELS.sub(model, block.text)
        if block.language == "python":
            exec(compile(text, f"{path.name}:{block.line}", "exec"), names)
        else:
            for words in commands(text):
                run(words, monkeypatch)


@pytest.mark.parametrize(
    "path",
    [
        pytest.param(path, marks=[pytest.mark.slow] * (path.name in SLOW), id=path.name)
        for path in PAGES
        if any(b.language in ("bash", "python") and not b.reason for b in blocks(path))
    ],
)
def test_blocks_run(path, world, monkeypatch):
    if path.name == "export.md":
        pytest.importorskip("flatbuffers", reason="of the extra export")
    run_page(path, monkeypatch)
