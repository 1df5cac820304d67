"""Files and folders that appear only when they are complete."""

import contextlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

from seggpt_jax.runs import paths


@contextlib.contextmanager
def new_file(path: Path, own: str = "") -> Iterator[Path]:
    """A temporary file beside `path`, to write; renamed to `path` if no error was
    raised, so that a reader or a kill never meets half a file. own: a part of its name,
    where several processes may write the same `path` at once."""
    paths.check("the file", path)
    temporary = path.with_name(f".{path.name}{own}.part")
    try:
        yield temporary
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def new_folder(path: Path) -> Iterator[Path]:
    """A temporary folder beside `path`, to write into; renamed to `path`, in place of
    an older one, if no error was raised."""
    paths.check("the folder", path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=f".{path.name}.") as temp:
        new = Path(temp) / "new"
        new.mkdir()
        yield new
        if path.exists():
            path.rename(Path(temp) / "old")
        new.rename(path)
