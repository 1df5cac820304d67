"""The pictures in a folder of a user, and its other files."""

import collections
import itertools
import re
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from PIL import Image

from seggpt_jax.data.decode import HEIC, HEIC_REMEDY
from seggpt_jax.data.files import walk


class Found(NamedTuple):
    """Files of a folder, sorted. others: of kinds that cannot be read."""

    pictures: list[Path]
    others: list[Path]


def look_into(folder: Path, deep: bool = False) -> Found:
    """The files in a folder, and in the folders in it if `deep`. What systems hide or
    leave there (`data.files.hidden`) is left out. A link to nothing, as git-annex has
    for a file that was not fetched, is a file that cannot be opened."""
    known = Image.registered_extensions()
    readable = {suffix for suffix, kind in known.items() if kind in Image.OPEN}
    found = Found([], [])
    places = walk(folder) if deep else itertools.islice(walk(folder), 1)
    for path in sorted(place / name for place, names in places for name in names):
        if path.is_file() or (path.is_symlink() and not path.exists()):
            can = path.suffix.lower() in readable
            (found.pictures if can else found.others).append(path)
    return found


def kinds(files: Iterable[Path]) -> str:
    """How many files there are of each kind, and what would make them readable, if
    anything: `3 .heic (pip install 'seggpt_jax[heic]'), 1 .nef`."""
    names = (path.suffix.lower() or "without ending" for path in files)
    counts = collections.Counter(names).most_common()
    remedies = dict.fromkeys(HEIC, f" ({HEIC_REMEDY})")
    return ", ".join(f"{n} {name}{remedies.get(name, '')}" for name, n in counts)


def in_order(files: Iterable[Path]) -> list[Path]:
    """Files by the numbers in their names: 1, 2, 10. Raises ValueError where two have
    one place, such as a picture and its mask."""
    ordered = sorted(files, key=lambda path: (_numbered(path.stem), path.name))
    for one, other in itertools.pairwise(ordered):
        if _numbered(one.stem) == _numbered(other.stem):
            raise ValueError(
                f"{one} and {other} would both be {one.stem}: give a pattern, such as "
                f"'{one.parent}/*{one.suffix}'"
            )
    return ordered


def _numbered(name: str) -> list[str | int]:
    parts = re.split("([0-9]+)", name)  # a number at every second place
    return [int(p) if k % 2 else p for k, p in enumerate(parts)]
