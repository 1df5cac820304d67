"""Reads a config file, with its argument and the settings that a command line changes.

`--config=FILE[:ARGUMENT] --config.NAME=VALUE ...`, by the flags of ml_collections.
"""

import re
from collections.abc import Sequence

from absl import flags
from ml_collections import ConfigDict, config_flags

from seggpt_jax.runs import paths

HELP = (
    "Configuration file, with an optional :argument. --config.NAME=VALUE changes one "
    "setting of it."
)
ERRORS = (
    flags.Error, ValueError, OSError, LookupError, AttributeError, SyntaxError
)  # fmt: skip


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
    argv = ["seggpt", f"--config={file}", *changes]
    values = flags.FlagValues()
    holder = define_flag(values, argv)
    try:
        values(argv)
        holder.value.items  # noqa: B018  a file that failed to load raises here
    except ERRORS as error:
        raise ValueError(first_cause(error)) from error
    return holder.value


def check_place(file: str) -> None:
    """Raises ValueError for `FILE[:ARGUMENT]` in a bucket or behind an address."""
    if re.match(r"\w+:/", file):  # the argument may be any text
        paths.check("--config", file)


def first_cause(error: Exception) -> str:
    """The message of the innermost error: ml_collections nests errors."""
    while error.args and isinstance(error.args[0], Exception):
        error = error.args[0]
    text = str(error.args[0] if isinstance(error, KeyError) else error).strip()
    if isinstance(error, KeyError):
        return "unknown setting " + text.replace("\n", ". ")
    # The last line of a traceback, or of the places that were searched for the file.
    return re.sub(r"^(\w+Error: |\[Errno \d+\] )", "", text.splitlines()[-1].strip())
