"""Trains or evaluates a model, or tunes a prompt, as a config describes.

    python -m seggpt_jax.main --config=configs/shapes.py:steps=200 --workdir=runs/x
    python -m seggpt_jax.main --config=... --config.optim.clip=1.0 --workdir=...

The same command resumes a run that was stopped. Exit status: 0 when the run is done;
--stopped_status (0 by default) when SIGTERM stopped it and it is saved; 2 after an
error in the input, which one `error:` line names (--verbosity=1 adds the traceback).
"""

# ruff: noqa: E402
from seggpt_jax.runs import huge_pages

if __name__ == "__main__":  # before JAX is imported, which takes seconds
    huge_pages.take()

import logging as py_logging
import sys
import traceback
from typing import NoReturn

import jax
from absl import app, flags, logging

from seggpt_jax.config import suggest
from seggpt_jax.evaluate import evaluate
from seggpt_jax.runs import hosts, log, paths
from seggpt_jax.runs.runtime import cache_compiled, cut_cpu
from seggpt_jax.train import NonFinite, train
from seggpt_jax.training import config_file
from seggpt_jax.training.settings import read_settings
from seggpt_jax.tune import tune

MODES = {"train": train, "evaluate": evaluate, "tune": tune}

_CONFIG = config_file.define_flag()
_WORKDIR = flags.DEFINE_string("workdir", None, "Folder for everything a run writes.")
_DISTRIBUTED = flags.DEFINE_enum(
    "distributed", "auto", ["auto", "on", "off"],
    "Whether this process is one of several: `auto` asks the environment that Slurm, "
    "Open MPI and GKE set; `on` for Cloud TPU pods.",
)  # fmt: skip
_COORDINATOR = flags.DEFINE_string(
    "coordinator", None, "HOST:PORT of the first of several processes."
)
_NUM_PROCESSES = flags.DEFINE_integer(
    "num_processes", None, "How many processes there are, where no launcher says."
)
_PROCESS_ID = flags.DEFINE_integer(
    "process_id", None, "Which of them this one is, from 0 on."
)
_HEARTBEAT = flags.DEFINE_integer(
    "heartbeat_s", 100, "Seconds after which a silent process ends the whole run.", 10
)
_STOPPED = flags.DEFINE_integer(
    "stopped_status", 0,
    "Exit status of a run that SIGTERM stopped and that is saved. Give another than 0 "
    "if the launcher takes 0 for done, so that it starts the run again.",
    0, 255,
)  # fmt: skip


def run(config, workdir: str | None) -> dict[str, float] | None:
    """Runs the mode of `config.mode`; returns the scores, or None after a SIGTERM."""
    if not workdir:
        raise ValueError("--workdir is missing: the folder for everything a run writes")
    paths.check("--workdir", workdir, paths.BUCKET)
    settings = read_settings(config)
    if settings.mode not in MODES:
        raise ValueError(
            f"mode {settings.mode!r} is unknown{suggest(settings.mode, MODES)}"
        )
    return MODES[settings.mode](settings, workdir)


def main(argv: list[str]) -> int:
    """Runs a config and returns the exit status. Errors in the input become one line;
    bugs keep their traceback."""
    show = logging.get_verbosity() >= logging.DEBUG
    log.show(max(logging.get_verbosity(), logging.INFO))
    # At this level jax names every kind of device that a machine lacks.
    py_logging.getLogger("jax._src.xla_bridge").setLevel(py_logging.WARNING)
    try:
        cache_compiled()
        if len(argv) > 1:
            raise ValueError(
                f"unexpected argument {argv[1]!r}: settings are --NAME=VALUE"
            )
        settings = read_settings(_CONFIG.value)
        cut_cpu(settings.cpu_devices)
        hosts.join(
            _DISTRIBUTED.value, _COORDINATOR.value, _NUM_PROCESSES.value,
            _PROCESS_ID.value, _HEARTBEAT.value,
        )  # fmt: skip
        scores = run(settings, _WORKDIR.value)
        hosts.leave(0)
        return _STOPPED.value if scores is None else 0
    except (ValueError, OSError, NonFinite) as error:
        _fail(str(error), show)
    except Exception:
        if jax.distributed.is_initialized():
            traceback.print_exc()
            hosts.leave(1)
        raise


def parse_flags(argv: list[str]) -> list[str]:
    """Reads the command line, and the config file with it."""
    try:
        return config_file.load(flags.FLAGS, _CONFIG, config_file.find(argv))
    except ValueError as error:
        _fail(str(error), "--verbosity=1" in argv)


def _fail(message: str, show_traceback: bool) -> NoReturn:
    if show_traceback:
        traceback.print_exc()
    print(f"error: {message}", file=sys.stderr)
    hosts.leave(2)
    sys.exit(2)


if __name__ == "__main__":
    flags.mark_flag_as_required("config")
    app.run(main, flags_parser=parse_flags)
