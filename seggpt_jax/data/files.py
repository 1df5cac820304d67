"""Which files of a folder are meant, and their bytes."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path, PurePath

from seggpt_jax.data.sample import BadRecord

# Left by macOS in archives, and by Windows in folders of pictures.
_LEFT = ("__macosx", "thumbs.db", "desktop.ini")
_POINTER = b"version https://git-lfs.github.com/spec/"


def hidden(path: PurePath) -> bool:
    """Whether no user means this path, which is relative to the folder that is listed:
    a part of it begins with a dot, such as `._a.png` that macOS writes beside `a.png`
    on foreign disks, or is left by a system, such as `__MACOSX` and `Thumbs.db`."""
    return any(part.startswith(".") or part.lower() in _LEFT for part in path.parts)


def walk(folder: Path) -> Iterator[tuple[Path, list[str]]]:
    """The folder and all folders below it, without `hidden` ones, each with the names
    of its files. Links to folders are followed, but for those that lead in a circle;
    one that leads to itself is a file. A folder below that cannot be listed has nothing
    in it."""
    yield from _walk(folder, ())


def _walk(folder: Path, above: tuple[str, ...]) -> Iterator[tuple[Path, list[str]]]:
    real = os.path.realpath(folder)
    if any(one == real or one.startswith(os.path.join(real, "")) for one in above):
        return
    inside, files = list[str](), list[str]()
    lost = (OSError,) if above else (FileNotFoundError, NotADirectoryError)
    with contextlib.suppress(*lost), os.scandir(folder) as entries:
        for entry in entries:
            if not hidden(PurePath(entry.name)):
                (inside if _is_folder(entry) else files).append(entry.name)
    yield folder, sorted(files)
    for name in sorted(inside):
        yield from _walk(folder / name, (*above, real))


def _is_folder(entry: os.DirEntry) -> bool:
    """What cannot be asked is a file, and an error where it is read."""
    try:
        return entry.is_dir()
    except OSError:
        return False


def read_file(path: Path) -> bytes:
    """The bytes of a file. Raises `BadRecord` for what Git LFS puts in its place, and
    for an empty file, which a copy that was stopped leaves."""
    data = path.read_bytes()
    if not data:
        raise BadRecord("is an empty file; copy it again")
    if data.startswith(_POINTER):
        raise BadRecord("is a pointer of Git LFS, not the file; run `git lfs pull`")
    return data
