"""What commands say beside their results: on the terminal alone, and by no means with
--quiet. Files of logs get results, warnings and errors only."""

import argparse
import functools
import sys
from collections.abc import Iterable
from typing import Any

from tqdm import tqdm


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--quiet", action="store_true", help="no progress, no advice")


def say(quiet: bool, text: str) -> None:
    """A line for whoever waits."""
    if not quiet and sys.stderr.isatty():
        tqdm.write(text, file=sys.stderr)


def bar(quiet: bool, **how: Any) -> functools.partial:
    """A function that wraps an iterable in a bar. how: settings of tqdm."""
    off = quiet or not sys.stderr.isatty()
    return functools.partial(tqdm, disable=off, dynamic_ncols=True, **how)


def listed(items: Iterable[str]) -> str:
    """Commands to go on with, a line each."""
    return "next: " + "\n      ".join(items)
