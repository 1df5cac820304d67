"""The `seggpt` command from end to end, on a model of random weights."""

import argparse
import csv
import json
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from seggpt_jax import tune
from seggpt_jax.cli import (
    command,
    convert_command,
    doctor_command,
    prompt_args,
    tune_command,
    video_args,
)
from seggpt_jax.inference import Predictor
from seggpt_jax.models import attention
from seggpt_jax.pictures import camera, video
from seggpt_jax.pictures.images import read_image
from seggpt_jax.results.objects import find
from seggpt_jax.weights import pretrained, release, torch_bridge
from tests.results.blobs import filled
from tests.support.models import SMALL, random_params, small
from tests.support.pictures import label_map, picture
from tests.support.videos import read_sound, read_times, write_clip

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


def read_yolo(text, size):
    """Lines of ultralytics' format of segmentation -> class and mask of each."""
    for line in text.splitlines():
        number, *shares = line.split()
        points = np.array(shares, float).reshape(-1, 2) * size[::-1]
        assert len(points) > 2 and (0 <= points).all() and (points <= size[::-1]).all()
        yield int(number), filled(points, size)


@pytest.mark.parametrize("options", [(), ("--split",)])
def test_objects_and_shares_are_those_of_the_predictor(here, options):
    names = {1: "ant", 2: "bee", 3: "cat", 4: "dog", 5: "elk", 9: "owl"}
    Image.fromarray(label_map(range(1, 6)).astype(np.uint8)).save("mask.png")
    given = ",".join(f"{label}={name}" for label, name in names.items())
    forms = "segments,confidence,yolo,csv,coco-json"
    assert segment("photos", "--as", forms, "--names", given, *options) == 0
    assert (here / "out/classes.txt").read_text() == "ant\nbee\ncat\ndog\nelk\nowl\n"
    ours = Predictor(SMALL, PARAMS)
    ours.set_prompts("prompt.png", "mask.png")
    rows = list(csv.DictReader((here / "out/results.csv").read_text().splitlines()))
    coco, count = COCO("out/coco.json"), 0
    assert coco.loadCats([9]) == [{"id": 9, "name": "owl"}]
    for number, (stem, source) in enumerate(
        (("a", "a.jpg"), ("b", "b.png"), ("more/a", "more/a.png")), 1
    ):
        wanted, source = ours(f"photos/{source}"), f"photos/{source}"
        size = wanted.segments.shape
        with np.load(f"out/{stem}_confidence.npz") as found:
            assert found["labels"].tolist() == [0, 1, 2, 3, 4, 5]
            shares = found["shares"].astype(np.float32)
        assert shares.shape == (6, *size)
        np.testing.assert_allclose(shares.sum(0), 1, atol=2e-3)
        np.testing.assert_allclose(shares.max(0), wanted.confidence, atol=5e-4)
        exact = np.stack(list(wanted.shares.values()))
        np.testing.assert_array_equal(exact.argmax(0), wanted.segments)
        np.testing.assert_allclose(shares, exact, atol=5e-4)

        objects = find(wanted, bool(options))
        count += len(objects)
        lines = list(read_yolo((here / f"out/{stem}.txt").read_text(), size))
        own = [row for row in rows if row["image"] == source]
        notes = coco.loadAnns(coco.getAnnIds(number))
        for each, (place, mask), row, note in zip(
            objects, lines, own, notes, strict=True
        ):
            whole = np.zeros(size, bool)
            left, top, width, height = each.box
            whole[top : top + height, left : left + width] = each.mask
            np.testing.assert_array_equal(mask, whole)
            np.testing.assert_array_equal(coco.annToMask(note) > 0, whole)
            polygons = coco_mask.merge(coco_mask.frPyObjects(note["polygons"], *size))
            np.testing.assert_array_equal(coco_mask.decode(polygons) > 0, whole)
            assert place + 1 == each.label == note["category_id"] == int(row["label"])
            assert row["name"] == names[each.label]
            assert each.area == note["area"] == int(row["area"])
            assert each.part == int(row["part"] or 0) and bool(options) == bool(
                each.part
            )
            assert note["score"] == float(row["score"]) == round(each.score, 6)
    assert count >= 6


