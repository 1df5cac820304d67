"""The `seggpt` command writes to a bucket what it writes to a disk."""

import json

import numpy as np
import pytest
from PIL import Image

from configs import eval as eval_config
from seggpt_jax.evaluate import evaluate
from seggpt_jax.runs import checksums
from seggpt_jax.runs.buckets import BucketPath
from seggpt_jax.runs.paths import locate
from tests.cli.test_cli import here, run  # noqa: F401  a fixture
from tests.conftest import REPOSITORY
from tests.evaluators.test_rows import mose
from tests.support import folders
from tests.support.pictures import picture
from tests.support.videos import write_clip


def same_files(one, other, but=()):
    """One folder has the files of the other, with equal bytes."""
    one, other = locate(one), locate(other)
    names = checksums.files(one)
    assert names and names == checksums.files(other)
    for name in names:
        if name not in but:
            assert (one / name).read_bytes() == (other / name).read_bytes(), name


@pytest.fixture(autouse=True)
def unchecked(monkeypatch):
    """Without PyTorch, whose import takes ten seconds."""
    monkeypatch.setattr("seggpt_jax.weights.convert.check", lambda *args: "")


def test_images(bucket, here, capsys, monkeypatch):  # noqa: F811
    forms = "segments,overlay,coco-json,csv,yolo"
    options = ["--prompt", "prompt.png:mask.png", "--as", forms, "--names", "1=a,2=b"]
    assert run("segment", "--model", "model", "photos/a.jpg", "photos/b.png",
               "--out", "out", *options) == 0  # fmt: skip
    assert run("convert", "--input", "model", "--output", f"{bucket}/model") == 0
    same_files("model", f"{bucket}/model", but=("config.json", "SHA256SUMS"))
    out = f"{bucket}/results/x"
    command = ["segment", "--model", f"{bucket}/model", "--out", out, *options]
    assert run(*command, "photos/a.jpg") == 0
    assert run(*command, "photos/a.jpg", "photos/b.png") == 0
    same_files("out", out, but=("config.json",))
    assert sorted(p.name for p in here.iterdir()) == [
        "mask.png", "model", "out", "photos", "prompt.png",
    ]  # fmt: skip
    settings = json.loads((locate(out) / "config.json").read_text())
    assert settings["model"] == f"{bucket}/model"
    monkeypatch.setattr(BucketPath, "upload", lambda path, file: 1 / 0)
    assert run(*command, "photos/more/a.png") == 2  # its name is that of a.jpg
    assert "is the name of the results of" in capsys.readouterr().err


def test_a_video_and_a_mask(bucket, here):  # noqa: F811
    write_clip("clip.mp4", [picture(40, 30, seed=i) for i in range(3)])
    for out in ("out", f"{bucket}/out"):
        options = ["--as", "overlay,segments", "--memory", "2", "--out", out]
        command = ["video", "--model", "model", "--first", "mask.png", "clip.mp4"]
        assert run(*command, *options) == 0
    same_files("out", f"{bucket}/out", but=("clip.mp4",))
    assert (locate(bucket) / "out/clip.mp4").size() > 0
    image = np.full((40, 30, 3), 60, np.uint8)
    image[10:30, 8:20] = (220, 40, 40)
    Image.fromarray(image).save("red.png")
    for out in ("m.png", f"{bucket}/m.png"):
        assert run("mask", "red.png", "--box", "4,6,25,36", "--out", out) == 0
    assert (locate(bucket) / "m.png").read_bytes() == (here / "m.png").read_bytes()


@pytest.mark.filterwarnings("ignore:the load_module:DeprecationWarning")
@pytest.mark.slow
def test_a_sheet_a_page_and_a_tuned_prompt(bucket, here):  # noqa: F811
    config = f"--config={REPOSITORY / 'tests/tiny.py'}"
    for out in ("b.png", f"{bucket}/sheets/b.png"):
        assert run("show", config, "--rows", "1", "--out", out) == 0
    sheet = locate(bucket) / "sheets/b.png"
    assert sheet.read_bytes() == (here / "b.png").read_bytes()

    settings = eval_config.get_config("all")
    settings.data_dir, settings.checkpoint = str(here / "of_run"), str(here / "model")
    mose(None, here / "of_run/mose")
    settings.evals.mose.memories = (2,)
    evaluate(settings, f"{bucket}/run")
    for out in ("page", f"{bucket}/page"):
        assert run("report", f"{bucket}/run", "--out", out) == 0
    same_files("page", f"{bucket}/page")

    folders.write(here / "data")
    tuned = f"{bucket}/tuned/pets.safetensors"
    assert run("tune", "--model", "model", "--data", "data", "--steps", "2",
               "--out", tuned) == 0  # fmt: skip
    options = ["--model", "model", "--prompt", tuned, "photos/a.jpg"]
    assert run("segment", *options, "--out", f"{bucket}/found") == 0
    assert (locate(bucket) / "found/a.png").size() > 0


def test_no_model_and_no_bucket_are_one_line(bucket, here, capsys):  # noqa: F811
    convert = ["convert", "--input", "model", "--output"]
    assert run(*convert, "gs://nobucket/m") == 2
    said = (
        "error: gs://nobucket cannot be written: gs://nobucket/.trial: there is no "
        "bucket 'nobucket'\n"
    )
    assert capsys.readouterr().err == said
    assert run("convert", "--input", f"{bucket}/none", "--output", "x") == 2
    assert capsys.readouterr().err == (
        f"error: {bucket}/none: there is no such model, or no bucket {bucket[5:]!r}\n"
    )
    (locate(bucket) / "notes/a.txt").write_text("mine")
    assert run(*convert, f"{bucket}/notes") == 2
    assert "exists and is not a release" in capsys.readouterr().err
    assert locate(bucket).files() == ["notes/a.txt"]
