"""What is taken for a place elsewhere, and what is a path of this machine."""

import importlib.util
import pickle
import re
from pathlib import Path

import numpy as np
import pytest
from etils import epath

from seggpt_jax.prompts.file import PromptFile, save_prompts
from seggpt_jax.prompts.read import Prompts
from seggpt_jax.runs import paths, staging
from seggpt_jax.runs.paths import (
    BUCKET,
    LOCAL,
    MODEL,
    PROMPT,
    STREAM,
    check,
    check_all,
    locate,
)
from seggpt_jax.runs.workdir import check_workdir
from seggpt_jax.weights import checkpoint
from seggpt_jax.weights.convert import convert

ELSEWHERE = [
    "gs://b/x", "gs:/b/x", "gs:///x", "GS://b/x",
    " gs://b/x", "gs://", "s3://b/x", "s3:/b/x",
    "https://h/x.jpg", "https:/h/x.jpg", "file:///tmp/x", "file:/tmp/x", "memory://x",
    "hdfs://n/x", "a.png:gs://b/m.png", "gs://b/a.png:gs://b/m.png", "images=gs://b/x",
    "/data/a.png:s3:/b/m.png", Path("gs://b/x"), Path("https://h/x"),
    epath.Path("s3://b/x"),
]  # fmt: skip
HERE = [
    "", "x", "/tmp/x", "./gs:/b/x", "gs", "gs:x", "C:/x", "C://x", "a.png:/tmp/m.png",
    "images:/tmp/masks", "auto:4:score", "owner/name@v1", "1=cat,2=dog", "dogs:/x",
    "a b:/x", "runs/http:/x", "x.png:y//z.png", Path("/tmp/a:b/c"),
]  # fmt: skip


@pytest.fixture
def gcsfs(monkeypatch):
    """Whether etils can reach buckets; the test says so."""
    found = [True]
    find = importlib.util.find_spec
    monkeypatch.setattr(
        paths.importlib.util, "find_spec",
        lambda name: found[0] or None if name == "gcsfs" else find(name),
    )  # fmt: skip
    return found


@pytest.mark.parametrize("value", ELSEWHERE, ids=str)
def test_places_elsewhere_are_refused(value):
    taken = re.fullmatch(r"gs://b/[^:]*", str(value))
    for place in (LOCAL,) if taken else (LOCAL, BUCKET, MODEL, PROMPT):
        said = f"^--out {re.escape(str(value))}: must be {re.escape(place.wanted)}$"
        with pytest.raises(ValueError, match=said):
            check("--out", value, place)


@pytest.mark.parametrize("value", HERE, ids=str)
def test_paths_of_this_machine_are_taken(value):
    for place in (LOCAL, MODEL, PROMPT, BUCKET, STREAM):
        check("--out", value, place)


def test_one_place_takes_a_bucket_and_no_other_scheme(gcsfs):
    check("x", "gs://b/x", BUCKET)
    check("x", epath.Path("gs://b"), BUCKET)
    check("x", "gs://b/x.safetensors", PROMPT)
    with pytest.raises(ValueError, match="x gs://b/x.png: must be a path on this .*, "):
        check("x", "gs://b/x.png", PROMPT)
    check("x", "gs://b/x", MODEL)
    gcsfs[0] = False
    with pytest.raises(ValueError, match="need gcsfs: pip install 'seggpt_jax.gcs.'"):
        check("x", "gs://b/x", BUCKET)


def test_the_opener(tmp_path):
    assert locate("x/y") == Path("x/y") and type(locate("gs:x")) is type(Path())
    path = locate("gs://b/x y/z.npy")
    assert pickle.loads(pickle.dumps(path)) == path == locate(path)
    assert str(path.parent / "a") == "gs://b/x y/a" == str(path.with_name("a"))
    assert path.absolute() == path and path.suffix == ".npy"
    assert not tmp_path.is_relative_to(path)


@pytest.mark.parametrize("value", ["https://h/x", "rtsp://h", "file:///tmp/x.mp4"])
def test_addresses_of_videos(value):
    check("VIDEO", value, STREAM)
    for wrong in (f"a:{value}", "https:/h", "https:///x", "gs://b/x"):
        with pytest.raises(ValueError, match=r"address of a video .https://, rtsp"):
            check("VIDEO", wrong, STREAM)


def test_settings_are_named_wherever_they_are(gcsfs):
    given = {"a": {"b": ["x", {"c": "s3://b"}]}, "n": 1, "about": "https://h"}
    with pytest.raises(ValueError, match="^setting a.b.c s3://b: must be a path on"):
        check_all(given, free=("about",), prefix="setting ")
    with pytest.raises(ValueError, match="^about https://h: must be"):
        check_all({"a": "x", "about": "https://h"})
    check_all({"a": {"b": "gs://b/x"}}, {"b": BUCKET})
    with pytest.raises(ValueError, match="^d gs://b/x: must be"):
        check_all({"b": "gs://b/x", "d": "gs://b/x"}, {"b": BUCKET})


NUMBERS = np.zeros(1)
TUNED = PromptFile(
    Prompts(np.zeros((1, 1, 2, 2, 3)), np.zeros((1, 1, 2, 2, 3)), *[NUMBERS] * 3),
    {}, {}, {}, {},
)  # fmt: skip


def _into(function, path):
    with function(Path(path)):
        pass


@pytest.mark.parametrize(
    "write",
    [
        lambda path: _into(staging.new_file, path),
        lambda path: _into(staging.new_folder, path),
        lambda path: check_workdir(path, "{}"),
        lambda path: list(convert("shapes", path)),
        lambda path: save_prompts(path, TUNED),
        checkpoint.Checkpoints,
        lambda path: checkpoint.restore_params(path),
    ],
    ids=["file", "folder", "workdir", "convert", "prompts", "save", "restore"],
)
def test_functions_that_write_refuse_them_too(write, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for path in ("s3://b/x.safetensors", "gs:/b/x.safetensors"):
        with pytest.raises(ValueError, match="must be a path on this machine"):
            write(path)
    assert not list(tmp_path.iterdir())


def test_the_users_cache(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert paths.user_cache() == tmp_path
    monkeypatch.setenv("XDG_CACHE_HOME", "gs://b/cache")
    with pytest.raises(ValueError, match="^XDG_CACHE_HOME gs://b/cache: must be a"):
        paths.user_cache()
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert paths.user_cache() == Path.home() / ".cache"