def test_results_fit_a_coco_file_as_they_are(here, capsys):
    """The truth is what the model finds, in other ids: every score is 1."""
    Image.fromarray(label_map(range(1, 6)).astype(np.uint8)).save("mask.png")
    ours = Predictor(SMALL, PARAMS)
    ours.set_prompts("prompt.png", "mask.png")
    ids = {1: 4, 2: 33, 3: 8, 4: 2, 5: 90}
    names = {70: "val/photos/a.jpg", 5: "b.png", 66: "more/a.png", 9: "none.png"}
    truth: dict = {"images": [], "annotations": []}
    truth["categories"] = [{"id": i, "name": f"c{label}"} for label, i in ids.items()]
    for number, name in names.items():
        truth["images"].append(
            {"id": number, "file_name": name, "height": 30 + len(name), "width": 40}
        )
        if number == 9:
            continue
        result = ours(f"photos/{name.removeprefix('val/photos/')}")
        truth["images"][-1]["height"] = result.segments.shape[0]
        for label in result.scores:
            coded = coco_mask.encode(
                np.asfortranarray(result.segments == label, np.uint8)
            )
            coded["counts"] = coded["counts"].decode()
            truth["annotations"].append({
                "id": len(truth["annotations"]) + 1, "image_id": number, "iscrowd": 0,
                "category_id": ids[label], "segmentation": coded,
                "area": int((result.segments == label).sum()),
                "bbox": coco_mask.toBbox(coded).tolist(),
            })  # fmt: skip
    (here / "gt.json").write_text(json.dumps(truth))
    forms = ("--as", "coco-json", "--coco", "gt.json", "--names",
             "1=c1,2=c2,3=c3,4=c4,5=c5")  # fmt: skip
    assert segment("photos/*.jpg", *forms) == 0
    assert segment("photos", *forms) == 0  # the others join it
    gt = COCO("gt.json")
    found = gt.loadRes("out/coco.json")
    assert found.getImgIds() == gt.getImgIds()
    areas = {(x["image_id"], x["category_id"]): x["area"] for x in truth["annotations"]}
    assert areas == {
        (x["image_id"], x["category_id"]): x["area"] for x in found.anns.values()
    }
    for kind in ("segm", "bbox"):
        scores = COCOeval(gt, found, kind)
        scores.evaluate()
        scores.accumulate()
        scores.summarize()
        assert scores.stats[0] == scores.stats[8] == 1
    capsys.readouterr()
    assert segment("photos", "--as", "coco-json") == 2
    said = capsys.readouterr().err
    assert "holds results of other prompts" in said and 'classes.names.33: "c2"' in said


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"file_name": "c.jpg"}, "photos/a.jpg is not in gt.json"),
        ({"height": 31}, "photos/a.jpg is 40 x 30, and 40 x 31 in the COCO file"),
    ],
)
def test_images_that_a_coco_file_has_not_are_named(here, capsys, change, said):
    image = {"id": 1, "file_name": "a.jpg", "height": 30, "width": 40} | change
    content = {"images": [image], "categories": [{"id": 1, "name": "x"},
                                                {"id": 2, "name": "y"}]}  # fmt: skip
    (here / "gt.json").write_text(json.dumps(content))
    assert segment("photos/a.jpg", "--as", "coco-json", "--coco", "gt.json") > 0
    assert said in capsys.readouterr().err
    assert not (here / "out/a.coco.json").exists()


def test_options_reach_the_predictor(here, monkeypatch):
    """Nothing is painted: the first call that all are known to ends the command."""
    given: dict = {}
    load = Predictor.from_pretrained

    def loaded(path, **settings):
        given.update(settings)
        return load(path, **settings)

    def stopped(*args, **settings):
        given.update(settings, kind=settings.get("kind") or args[3])
        raise ValueError("stopped")

    monkeypatch.setattr(Predictor, "from_pretrained", loaded)
    monkeypatch.setattr(Predictor, "set_prompts", stopped)
    monkeypatch.setattr(Predictor, "track", stopped)
    options = {"ensemble": "spatial", "tile": 20, "kind": "instance", "batch": 3,
               "dtype": "bfloat16", "attention": "xla", "bits": 12}  # fmt: skip
    assert segment("photos", *(f"--{k}={v}" for k, v in options.items())) == 2
    options["batch_size"] = options.pop("batch")
    assert given == options
    given.clear()
    write_clip("clip.mp4", [picture(40, 30)] * 8)
    run("video", "--model=model", "--first=mask.png", "clip.mp4", "--out=out",
        "--memory=3", "--kind=category", "--dtype=bfloat16", "--at=4:mask.png",
        "--add=7:prompt.png", "--add=6:mask.png", "--bits=9")  # fmt: skip
    shown = {
        "corrections": {4: "mask.png"},
        "ahead": 1,
        "memory": 3,
        "additions": {7: "prompt.png", 6: "mask.png"},
        "kind": "category",
        "dtype": "bfloat16",
        "attention": "auto",
        "bits": 9,
    }
    assert given == shown


def test_prompts_of_folders_go_by_their_names(tmp_path):
    """The endings differ, and with them the order of the files."""
    for folder, suffix in (("images", "jpg"), ("masks", "png")):
        (tmp_path / folder).mkdir()
        for stem in ("a", "a.k", "b"):
            (tmp_path / folder / f"{stem}.{suffix}").touch()
    given = prompt_args.read([f"{tmp_path}/images:{tmp_path}/masks"])
    assert [Path(p).stem for p in given.images] == [Path(p).stem for p in given.masks]


