"""How the log looks to a person: lines of text, above the bar of a terminal."""

import logging as py_logging
import sys

from absl import logging
from tqdm import tqdm

_quiet = False  # of this program: nothing is said of progress


class _Format(py_logging.Formatter):
    """The time and the message; what is more than information says so first."""

    def format(self, record: py_logging.LogRecord) -> str:
        text = super().format(record)
        if record.levelno <= py_logging.INFO:
            return f"{self.formatTime(record, '%H:%M:%S')} {text}"
        return f"{record.levelname.lower()}: {text}"


class _AboveBars:
    """The stream `sys.stderr`, whose lines do not mix with a bar that is drawn."""

    def write(self, text: str) -> None:
        with tqdm.external_write_mode(file=sys.stderr):
            sys.stderr.write(text)

    def flush(self) -> None:
        sys.stderr.flush()

    def close(self) -> None:
        """Nothing: absl closes the streams of its handler at the end."""


def progress() -> bool:
    """Whether this program says how far it is."""
    return not _quiet


def bars() -> bool:
    """Whether it does so by bars: on a terminal."""
    return progress() and sys.stderr.isatty()


def show(level: int, quiet: bool = False) -> None:
    """Shows the log from a level of absl on. At absl's DEBUG lines have its long form,
    with the place in the code. quiet: without progress. Call it once, at the start of a
    program."""
    global _quiet
    _quiet = quiet
    logging.set_verbosity(level)
    root = py_logging.root
    handler: py_logging.StreamHandler = logging.get_absl_handler().python_handler
    if logging.get_absl_handler() in root.handlers:  # of absl's `app.run`
        if handler.stream is sys.stderr:  # else --log_dir names a file
            handler.stream = _AboveBars()
    else:
        for other in [*root.handlers]:  # what a library made by logging at its import
            if type(other) is py_logging.StreamHandler and other.stream is sys.stderr:
                root.removeHandler(other)
        if not root.handlers:
            handler = py_logging.StreamHandler(_AboveBars())
            root.addHandler(handler)
    if level < logging.DEBUG:
        handler.setFormatter(_Format())
