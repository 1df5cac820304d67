"""The `seggpt` command from end to end, on a model of random weights."""

import json

import jax
import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco_mask

from seggpt_jax.cli import command
from seggpt_jax.inference import Predictor
from seggpt_jax.pictures import video
from seggpt_jax.weights import release
from tests.support.models import SMALL, random_params, small
from tests.test_inference import label_map, picture

PARAMS = jax.device_get(random_params(small()))
RNG = np.random.default_rng(0)


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A model, a prompt and a folder of images in the current folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(command, "cache_compiled", lambda: "elsewhere")
    settings = {**SMALL.__dict__}
    release.export_params("model", PARAMS, settings)
    Image.fromarray(picture(seed=1)).save("prompt.png")
    Image.fromarray(label_map().astype(np.uint8)).save("mask.png")
    (tmp_path / "photos" / "more").mkdir(parents=True)
    for i, name in enumerate(["a.jpg", "b.png", "more/a.png"]):
        Image.fromarray(picture(30 + i, 40, seed=i)).save(f"photos/{name}")
    return tmp_path


def run(*argv: str) -> int:
    with pytest.raises(SystemExit) as stopped:
        command.main(list(argv))
    return int(stopped.value.code)


def segment(*argv: str) -> int:
    return run("segment", "--model", "model", "--prompt", "prompt.png:mask.png",
               "--out", "out", *argv)  # fmt: skip


# pycocotools decodes with an array class that numpy 2 finds old-fashioned.
@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
def test_a_folder_is_segmented_in_every_form(here):
    assert segment("photos", "--as", "segments,overlay,colors,coco-json") == 0
    ours = Predictor(SMALL, PARAMS)
    ours.set_prompts("prompt.png", "mask.png")
    for stem, source in (("a", "a.jpg"), ("b", "b.png"), ("more/a", "more/a.png")):
        wanted = ours(f"photos/{source}")
        with Image.open(f"out/{stem}.png") as image:
            assert image.mode == "P"
            np.testing.assert_array_equal(np.array(image), wanted.segments)
            np.testing.assert_array_equal(np.array(image.convert("RGB")), wanted.colors)
        with Image.open(f"out/{stem}_colors.png") as image:
            np.testing.assert_array_equal(np.array(image), wanted.colors)
        with Image.open(f"out/{stem}_overlay.jpg") as image:
            assert image.size == wanted.segments.shape[::-1]
    coco = json.loads((here / "out/coco.json").read_text())
    assert [x["id"] for x in coco["images"]] == [1, 2, 3]
    assert coco["categories"] == [{"id": 1, "name": "1"}, {"id": 2, "name": "2"}]
    for each in coco["annotations"]:
        source = coco["images"][each["image_id"] - 1]["file_name"]
        found = coco_mask.decode(each["segmentation"])
        wanted = ours(source).segments == each["category_id"]
        np.testing.assert_array_equal(found.astype(bool), wanted)
        assert each["area"] == wanted.sum() and 0 < each["score"] <= 1
    assert not list(here.rglob("*.part"))


def test_options_reach_the_predictor(here, monkeypatch):
    """Nothing is painted: the first call that all are known to ends the command."""
    given: dict = {}
    load = Predictor.from_pretrained

    def loaded(path, **settings):
        given.update(settings)
        return load(path, **settings)

    def stopped(*args, **settings):
        given.update(settings, kind=settings.get("kind", args[-1]))
        raise ValueError("stopped")

    monkeypatch.setattr(Predictor, "from_pretrained", loaded)
    monkeypatch.setattr(Predictor, "set_prompts", stopped)
    monkeypatch.setattr(Predictor, "track", stopped)
    options = {"ensemble": "spatial", "tile": 20, "kind": "instance", "batch": 3,
               "dtype": "bfloat16", "attention": "xla"}  # fmt: skip
    assert segment("photos", *(f"--{k}={v}" for k, v in options.items())) == 2
    options["batch_size"] = options.pop("batch")
    assert given == options
    given.clear()
    with video.writer("clip.mp4", video.Fraction(5)) as write:
        write(picture(40, 30))
    run("video", "--model=model", "--first=mask.png", "clip.mp4", "--out=out",
        "--memory=3", "--kind=category", "--dtype=bfloat16")  # fmt: skip
    shown = {"memory": 3, "kind": "category", "dtype": "bfloat16", "attention": "auto"}
    assert given == shown