def test_options_of_convert_and_tune_reach_what_they_name(here, monkeypatch):
    given: list = []
    monkeypatch.setattr(
        convert_command, "convert", lambda *args: given.append(args[:4]) or []
    )
    for more in ([], ["--raw"]):
        run("convert", "--input=a", "--output=b", "--to=hf", *more)
    assert given == [("a", "b", "hf", False), ("a", "b", "hf", True)]

    monkeypatch.setattr(tune_command, "splits_in", lambda *_: ("train", "val", "test"))
    monkeypatch.setattr(tune, "tune", lambda config, workdir: given.append(config))
    options = ["--classes=cat,7", "--prompts=3", "--steps=40", "--lr=0.3", "--batch=6",
               "--seed=5", "--model=model", "--out=x.safetensors"]  # fmt: skip
    run("tune", "--data=photos", *options)
    run("tune", "--data=photos", *options, "--split=val")
    first, second = given[2:]
    # Eight devices share out a batch.
    assert first["seed"] == 5 and first["loader"]["batch_size"] == 8
    stage = first["stages"]["tune"]
    assert (stage["steps"], stage["lr"]) == (40, 0.3)
    tuned = first["tune"]
    assert (tuned["classes"], tuned["prompts"]) == (("cat", 7), 3)
    # What is scored is never what is tuned on.
    for config, split, scored in ((first, "train", "val"), (second, "val", "test")):
        assert config["sources"]["photos"]["split"] == split
        assert config["tune"]["heldout"]["split"] == scored


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
    said = "nothing found in 3 of 3 images: " + ", ".join(
        f"photos/{name}" for name in ("a.jpg", "b.png", "more/a.png")
    )
    assert capsys.readouterr().err.splitlines()[-1] == said
    (here / "photos/bad.jpg").write_bytes(b"no picture")  # it is not one of the images
    assert run(*command, "--out", "fewer", "photos") == 1
    assert said in capsys.readouterr().err.splitlines()


def test_a_bad_file_does_not_stop_the_others(here, capsys):
    (here / "photos/bad.jpg").write_bytes(b"no picture")
    assert segment("photos") == 1
    said = capsys.readouterr().err
    assert "failed: photos/bad.jpg cannot be read" in said
    assert (here / "out/more/a.png").exists() and not (here / "out/bad.png").exists()


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (["photos", "--as", "segment"], "did you mean 'segments'"),
        (["photos", "--as", ","], "--as is empty"),
        (["photos", "--split"], "--split is for coco-json, yolo, csv, and --as segm"),
        (
            ["photos", "--names", "1=x", "--as", "segments"],
            "--names is for overlay, coco-json, yolo, csv, and",
        ),
        (
            ["photos", "--coco", "gt.json", "--as", "csv"],
            "--coco is for coco-json, and",
        ),
        (
            ["photos", "--coco", "gt.json", "--as", "coco-json"],
            "error: gt.json does not exist",
        ),
        (["photos", "--names", "1=x", "--as", "csv"], "labels 2 have no name"),
        (["photos", "--prompt", "prompt.png"], "IMAGE:MASK is wanted"),
        (["photos", "--prompt", "none.png:mask.png"], "none.png does not exist"),
        (["nothing/*.png"], "nothing/*.png matches no file"),
        (["clip.mp4"], "clip.mp4 is a video, not a picture: `seggpt video` takes"),
        (["photos", ""], "INPUT is empty"),
        (["empty"], "empty has no picture to segment; it has nothing"),
        (["photos/a.jpg", "photos/more/a.png"], "would both be written as a"),
        (["photos", "--model", "nowhere"], "nowhere is neither a file"),
        (["photos", "--tile", "-1"], "setting tile = -1"),
        (["photos", "--attention", "cudnn"], "'cudnn' is for bfloat16 on NVIDIA"),
    ],
)
def test_wrong_arguments_end_in_one_line(here, capsys, argv, said):
    (here / "empty").mkdir()
    (here / "clip.mp4").touch()
    assert segment(*argv) == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert lines[-1].startswith("error: ") and said in lines[-1]
    assert not (here / "out" / "config.json").exists()


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (["segment", "a.png", "none.png"], "none.png does not exist"),
        (["segment", "a.png", "--prompt", "a.png:none.png"], "none.png does not exist"),
        (["segment", "a.png", "--prompt", "auto:2"], "--prompt auto:2: count is 2"),
        (
            ["segment", "a.png", "--classes", "cow", "--names", "1=cat,2=dog"],
            "class 'cow' is not one of the names",
        ),
        (["segment", "a.png", "--out", "a.png"], "a.png cannot be written"),
        (["segment", "a.png", "--prompt", "a.png:wide.png"], "wide.png is 40 x 10"),
        (
            [
                "segment",
                "a.png",
                "--prompt",
                "a.png:wide.png",
                "--classes",
                "cat",
                "--names",
                "1=cat",
            ],
            "error: wide.png is 40 x 10, and its image",
        ),
        (["video", "clip", "--prompt", "none.png:mask.png"], "none.png does not exist"),
        (["video", "clip", "--memory", "-1"], "--memory -1: 0 or more is wanted"),
        (["video", "clip", "--out", "a.png"], "a.png cannot be written"),
        (["video", "clip", "--first", "none.png"], "none.png does not exist"),
        (["video", "clip", "--first", "black.png"], "no label at all"),
        (["video", "clip", "--first", "wide.png"], "wide.png is 40 x 10, and its im"),
        (["video", "clip", "--at", "0:wide.png"], "wide.png is 40 x 10, and its im"),
        (["video", "clip", "--add", "0:wide.png"], "wide.png is 40 x 10, and its im"),
        (["export", "--out", "x.tar"], "--out x.tar: a name that ends in .zip"),
        (["export", "--out", "a.png/x.zip"], "a.png cannot be written"),
        (["convert", "--output", "clip"], "clip exists and is not a release"),
        (["convert", "--output", "a.png/x"], "a.png cannot be written"),
        (["tune", "--data", "clip", "--out", "a.png/x.safetensors"], "a.png cannot be"),
    ],
)
def test_faults_are_said_before_a_model_is_read(here, capsys, monkeypatch, argv, said):
    """A large model takes half a minute to read, and another to be fetched."""

    def load(*args, **settings):
        raise AssertionError("the model was read")

    monkeypatch.setattr(pretrained, "_load", load)
    Image.fromarray(picture(40, 30)).save("a.png")
    Image.fromarray(np.zeros((40, 30), np.uint8)).save("black.png")
    Image.fromarray(np.full((10, 40), 255, np.uint8)).save("wide.png")
    (here / "clip").mkdir()
    Image.fromarray(picture(40, 30)).save("clip/0.png")
    command_, *rest = argv
    model = "--input" if command_ == "convert" else "--model"
    start = {"segment": ["--prompt", "prompt.png:mask.png"], "video": []}
    if command_ == "video" and not {"--first", "--prompt"} & {*rest}:
        start["video"] = ["--first", "mask.png"]
    out = [] if {"--out", "--output"} & {*rest} else ["--out", "out"]
    assert run(command_, model, "model", *start.get(command_, []), *out, *rest) == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert lines[-1].startswith("error: ") and said in lines[-1]
    assert not (here / "out").exists()


