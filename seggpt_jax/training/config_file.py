"""Reads a config file, with its argument and the settings that a command line changes.

`--config=FILE[:ARGUMENT] --config.NAME=VALUE ...`, by the flags of ml_collections.
The configs of the project come along with the package: `configs/NAME.py` is one of them
where there is no such file.
"""

import re
import sys
from collections.abc import Sequence
from pathlib import Path

from absl import flags
from ml_collections import ConfigDict, config_flags

from seggpt_jax.config import shorten
from seggpt_jax.runs import paths

HELP = (
    "Configuration file, with an optional :argument. --config.NAME=VALUE changes one "
    "setting of it."
)
FOLDER = "configs"  # of configs, which import each other as this package
_PACKAGE = Path(__file__).parents[1]
# Errors whose text is for users. Of others, in a config file, the kind is told.
_SAID = (flags.Error, ValueError, OSError, LookupError, AttributeError, SyntaxError)
_UNSAID = ("TypeError", "NameError", "AttributeError", "IndexError", "KeyError")
_PLAINLY = {  # words of Python and ml_collections -> ours
    r"flag --config=None: .*": "--config is missing: the file of a config",
    r"Could not parse '(.*?)': .*": r"there is no setting \1",
    r"source code string cannot contain null bytes": "it has a zero byte",
    r"\S+ is not integer >= (\d+)": r"must be a whole number of \1 or more",
    r"\S+ is not integer in the range \[(\d+), (\d+)\]":
        r"must be a whole number of \1 to \2",
    r"Could not override field '(\w+)' \(reference\)\. (.*) is of original type .*":
        r"setting \1 cannot be \2",
    r"invalid literal for int\(\) .*": "must be a whole number",
    r"could not convert string to float: .*": "must be a number",
    r"Failed to parse .* as a ConfigDict: .*": "must be settings by name",
    r".*Attempting to lookup: (.*)": r"unknown setting \1",
    r"<class '([\w.]+)'>": r"\1",
    r"module '\w+' has no attribute 'get_config'": "it has no function get_config",
    r".*get_config\(\) (?:takes|missing) .*":
        "get_config takes other arguments than the text after the colon of --config",
}  # fmt: skip

# How causes begin that lie in the file, and do not name it.
_OF_FILE = ("the config ", "get_config ", "it has ", "unindent ", "setting ")


def define_flag(
    values: flags.FlagValues = flags.FLAGS, argv: Sequence[str] | None = None
) -> flags.FlagHolder:
    """The flag --config. argv: where its changed settings are, if not in sys.argv."""
    return config_flags.DEFINE_config_file(
        "config", None, HELP, values, lock_config=True, sys_argv=argv
    )


def read(file: str, changes: Sequence[str] = ()) -> ConfigDict:
    """The config of `FILE[:ARGUMENT]`, after changes such as `--config.seed=1`.

    Raises ValueError, of one line, for all that a user can do wrong.
    """
    argv = find(["seggpt", f"--config={file}", *changes])
    values = flags.FlagValues()
    holder = define_flag(values, argv)
    load(values, holder, argv)
    return holder.value


def load(
    values: flags.FlagValues, holder: flags.FlagHolder, argv: Sequence[str]
) -> list[str]:
    """Reads a command line, and the config file with it; returns what is no flag.

    Raises ValueError, of one line, for all that a user can do wrong.
    """
    try:
        rest = values(argv)
        config = holder.value
        if config is None or isinstance(config, (int, float, str, tuple, list)):
            raise ValueError(
                f"get_config returns {config!r}, and a ConfigDict is wanted"
            )
        config.items  # noqa: B018  a file that failed to load raises here
    except Exception as error:  # a config file is a program, and may raise any
        cause = first_cause(error)
        changed = [text for text in argv if text.startswith("--config.")]
        if isinstance(error, (TypeError, IndexError)) and changed:
            cause = f"{shorten(changed)}: there is no such setting"
            if len(changed) > 1:
                cause = f"one of these names no setting: {shorten(changed)}"
        if unknown := re.fullmatch(r"unknown setting '(\w+)'", cause):
            cause += _listed(_given(argv), unknown[1], changed)
        if cause.startswith(_OF_FILE):
            cause = f"--config {_given(argv)}: {cause}"
        raise ValueError(cause) from error
    return rest


