"""Pickles of plain data. What else they name is refused, and never run."""

import pickle
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

_NUMPY = "numpy.core.multiarray"
# Containers, and the parts of a pickle of NumPy's numbers and arrays.
_PLAIN = {
    ("builtins", "dict"), ("builtins", "list"), ("builtins", "set"),
    ("collections", "OrderedDict"), ("collections", "defaultdict"),
    (_NUMPY, "scalar"), (_NUMPY, "_reconstruct"),
    ("numpy", "dtype"), ("numpy", "ndarray"),
}  # fmt: skip


def read_pickle(path: Path, what: str, shape: Callable[[Any], Any]) -> Any:
    """The data of a pickle in another shape. what: it is, for errors.

    Raises:
      ValueError: where it holds more than plain data, or `shape` fails.
    """
    try:
        with path.open("rb") as file:
            return shape(load_plain(file))
    except Exception as error:  # the bytes of a pickle may raise any error
        why = str(error) if isinstance(error, Foreign) else "it is damaged"
        raise ValueError(f"{path}: not {what} ({why})") from error


def load_plain(file: IO[bytes]) -> Any:
    """Raises `Foreign` for more than plain data, and any error for damage."""
    return _Plain(file).load()


class Foreign(pickle.UnpicklingError):
    """More than plain data."""


class _Plain(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        # The names of NumPy 2, and of Python 2 in old pickles.
        plain = module.replace("numpy._core", "numpy.core")
        if (plain.replace("__builtin__", "builtins"), name) in _PLAIN:
            return super().find_class(module, name)
        raise Foreign(f"it holds a {module}.{name}, not plain data")
