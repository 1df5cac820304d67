"""Configs: arguments after the colon, and settings checked before anything is built."""

import ast
import dataclasses
import difflib
import inspect
from collections.abc import Iterable, Mapping
from typing import Any


def suggest(name: str, choices: Iterable[str]) -> str:
    """`; did you mean 'x'? Choices: ...` for an unknown name."""
    choices = sorted(choices)
    close = difflib.get_close_matches(name, choices, n=1)
    hint = f"did you mean {close[0]!r}? " if close else ""
    return f"; {hint}Choices: {', '.join(choices)}"


def parse_argument(argument: str | None, **defaults) -> dict[str, Any]:
    """Reads what follows the colon of `--config=file.py:tiny,steps=5`.

    A bare word sets its default (a bool) true; `name=value` is read as a Python
    literal, else as text. Unknown names are errors with the choices.
    """
    values = dict(defaults)
    for part in filter(None, (argument or "").split(",")):
        name, _, text = part.partition("=")
        if name not in defaults:
            raise ValueError(
                f"config argument {name!r} is unknown{suggest(name, defaults)}"
            )
        if not text:
            values[name] = True
            continue
        try:
            values[name] = ast.literal_eval(text)
        except (ValueError, SyntaxError):
            values[name] = text
    return values


def construct(cls, where: str, settings: Mapping[str, Any], **given):
    """`cls(**settings, **given)`, with unknown settings refused by name.

    where: the settings' place in the config, for messages.
    """
    names = set(inspect.signature(cls).parameters) - set(given)
    if unknown := set(settings) - names:
        name = sorted(unknown)[0]
        raise ValueError(f"setting {where}.{name} is unknown{suggest(name, names)}")
    try:
        return cls(**plain(settings), **given)
    except TypeError as error:
        raise ValueError(f"settings of {where}: {error}") from error


def plain(value):
    """ConfigDicts as dicts, all the way down; dataclasses too."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        value = dataclasses.asdict(value)
    if hasattr(value, "to_dict"):
        value = value.to_dict()
    if isinstance(value, Mapping):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return tuple(plain(item) for item in value)
    return value


def require(condition: bool, setting: str, value, allowed: str):
    """Raises the one-line error for a setting that is out of range."""
    if not condition:
        raise ValueError(f"setting {setting} = {value!r}: must be {allowed}")
