"""A workdir is usable and belongs to the config at hand, or the run does not start."""

import json
import os
import re

import pytest

from seggpt_jax.runs.workdir import prepare_workdir

CONFIG = {
    "model": {"size": "l16", "depth": 24},
    "optim": {"lr": 1e-4},
    "data": {"sources": ["ade20k", "coco"], "workers": 4},
    "checkpoint": {"keep": 3, "every": 1000},
    "log_every": 50,
}


def changed(**settings):
    config = json.loads(json.dumps(CONFIG))
    for name, value in settings.items():
        *parents, last = name.split("__")
        here = config
        for parent in parents:
            here = here[parent]
        here[last] = value
    return json.dumps(config)


def stored(workdir):
    return json.loads((workdir / "config.json").read_text())


def test_creates_the_folder_and_accepts_the_same_config(tmp_path):
    workdir = tmp_path / "deep" / "run"
    for _ in range(2):
        prepare_workdir(workdir, json.dumps(CONFIG))
        assert stored(workdir) == CONFIG
        assert os.listdir(workdir) == ["config.json"]


def test_lists_every_setting_that_differs(tmp_path):
    prepare_workdir(tmp_path, json.dumps(CONFIG))
    other = json.loads(
        changed(model__size="b16", optim__lr=2e-4, data__sources=["ade20k"], seed=1)
    )
    del other["model"]["depth"]
    with pytest.raises(ValueError) as raised:
        prepare_workdir(tmp_path, json.dumps(other))
    message = str(raised.value)
    assert str(tmp_path) in message and "a new folder" in message
    assert re.findall(r"^  (.*)$", message, re.MULTILINE) == [
        'data.sources.1: "coco" -> (not set)',
        "model.depth: 24 -> (not set)",
        'model.size: "l16" -> "b16"',
        "optim.lr: 0.0001 -> 0.0002",
        "seed: (not set) -> 1",
    ]
    assert stored(tmp_path) == CONFIG


def test_contents_of_files_are_told_apart_in_few_letters(tmp_path):
    old, new = (json.dumps({"prompts": ["a.jpg", letter * 64]}) for letter in "ab")
    prepare_workdir(tmp_path, old)
    with pytest.raises(ValueError) as caught:
        prepare_workdir(tmp_path, new)
    said = "prompts.1: sha256 aaaaaaaa... -> sha256 bbbbbbbb..."
    assert str(caught.value).splitlines()[1].strip() == said


def test_settings_that_may_change_are_stored_anew(tmp_path):
    prepare_workdir(tmp_path, json.dumps(CONFIG))
    new = changed(log_every=10, data__workers=0, checkpoint__keep=1)
    may_change = ("log_every", "data.workers", "checkpoint.*")
    prepare_workdir(tmp_path, new, may_change)
    assert stored(tmp_path) == json.loads(new)
    with pytest.raises(ValueError, match="log_every: 10 -> 50"):
        prepare_workdir(tmp_path, changed(data__workers=0), may_change[1:])


def test_torn_config_is_named(tmp_path):
    (tmp_path / "config.json").write_text('{"model":')
    with pytest.raises(ValueError, match="config.json is not JSON"):
        prepare_workdir(tmp_path, json.dumps(CONFIG))


def test_unusable_workdir_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    for workdir, reason in [
        (tmp_path / "file" / "run", "Not a directory"),
        (tmp_path / "file", "Not a directory"),
        ("/proc/seggpt", "No such file or directory"),
        ("/proc/self", "No such file or directory"),  # exists; nobody can write there
    ]:
        message = rf"{workdir} cannot be written \({reason}\)"
        with pytest.raises(OSError, match=message):
            prepare_workdir(workdir, json.dumps(CONFIG))
