"""The prepared form equals the owners' files, and survives what happens to it."""

import json
import os
import pickle
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from seggpt_jax.cli.command import main
from seggpt_jax.config import parse_settings
from seggpt_jax.data import prepare as preparing
from seggpt_jax.data.dataset import Dataset
from seggpt_jax.data.prepare import prepare
from seggpt_jax.data.prepared import VERSION, Prepared, open_store
from seggpt_jax.data.sample import BadRecord
from seggpt_jax.data.sources import make_layout, open_sources
from tests.support.layouts import mask, photo, raw, write_lines

ROOT = Path(__file__).parents[2]
LAYOUT = make_layout("voc", {})


@pytest.fixture
def owners(tmp_path):
    """VOC's folder: 23 images to train on, 4 to validate."""
    voc = tmp_path / "raw" / "VOC2012"
    names = [f"2007_{k:06}" for k in range(27)]
    for k, name in enumerate(names):
        photo(voc / "JPEGImages" / f"{name}.jpg", k)
        mask(voc / "SegmentationClassAug" / f"{name}.png", (0, 1 + k % 20, 255), "P")
    write_lines(voc / "ImageSets/Segmentation/val.txt", *names[-4:])
    return tmp_path / "raw"


def equal(a, b):
    assert len(a) == len(b) and a.class_names == b.class_names
    for left, right in zip(a, b, strict=True):
        np.testing.assert_array_equal(left.image, right.image)
        np.testing.assert_array_equal(left.segments, right.segments)
        assert left.classes == right.classes and left.kind == right.kind
    assert {k: [*v] for k, v in a.by_class.items()} == {
        k: [*v] for k, v in b.by_class.items()
    }


def files(folder):
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def test_equals_the_owners_files(owners, tmp_path):
    out = tmp_path / "data" / "voc"
    folder = prepare(LAYOUT, owners, out, shard_records=10)
    for split, shards in (("train", 3), ("val", 1)):
        equal(raw("voc", owners, split), Dataset(open_store(LAYOUT, out, split), "voc"))
        assert len([*folder.glob(f"voc-{split}.array_record-*")]) == shards
    spec = {"type": "voc", "split": "val"}
    source = open_sources({"voc": spec}, tmp_path / "data")["voc"]
    assert isinstance(source.store, Prepared) and len(source) == 4
    assert len(pickle.dumps(source)) < 2000
    source[1]
    equal(pickle.loads(pickle.dumps(source)), source)
    kept = open_sources({"voc": {**spec, "classes": ["bottle"]}}, tmp_path / "data")
    assert kept["voc"].class_names == {5: "bottle"}
    manifest = json.loads((folder / "manifest.json").read_text())
    assert manifest["splits"]["val"]["records"] == 4
    assert sum(manifest["splits"]["train"]["classes"].values()) == 23
    assert sorted(p.name for p in folder.iterdir() if p.name.startswith(".")) == []


def test_tensorflow_datasets_reads_it(owners, tmp_path):
    import tensorflow_datasets as tfds

    folder = prepare(LAYOUT, owners, tmp_path / "voc-aug", splits=["val"])
    records = tfds.builder_from_directory(str(folder)).as_data_source("val")
    assert [r["id"] for r in records] == [b"2007_%06d" % k for k in range(23, 27)]
    path = owners / "VOC2012/JPEGImages/2007_000023.jpg"
    assert records[0]["image"] == path.read_bytes()


def test_many_processes_make_the_same_files(owners, tmp_path):
    one = prepare(LAYOUT, owners, tmp_path / "a" / "voc", shard_records=7)
    two = prepare(LAYOUT, owners, tmp_path / "b" / "voc", shard_records=7, workers=2)
    assert files(one) == files(two)


def test_goes_on_where_it_was_cut_off(owners, tmp_path, monkeypatch):
    whole = prepare(LAYOUT, owners, tmp_path / "a" / "voc", shard_records=7)
    made, write = [], preparing.write_shard

    def cut(plan, task):
        if len(made) == 2:
            raise KeyboardInterrupt
        made.append(task)
        return write(plan, task)

    monkeypatch.setattr(preparing, "write_shard", cut)
    out = tmp_path / "b" / "voc"
    with pytest.raises(KeyboardInterrupt):
        prepare(LAYOUT, owners, out, shard_records=7)
    assert not (out / VERSION).exists()
    torn = min(out.parent.rglob("*-of-?????"))  # as after a loss of power
    torn.write_bytes(torn.read_bytes()[:-1])
    monkeypatch.setattr(
        preparing, "write_shard", lambda *a: made.append(a) or write(*a)
    )
    del made[:]
    assert files(prepare(LAYOUT, owners, out, shard_records=7)) == files(whole)
    assert len(made) == 4  # of five
    with pytest.raises(ValueError, match="is there; move it away"):
        prepare(LAYOUT, owners, out)