def test_a_huge_picture_is_refused_in_one_line(here, capsys):
    """Without the warning of Pillow, which is an error in tests."""
    Image.new("1", (9500, 9500)).save("huge.png")
    argv = ["segment", "--model", "model", "--prompt", "huge.png:mask.png", "a.png"]
    Image.fromarray(picture(40, 30)).save("a.png")
    assert run(*argv, "--out", "o") == 2
    said = capsys.readouterr().err.splitlines()[-1]
    assert said.startswith("error: huge.png has 9500 x 9500 pixels, more than")


def test_a_video_becomes_an_overlay_and_labels(here, capsys):
    write_clip("clip.mp4", [picture(40, 30, seed=i) for i in range(4)])
    argv = ["video", "--model", "model", "clip.mp4", "--as", "overlay,segments"]
    assert run(*argv, "--first", "mask.png", "--out", "out", "--memory", "2") == 0
    assert video.probe("out/clip.mp4") == (5, 4, True)
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
    assert "of other prompts" in said and "memory: 2 -> 8" in said
    write_clip("clip.mp4", [picture(40, 30, seed=i) for i in range(5)])  # another one
    assert run(*argv, "--first", "mask.png", "--out", "out", "--memory", "2") == 2
    assert "input_bytes: " in capsys.readouterr().err
    assert (here / "out/clip.mp4").stat().st_mtime_ns == before
    assert segment("photos/a.jpg") == 0  # beside it


def test_a_folder_of_frames_is_a_video(here, capsys):
    """In the order of its numbers, whatever else lies there."""
    (here / "clip.d").mkdir()
    for k in (10, 2, 1):
        Image.fromarray(picture(40, 30, seed=k)).save(f"clip.d/{k}.png")
    (here / "clip.d/._1.png").write_bytes(b"Mac OS X")
    (here / "clip.d/notes.txt").write_text("none")
    argv = ("video", "--model", "model", "clip.d", "--as", "overlay,segments")
    assert run(*argv, "--first", "mask.png", "--out", "out") == 0
    assert "no frames of the video: 1 .txt" in capsys.readouterr().err
    assert video.probe("out/clip.d.mp4") == (25, 3, True)
    assert len(list((here / "out/clip.d").iterdir())) == 3
    for frame, k in zip(video.read_frames("clip.d"), (1, 2, 10), strict=True):
        np.testing.assert_array_equal(frame.image, picture(40, 30, seed=k))


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("photos/more", "a.png is 40 x 32, but the first frame is 30 x 40"),
        ("empty", "empty has no picture to be a frame; it has 1 .cr3"),
        ("photos/*.gif", "photos/*.gif matches no file"),
        ("photos/%d.jpg", "photos/%d.jpg matches no file"),
        ("/dev/null", "/dev/null is neither a file nor a folder of frames"),
    ],
)
def test_folders_that_are_no_video(here, capsys, name, said):
    (here / "empty").mkdir()
    (here / "empty/a.cr3").write_bytes(b"raw")
    Image.fromarray(picture(40, 30)).save("photos/more/0.png")
    argv = ("video", "--model", "model", "--first", "mask.png", "--out", "o", name)
    assert run(*argv) > 0
    assert said in capsys.readouterr().err.strip().splitlines()[-1]


