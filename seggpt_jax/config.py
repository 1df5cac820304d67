"""Configs: arguments after the colon, and settings checked before anything is built."""

import ast
import dataclasses
import difflib
import inspect
import types
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, cast, get_args, get_origin

_SHOWN = 100  # characters of a value in an error


def suggest(name: object, choices: Iterable[object]) -> str:
    """`; did you mean 'x'? Choices: ...` for an unknown name."""
    choices = sorted(map(str, choices))
    close = difflib.get_close_matches(str(name), choices, n=1)
    hint = f"did you mean {close[0]!r}? Choices" if close else "choices"
    return f"; {hint}: {shorten(choices, 20)}"


def counted(count: int, one: str, many: str = "") -> str:
    """`1 image`, `2 images`. many: the plural, where it is not one and an s."""
    return f"{count} {one if count == 1 else many or one + 's'}"


def shorten(values: Iterable[object], limit: int = 10) -> str:
    """The first values of a listing, and how many more there are."""
    values = list(values)
    more = f" and {len(values) - limit} more" if len(values) > limit else ""
    return (", ".join(map(str, values[:limit])) or "nothing") + more


def parse_argument(argument: str | None, **defaults) -> dict[str, Any]:
    """Reads the text after the colon of `--config=file.py:tiny,steps=5`.

    A bare word sets a bool true; `name=value` is read as a Python literal of the
    default's type. Unknown names are errors with the choices.
    """
    values = dict(defaults)
    for part in parse_list(argument):
        name, _, text = part.partition("=")
        if name not in defaults:
            raise ValueError(
                f"config argument {name!r} is unknown{suggest(name, defaults)}"
            )
        values[name] = _argument(name, text, defaults[name])
    return values


def parse_list(text: str | None) -> list[str]:
    """The parts between commas."""
    return [*filter(None, (text or "").split(","))]


def parse_settings(texts: Iterable[str]) -> dict[str, Any]:
    """Settings given as `name=value`: Python literals, or else plain text."""
    settings = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals:
            raise ValueError(f"setting {text!r} must be such as name=value")
        try:
            settings[name] = ast.literal_eval(value)
        except (ValueError, SyntaxError):
            settings[name] = value
    return settings


def _argument(name: str, text: str, default: Any) -> Any:
    if isinstance(default, str):
        return text
    if isinstance(default, bool) and not text:
        return True
    try:
        value = ast.literal_eval(text)
    except (ValueError, SyntaxError):
        value = text
    if isinstance(default, float) and type(value) is int:
        return float(value)
    if default is not None and type(value) is not type(default):
        raise ValueError(
            f"config argument {name}={text}: must be {words_of(type(default))}, as "
            f"its default {default!r}"
        )
    return value


def construct(cls, where: str, settings: Any, **given):
    """`cls(**settings, **given)`; every error names the place `where` in the config.

    Raises ValueError for unknown and for missing settings, by name, for values of other
    types than the fields of a dataclass have, and for those that the constructor
    refuses. That of one of several, such as a stage, writes `stages.*`; the message
    then has this one's name, `stages.paint`.
    """
    settings = plain(settings)
    require(isinstance(settings, Mapping), where, settings, "settings by name")
    parameters = inspect.signature(cls).parameters
    names = set(parameters) - set(given)
    check_names(where, settings, names)
    needed = {n for n in names if parameters[n].default is inspect.Parameter.empty}
    for name in sorted(needed - set(settings)):
        raise ValueError(f"setting {_dotted(where, name)} is missing")
    if dataclasses.is_dataclass(cls):
        check_types(where, settings, cast(type, cls))
    try:
        return cls(**settings, **given)
    except (TypeError, ValueError) as error:
        group, dot, _ = where.rpartition(".")
        message = str(error).replace(f"{group}.*", where) if dot else str(error)
        if where not in message:
            message = f"settings of {where}: {message}"
        raise ValueError(message) from error


def check_names(where: str, settings: Iterable[str], names: Iterable[str]):
    """Raises ValueError, with the choices, for a setting that is not in `names`."""
    for name in sorted(set(settings) - set(names)):
        raise ValueError(
            f"setting {_dotted(where, name)} is unknown{suggest(name, names)}"
        )


def check_types(where: str, settings: Mapping[str, Any], cls: type):
    """Raises ValueError for a value without the type of its field in the dataclass
    `cls`. Fields that are dataclasses themselves are not checked."""
    for field in dataclasses.fields(cls):
        kind, value = field.type, settings.get(field.name)
        if field.name in settings and not dataclasses.is_dataclass(kind):
            place = _dotted(where, field.name)
            require(_fits(value, kind), place, value, words_of(kind))


# One value of a type, and several.
_WORDS = {
    int: ("a whole number", "whole numbers"), float: ("a number", "numbers"),
    str: ("text", "texts"), bool: ("True or False", "times True or False"),
}  # fmt: skip


def words_of(kind: Any, several: bool = False) -> str:
    """A type as errors name it: `tuple[int, int]` is "2 whole numbers"."""
    origin, args = get_origin(kind), get_args(kind)
    if kind in _WORDS:
        return _WORDS[kind][several]
    if kind in (None, types.NoneType):
        return "None"
    if origin is types.UnionType:
        named = [k for k in args if not (k is int and float in args)]
        return " or ".join(words_of(k, several) for k in named)
    if origin is Mapping:
        held = args[1]
        plain_kind = held is not Any and not dataclasses.is_dataclass(held)
        return f"{words_of(held, True) if plain_kind else 'settings'} by name"
    if origin is Sequence or (origin is tuple and args[-1] is ...):
        return f"a list of {words_of(args[0], True)}"
    if origin is tuple and len(set(args)) == 1:
        return f"{len(args)} {words_of(args[0], True)}"
    return getattr(kind, "__name__", str(kind))


def _fits(value: Any, kind: Any) -> bool:
    origin, args = get_origin(kind), get_args(kind)
    if kind is Any:
        return True
    if origin is Sequence:
        return isinstance(value, (list, tuple)) and all(_fits(x, *args) for x in value)
    if origin is Mapping:
        held = args[1]
        return isinstance(value, Mapping) and (
            dataclasses.is_dataclass(held)
            or all(_fits(x, held) for x in value.values())
        )
    if origin is types.UnionType:
        return any(_fits(value, one) for one in args)
    if origin is tuple:
        if not isinstance(value, tuple):
            return False
        args = args[:1] * len(value) if args[-1] is ... else args
        return len(value) == len(args) and all(map(_fits, value, args))
    if isinstance(value, bool) and kind in (int, float):
        return False
    return isinstance(value, (int, float) if kind is float else origin or kind)


def _dotted(where: str, name: str) -> str:
    return f"{where}.{name}" if where else name


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
        shown = repr(value)
        if len(shown) > _SHOWN:
            shown = f"{shown[: _SHOWN // 2]}...{shown[-_SHOWN // 4 :]}"
        raise ValueError(f"setting {setting} = {shown}: must be {allowed}")
