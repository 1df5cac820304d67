"""Files and folders in a bucket of Google Cloud Storage, `gs://BUCKET/NAME`.

A bucket has objects and no folders: a folder is where the names of objects begin alike.
An object appears whole, cannot be appended to, and cannot be renamed. `runs.staging`
makes files, folders and growing files of that.
"""

import contextlib
import fnmatch
import io
import logging
import os
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

from etils import epath
from etils.epath.backend import fsspec_backend
from etils.epath.gpath import PosixGPath

SCHEME = "gs://"
PACKAGE = "gcsfs"  # through which etils reaches buckets
_AT_ONCE = 16  # requests
T = TypeVar("T")
R = TypeVar("R")


class BucketPath(PosixGPath):
    """A path in a bucket, as etils has it. Every error is an OSError of one line that
    names the path; what is not there is a FileNotFoundError."""

    def exists(self) -> bool:
        return bool(self._type())

    def is_dir(self) -> bool:
        return self._type() == "directory"

    def is_file(self) -> bool:
        return self._type() == "file"

    def _type(self) -> str:
        try:
            with _named(self):
                return _store().info(str(self))["type"]
        except FileNotFoundError:
            return ""

    def resolve(self, strict: bool = False) -> "BucketPath":
        return self

    def iterdir(self) -> Iterator["BucketPath"]:
        with _named(self):
            found = _store().ls(str(self), detail=False)
        # A folder that was made by hand has an object of its own name.
        names = {name.rstrip("/") for name in found} - {str(self).removeprefix(SCHEME)}
        yield from (self / name.rpartition("/")[2] for name in sorted(names))

    def glob(self, pattern: str) -> Iterator["BucketPath"]:
        """Those of this folder alone whose names match."""
        with contextlib.suppress(FileNotFoundError):
            for path in self.iterdir():
                if fnmatch.fnmatchcase(path.name, pattern):
                    yield path

    def files(self) -> list[str]:
        """The names of all files below, relative to this folder, by one request."""
        with _named(self):
            found = _store().find(str(self))
        start = len(str(self).removeprefix(SCHEME)) + 1
        names = (name[start:] for name in found if not name.endswith("/"))
        return sorted(filter(None, names))

    def size(self) -> int:
        """The bytes of a file."""
        with _named(self):
            return int(_store().info(str(self))["size"])

    def open(  # type: ignore[override]
        self, mode: str = "r", encoding: str | None = None, newline: str | None = None
    ) -> Any:
        """Opens a file to read. Writing is `staging.new_file`, or `write_bytes`."""
        if mode not in ("r", "rb"):
            raise ValueError(f"{self}: mode {mode!r} is not for files of a bucket")
        with _named(self):
            raw = io.BufferedReader(_Reader(self), 1 << 20)
        if mode == "rb":
            return raw
        return io.TextIOWrapper(raw, encoding=encoding or "utf-8", newline=newline)

    def read_bytes(self) -> bytes:
        with _named(self):
            return _store().cat_file(str(self))

    def read_text(self, encoding: str | None = None) -> str:
        text = self.read_bytes().decode(encoding or "utf-8")
        return text.replace("\r\n", "\n").replace("\r", "\n")

    def write_bytes(self, data: bytes) -> int:
        with _named(self, writes=True):
            _store().pipe_file(str(self), data)
        return len(data)

    def write_text(
        self, data: str, encoding: str | None = None, errors: str | None = None
    ) -> int:
        return self.write_bytes(data.encode(encoding or "utf-8"))

    def upload(self, file: Path) -> None:
        """Makes this object out of a file of this machine, in place of an older one."""
        with _named(self, writes=True):
            _store().put_file(str(file), str(self))

    def download(self, file: Path) -> None:
        """Writes this object into a file of this machine."""
        with _named(self):
            _store().get_file(str(self), str(file))

    def mkdir(
        self, mode: int | None = None, parents: bool = False, exist_ok: bool = False
    ) -> None:
        """Does nothing."""

    def unlink(self, missing_ok: bool = False) -> None:
        try:
            with _named(self):
                _store().rm_file(str(self))
        except FileNotFoundError:
            if not missing_ok:
                raise

    def rmtree(self, missing_ok: bool = False) -> None:
        names = self.files()
        if not names and not missing_ok:
            raise FileNotFoundError(f"{self}: there is nothing of this name")
        each(lambda name: (self / name).unlink(missing_ok=True), names)


class _Reader(io.RawIOBase):
    """The bytes of an object, with errors that name it."""

    def __init__(self, path: BucketPath):
        self._path = path
        self._file = _store().open(str(path), "rb")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        with _named(self._path):
            data = self._file.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)

    def close(self) -> None:
        self._file.close()
        super().close()


def each(do: Callable[[T], R], items: Iterable[T]) -> list[R]:
    """What `do` returns for each item, several at once; the first error is raised."""
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        return list(pool.map(do, items))


def outside(path: Path | BucketPath) -> epath.Path:
    """The path for a library that reads and writes by etils itself."""
    if isinstance(path, BucketPath):
        _store()
    return epath.Path(os.fspath(path))


def _store() -> Any:
    """The file system that etils takes, and orbax with it: one for each process."""
    logging.getLogger(PACKAGE).setLevel(logging.CRITICAL)  # all its errors are raised
    store = fsspec_backend.fs(SCHEME)
    # Tensorstore and other hosts write too: a list that is kept would be wrong.
    store.dircache.use_listings_cache = False
    return store


@contextlib.contextmanager
def _named(path: BucketPath, writes: bool = False) -> Iterator[None]:
    """Turns the errors of all layers below into one OSError that names the path."""
    try:
        yield
    except FileNotFoundError as error:
        bucket = path.parts[2]
        why = f"there is no bucket {bucket!r}" if writes else "there is no such file"
        raise FileNotFoundError(f"{path}: {why}") from error
    except Exception as error:
        raise OSError(f"{path}: {_reason(error)}") from error


def _reason(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    text = lines[-1] if lines else type(error).__name__
    code = getattr(error, "code", None)
    if code == 401 or "Anonymous caller" in text:
        return (
            f"{text} (this process has no credentials: gcloud auth application-default "
            "login, or GOOGLE_APPLICATION_CREDENTIALS)"
        )
    if str(error).startswith("Forbidden"):
        return f"permission denied ({text})"
    return text
