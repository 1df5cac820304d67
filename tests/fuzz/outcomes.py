"""What may come of one generated input."""

import contextlib
import re
import reprlib
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

RIGHT, REFUSED = "right", "refused"
GOOD = (RIGHT, REFUSED)
# Words of Python, NumPy and jax, which tell a user neither cause nor remedy.
_RAW = re.compile(
    r"object at 0x|Traceback|NoneType|no attribute|unsupported operand|subscriptable"
    r"|not iterable|positional argument|unexpected keyword|list index|index out of"
    r"|not supported between|values to unpack|cannot unpack|invalid literal"
    r"|division|could not convert|recursion|unhashable|broadcast|argument must be"
    r"|must be real|expected str|ufunc|np\.\w*\d|array\(|<class|as a ConfigDict"
    r"|object is not",
)
_LONGEST = 1500


class Outcome(NamedTuple):
    """Of one input. kind: a module of this folder. name: `right`, `refused`, or a
    fault: `wrong`, `traceback`, `crash` or `hang`. text: its message."""

    kind: str
    seed: int
    number: int
    name: str
    text: str = ""


class Refused(Exception):
    """An input was refused in words that a user understands."""


class Wrong(Exception):
    """A reading that differs from the second one, or a message that helps nobody."""


@contextlib.contextmanager
def refusing(
    *names: str,
    errors: tuple[type[Exception], ...] = (ValueError, OSError),
    quoted: str = "",
) -> Iterator[None]:
    """Turns the errors that users may see into `Refused`, if the message has one of the
    names. quoted: after this text the message is another library's, and not judged."""
    try:
        yield
    except errors as error:
        check_message(str(error), names, quoted)
        raise Refused(str(error)) from error


def check_message(text: str, names: Collection[str], quoted: str = "") -> None:
    """Raises `Wrong` for a message that a user cannot act on."""
    if names and not any(name in text for name in names):
        raise Wrong(f"the message names none of {names}: {text}")
    own = text.split(quoted)[0] if quoted else text
    if raw := _RAW.search(own):
        raise Wrong(f"the message says {raw[0]!r}: {text}")
    if not text.strip() or len(text) > _LONGEST:
        raise Wrong(f"the message has {len(text)} characters: {text[:_LONGEST]}")


def check_equal(found: np.ndarray, wanted: np.ndarray, what: str, near: int = 0):
    """Raises `Wrong` where two readings differ by more than `near`."""
    if found.shape != wanted.shape:
        raise Wrong(f"{what}: {found.shape} was read, and {wanted.shape} is right")
    apart = np.abs(found.astype(np.int64) - wanted.astype(np.int64))
    if apart.size and apart.max() > near:
        place = np.unravel_index(apart.argmax(), apart.shape)
        raise Wrong(
            f"{what}: {found[place]} was read at {[int(i) for i in place]}, and "
            f"{wanted[place]} is right; {(apart > near).mean():.1%} differ"
        )


def damaged(rng: np.random.Generator, content: bytes) -> tuple[str, bytes]:
    """What is done to a file, and its bytes after that."""
    size = len(content)
    if not size:
        return "empty", b""
    way = rng.choice(["cut", "flip", "flips", "zeros", "empty", "more", "doubled",
                      "inserted", "head"])  # fmt: skip
    data = bytearray(content)
    if way == "cut":
        data = data[: rng.integers(0, size)]
    elif way in ("flip", "flips"):
        for place in rng.integers(0, size, 1 if way == "flip" else 1 + size // 50):
            data[place] ^= 1 << int(rng.integers(8))
    elif way == "zeros":
        start = rng.integers(0, size)
        stop = min(size, start + rng.integers(1, 64))
        data[start:stop] = bytes(stop - start)
    elif way == "empty":
        data = bytearray()
    elif way == "more":
        data += rng.bytes(int(rng.integers(1, 99)))
    elif way == "doubled":
        data += bytes(data)
    elif way == "inserted":
        place = rng.integers(0, size)
        data[place:place] = rng.bytes(int(rng.integers(1, 9)))
    else:  # the first bytes, where sizes and types stand
        for place in rng.integers(0, min(size, 64), 3):
            data[place] = rng.integers(256)
    return str(way), bytes(data)


def short(value: object) -> str:
    return reprlib.repr(value)


def new_file(folder: Path, name: str, content: bytes) -> Path:
    path = folder / name
    path.write_bytes(content)
    return path
