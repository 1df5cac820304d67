"""What `seggpt models` prints: the models there are, and what they are good for."""

import argparse
from pathlib import Path

from seggpt_jax.trees import table
from seggpt_jax.weights import hub
from seggpt_jax.weights.names import KNOWN, Known, bundled

_HEADINGS = ("model", "size", "licence", "where", "good for")
_UNKNOWN = Known(0, "see its card", "")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command has no options of its own."""


def run(args: argparse.Namespace, failed: object) -> None:
    """Prints bundled models, those in the hub's cache, and known ones to fetch."""
    cached = hub.cached()
    rows = [_row(name, _bytes(path), "bundled") for name, path in bundled().items()]
    rows += [
        _row(one.shortest, one.size, f"cached, {one.commit[:7]}") for one in cached
    ]
    here = {one.repository for one in cached}
    rows += [
        _row(name, known.size, "fetched when first named")
        for name, known in KNOWN.items()
        if name not in bundled() and name not in here
    ]
    print(table(_HEADINGS, rows))
    print("\nUse one as --model NAME. Other models of the Hugging Face hub: OWNER/NAME")


def _row(name: str, size: int, where: str) -> tuple[str, ...]:
    known = KNOWN.get(name.partition("@")[0], _UNKNOWN)
    return name, _megabytes(size), known.licence, where, known.use


def _bytes(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.iterdir())


def _megabytes(size: int) -> str:
    return f"{size / 1e6:,.1f} MB" if size < 1e8 else f"{size / 1e9:.2f} GB"
