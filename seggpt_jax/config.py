"""Configs: arguments after the colon, and settings checked before anything is built."""

import ast
import dataclasses
import difflib
import inspect
from collections.abc import Iterable, Mapping
from typing import Any


def suggest(name: object, choices: Iterable[object]) -> str:
    """`; did you mean 'x'? Choices: ...` for an unknown name."""
    choices = sorted(map(str, choices))
    close = difflib.get_close_matches(str(name), choices, n=1)
    hint = f"did you mean {close[0]!r}? Choices" if close else "choices"
    return f"; {hint}: {shorten(choices, 20)}"


def shorten(values: Iterable[object], limit: int = 10) -> str:
    """The first values of a listing, and how many more there are."""
    values = list(values)
    more = f" and {len(values) - limit} more" if len(values) > limit else ""
    return (", ".join(map(str, values[:limit])) or "nothing") + more


def parse_argument(argument: str | None, **defaults) -> dict[str, Any]:
    """Reads what follows the colon of `--config=file.py:tiny,steps=5`.

    A bare word sets a bool true; `name=value` is read as a Python literal of the
    default's type. Unknown names are errors with the choices.
    """
    values = dict(defaults)
    for part in filter(None, (argument or "").split(",")):
        name, _, text = part.partition("=")
        if name not in defaults:
            raise ValueError(
                f"config argument {name!r} is unknown{suggest(name, defaults)}"
            )
        values[name] = _argument(name, text, defaults[name])
    return values


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
            f"config argument {name}={text}: must be {type(default).__name__}, as "
            f"its default {default!r}"
        )
    return value


@dataclasses.dataclass(frozen=True)
class RunSettings:
    """Every top-level setting of a config; configs/common.py says what each is for."""

    mode: str
    seed: int
    data_dir: str
    checkpoint: str
    init_from: str
    model: Mapping[str, Any]
    sources: Mapping[str, Any]
    skip_missing: bool
    group_power: float | int
    bad_share: float | int
    fixed_pairs: int
    view: Mapping[str, Any]
    context: Mapping[str, Any]
    recolor: Mapping[str, Any]
    masking: Mapping[str, Any]
    loader: Mapping[str, Any]
    accumulate: int
    optim: Mapping[str, Any]
    stages: Mapping[str, Any]
    ema: float | int
    mesh: Mapping[str, Any]
    cpu_devices: int
    log_every: int
    save_every: int
    keep: int
    best: str
    checkpoints: str
    eval_every: int
    evals: Mapping[str, Any]
    tune: Mapping[str, Any]

    def __post_init__(self):
        for name in ("accumulate", "cpu_devices", "log_every", "save_every", "keep"):
            require(getattr(self, name) >= 1, name, getattr(self, name), "at least 1")
        for name in ("seed", "fixed_pairs", "eval_every", "group_power"):
            require(getattr(self, name) >= 0, name, getattr(self, name), "at least 0")
        require(0 <= self.bad_share <= 1, "bad_share", self.bad_share, "in [0, 1]")
        require(0 <= self.ema < 1, "ema", self.ema, "in [0, 1)")


def read_settings(config: Any) -> RunSettings:
    """The settings of a config, all there and none misspelt."""
    return construct(RunSettings, "", config)


def construct(cls, where: str, settings: Any, **given):
    """`cls(**settings, **given)`; every message says `where` the settings stand.

    Raises ValueError for unknown and for missing settings, by name, and for what the
    constructor refuses.
    """
    settings = plain(settings)
    parameters = inspect.signature(cls).parameters
    names = set(parameters) - set(given)
    check_names(where, settings, names)
    needed = {n for n in names if parameters[n].default is inspect.Parameter.empty}
    for name in sorted(needed - set(settings)):
        raise ValueError(f"setting {_dotted(where, name)} is missing")
    try:
        return cls(**settings, **given)
    except (TypeError, ValueError) as error:
        if where and where not in str(error):
            raise ValueError(f"settings of {where}: {error}") from error
        raise ValueError(str(error)) from error


def check_names(where: str, settings: Iterable[str], names: Iterable[str]):
    """Raises ValueError, with the choices, for a setting that is not in `names`."""
    for name in sorted(set(settings) - set(names)):
        raise ValueError(
            f"setting {_dotted(where, name)} is unknown{suggest(name, names)}"
        )


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
        raise ValueError(f"setting {setting} = {value!r}: must be {allowed}")
