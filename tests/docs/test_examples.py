"""What the README shows works as it is written, and the official examples run."""

import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from seggpt_jax import Predictor
from seggpt_jax.cli import command
from seggpt_jax.data.sources import open_sources
from seggpt_jax.pictures import video
from seggpt_jax.pictures.images import read_mask
from seggpt_jax.weights.names import bundled

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "docs/examples"


@pytest.fixture(autouse=True)
def _no_cache(monkeypatch):
    monkeypatch.setattr(command, "cache_compiled", lambda: "")


def run(*argv: str) -> int:
    with pytest.raises(SystemExit) as stopped:
        command.main(list(argv))
    return int(stopped.value.code)


def test_every_bundled_model_has_a_card():
    folder = ROOT / "seggpt_jax/bundled"
    for name in bundled():
        assert (folder / name / "README.md").read_text().startswith(f"# {name}\n")


def iou(found, truth) -> float:
    return (found & truth).sum() / (found | truth).sum()


def test_the_snippet_finds_what_is_asked_for(monkeypatch):
    """With a bundled model, on the photographs that come with the documents."""
    monkeypatch.chdir(EXAMPLES)
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.S)
    (snippet,) = [b for b in blocks if "import Predictor" in b]
    for theirs, ours in (("BAAI/seggpt-vit-large", "mini"), ("cat.jpg", "prompt.jpg"),
                         ("cat-mask.png", "prompt-mask.png"),
                         ("photos/1.jpg", "query.jpg")):  # fmt: skip
        assert f'"{theirs}"' in snippet
        snippet = snippet.replace(f'"{theirs}"', f'"{ours}"')
    names: dict = {}
    exec(snippet, names)
    segments = names["result"].segments
    (truth,) = [
        EXAMPLES / "desk/masks" / f"{path.stem}.png"
        for path in EXAMPLES.glob("desk/images/*.jpg")
        if path.read_bytes() == (EXAMPLES / "query.jpg").read_bytes()
    ]
    assert set(np.unique(segments)) == {0, 1}
    assert iou(segments == 1, read_mask(truth).values > 0) > 0.8


def test_shapes_tells_colours():
    """In drawn scenes: the azure lens is found, and not the purple one."""
    scenes = ROOT / "tests/support/scenes"
    predictor = Predictor.from_pretrained("shapes")
    predictor.set_prompts(scenes / "prompt.png", scenes / "prompt-mask.png")
    segments = predictor(scenes / "query.png").segments
    assert segments.shape == (192, 192) and set(np.unique(segments)) == {0, 1}
    with Image.open(scenes / "query.png") as image:
        red, _, blue = np.asarray(image).astype(int).transpose(2, 0, 1)
    assert iou(segments == 1, blue - red > 100) > 0.8


def test_the_clip_is_followed():
    """Every frame, though the table's edge comes into sight."""
    predictor = Predictor.from_pretrained("mini")
    frames = predictor.track(
        EXAMPLES / "clip.mp4", first=EXAMPLES / "clip-first-mask.png"
    )
    shares = [(result.segments == 1).mean() for result in frames]
    assert len(shares) == 16
    assert 0.07 < min(shares) < max(shares) < 0.27  # of the card: 0.09 to 0.23


def test_every_photograph_is_named_with_its_licence():
    table = (EXAMPLES / "README.md").read_text()
    named = re.findall(r"`([\w/.-]+)`", "".join(re.findall(r"^\| `.*?\|", table, re.M)))
    files = [path for end in ("jpg", "mp4") for path in EXAMPLES.rglob(f"*.{end}")]
    missing = [
        path for path in files
        if not any(f"{path.relative_to(EXAMPLES)}".startswith(n) for n in named)
    ]  # fmt: skip
    assert files and not missing
    assert all((EXAMPLES / name).exists() for name in named)


def test_mini_finds_the_object_that_is_asked_for(data_dir):
    """Where it is good: single things on a table. Asked for another of them, it leaves
    what is there."""
    spec = {"type": "indexed", "folder": "desk-objects", "split": "val"}
    (source,) = open_sources({"desk": spec}, str(data_dir)).values()
    predictor, right, wrong = Predictor.from_pretrained("mini"), [], []
    labels = [*source.by_class]
    for label, other in zip(labels, labels[1:] + labels[:1], strict=True):
        shown = source[int(source.by_class[label][0])]
        predictor.set_prompts(shown.image, np.uint8(shown.segments == label))
        for asked, ious in ((label, right), (other, wrong)):
            query = source[int(source.by_class[asked][1])]
            found, truth = predictor(query.image).segments == 1, query.segments == asked
            ious.append(iou(found, truth))
    assert np.mean(right) > 0.5, right
    assert np.mean(wrong) < 0.3, wrong


def test_the_official_pictures_are_segmented(data_dir, tmp_path, capsys):
    """With the model that is taken when none is named."""
    folder, out = data_dir / "seggpt-examples", str(tmp_path)
    prompt = f"{folder}/hmbb_1.jpg:{folder}/hmbb_1_target.png"
    forms = ("--as", "segments,overlay,colors,coco-json")
    found = [f"{folder}/hmbb_{i}.jpg" for i in (2, 3)]
    assert run("segment", "--prompt", prompt, "--out", out, *forms, *found) == 0
    assert "taking mini" in capsys.readouterr().err
    for path in map(Path, found):
        with (
            Image.open(path) as image,
            Image.open(tmp_path / f"{path.stem}.png") as seg,
        ):
            assert seg.size == image.size


@pytest.mark.slow
@pytest.mark.parametrize("i", [1, 2])
def test_the_official_videos_are_followed(data_dir, tmp_path, i):
    first, clip = (f"{data_dir}/seggpt-examples/video_{i}{x}"
                   for x in ("_target.png", ".mp4"))  # fmt: skip
    argv = "video", "--first", first, "--memory", "2"
    assert run(*argv, clip, "--out", str(tmp_path)) == 0
    assert video.probe(tmp_path / f"video_{i}.mp4").frames > 1
