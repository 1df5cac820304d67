"""Files and folders that appear only when they are complete, and files that grow.

On a disk they are written beside their place, and renamed. An object of a bucket has no
rename, and appears whole: so files are written on this machine, and then uploaded.
"""

import contextlib
import logging
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from seggpt_jax.runs import buckets, paths
from seggpt_jax.runs.buckets import BucketPath
from seggpt_jax.runs.paths import AnyPath

UNFINISHED = ".part"  # the object of a bucket's folder that is not complete yet
_LEAST_S, _SHARE = 1.0, 0.05  # of a growing file: time between uploads, share of time

logger = logging.getLogger(__name__)


@contextlib.contextmanager
def new_file(path: AnyPath, own: str = "") -> Iterator[Path]:
    """A temporary file, to write; it becomes `path` if no error was raised, so that a
    reader or a kill never meets half a file. own: a part of its name, where several
    processes may write the same `path` at once."""
    paths.check("the file", path, paths.BUCKET)
    if isinstance(path, BucketPath):
        with tempfile.TemporaryDirectory() as temp:
            yield Path(temp) / path.name
            path.upload(Path(temp) / path.name)
        return
    temporary = path.with_name(f".{path.name}{own}.part")
    try:
        yield temporary
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def new_folder(path: AnyPath, last: str = "") -> Iterator[Path]:
    """A temporary folder, to write into; it becomes `path`, in place of an older one,
    if no error was raised. last: the file that a bucket gets after all others."""
    paths.check("the folder", path, paths.BUCKET)
    if isinstance(path, BucketPath):
        with tempfile.TemporaryDirectory() as temp:
            new = Path(temp) / path.name
            new.mkdir()
            yield new
            _upload_folder(new, path, last)
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=f".{path.name}.") as temp:
        new = Path(temp) / "new"
        new.mkdir()
        yield new
        if path.exists():
            path.rename(Path(temp) / "old")
        new.rename(path)


def _upload_folder(new: Path, path: BucketPath, last: str) -> None:
    (path / UNFINISHED).write_bytes(b"")
    names = files(new)
    first = [name for name in names if name != last]
    buckets.each(lambda name: (path / name).upload(new / name), first)
    for name in set(path.files()) - {*names, UNFINISHED}:  # of an older folder
        (path / name).unlink(missing_ok=True)
    if last in names:
        (path / last).upload(new / last)
    (path / UNFINISHED).unlink()


def files(folder: AnyPath) -> list[str]:
    """Names of all files below a folder, relative to it."""
    if isinstance(folder, BucketPath):
        return folder.files()
    found: list[str] = []
    for path in folder.iterdir():
        if path.is_dir():
            found += [f"{path.name}/{name}" for name in files(path)]
        else:
            found.append(path.name)
    return sorted(found)


def complete(path: AnyPath) -> bool:
    """Whether a file or a folder is there, and whole."""
    return path.exists() and not _is_unfinished(path)


def _is_unfinished(path: AnyPath) -> bool:
    return isinstance(path, BucketPath) and (path / UNFINISHED).exists()


def remove(folder: AnyPath) -> None:
    """Removes a folder, if it is there."""
    if isinstance(folder, BucketPath):
        folder.rmtree(missing_ok=True)
    else:
        shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def fetched(path: AnyPath) -> Iterator[Path]:
    """A file or folder of a bucket on this machine, while it is needed; a path of this
    machine is itself. Raises OSError, also for a folder that is not complete."""
    if isinstance(path, Path):
        yield path
        return
    with tempfile.TemporaryDirectory() as temp:
        here = Path(temp) / path.name
        if path.is_file():
            path.download(here)
        else:
            if _is_unfinished(path):
                raise OSError(f"{path} is not complete: it has {UNFINISHED}, which "
                              "goes when all is written. Write it again")  # fmt: skip
            here.mkdir()
            fetch(path, path.files(), here)
        yield here


def fetch(
    folder: BucketPath,
    names: list[str],
    here: Path,
    check: Callable[[str, Path], None] = lambda name, file: None,
) -> None:
    """Downloads files of a bucket's folder; each appears when it is whole, and when
    `check` of its name and the new file has raised nothing."""

    def one(name: str) -> None:
        (here / name).parent.mkdir(parents=True, exist_ok=True)
        with new_file(here / name) as new:
            (folder / name).download(new)
            check(name, new)

    buckets.each(one, names)


class Growing:
    """A folder whose files grow.

    Objects cannot be appended to. So in a bucket the files grow in a folder of this
    machine, `here`, and their objects are written anew: by `renew`, at most once a
    second, and so that it takes a twentieth of the time at most, and by `store`. On a
    disk `here` is the folder itself, and both do nothing.

    names: files to go on with, where they are there.
    """

    def __init__(self, folder: AnyPath, names: tuple[str, ...] = ()):
        self._folder = folder if isinstance(folder, BucketPath) else None
        self._stored: dict[str, tuple[int, int]] = {}  # name -> state
        self._due = 0.0
        if self._folder is None:
            assert isinstance(folder, Path)
            self.here = folder
            return
        self._temporary = tempfile.TemporaryDirectory()
        self.here = Path(self._temporary.name)
        fetch(self._folder, [n for n in names if (folder / n).is_file()], self.here)
        self._stored = {name: _state(self.here / name) for name in files(self.here)}

    @property
    def due(self) -> bool:
        """Whether `renew` would upload something now."""
        return self._folder is not None and time.monotonic() >= self._due

    def renew(self) -> None:
        """Uploads what has grown, if it is due. A failure is logged: `store` raises."""
        if not self.due:
            return
        try:
            self.store()
        except OSError as error:
            logger.warning("not stored yet: %s", error)

    def store(self) -> None:
        """Uploads what has grown. Raises OSError."""
        if self._folder is None:
            return
        began = time.monotonic()
        try:
            for name in files(self.here):
                state = _state(self.here / name)
                if self._stored.get(name) != state:
                    (self._folder / name).upload(self.here / name)
                    self._stored[name] = state
        finally:
            ended = time.monotonic()
            self._due = ended + max(_LEAST_S, (ended - began) / _SHARE)

    def close(self) -> None:
        """Stores all; `here` is gone then."""
        if self._folder is not None:
            try:
                self.store()
            finally:
                self._temporary.cleanup()


def _state(path: Path) -> tuple[int, int]:
    found = path.stat()
    return found.st_size, found.st_mtime_ns