def test_system_files_and_other_kinds_among_photos(here, capsys):
    """macOS leaves `._NAME` and __MACOSX, Windows Thumbs.db; they are not meant. Photos
    of kinds that cannot be read are said."""
    (here / "photos/__MACOSX").mkdir()
    for name in (
        "._a.jpg",
        "__MACOSX/._a.jpg",
        "__MACOSX/b.jpg",
        ".DS_Store",
        "Thumbs.db",
    ):
        (here / "photos" / name).write_bytes(b"Mac OS X")
    for name in ("x.CR3", "more/y.cr3", "z.nef"):
        (here / "photos" / name).write_bytes(b"raw")
    assert segment("photos", "photos/*", "photos/._*.jpg", "--as", "segments") == 2
    assert "photos/._*.jpg matches no file" in capsys.readouterr().err
    assert segment("photos", "photos/**/*.jpg", "--as", "segments") == 0
    said = capsys.readouterr().err
    assert "left out, of kinds that cannot be read: 2 .cr3, 1 .nef" in said
    made = {p.relative_to("out").as_posix() for p in Path("out").rglob("*.png")}
    assert made == {"a.png", "b.png", "more/a.png"}


def test_system_files_among_prompts(here, capsys):
    for folder, given in (("images", "prompt.png"), ("masks", "mask.png")):
        (here / folder).mkdir()
        (here / folder / "a.png").write_bytes((here / given).read_bytes())
    (here / "images/._a.png").write_bytes(b"Mac OS X")
    argv = ("--model", "model", "--out", "out", "photos/a.jpg")
    assert run("segment", "--prompt", "images:masks", *argv) == 0
    (here / "raw").mkdir()
    (here / "raw/a.cr2").write_bytes(b"raw")
    assert run("segment", "--prompt", "raw:masks", *argv) == 2
    assert "raw has no picture; it has 1 .cr2" in capsys.readouterr().err


def saved(name, mask):
    Image.fromarray(mask.astype(np.uint8)).save(name)
    return name


def test_an_overlay_keeps_times_and_sound_and_takes_corrections(here):
    """A clip of uneven times, with sound; one frame corrected, an object added."""
    times, frames = [0, 0.1, 0.9, 1.0], [picture(40, 30, seed=i) for i in range(4)]
    write_clip("clip.mp4", frames, times, "aac")
    right = label_map((2, 1))
    new = np.zeros((40, 30))
    new[:9, :9] = 255
    argv = ["video", "--model", "model", "--first", "mask.png", "clip.mp4", "--memory",
            "2", "--at", f"1:{saved('right.png', right)}", "--add",
            f"2:{saved('new.png', new)}", "--as", "overlay,segments"]  # fmt: skip
    assert run(*argv, "--out", "out") == 0
    np.testing.assert_allclose(read_times("out/clip.mp4"), times, atol=1e-5)
    assert read_sound("out/clip.mp4") == read_sound("clip.mp4") != []
    decoded = [frame.image for frame in video.read_frames("clip.mp4")]
    results = Predictor(SMALL, PARAMS).track(
        decoded, "mask.png", memory=2, corrections={1: right}, additions={2: "new.png"}
    )
    for number, result in enumerate(results):
        with Image.open(f"out/clip/{number:05}.png") as image:
            np.testing.assert_array_equal(np.array(image), result.segments)
    assert run(*argv, "--out", "out") == 0  # done already
    saved("right.png", label_map())
    assert run(*argv, "--out", "out") == 2  # the correction is another one


def test_frames_in_a_folder_are_a_video(here):
    (here / "shots").mkdir()
    for k in (1, 2, 10):
        Image.fromarray(picture(40, 30, seed=k)).save(f"shots/{k}.png")
    argv = ["video", "--model", "model", "--first", "mask.png", "--as",
            "overlay,segments"]  # fmt: skip
    assert run(*argv, "shots", "--out", "out", "--fps", "4") == 0
    assert run(*argv, "shots/%d.png", "--out", "again") == 0
    np.testing.assert_allclose(read_times("out/shots.mp4"), [0, 0.25, 0.5], atol=1e-5)
    np.testing.assert_allclose(
        read_times("again/shots.mp4"), [0, 0.04, 0.08], atol=1e-5
    )
    frames = [f"shots/{k}.png" for k in (1, 2, 10)]
    for number, result in enumerate(Predictor(SMALL, PARAMS).track(frames, "mask.png")):
        for out in ("out", "again"):
            with Image.open(f"{out}/shots/{number:05}.png") as image:
                np.testing.assert_array_equal(np.array(image), result.segments)
    before = sorted(p.name for p in (here / "shots").iterdir())
    assert run(*argv, "shots", "--out", ".") == 2  # its labels would replace them
    assert sorted(p.name for p in (here / "shots").iterdir()) == before


def test_a_camera_is_recorded_until_it_is_interrupted(here, monkeypatch):
    def filmed(number):
        assert number == 1
        for k in range(3):
            yield video.Frame(picture(40, 30, seed=k), [0.0, 0.3, 1.7][k])
        raise KeyboardInterrupt

    monkeypatch.setattr(camera, "read_camera", filmed)
    monkeypatch.setattr(camera, "newest", lambda frames: frames)
    track, ahead = Predictor.track, []

    def tracked(*args, **settings):
        ahead.append(settings["ahead"])
        return track(*args, **settings)

    monkeypatch.setattr(Predictor, "track", tracked)
    argv = ["video", "--model", "model", "--prompt", "prompt.png:mask.png", "--camera",
            "1", "--out", "out"]  # fmt: skip
    assert run(*argv) == 0
    np.testing.assert_allclose(read_times("out/camera1.mp4"), [0, 0.3, 1.7], atol=1e-5)
    assert ahead == [0]  # no result waits for a frame
    assert run(*argv) == 2  # what was filmed is not filmed over


