"""`python -m seggpt_jax.main --config=configs/vitl.py --workdir=DIR`.

Flags, logging and dispatch; everything else is importable.
"""

import os
import pathlib
import sys

import jax
from absl import app, flags, logging
from ml_collections import config_flags

from seggpt_jax.config import require
from seggpt_jax.data.sample import BadRecord
from seggpt_jax.evaluate import evaluate
from seggpt_jax.train import NonFinite, train

MODES = {"train": train, "evaluate": evaluate}
CACHE = pathlib.Path(os.environ.get("XDG_CACHE_HOME", "~/.cache")) / "seggpt_jax" / "xla"

_CONFIG = config_flags.DEFINE_config_file(
    "config", None, "Configuration file, with an optional :argument.", lock_config=True
)
_WORKDIR = flags.DEFINE_string("workdir", None, "Folder for everything a run writes.")


def run(config, workdir: str):
    """Does what `config.mode` says."""
    require(config.mode in MODES, "mode", config.mode, f"one of {', '.join(MODES)}")
    return MODES[config.mode](config, workdir)


def main(argv):
    if len(argv) > 1:
        raise app.UsageError(f"unexpected arguments: {' '.join(argv[1:])}")
    logging.set_verbosity(max(logging.get_verbosity(), logging.INFO))
    if not jax.config.jax_compilation_cache_dir:
        jax.config.update("jax_compilation_cache_dir", str(CACHE.expanduser()))
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 1.0)
    try:
        run(_CONFIG.value, _WORKDIR.value)
    except (ValueError, BadRecord, OSError, NonFinite) as error:
        # One line for the user; --verbosity=1 shows where it came from.
        logging.debug("traceback", exc_info=True)
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    flags.mark_flags_as_required(["config", "workdir"])
    app.run(main)
