"""Every option and setting that may name a file refuses addresses, and buckets unless
it takes them.

The options are read from the parsers: a new one is tried without being listed here.
"""

import argparse
import dataclasses
import functools
import os
import re
import sys
from pathlib import Path

import pytest

from benchmarks import aot, rows
from configs import vitl
from seggpt_jax import main
from seggpt_jax.cli import command
from seggpt_jax.training.settings import RunSettings, read_settings
from tests.conftest import REPOSITORY

ELSEWHERE = ("gs://b/x", "gs:/b/x", "s3://b/x", "https://h/x.png", "file:///x.png")
BUCKET = "gs://b/x"
# The options that take a bucket, and the settings.
IN_BUCKETS = {
    "segment model", "segment out", "video model", "video out", "mask out",
    "tune model", "tune data", "tune out", "serve model", "demo model",
    "export model", "convert input", "convert output", "check root", "prepare out",
    "show out", "report workdirs", "report out",
}  # fmt: skip
SETTINGS_IN_BUCKETS = {"checkpoints", "data_dir", "init_from", "checkpoint"}
NO_PATHS = {"--host", "--token", "--license", "--beam-flags", "TYPE"}  # of the command
NO_PATH_SETTINGS = {"evals.*.about", "optim.trainable"}


@pytest.fixture(autouse=True)
def empty(tmp_path, monkeypatch):
    """An empty current folder, which stays empty."""
    monkeypatch.chdir(tmp_path)
    yield tmp_path
    assert os.listdir(tmp_path) == []


def _commands():
    parser = command.make_parser()
    (commands,) = [
        a for a in parser._actions if isinstance(a, argparse._SubParsersAction)
    ]
    return commands.choices


def _takes_text(action) -> bool:
    return action.nargs != 0 and action.type is None and not action.choices


def _options():
    for name, parser in _commands().items():
        for action in parser._actions:
            names = {*action.option_strings, action.metavar}
            if _takes_text(action) and not NO_PATHS & names:
                yield name, action


def _given(action, value: str) -> list[str]:
    return [*action.option_strings[:1], value]


@pytest.mark.parametrize("name, dest", [(name, a.dest) for name, a in _options()])
def test_options_of_the_command(name, dest, capsys, monkeypatch):
    monkeypatch.setattr(command, "cache_compiled", lambda: 1 / 0)
    parser = _commands()[name]
    (action,) = [a for a in parser._actions if a.dest == dest]
    groups = [{*g._group_actions} for g in parser._mutually_exclusive_groups]
    others = {a for a in parser._actions if a.required and a is not action}
    for group in groups:
        if action not in group:
            others.add(min(group, key=lambda a: a.dest))
    for value in ELSEWHERE[:3] if dest == "video" else ELSEWHERE:
        if value == BUCKET and f"{name} {dest}" in IN_BUCKETS:
            continue
        argv = []
        for one in parser._actions:  # arguments without a name, in their order
            if one is action or one in others:
                argv += _given(one, value if one is action else "local")
        with pytest.raises(SystemExit) as stopped:
            command.main([name, *argv])
        lines = capsys.readouterr().err.splitlines()
        shown = (action.option_strings or [action.metavar])[0]
        assert stopped.value.code == 2 and len(lines) == 1, lines
        assert lines[0].startswith(f"error: {shown} {value}: must be a path on this")


def test_options_that_take_a_bucket():
    for name in IN_BUCKETS:
        of, dest = name.split()
        command._check_paths(argparse.Namespace(command=of, **{dest: BUCKET}))
    with pytest.raises(ValueError, match="^--out gs://b/x: must be a path on this "):
        command._check_paths(argparse.Namespace(command="index", out=BUCKET))


def test_the_options_are_found():
    found = {f"{name} {action.dest}" for name, action in _options()}
    assert found >= {
        "segment inputs", "segment prompt", "segment out", "segment model",
        "segment names", "segment coco", "video video", "video first", "video out",
        "mask image", "mask scribble", "mask out", "tune data", "tune out",
        "serve model", "convert input", "convert output", "check root", "check set",
        "check config", "show config", "show out", "prepare root", "prepare out",
        "configs dir",
    }  # fmt: skip


@pytest.mark.parametrize("value", ["https://h/x.mp4", "file:///x", "rtsp://h/x"])
def test_a_video_may_be_a_stream(value):
    command._check_paths(argparse.Namespace(command="video", video=value))