@pytest.mark.parametrize(
    ("where", "live", "name"),
    [("rtsp://host/door", True, "door"), ("udp://239.0.0.1:5000", True, "stream"),
     ("https://host/a/clip.mp4?x=1", False, "clip")],
)  # fmt: skip
def test_live_streams_are_known_by_their_address(monkeypatch, where, live, name):
    monkeypatch.setattr(video, "probe", lambda *_: video.VideoInfo(video.RATE, 0))
    given = {"video": where, "camera": None, "fps": None, "at": [], "add": []}
    source = video_args.read_source(argparse.Namespace(**given))
    assert (source.live, source.name, source.sound) == (live, name, None)
    if live:
        given["at"] = ["1:mask.png"]
        with pytest.raises(ValueError, match="live video have no fixed numbers"):
            video_args.read_source(argparse.Namespace(**given))


def test_wrong_masks_of_a_video_end_in_one_line_and_leave_nothing(here, capsys):
    write_clip("clip.mp4", [picture(40, 30, seed=i) for i in range(3)])
    saved("five.png", label_map((5,)))
    saved("wide.png", label_map(h=30, w=40 // 3 * 3))
    argv = ["video", "--model", "model", "--first", "mask.png", "clip.mp4"]
    for given, said in (
        (["--at", "1"], "--at 1: FRAME:MASK is wanted, such as 37:m.png"),
        (["--at=-1:mask.png"], "--at -1:mask.png: FRAME:MASK is wanted"),
        (["--add", "1:no.png"], "--add 1:no.png: no.png does not exist"),
        (["--at", "1:mask.png", "--at", "1:mask.png"], "frame 1 has a mask already"),
        (
            ["--at", "1:five.png"],
            "five.png: label 5 is not followed; followed are 1, 2",
        ),
        (["--at", "1:wide.png"], "wide.png is 39 x 30, and its image 30 x 40"),
        (["--add", "2:mask.png"], "mask.png: label 1 is followed already"),
        (["--add", "3:five.png"], "no frame 3 for a mask: the video has frames 0 to 2"),
        (["--camera", "0"], "give a VIDEO, or --camera, and not both"),
        (["--fps", "9"], "--fps 9 is for pictures; a video has its own times"),
    ):
        assert run(*argv, *given, "--out", "o") == 2, given
        lines = capsys.readouterr().err.strip().splitlines()
        assert said in lines[-1] and lines[-1].startswith("error: ")
        assert not (here / "o").exists() or not list((here / "o").iterdir())


def test_a_mask_beyond_the_end_is_refused_before_the_model_is_read(here, capsys):
    write_clip("clip.mp4", [picture(40, 30, seed=i) for i in range(3)])
    (here / "shots").mkdir()
    for k in range(3):
        Image.fromarray(picture(40, 30, seed=k)).save(f"shots/{k}.png")
    for name in ("clip.mp4", "shots"):
        argv = [
            "video",
            "--model",
            "nowhere",
            "--first",
            "mask.png",
            name,
            "--out",
            "o",
        ]
        assert run(*argv, "--at", "2:mask.png", "--add", "3:mask.png") == 2
        assert capsys.readouterr().err == (
            "error: no frame 3 for a mask: the video has frames 0 to 2\n"
        )


def test_a_video_is_shown_some_classes_of_its_prompts(here, capsys):
    frames = [picture(40, 30, seed=i) for i in range(2)]
    write_clip("clip.mp4", frames)
    argv = ["video", "--model", "model", "clip.mp4", "--as", "segments"]
    shown = ["--prompt", "prompt.png:mask.png", "--names", "1=cat,2=dog"]
    assert run(*argv, *shown, "--classes", "dog", "--out", "o") == 0
    ours = Predictor(SMALL, PARAMS)
    names = {1: "cat", 2: "dog"}
    ours.set_prompts("prompt.png", "mask.png", "instance", names, ["dog"])
    decoded = [frame.image for frame in video.read_frames("clip.mp4")]
    for number, result in enumerate(ours.track(decoded)):
        with Image.open(f"o/clip/{number:05}.png") as image:
            np.testing.assert_array_equal(np.array(image), result.segments)
    assert set(ours.palette) == {0, 2}
    for given, said in (
        (["--first", "mask.png", "--classes", "dog"], "--prompt is wanted\n"),
        (shown, "--as segments has none\n"),
    ):
        assert run(*argv, *given, "--out", "p") == 2
        assert capsys.readouterr().err.endswith(said)
    assert run(*argv, *shown, "--classes", "cow", "--out", "p") == 2
    assert "cow" in capsys.readouterr().err


def test_names_stand_beneath_overlays_of_images_and_videos(here):
    named = ("--names", "1=ant,2=bee")
    assert segment("photos/b.png", "--as", "segments,overlay") == 0
    argv = ["segment", "--model", "model", "--prompt", "prompt.png:mask.png"]
    assert run(*argv, "photos/b.png", "--out", "named", *named) == 0
    plain, shown = (read_image(f"{x}/b_overlay.jpg") for x in ("out", "named"))
    plain, shown = plain.pixels, shown.pixels
    assert plain.shape == (31, 40, 3) and len(shown) > 33 and shown.shape[1] == 40
    assert shown[33:].min() < 96  # letters
    assert Path("named/b.png").read_bytes() == Path("out/b.png").read_bytes()
    write_clip("clip.mp4", [picture(40, 30, seed=i) for i in range(2)])
    argv = ["video", "--model", "model", "clip.mp4", "--first", "mask.png"]
    assert run(*argv, *named, "--out", "named") == 0
    sizes = {frame.image.shape for frame in video.read_frames("named/clip.mp4")}
    assert len(sizes) == 1 and sizes.pop()[0] > 40


def test_masks_and_results_are_no_frames(here, capsys):
    (here / "shots").mkdir()
    for k in range(3):
        Image.fromarray(picture(40, 30, seed=k)).save(f"shots/{k}.jpg")
    (here / "shots/mask.png").write_bytes((here / "mask.png").read_bytes())
    argv = ["segment", "--model", "model", "--prompt", "prompt.png:mask.png"]
    assert run(*argv, "shots/0.jpg", "--out", "shots") == 0
    argv = ["video", "--model", "model", "shots", "--first", "shots/mask.png"]
    capsys.readouterr()
    assert run(*argv, "--as", "segments", "--out", "out") == 0
    said = "masks and results of earlier runs: shots/0.png, shots/0_overlay.jpg, shots/"
    assert said in capsys.readouterr().err
    assert len(list((here / "out/shots").iterdir())) == 3


def test_inputs_are_never_overwritten(here, capsys):
    for out in (".", "photos"):
        argv = ["segment", "--model", "model", "--prompt", "prompt.png:mask.png"]
        assert run(*argv, "photos/b.png", "prompt.png", "--out", out) == 2
        assert "would be overwritten: choose another" in capsys.readouterr().err
    write_clip("clip.mp4", [picture(40, 30)])
    before = (here / "clip.mp4").read_bytes()
    argv = ["video", "--model", "model", "--first", "mask.png", "clip.mp4"]
    assert run(*argv, "--out", ".") == 2
    assert (here / "clip.mp4").read_bytes() == before


def test_results_below_the_inputs_are_no_inputs(here):
    argv = ["segment", "--model", "model", "--prompt", "prompt.png:mask.png"]
    for _ in range(2):
        assert run(*argv, "photos", "--out", "photos/results") == 0
    names = {p.name for p in (here / "photos/results").rglob("*.*")}
    assert names == {"config.json", "inputs.json", "a.png", "a_overlay.jpg", "b.png",
                     "b_overlay.jpg"}  # fmt: skip


def test_an_edited_prompt_is_noticed(here, capsys):
    assert segment("photos/a.jpg") == 0
    Image.fromarray(1 - label_map((1,)).astype(np.uint8)).save("mask.png")
    assert segment("photos") == 2
    assert "holds results of other prompts" in capsys.readouterr().err


def test_a_damaged_video_keeps_what_there_is(here, capsys):
    write_clip("clip.mp4", RNG.integers(0, 255, (30, 64, 64, 3), np.uint8))
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


def test_prompts_are_chosen_by_class(here, capsys):
    """The same prompts as a label PNG with names and as a COCO file."""
    labels = label_map(range(1, 6))
    Image.fromarray(labels.astype(np.uint8)).save("mask.png")
    names = {1: "ant", 2: "bee", 3: "cat", 4: "dog", 5: "elk"}
    notes = []
    for number in names:
        coded = coco_mask.encode(np.asfortranarray(labels == number, np.uint8))
        coded["counts"] = coded["counts"].decode()
        notes.append({"id": number, "image_id": 1, "category_id": number,
                      "segmentation": coded, "iscrowd": 0})  # fmt: skip
    image = {"id": 1, "file_name": "prompt.png", "height": 40, "width": 30}
    content = {"images": [image], "annotations": notes}
    content["categories"] = [{"id": k, "name": name} for k, name in names.items()]
    (here / "prompts.json").write_text(json.dumps(content))
    table = ",".join(f"{k}={name}" for k, name in names.items())
    forms = ("--as", "segments,coco-json", "--classes", "elk,bee")
    run_ = ("segment", "--model", "model", "photos", *forms)
    by_table = ("--prompt", "prompt.png:mask.png", "--names", table)
    assert run(*run_, *by_table, "--out", "table") == 0
    for out, prompt in (("file", "prompt.png:prompts.json"), ("all", ".:prompts.json")):
        assert run(*run_, "--prompt", prompt, "--out", out) == 0
    ours = Predictor(SMALL, PARAMS)
    ours.set_prompts("prompt.png", np.where(np.isin(labels, [2, 5]), labels, 0))
    for name in ("a.png", "b.png", "coco.json"):
        assert (here / "table" / name).read_bytes() == (
            here / "all" / name
        ).read_bytes()
        assert (here / "file" / name).read_bytes() == (here / "all" / name).read_bytes()
    with Image.open("table/a.png") as found:
        np.testing.assert_array_equal(np.array(found), ours("photos/a.jpg").segments)
    assert json.loads((here / "all/classes.json").read_text())["classes"] == {
        "ids": {"2": 2, "5": 5}, "names": {str(k): name for k, name in names.items()}
    }  # fmt: skip
    other = ("--names", "5=bee,2=ant,1=elk,3=cat,4=dog")
    assert run(*run_[:4], "--classes", "elk,bee", *by_table[:2], *other, "--out",
               "table") == 2  # fmt: skip
    assert "holds results of other prompts" in capsys.readouterr().err
    for changed, said in (
        (("--prompt", "photos:prompts.json"), "has objects of no image in photos"),
        (("--prompt", "prompt.png:prompts.json", "--classes", "be"), "'be' is not one"),
        (("--prompt", "prompt.png:mask.png"), "by name, and no names are given"),
    ):
        assert run(*run_, *changed, "--out", "none") == 2
        assert said in capsys.readouterr().err


def test_a_mask_by_clicks_becomes_a_prompt(here, capsys):
    image = np.full((40, 30, 3), 60, np.uint8)
    image[10:30, 8:20] = (220, 40, 40)
    Image.fromarray(image).save("red.png")
    argv = ["mask", "red.png", "--points", "14,20,+", "2,2,-", "--out", "made/red.png"]
    assert run(*argv, "--box", "4,6,25,36") == 0
    said = "made/red.png: 20.0% of the image; --prompt red.png:made/red.png"
    assert capsys.readouterr().out.strip() == said
    with Image.open("made/red.png") as mask:
        assert mask.mode == "P"
        np.testing.assert_array_equal(np.array(mask), image[..., 0] > 100)
    prompt = ("--prompt", "red.png:made/red.png")
    assert run("segment", "--model", "model", *prompt, "photos", "--out", "out") == 0
    assert run(*argv[:-1], "made/its mask.png") == 0
    said = "--prompt 'red.png:made/its mask.png'"  # it can be copied to a shell
    assert capsys.readouterr().out.strip().endswith(said)


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        ([], "prompt.png: mark the object by a box, points or a scribble"),
        (["--box", "1,2,3"], "--box 1,2,3: left,top,right,bottom are wanted"),
        (["--box", "0,0,99,9"], "box 0,0,99,9 is empty, or not inside of prompt.png"),
        (["--points", "3,4"], "--points 3,4: x,y,+ or x,y,- is wanted"),
        (["--points", "a,4,+"], "--points a,4: x,y are wanted, whole numbers"),
        (
            ["--points", "30,4,+"],
            "point 30,4 is outside of prompt.png, which is 30 x 40",
        ),
        (["--scribble", "photos/a.jpg"], "photos/a.jpg is 40 x 30, and prompt.png 30"),
        (["--scribble", "none.png"], "none.png does not exist"),
        (["--box", "1,1,9,9", "--out", "x.jpg"], "--out x.jpg: a mask is a PNG"),
        (
            ["--box", "1,1,9,9", "--out", "prompt.png"],
            "prompt.png would be overwritten",
        ),
    ],
)
def test_marks_out_of_form_end_in_one_line(here, capsys, argv, said):
    before = (here / "prompt.png").read_bytes()
    assert run("mask", "prompt.png", "--out", "new.png", *argv) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert line.startswith("error: ") and said in line
    assert not (here / "new.png").exists() and not (here / "x.jpg").exists()
    assert (here / "prompt.png").read_bytes() == before