def test_what_is_done_is_skipped_and_other_settings_are_refused(here, capsys):
    assert segment("photos/*.jpg", "--as", "segments") == 0
    before = (here / "out/a.png").stat().st_mtime_ns
    assert segment("photos", "--as", "segments") == 0
    assert (here / "out/a.png").stat().st_mtime_ns == before
    assert (here / "out/more/a.png").exists()
    assert segment("photos", "--kind", "instance") == 2
    assert 'kind: "category" -> "instance"' in capsys.readouterr().err


def test_what_nothing_is_found_in_is_said(here, capsys):
    assert segment("photos/a.jpg") == 0
    assert "nothing found" not in capsys.readouterr().err
    head = {k: jax.numpy.full_like(v, -3) for k, v in PARAMS["decoder"]["head"].items()}
    head["kernel"] *= 0
    dark = PARAMS | {"decoder": PARAMS["decoder"] | {"head": head}}
    release.export_params("dark", dark, {**SMALL.__dict__})
    command = ("segment", "--model", "dark", "--prompt", "prompt.png:mask.png")
    assert run(*command, "--out", "none", "photos") == 0
    said = "nothing found in 3 of 3 images: photos/a.jpg, ..."
    assert capsys.readouterr().err.splitlines()[-1] == said


def test_a_bad_file_does_not_stop_the_others(here, capsys):
    (here / "photos/bad.jpg").write_bytes(b"no picture")
    assert segment("photos") == 1
    said = capsys.readouterr().err
    assert "failed: photos/bad.jpg: photos/bad.jpg cannot be read" in said
    assert (here / "out/more/a.png").exists() and not (here / "out/bad.png").exists()


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (["photos", "--as", "segment"], "did you mean 'segments'"),
        (["photos", "--as", ","], "--as is empty"),
        (["photos", "--prompt", "prompt.png"], "IMAGE:MASK is wanted"),
        (["photos", "--prompt", "none.png:mask.png"], "none.png cannot be read"),
        (["nothing/*.png"], "nothing/*.png matches no file"),
        (["empty"], "empty has no file to segment"),
        (["photos/a.jpg", "photos/more/a.png"], "would both be written as a"),
        (["photos", "--model", "nowhere"], "nowhere is neither a file"),
        (["photos", "--tile", "-1"], "setting tile = -1"),
        (["photos", "--attention", "cudnn"], "'cudnn' is for bfloat16 on NVIDIA"),
    ],
)
def test_wrong_arguments_end_in_one_line(here, capsys, argv, said):
    (here / "empty").mkdir()
    assert segment(*argv) == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert lines[-1].startswith("error: ") and said in lines[-1]
    assert not (here / "out" / "config.json").exists()


def test_a_video_becomes_an_overlay_and_labels(here, capsys):
    with video.writer("clip.mp4", video.Fraction(5)) as write:
        for i in range(4):
            write(picture(40, 30, seed=i))
    argv = ["video", "--model", "model", "clip.mp4", "--as", "overlay,segments"]
    assert run(*argv, "--first", "mask.png", "--out", "out", "--memory", "2") == 0
    assert video.probe("out/clip.mp4") == (5, 4)
    assert sorted(p.name for p in (here / "out/clip").iterdir()) == [
        f"{i:05d}.png" for i in range(4)
    ]
    with Image.open("out/clip/00000.png") as image:
        np.testing.assert_array_equal(np.array(image), label_map())
    assert run("video", "--model", "model", "--prompt", "prompt.png:mask.png",
               "clip.mp4", "--out", "again", "--as", "segments") == 0  # fmt: skip
    assert len(list((here / "again/clip").iterdir())) == 4
    assert not (here / "again/clip.mp4").exists()
    before = (here / "out/clip.mp4").stat().st_mtime_ns
    assert run(*argv, "--first", "mask.png", "--out", "out", "--memory", "2") == 0
    assert "done already" in capsys.readouterr().out
    assert run(*argv, "--first", "mask.png", "--out", "out") == 2
    said = capsys.readouterr().err
    assert "of another config" in said and "memory: 2 -> 8" in said
    assert (here / "out/clip.mp4").stat().st_mtime_ns == before
    assert segment("photos/a.jpg") == 0  # beside it


