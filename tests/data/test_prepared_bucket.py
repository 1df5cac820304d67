"""Prepared data in a bucket equals the owners' files on a disk."""

import logging

import pytest

from seggpt_jax.data import prepare as preparing
from seggpt_jax.data.check import open_named
from seggpt_jax.data.dataset import Dataset
from seggpt_jax.data.prepare import prepare
from seggpt_jax.data.prepared import MANIFEST, VERSION, open_store
from seggpt_jax.data.sources import open_sources
from seggpt_jax.runs.buckets import BucketPath
from seggpt_jax.runs.paths import locate
from tests.data.test_prepare import LAYOUT, equal, files, owners  # noqa: F401
from tests.support.layouts import raw

SPEC = {"voc": {"type": "voc", "split": "train"}}


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """The user's cache."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache/seggpt_jax"


def test_a_set_is_prepared_and_read(
    bucket,
    owners,  # noqa: F811
    tmp_path,
    cache,
    monkeypatch,
    caplog,
):
    here = prepare(LAYOUT, owners, tmp_path / "data/voc", shard_records=10)
    there = locate(bucket) / "data/voc"
    # A run that is cut off goes on where it stopped.
    made, write = [], preparing.write_shard

    def fails(plan, shard):
        if len(made) == 2:
            raise OSError("cut")
        made.append(shard)
        return write(plan, shard)

    with monkeypatch.context() as patch, pytest.raises(OSError, match="cut"):
        patch.setattr(preparing, "write_shard", fails)
        prepare(LAYOUT, owners, there, shard_records=10)
    with pytest.raises(ValueError, match=f"{there}: a bucket must hold prepared data"):
        open_sources(SPEC, f"{bucket}/data")
    again = []
    with monkeypatch.context() as patch:

        def noted(plan, shard):
            again.append(shard)
            return write(plan, shard)

        patch.setattr(preparing, "write_shard", noted)
        folder = prepare(LAYOUT, owners, there, shard_records=10)
    assert len(again) == 2 and not {*again} & {*made}
    assert folder == there / VERSION
    wanted = files(here)
    assert there.files() == [f"{VERSION}/{name}" for name in sorted(wanted)]
    for name, content in wanted.items():
        if not name.startswith("catalog"):  # whose list of files is of a time
            assert (folder / name).read_bytes() == content, name
    with pytest.raises(ValueError, match="is there; move it away"):
        prepare(LAYOUT, owners, there)

    with caplog.at_level(logging.INFO):
        source = open_sources(SPEC, f"{bucket}/data")["voc"]
    assert caplog.text.count("copying split train to") == 1
    equal(source, raw("voc", owners, "train"))
    assert not list(cache.rglob("*val.array_record*"))
    caplog.clear()
    trained, held_out = open_named("voc", f"{there}", ["train"], {})
    assert not held_out and len(trained["voc train"]) == len(source)
    monkeypatch.setattr(BucketPath, "download", lambda *args: 1 / 0)
    with caplog.at_level(logging.INFO):
        equal(Dataset(open_store(LAYOUT, there, "train"), "voc"), source)
    assert "copying" not in caplog.text
    with pytest.raises(ZeroDivisionError):  # the other split is not here yet
        open_store(LAYOUT, there, "val")
    # Another set of the same name is another copy.
    (folder / MANIFEST).write_text((folder / MANIFEST).read_text() + " ")
    with pytest.raises(ZeroDivisionError):
        open_store(LAYOUT, there, "train")


def test_an_altered_shard_is_refused(bucket, owners, cache):  # noqa: F811
    there = locate(bucket) / "voc"
    folder = prepare(LAYOUT, owners, there, ["val"])
    (shard,) = (name for name in folder.files() if "array_record" in name)
    content = bytearray((folder / shard).read_bytes())
    content[len(content) // 2] ^= 1
    (folder / shard).write_bytes(bytes(content))
    with pytest.raises(ValueError, match=f"{folder / shard} is not what was prepared"):
        open_store(LAYOUT, there, "val")
    assert not list(cache.rglob("*.array_record*"))
