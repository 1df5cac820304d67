"""Files that go bad: training goes on, names each once, and stops at too many; the
stream does not depend on who reads it."""

import logging

import numpy as np
import pytest

from seggpt_jax.data.context import Context
from seggpt_jax.data.pipeline import make_dataset, make_iterator
from seggpt_jax.data.prepare import prepare
from seggpt_jax.data.sample import BadRecord
from seggpt_jax.data.sources import make_layout, open_sources
from tests.support.layouts import mask, photo, write_lines

COUNT, BATCH = 100, 8
CONTEXT = Context(size=(32, 32))


def damage(path, how):
    """One of the ways in which a file goes bad."""
    data = path.read_bytes()
    if how == "truncated":
        path.write_bytes(data[: len(data) // 2])
    elif how == "zeroed":
        path.write_bytes(bytes(len(data)))
    elif how == "wrong type":
        path.write_bytes(b"<html>404 not found</html>")
    else:
        photo(path, size=(11, 13), mode="L" if path.suffix == ".png" else "RGB")


WAYS = ("truncated", "zeroed", "wrong type", "wrong size")


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """VOC's layout with four bad files in a hundred images, raw and prepared, and the
    names of the bad ones. They go bad after the set was listed."""
    data = tmp_path_factory.mktemp("data")
    voc = data / "voc" / "VOC2012"
    for k in range(COUNT):
        photo(voc / "JPEGImages" / f"{k:04}.jpg", k)
        mask(voc / "SegmentationClassAug" / f"{k:04}.png", (0, 1 + k % 3, 2 + k % 3))
    write_lines(voc / "ImageSets/Segmentation/val.txt", "none")
    prepare(make_layout("voc", {}), data / "voc", data / "good", ["train"])
    open_sources({"voc": {"type": "voc", "split": "train"}}, data)
    rng = np.random.default_rng(0)
    bad = rng.choice(COUNT, len(WAYS), replace=False)
    for k, how in zip(bad, WAYS, strict=True):
        folder, suffix = [("JPEGImages", "jpg"), ("SegmentationClassAug", "png")][k % 2]
        damage(voc / folder / f"{k:04}.{suffix}", how)
    return data, {f"{k:04}" for k in bad}


def stream(data, bad_share=0.06, folder="voc", seed=0, context=CONTEXT):
    spec = {"type": "voc", "split": "train", "folder": folder}
    source = open_sources({"voc": spec}, data)["voc"]
    return make_dataset([source], [1.0], context, seed, bad_share)


def batches(dataset, count, start=0, **how):
    iterator = make_iterator(dataset, BATCH, start, **how)
    found = [next(iterator) for _ in range(count)]
    iterator.close()
    return found


def same(one, two):
    for a, b in zip(one, two, strict=True):
        assert a.keys() == b.keys()
        for name in a:
            np.testing.assert_array_equal(a[name], b[name])


def test_goes_on_and_names_each_once(folders, caplog):
    data, bad = folders
    with caplog.at_level(logging.WARNING):
        found = batches(stream(data), 3 * COUNT // BATCH)
    assert len(found) == 3 * COUNT // BATCH
    warnings = [r.getMessage() for r in caplog.records if "skipped bad" in r.msg]
    named = [name for text in warnings for name in bad if f"/{name}." in text]
    assert sorted(named) == sorted(bad)
    assert "bad record 4: " in warnings[-1] and "7 stop the run" in warnings[-1]


def test_stops_above_the_share_with_the_list(folders):
    data, bad = folders
    with pytest.raises(ValueError, match="more than 2 of 100 records are bad") as error:
        batches(stream(data, bad_share=0.02), 3 * COUNT // BATCH)
    assert sum(f"/{name}." in str(error.value) for name in bad) == 3


@pytest.mark.parametrize(
    "folder", ["voc", pytest.param("good", marks=pytest.mark.slow)]
)
def test_the_stream_is_the_same_with_any_workers_and_hosts(folders, folder):
    data, _ = folders
    reference = batches(stream(data, folder=folder), 6, threads=0)
    for how in ({"threads": 2}, {"workers": 2, "threads": 1}):
        same(batches(stream(data, folder=folder), 6, **how), reference)
    # From the middle on, on two hosts, with other numbers of workers.
    parts = [
        batches(stream(data, folder=folder), 3, 3, rows=rows, **how)
        for rows, how in (
            (range(BATCH // 2), {"workers": 1}),
            (range(BATCH // 2, BATCH), {"threads": 2}),
        )
    ]
    both = [
        {name: np.concatenate([one[name], other[name]]) for name in one}
        for one, other in zip(*parts, strict=True)
    ]
    same(both, reference[3:])


def test_a_file_that_is_gone_is_named(tmp_path):
    voc = tmp_path / "voc" / "VOC2012"
    for k in range(2):
        photo(voc / "JPEGImages" / f"{k:04}.jpg", k)
        mask(voc / "SegmentationClassAug" / f"{k:04}.png", (0, 1))
    write_lines(voc / "ImageSets/Segmentation/val.txt", "none")
    source = open_sources({"voc": {"type": "voc", "split": "train"}}, tmp_path)["voc"]
    (voc / "SegmentationClassAug/0001.png").unlink()
    with pytest.raises(BadRecord, match=r"Aug/0001\.png cannot be read.*restore it"):
        source[1]


def test_raw_and_prepared_give_the_same_stream(tmp_path):
    """Of undamaged files; so preparing a set in mid-training changes nothing."""
    voc = tmp_path / "voc" / "VOC2012"
    for k in range(20):
        photo(voc / "JPEGImages" / f"{k:04}.jpg", k)
        mask(voc / "SegmentationClassAug" / f"{k:04}.png", (0, 1 + k % 3, 255))
    write_lines(voc / "ImageSets/Segmentation/val.txt", "none")
    reference = batches(stream(tmp_path), 4)
    prepare(make_layout("voc", {}), tmp_path / "voc", tmp_path / "voc", ["train"])
    assert (
        type(
            open_sources({"v": {"type": "voc", "split": "train"}}, tmp_path)["v"].store
        ).__name__
        == "Prepared"
    )
    same(batches(stream(tmp_path), 4), reference)