@pytest.mark.parametrize("value", ELSEWHERE)
def test_a_prompt_of_two_files(value, capsys):
    for pair in (f"{value}:mask.png", f"image.png:{value}", f"{value}:{value}"):
        with pytest.raises(SystemExit):
            command.main(["segment", "x.png", "--out", "o", "--prompt", pair])
        lines = capsys.readouterr().err.splitlines()
        assert len(lines) == 1 and f"--prompt {pair}: must be a path" in lines[0]


def _changed(name: str, value: str):
    """A config with one setting changed, by its dotted name."""
    config = vitl.get_config("tiny").to_dict()
    *groups, last = name.split(".")
    group = functools.reduce(lambda at, key: at[key], groups, config)
    group[last] = value
    return config


TEXTS = [f.name for f in dataclasses.fields(RunSettings) if f.type is str]
NESTED = ["sources.shapes.folder", "evals.heldout.sources.shapes.folder", "model.size",
          "tune.init", "evals.heldout.export"]  # fmt: skip


@pytest.mark.parametrize("name", [*TEXTS, *NESTED])
def test_settings_of_a_config(name):
    for value in ELSEWHERE:
        if name in SETTINGS_IN_BUCKETS and value == BUCKET:
            continue
        said = rf"^setting {name} {re.escape(value)}: must be a path on this machine"
        with pytest.raises(ValueError, match=said):
            main.run(_changed(name, value), "workdir")


def test_words_and_patterns_of_a_config_are_free():
    config = _changed("evals.heldout.about", "https://h/paper")
    config["optim"]["trainable"] = "a:gs://"
    assert read_settings(config).optim.trainable == "a:gs://"


@pytest.mark.parametrize("value", [x for x in ELSEWHERE if x != BUCKET])
def test_the_workdir(value):
    said = (
        rf"^--workdir {re.escape(value)}: must be .*, or in a bucket, gs://BUCKET/..."
    )
    with pytest.raises(ValueError, match=said):
        main.run(vitl.get_config("tiny"), value)


@pytest.mark.parametrize("value", ELSEWHERE)
def test_the_config_file(value, capsys):
    with pytest.raises(SystemExit):
        main.parse_flags(["main", f"--config={value}:tiny", "--workdir=w"])
    said = f"error: --config {value}:tiny: must be a path on this machine"
    assert capsys.readouterr().err.splitlines() == [said]


def test_the_argument_of_a_config_is_its_own(monkeypatch, capsys):
    class Parsed(main.flags.FlagValues):
        def __call__(self, argv, known_only=False):
            raise ValueError("is parsed")

    monkeypatch.setattr(main.flags, "FLAGS", Parsed())
    for value in ELSEWHERE:
        with pytest.raises(SystemExit):
            main.parse_flags(["main", f"--config={REPOSITORY}/configs/vitl.py:{value}"])
        assert capsys.readouterr().err == "error: is parsed\n"


@pytest.mark.parametrize("value", ELSEWHERE)
def test_rows_of_compiled_steps(value, monkeypatch):
    config = vitl.get_config("tiny")
    said = f"^error: --out {value}: must be a path on this machine$"
    monkeypatch.setattr(aot.jax.config, "update", lambda *args: None)
    with pytest.raises(SystemExit, match=said):
        aot.main(config, "v5e:4x4", False, 0, value)


@pytest.mark.parametrize("value", ELSEWHERE)
def test_options_of_the_benchmarks(value, monkeypatch):
    parser = argparse.ArgumentParser()
    parser.add_argument("--out", type=Path)
    parser.add_argument("arguments", nargs="*")
    monkeypatch.setattr(sys, "argv", ["x", "--out", value])
    said = f"^error: --out {Path(value)}: must be a path on this machine$"
    with pytest.raises(SystemExit, match=said):
        rows.parse(parser)
    monkeypatch.setattr(sys, "argv", ["x", "--", "--config.checkpoints=gs://b/x"])
    assert rows.parse(parser).arguments == ["--config.checkpoints=gs://b/x"]


def test_every_command_line_is_read_by_a_function_that_checks_it():
    folders = ("seggpt_jax", "tools", "benchmarks")
    readers = {
        path.relative_to(REPOSITORY).as_posix()
        for folder in folders
        for path in (REPOSITORY / folder).rglob("*.py")
        if re.search(r"\.parse_(known_)?args\(", path.read_text())
    }
    assert readers == {"seggpt_jax/cli/command.py", "benchmarks/rows.py"}
    for folder in folders:  # flags of absl: those of the tests above, and no paths
        for path in (REPOSITORY / folder).rglob("*.py"):
            texts = re.findall(r"DEFINE_(?:string|list|multi_\w+)\(\s*\"(\w+)\"",
                               path.read_text())  # fmt: skip
            known = {"workdir", "coordinator", "topology", "out"}
            assert known >= {*texts}, path