def test_what_takes_long_is_said_on_a_terminal(here, capsys, monkeypatch):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    monkeypatch.setattr(torch_bridge, "installed", lambda *names: False)
    for argv, said in (
        (["convert", "--input", "model", "--output", "new"],
         ["reading model", "writing new", "reading it back"]),
        (["export", "--model", "model", "--out", "new.zip"],
         ["loading model", "writing new.zip"]),
    ):  # fmt: skip
        assert run(*argv) == 0
        assert capsys.readouterr().err.splitlines() == said


def test_a_mask_without_opencv_is_refused_first(here, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "cv2", None)
    assert run("mask", "none.png", "--box", "1,1,9,9", "--out", "new.png") == 2
    assert "pip install 'seggpt_jax[mask]'" in capsys.readouterr().err


def test_weights_are_converted(here, capsys):
    assert run("convert", "--input", "model", "--output", "hf", "--to", "hf") == 0
    said = capsys.readouterr().out
    assert "checked against PyTorch" in said and "4 blocks of width 24" in said
    assert (here / "hf/model.safetensors").is_file()
    assert run("convert", "--input", "hf", "--output", "hf") == 2
    assert "is not a release; nothing was written" in capsys.readouterr().err


def test_doctor_names_what_is_there(here, capsys, monkeypatch):
    monkeypatch.setattr(doctor_command, "cache_compiled", lambda: "elsewhere")
    assert run("doctor") == 0
    said = capsys.readouterr().out
    for word in ("jax ", "devices ", "8 x cpu, ", "attention    heads\n", "elsewhere"):
        assert word in said


def test_doctor_names_the_attention_of_each_dtype(here, capsys, monkeypatch):
    monkeypatch.setattr(attention, "device", lambda: ("gpu", "NVIDIA H200"))
    assert run("doctor") == 0
    assert "attention    xla (bfloat16: cudnn)\n" in capsys.readouterr().out