def test_other_data_is_refused_in_the_middle(owners, tmp_path, monkeypatch):
    out = tmp_path / "voc"

    def fail(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(preparing, "write_shard", fail)
        with pytest.raises(KeyboardInterrupt):
            prepare(LAYOUT, owners, out)
    with pytest.raises(ValueError, match="was begun with other data or settings"):
        prepare(LAYOUT, owners, out, shard_records=5)
    with preparing._locked(out / f".{VERSION}.part"):
        with pytest.raises(ValueError, match="another run is at work there"):
            prepare(LAYOUT, owners, out)


def test_records_that_cannot_be_read_are_left_out(owners, tmp_path):
    jpegs = owners / "VOC2012/JPEGImages"
    (jpegs / "2007_000003.jpg").write_bytes(b"\xff\xd8\xff damaged")
    photo(jpegs / "2007_000005.jpg", size=(10, 10))
    (owners / "VOC2012/SegmentationClassAug/2007_000009.png").write_bytes(b"")
    folder = prepare(LAYOUT, owners, tmp_path / "voc", shard_records=10)
    source = Dataset(open_store(LAYOUT, tmp_path / "voc", "train"), "voc")
    reference = raw("voc", owners, "train")
    good = [k for k in range(23) if k not in (3, 5, 9)]
    assert len(source) == 20
    for index, original in enumerate(good):
        np.testing.assert_array_equal(source[index].image, reference[original].image)
        for label in source[index].classes:
            assert index in source.by_class[label]
    skipped = json.loads((folder / "manifest.json").read_text())
    skipped = skipped["splits"]["train"]["skipped"]
    assert [item[0] for item in skipped] == [f"2007_00000{k}" for k in (3, 5, 9)]
    assert "10 x 10, but its mask" in skipped[1][1]


def test_damage_is_named(owners, tmp_path):
    folder = prepare(LAYOUT, owners, tmp_path / "voc", shard_records=10)
    shard = folder / "voc-train.array_record-00001-of-00003"
    whole = shard.read_bytes()

    shard.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match="00001-of-00003: torn shard"):
        open_store(LAYOUT, tmp_path / "voc", "train")
    shard.unlink()
    with pytest.raises(ValueError, match="00001-of-00003: shard is missing"):
        open_store(LAYOUT, tmp_path / "voc", "train")

    image = (owners / "VOC2012/JPEGImages/2007_000008.jpg").read_bytes()
    at = whole.index(image[-200:-100])
    shard.write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
    source = Dataset(open_store(LAYOUT, tmp_path / "voc", "train"), "voc")
    index = [k for k in range(23) if source.store.catalog[k] == ["2007_000008"]]
    with pytest.raises(BadRecord, match="00001-of-00003 record 8 is damaged"):
        source[index[0]]
    assert source[7].image.shape and source[9].image.shape

    shard.write_bytes(whole)
    twin = folder / "voc-train.array_record-00002-of-00003"
    if twin.stat().st_size == len(whole):  # both fill the same number of blocks
        shard.write_bytes(twin.read_bytes())
        source = Dataset(open_store(LAYOUT, tmp_path / "voc", "train"), "voc")
        with pytest.raises(BadRecord, match="holds 2007_000015 where 2007_000008"):
            source[8]


def test_other_settings_and_splits_are_refused(tmp_path):
    for name in "ab":
        photo(tmp_path / f"raw/images/train/{name}.png")
        mask(tmp_path / f"raw/masks/train/{name}.png", (1, 2))
    layout = make_layout("png_folders", {"ids": {"cat": 1}})
    with pytest.raises(ValueError, match="splits: this layout has none of its own"):
        prepare(layout, tmp_path / "raw", tmp_path / "own")
    prepare(layout, tmp_path / "raw", tmp_path / "own", ["train"])
    assert len(open_store(layout, tmp_path / "own", "train").catalog) == 2
    with pytest.raises(ValueError, match="split 'val' is not prepared, only train"):
        open_store(layout, tmp_path / "own", "val")
    other = make_layout("png_folders", {"ids": {"dog": 2}})
    with pytest.raises(ValueError, match=r"was prepared with ids=\{'cat': 1\}, not"):
        open_store(other, tmp_path / "own", "train")
    with pytest.raises(ValueError, match="was prepared with .*type='PngFolders'"):
        open_store(LAYOUT, tmp_path / "own", "train")
    (tmp_path / "own" / VERSION / "manifest.json").write_text("[]")
    with pytest.raises(ValueError, match="not the manifest of a prepared set"):
        open_store(layout, tmp_path / "own", "train")
    with pytest.raises(ValueError, match="shard_records=0 must be >= 1"):
        prepare(layout, tmp_path / "raw", tmp_path / "x", ["train"], shard_records=0)


