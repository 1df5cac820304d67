"""Trees of parameters by slash-joined names, and ordered rules over those names."""

import hashlib
import re
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import jax
import numpy as np


def path_name(path) -> str:
    """A jax key path -> `blocks/attn/qkv/kernel`."""
    return jax.tree_util.keystr(path, simple=True, separator="/")


def named_leaves(tree) -> dict[str, Any]:
    """Leaves of a tree by name, in tree order."""
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {path_name(path): leaf for path, leaf in leaves}


def digest(params: Any) -> str:
    """sha256 of parameters, by name, shape and value."""
    total = hashlib.sha256()
    for name, leaf in sorted(named_leaves(params).items()):
        array = np.ascontiguousarray(leaf)
        total.update(f"{name} {array.dtype} {array.shape}".encode())
        total.update(array.view(np.uint8).data if array.size else b"")
    return total.hexdigest()


def map_named(function: Callable[[str, Any], Any], tree):
    """`jax.tree.map` whose function is also given the leaf's name, first."""
    return jax.tree_util.tree_map_with_path(
        lambda path, leaf: function(path_name(path), leaf), tree
    )


def first_match(rules: Sequence[tuple[str, Any]], name: str) -> Any:
    """Value of the first (regex, value) rule that matches the whole end of a name.

    A pattern matches from a slash or from the start, so `norm/scale` fits
    `blocks/norm/scale`. Raises ValueError when no rule matches.
    """
    for pattern, value in rules:
        if re.search(rf"(^|/)(?:{pattern})$", name):
            return value
    raise ValueError(f"no rule for parameter {name}; rules: {[r[0] for r in rules]}")


def lines(problems: Sequence[str], most: int = 20) -> str:
    """What is wrong with the leaves of a tree, one below the other."""
    more = [f"and {len(problems) - most} more"] if len(problems) > most else []
    return "\n  ".join([*problems[:most], *more])


def table(headings: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """Rows as text in aligned columns."""
    lines = [list(map(str, row)) for row in [headings, *rows]]
    widths = [max(len(line[i]) for line in lines) for i in range(len(headings))]
    return "\n".join(
        "  ".join(cell.ljust(w) for cell, w in zip(line, widths, strict=True)).rstrip()
        for line in lines
    )
