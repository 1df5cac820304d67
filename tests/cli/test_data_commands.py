"""The commands about data: configs with changed settings, and what they write."""

import io
import os
import runpy
import subprocess
import sys

import pytest
from PIL import Image

from seggpt_jax.cli import command
from tests.conftest import REPOSITORY
from tests.support.folders import write

# ml_collections loads config files so.
pytestmark = pytest.mark.filterwarnings("ignore:the load_module:DeprecationWarning")
TINY = f"--config={REPOSITORY / 'configs/vitl.py'}:tiny"


@pytest.fixture
def run(tmp_path, monkeypatch, capsys):
    """Runs the command in an empty folder: (exit status, stdout, stderr)."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(command, "cache_compiled", lambda: "")
    monkeypatch.setattr(sys, "path", [*sys.path])

    def run(*argv):
        with pytest.raises(SystemExit) as stopped:
            command.main([*map(str, argv)])
        return stopped.value.code or 0, *capsys.readouterr()

    return run


def test_a_batch_is_shown(run, tmp_path):
    code, out, _ = run("show", TINY, "--out", "new/b.png", "--rows", 2, "--step", 7)
    assert code == 0 and out == "new/b.png: rows 0 to 1 of the batch of step 7\n"
    small = ("--out", "new/c.png", "--config.loader.batch_size=4")
    assert run("show", TINY, *small)[1].startswith("new/c.png: rows 0 to 3 of")
    with Image.open("new/b.png") as two, Image.open("new/c.png") as four:
        assert 1.5 * two.height < four.height


@pytest.mark.parametrize(
    "argv, said",
    [
        (["--step=99999"], "setting --step = 99999: must be in [0, "),
        (["--config.sead=1"], "unknown setting 'sead'. Did you mean"),
        (["--config.seed=x"], "flag --config.seed=x: must be a whole number"),
        (
            ["--config.loader.batch_size=4", "--rows=8"],
            "setting --rows = 8: must be in [1, 4]",
        ),
        (
            ["--config=configs/vitk.py"],
            "configs/vitk.py: there is no such file. These come",
        ),
        (["--out=b.jpg"], "--out b.jpg: give a name that ends in .png"),
    ],
)
def test_what_cannot_be_shown(run, tmp_path, argv, said):
    code, out, err = run("show", TINY, *argv)
    assert (code, out) == (2, "") and err.startswith("error: ") and said in err
    assert err.count("\n") == 1 and not [*tmp_path.iterdir()]


@pytest.mark.parametrize("folder", ["", "a.txt"])
def test_configs_go_into_a_folder(run, tmp_path, folder):
    (tmp_path / "a.txt").touch()
    code, out, err = run("configs", folder)
    assert (code, out) == (2, "") and err.startswith("error: DIR ")


def test_a_config_of_the_package(run, tmp_path):
    """Named as in a checkout, in a folder without it. A file of the user is first."""
    code, out, err = run("show", "--config=configs/vitl.py:tiny", "--rows=1")
    assert code == 0 and err.startswith("configs/vitl.py: the one of the package; ")
    (tmp_path / "configs").mkdir()
    mine = tmp_path / "configs/vitl.py"
    mine.write_text("def get_config(argument):\n    raise ValueError('my own')\n")
    code, _, err = run("show", "--config", "configs/vitl.py:tiny")
    assert (code, err) == (2, "error: my own\n")


# Of a process of its own, since `configs` is imported once.
SEED = """
import os, sys
from seggpt_jax.training import config_file
print(config_file.read(sys.argv[1]).seed)
"""


def _seed(file, cwd):
    done = subprocess.run(
        [sys.executable, "-P", "-c", SEED, file], cwd=cwd, text=True,
        capture_output=True, env=os.environ | {"PYTHONPATH": str(REPOSITORY)},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return int(done.stdout)


def test_copied_configs_are_those_that_count(run, tmp_path):
    code, out, _ = run("configs", "mine")
    assert code == 0 and out.startswith("mine/configs: ")
    made = {path.name for path in (tmp_path / "mine/configs").iterdir()}
    assert made == {path.name for path in REPOSITORY.glob("configs/*.py")}
    base = tmp_path / "mine/configs/common.py"
    base.write_text(base.read_text().replace("c.seed = 0", "c.seed = 5"))
    assert _seed("mine/configs/vitl.py:tiny", tmp_path) == 5
    assert _seed("configs/vitl.py:tiny", tmp_path / "mine") == 5
    own = "from configs import vitl\nget_config = lambda: vitl.get_config('tiny')\n"
    (tmp_path / "mine/own.py").write_text(own)
    assert _seed("own.py", tmp_path / "mine") == 5
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs/own.py").write_text(own)  # beside nothing: the package's
    assert _seed("configs/own.py", tmp_path) == 0
    said = "error: mine/configs is there already: choose another DIR\n"
    assert run("configs", "mine")[::2] == (2, said)


def test_options_that_there_are_not_are_refused(run):
    """Settings are for commands that have a config, and need one."""
    for argv in (["show", TINY, "--rwos=1"], ["show", TINY, "--config.seed"],
                 ["show", "--config.seed=1"],
                 ["models", "--config.seed=1"]):  # fmt: skip
        code, _, err = run(*argv)
        said = "unrecognized arguments: --"
        if argv == ["show", "--config.seed=1"]:
            said = "--config.seed=1 changes a config: give its file with --config"
        assert code == 2 and said in err


def test_check_takes_a_type_or_a_config(run, tmp_path):
    write(tmp_path / "pets")
    code, out, _ = run("check", "indexed", "--root=pets", "--splits=train")
    assert code == 0 and out.endswith("nothing is wrong\n")
    code, out, _ = run("check", "indexed", "--root=pets", "--set=strict=True")
    assert code == 1 and "\nwrong: " in out
    assert run("check", TINY)[:2] == (0, "nothing is wrong\n")  # scenes are drawn
    for argv in ([], ["indexed"], ["--root=pets"], ["indexed", "--root=pets", TINY]):
        code, _, err = run("check", *argv)
        assert code == 2 and err.startswith("error: give ")


def test_a_set_is_prepared(run, tmp_path):
    write(tmp_path / "pets")
    argv = ["indexed", "--root=pets", "--out=data", "--name=all", "--workers=0"]
    code, out, _ = run("prepare", *argv, "--splits=train", "--shard-records=1")
    assert code == 0 and "data/all/1.0.0: train has 2 records in 2 files" in out
    assert run("check", "indexed", "--root=data/all")[0] == 0


@pytest.mark.parametrize("quiet", [[], ["--quiet"]])
def test_quiet_commands_show_no_bar(run, tmp_path, monkeypatch, quiet):
    write(tmp_path / "pets")
    for argv in (["check", "indexed"],
                 ["prepare", "indexed", "--out=data", "--workers=0"]):  # fmt: skip
        shown = io.StringIO()
        monkeypatch.setattr(shown, "isatty", lambda: True)
        monkeypatch.setattr(sys, "stderr", shown)
        assert run(*argv, "--root=pets", "--splits=train", *quiet)[0] == 0
        assert ("%|" in shown.getvalue()) == (not quiet), argv


@pytest.mark.parametrize("path", [*REPOSITORY.glob("tools/*.py")], ids=lambda p: p.name)
def test_a_tool_is_the_command(path, monkeypatch):
    called = []
    monkeypatch.setattr(command, "main", called.append)
    monkeypatch.setattr(sys, "argv", [str(path), "--out=x"])
    runpy.run_path(str(path), run_name="__main__")
    ((name, *rest),) = called
    assert rest == ["--out=x"] and f"`seggpt {name}`" in path.read_text()