def test_inputs_are_never_overwritten(here, capsys):
    for out in (".", "photos"):
        argv = ["segment", "--model", "model", "--prompt", "prompt.png:mask.png"]
        assert run(*argv, "photos/b.png", "prompt.png", "--out", out) == 2
        assert "would be overwritten: choose another" in capsys.readouterr().err
    with video.writer("clip.mp4", video.Fraction(5)) as write:
        write(picture(40, 30))
    before = (here / "clip.mp4").read_bytes()
    argv = ["video", "--model", "model", "--first", "mask.png", "clip.mp4"]
    assert run(*argv, "--out", ".") == 2
    assert (here / "clip.mp4").read_bytes() == before


def test_results_below_the_inputs_are_no_inputs(here):
    argv = ["segment", "--model", "model", "--prompt", "prompt.png:mask.png"]
    for _ in range(2):
        assert run(*argv, "photos", "--out", "photos/results") == 0
    names = {p.name for p in (here / "photos/results").rglob("*.*")}
    assert names == {"config.json", "a.png", "a_overlay.jpg", "b.png", "b_overlay.jpg"}


def test_an_edited_prompt_is_noticed(here, capsys):
    assert segment("photos/a.jpg") == 0
    Image.fromarray(1 - label_map((1,)).astype(np.uint8)).save("mask.png")
    assert segment("photos") == 2
    assert "holds a run of another config" in capsys.readouterr().err


def test_a_damaged_video_keeps_what_there_is(here, capsys):
    with video.writer("clip.mp4", video.Fraction(5)) as write:
        for _ in range(30):
            write(RNG.integers(0, 255, (64, 64, 3), np.uint8))
    content = bytearray((here / "clip.mp4").read_bytes())
    half = len(content) // 2
    content[half:-2000] = bytes(len(content) - 2000 - half)
    (here / "clip.mp4").write_bytes(content)
    argv = ["video", "--model", "model", "--first", "mask64.png", "clip.mp4"]
    Image.fromarray(label_map(h=64, w=63).astype(np.uint8)).save("mask64.png")
    status = run(*argv, "--out", "out", "--as", "segments,overlay")
    said = capsys.readouterr().err
    kept = len(list((here / "out/clip").iterdir()))
    assert 1 <= kept <= 30 and video.probe("out/clip.mp4").frames == kept
    # Some damage only decodes to wrong pixels; none of it is a traceback.
    assert status == 0 or (status == 1 and "clip.mp4 is damaged after" in said)
    assert "Traceback" not in said


def test_bad_videos_end_in_one_line(here, capsys):
    (here / "bad.mp4").write_bytes(b"no video")
    for name, said in (("bad.mp4", "is no video"), ("none.mp4", "does not exist"),
                       ("prompt.png:", "does not exist")):  # fmt: skip
        argv = ["video", "--model", "model", "--first", "mask.png", name, "--out", "o"]
        assert run(*argv) == 2
        assert said in capsys.readouterr().err.strip().splitlines()[-1]
    assert not (here / "o").exists()


def test_weights_are_converted(here, capsys):
    assert run("convert", "--input", "model", "--output", "hf", "--to", "hf") == 0
    said = capsys.readouterr().out
    assert "checked against PyTorch" in said and "4 blocks of width 24" in said
    assert (here / "hf/model.safetensors").is_file()
    assert run("convert", "--input", "hf", "--output", "hf") == 2
    assert "is not a release; nothing was written" in capsys.readouterr().err


def test_doctor_names_what_is_there(here, capsys):
    assert run("doctor") == 0
    said = capsys.readouterr().out
    for word in ("jax ", "devices ", "8 x cpu", "attention    heads", "elsewhere"):
        assert word in said