def command(owners, out, *flags):
    script = [sys.executable, str(ROOT / "tools" / "prepare_data.py"), "voc"]
    return [*script, f"--root={owners}", f"--out={out}", "--shard-records=7", *flags]


def test_the_command_over_beam(owners, tmp_path):
    """Apache Beam's direct runner makes the very files that processes make."""
    pytest.importorskip("apache_beam")
    whole = prepare(LAYOUT, owners, tmp_path / "a" / "voc", shard_records=7)
    run = subprocess.run(
        command(owners, tmp_path / "b", "--beam"), capture_output=True, text=True
    )
    assert run.returncode == 0, run.stderr
    assert "train has 23 records in 4 files, 0 skipped" in run.stdout
    assert files(tmp_path / "b" / "voc" / VERSION) == files(whole)


@pytest.mark.slow
def test_a_killed_command_goes_on(owners, tmp_path):
    whole = prepare(LAYOUT, owners, tmp_path / "a" / "voc", shard_records=7)
    out = tmp_path / "b"
    first = subprocess.Popen(
        command(owners, out, "--workers=1"), stderr=subprocess.DEVNULL
    )
    staging = out / "voc" / f".{VERSION}.part"
    while first.poll() is None and not [*staging.glob("*.done")]:
        time.sleep(0.01)
    os.kill(first.pid, signal.SIGKILL)
    first.wait()
    again = subprocess.run(
        command(owners, out, "--workers=0"), capture_output=True, text=True
    )
    assert again.returncode == 0, again.stderr
    # The bar begins with the records of the shards that are there.
    assert re.search(r" [1-9]\d*/27 \[00:00<\?", again.stderr)
    assert files(out / "voc" / VERSION) == files(whole)


def test_the_command_says_what_is_wrong(owners, tmp_path, capsys):
    for kind, settings, message in [
        ("vock", [], "type: there is no 'vock'; did you mean 'voc'?"),
        ("voc", ["tile"], "setting 'tile' must be such as name=value"),
        ("shapes", [], "type: 'shapes' has no prepared form"),
    ]:
        with pytest.raises(ValueError, match=re.escape(message)):
            make_layout(kind, parse_settings(settings))
    for arguments, message in [
        (["voc", "--set=tile=3"], "setting voc.tile is unknown"),
        ([], "the following arguments are required: TYPE"),
    ]:
        given = ["prepare", *arguments, f"--root={owners}", f"--out={tmp_path}"]
        with pytest.raises(SystemExit) as stopped:
            main(given)
        said = capsys.readouterr().err
        assert stopped.value.code == 2 and f"error: {message}" in said
        assert "Traceback" not in said
    with pytest.raises(ValueError, match="no such"):
        prepare(LAYOUT, tmp_path / "none", tmp_path / "new" / "voc", ("val",))
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize(
    "name, content, message",
    [
        ("dataset_info.json", b"{", "dataset_info.json or features.json is damaged"),
        ("features.json", b"\xff", "dataset_info.json or features.json is damaged"),
        ("manifest.json", b'{"layout": {}, "splits": 3}', "not the manifest of a prep"),
        ("manifest.json", None, "is a prepared set without its manifest.json"),
        ("catalog-val/meta.json", b"[", "catalog of a data set is damaged"),
        ("catalog-val/text.npy", b"[x", "catalog of a data set is damaged"),
        ("catalog-val/text.npy", b"", "catalog of a data set is damaged"),
        ("catalog-val/starts.npy", b"\x93NUMPY\1\0\2\0(\n", "catalog of a data set"),
        (
            "catalog-val/starts.npy",
            b"\x93NUMPY\1\0\x07\0{x: 1}\n",
            "damaged .ValueError.;",
        ),
        ("catalog-val/members.npy", "starts.npy", r"records of class \d+ are wrong"),
        ("catalog-val/starts.npy", "members.npy", "its records have no ends"),
    ],
)
def test_damaged_files_beside_the_shards_are_named(
    owners, tmp_path, name, content, message
):
    """Each raised an error of NumPy, JSON or protobuf that named no file."""
    out = tmp_path / "data" / "voc"
    folder = prepare(LAYOUT, owners, out, splits=("val",), workers=0)
    path = folder / name
    if content is None:
        path.unlink()
    elif name == "catalog-val/text.npy" and content:  # as long as it was
        path.write_bytes(path.read_bytes().replace(b'["', content))
    elif isinstance(content, str):  # another array of the catalog
        path.write_bytes(path.with_name(content).read_bytes())
    else:
        path.write_bytes(content)
    with pytest.raises(ValueError, match=re.escape(str(folder)) + f".*{message}"):
        Dataset(open_store(LAYOUT, out, "val"), "voc")[0]
