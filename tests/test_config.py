"""Settings are read, checked and refused by name."""

import dataclasses
import re

import pytest

from configs import common
from seggpt_jax import config
from seggpt_jax.settings import RunSettings, read_settings
from tests import tiny


@dataclasses.dataclass(frozen=True)
class Thing:
    size: int
    share: float = 0.5

    def __post_init__(self):
        config.require(0 <= self.share <= 1, "share", self.share, "in [0, 1]")


def test_argument_is_read_by_the_type_of_its_default():
    defaults = {"tiny": False, "steps": 5, "lr": 0.1, "name": "a"}
    assert config.parse_argument(None, **defaults) == defaults
    read = config.parse_argument("tiny,steps=7,lr=2,name=12", **defaults)
    assert read == {"tiny": True, "steps": 7, "lr": 2.0, "name": "12"}
    assert config.parse_argument("tiny=False", **defaults)["tiny"] is False


@pytest.mark.parametrize(
    "argument, message",
    [
        ("step=3", "'step' is unknown; did you mean 'steps'? Choices: steps, tiny"),
        ("steps=many", "steps=many: must be int, as its default 5"),
        ("steps", "steps=: must be int"),
        ("tiny=2", "tiny=2: must be bool"),
    ],
)
def test_argument_errors(argument, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        config.parse_argument(argument, steps=5, tiny=False)


@pytest.mark.parametrize(
    "settings, message",
    [
        ({"sise": 1}, "setting thing.sise is unknown; did you mean 'size'?"),
        ({}, "setting thing.size is missing"),
        ({"size": 1, "share": 2}, "thing: setting share = 2: must be in [0, 1]"),
        ({"size": 1, "share": "x"}, "settings of thing: '<=' not supported"),
    ],
)
def test_construct_names_the_setting(settings, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        config.construct(Thing, "thing", settings)


def test_run_settings_are_those_of_the_base_config():
    names = [field.name for field in dataclasses.fields(RunSettings)]
    assert sorted(names) == sorted(common.base())


def test_read_settings_keeps_the_order_of_stages():
    c = common.base()
    c.stages = common.ordered(
        z=common.stage(steps=1, lr=1), a=common.stage(steps=2, lr=1)
    )
    assert list(read_settings(c).stages) == ["z", "a"]


@pytest.mark.parametrize(
    "name, value",
    [
        ("accumulate", 0),
        ("log_every", 0),
        ("save_every", -1),
        ("keep", 0),
        ("eval_every", -1),
        ("seed", -1),
        ("fixed_pairs", -1),
        ("group_power", float("nan")),
        ("bad_share", 1.5),
        ("ema", 1.0),
    ],
)
def test_ranges(name, value):
    with pytest.raises(ValueError, match=rf"setting {name} = {value}: must be (at|in)"):
        read_settings(tiny.config(**{name: value}))


def test_misspelt_and_missing_top_level_settings():
    c = common.base()
    c.save_evry = 5
    with pytest.raises(ValueError, match="save_evry is unknown; did you mean 'save_"):
        read_settings(c)
    del c.save_evry, c.stages.paint.lr
    with pytest.raises(ValueError, match="setting stages.paint.lr is missing"):
        read_settings(c)