def _listed(file: str, name: str, changed: Sequence[str]) -> str:
    """What the config lists in the place of an unknown setting. A name that is right
    elsewhere may be missing here: only settings that a config lists can be changed."""
    for text in changed:
        place, names = read(file), text.partition("=")[0].split(".")[1:]
        while names and isinstance(place, ConfigDict) and names[0] in place:
            place = place[names.pop(0)]
        if names and names[0] == name and isinstance(place, ConfigDict):
            return (
                f" in {text}: the config lists {shorten(place, 20)} there; to add a "
                "setting, write it into the file of the config"
            )
    return ""


def _given(argv: Sequence[str]) -> str:
    """The file of `--config`."""
    for text, following in zip(argv, [*argv[1:], ""], strict=True):
        if text == "--config":
            return following
        if text.startswith("--config="):
            return text.removeprefix("--config=")
    return ""


def shipped() -> Path:
    """The configs that come with the package: those of a wheel (setup.py), or of the
    checkout."""
    packaged = _PACKAGE / "packaged" / FOLDER
    return packaged if packaged.is_dir() else _PACKAGE.parent / FOLDER


def find(argv: Sequence[str]) -> list[str]:
    """The command line, with the shipped file where `configs/NAME.py` is not there.

    Makes `import configs` find the folder of the config's file, else the one of the
    current folder, else the shipped one. Raises what `check_place` does.
    """
    found = list(argv)
    given = [text for text in argv if text.partition("=")[0] == "--config"]
    if len(given) > 1:
        raise ValueError(f"--config is given {len(given)} times: {', '.join(given)}")
    for i, text in enumerate(argv):
        if text.startswith("--config="):
            found[i] = f"--config={_find(text.removeprefix('--config='))}"
        elif text == "--config" and i + 1 < len(argv):
            found[i + 1] = _find(argv[i + 1])
    if str(shipped().parent) not in sys.path:
        sys.path.append(str(shipped().parent))
    return found


def _find(file: str) -> str:
    check_place(file)
    name, colon, argument = file.partition(":")
    path = Path(name)
    ours = shipped() / path.name
    if path.parent == Path(FOLDER) and not path.exists() and ours.is_file():
        note = "the one of the package; `seggpt configs DIR` copies them, to be edited"
        print(f"{path}: {note}", file=sys.stderr)
        name, path = str(ours), ours
    if not path.is_file():
        names = (f"{FOLDER}/{one.name}" for one in sorted(shipped().glob("[!_]*.py")))
        raise ValueError(
            f"--config {name}: there is no such file. These come with the package: "
            + ", ".join(names)
        )
    whole = path.absolute()
    above = str(whole.parents[1] if whole.parent.name == FOLDER else Path.cwd())
    if sys.path[0] != above:
        sys.path.insert(0, above)
    return name + colon + argument


def check_place(file: str) -> None:
    """Raises ValueError for `FILE[:ARGUMENT]` in a bucket or behind an address."""
    if re.match(r"\w+:/", file):  # the argument may be any text
        paths.check("--config", file)


def first_cause(error: Exception) -> str:
    """The message of the innermost error: ml_collections nests errors."""
    while error.args and isinstance(error.args[0], Exception):
        error = error.args[0]
    text = str(error.args[0] if isinstance(error, KeyError) else error).strip()
    if "get_config() takes 0 positional arguments" in text:
        return "the config takes no :argument; change settings by --config.NAME=VALUE"
    if isinstance(error, KeyError):
        text = "unknown setting " + text.replace("\n", ". ")
    # The last line of a traceback, or of the places that were searched for the file.
    line = (text.splitlines() or [""])[-1].strip()
    own = type(error).__name__ + ": " if not isinstance(error, _SAID) else ""
    if own or re.match("|".join(f"{name}: " for name in _UNSAID), line):
        line = f"the config file fails: {own}{line} (--verbosity=1 shows where)"
    for words, plainly in _PLAINLY.items():
        line = re.sub(words, plainly, line)
    line = re.sub(
        r"value should be one of <(.*)>",
        lambda found: "must be one of " + found[1].replace("|", ", "),
        line,
    )
    return re.sub(r"^(\w+Error: |\[Errno \d+\] )", "", line)
