"""Config files that fail, and settings that are none, are told in one line."""

import sys

import pytest

from seggpt_jax.training import config_file
from tests.conftest import REPOSITORY

TINY = str(REPOSITORY / "tests/tiny.py")
RETURNS = "def get_config(argument=None): return {}\n"


@pytest.mark.filterwarnings("ignore:the load_module:DeprecationWarning")
@pytest.mark.parametrize(
    "text, said",
    [
        (RETURNS.format("None"), "get_config returns None, and a ConfigDict is wanted"),
        (
            RETURNS.format("[3]"),
            r"get_config returns \[3\], and a ConfigDict is wanted",
        ),
        ("x = 1\n", "it has no function get_config"),
        ("def get_config(a, b): return {}\n", "get_config takes other arguments than"),
        ("import none_of_that\n", "the config file fails: .*No module named 'none_of"),
        ("\0", "it has a zero byte"),
        ("get_config = 3\n", "the config file fails: TypeError: .*shows where"),
    ],
)
def test_a_config_file_that_fails_is_told_in_one_line(
    tmp_path, monkeypatch, text, said
):
    # A config file is read into the module of the one before.
    monkeypatch.delitem(sys.modules, "config_config", raising=False)
    (tmp_path / "mine.py").write_text(text)
    with pytest.raises(ValueError, match=said) as raised:
        config_file.read(f"{tmp_path / 'mine.py'}")
    assert "\n" not in str(raised.value) and "mine.py" in str(raised.value)


@pytest.mark.filterwarnings("ignore:the load_module:DeprecationWarning")
@pytest.mark.parametrize(
    "change, said",
    [
        ("--config.model.width=wide", "model.width=wide: must be a whole number"),
        ("--config.optim.clip=x", "optim.clip=x: must be a number"),
        ("--config.loader=3", "loader=3: must be settings by name"),
        ("--config.recolor.fixed[x]=1", "unknown setting recolor.fixed"),
        (
            "--config.model.one_way=True",
            "unknown setting 'one_way' in --config.model.one_way=True: the config "
            "lists canvas, .*, width there; to add a setting, write it into the file",
        ),
        ("--config.zzz=1", "unknown setting 'zzz' in .*: the config lists "),
        ("--config.mode.x=3", "--config.mode.x=3: there is no such setting"),
        ("--config.view..=3", "there is no such setting|no setting view.."),
        ("--config.view.jitter[9]=3", "--config.view.jitter.9.=3: there is no such"),
    ],
)
def test_a_changed_setting_is_told_in_plain_words(change, said):
    with pytest.raises(ValueError, match=said) as raised:
        config_file.read(TINY, [change])
    assert "class" not in str(raised.value)


@pytest.mark.filterwarnings("ignore:the load_module:DeprecationWarning")
def test_which_of_several_is_no_setting_is_not_claimed():
    changes = ["--config.seed=1", "--config.mode.x=3"]
    with pytest.raises(ValueError, match="one of these names no setting: .*mode.x=3"):
        config_file.read(TINY, changes)


def test_no_config_and_two_configs_are_told():
    raised = ValueError("flag --config=None: Flag --config must have a value other ...")
    said = "--config is missing: the file of a config"
    assert config_file.first_cause(raised) == said
    with pytest.raises(ValueError, match="--config is given 2 times: --config=a, --co"):
        config_file.find(["main", "--config=a", "--config", "b", "--config.seed=1"])
