"""Settings are read, checked and refused by name."""

import dataclasses
import re
from collections.abc import Mapping, Sequence
from typing import Any

import pytest

from seggpt_jax import config


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
        ("steps=many", "steps=many: must be a whole number, as its default 5"),
        ("steps", "steps=: must be a whole"),
        ("tiny=2", "tiny=2: must be True or False"),
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
        ({"size": 1, "share": "x"}, "setting thing.share = 'x': must be a number"),
    ],
)
def test_construct_names_the_setting(settings, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        config.construct(Thing, "thing", settings)


def test_types_in_words():
    kinds = {
        int: "a whole number", float | int: "a number", bool: "True or False",
        tuple[int, int]: "2 whole numbers", tuple[float, ...]: "a list of numbers",
        tuple[str | int, ...]: "a list of texts or whole numbers",
        Mapping[str, int]: "whole numbers by name", str | None: "text or None",
        Mapping[str, Any]: "settings by name", Sequence[str]: "a list of texts",
    }  # fmt: skip
    assert {kind: config.words_of(kind) for kind in kinds} == kinds


def test_a_long_value_is_shortened():
    with pytest.raises(ValueError) as caught:
        config.require(False, "a.b", "x" * 300, "text")
    assert len(str(caught.value)) < 120 and "a.b = 'xxx" in str(caught.value)


def test_one_thing_is_singular():
    assert [config.counted(n, "image") for n in (0, 1, 2)] == [
        "0 images",
        "1 image",
        "2 images",
    ]
    assert config.counted(1, "class", "classes") == "1 class"
    assert config.counted(2, "class", "classes") == "2 classes"
