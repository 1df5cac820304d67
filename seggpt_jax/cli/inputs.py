"""Input files of `seggpt segment`."""

import contextlib
import glob
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from seggpt_jax.data.files import hidden
from seggpt_jax.pictures.listing import kinds, look_into
from seggpt_jax.results.folder import INPUTS, written
from seggpt_jax.runs.paths import AnyPath, locate

BITS = "of images with more than 8 bits for a channel (default: %(default)s)"
_GLOB = "*?["
Failed = tuple[Path, str]  # a file, and why it was left out


def find_inputs(
    inputs: Sequence[str], out: AnyPath
) -> tuple[dict[str, Path], list[Path]]:
    """Files, globs and folders (searched through) -> output name -> input file; and the
    files in these folders that are of kinds that cannot be read.

    An output name is the file's path within its folder, or its name, without the
    suffix. Files below `out`, and files that an earlier run wrote elsewhere below the
    folders, are results and are left out, unless named one by one. Raises ValueError
    when nothing is found, or two files would have one name.
    """
    made = out.resolve()
    found: dict[str, Path] = {}
    others: list[Path] = []
    for given in inputs:
        for path, name in _expand(given, others):
            if str(path) != given and path.resolve().is_relative_to(made):
                continue
            stem = str(Path(name).with_suffix(""))
            if stem in found and found[stem] != path:
                raise ValueError(
                    f"{found[stem]} and {path} would both be written as {stem}: use "
                    "two runs and two --out"
                )
            found[stem] = path
    others = [path for path in others if not path.resolve().is_relative_to(made)]
    if not found:
        raise ValueError(f"nothing to segment in {', '.join(inputs)}")
    return found, others


def check_apart(written: Iterable[AnyPath], used: Iterable[str | Path]) -> None:
    """Raises ValueError if a file that is read, or a folder above it, is to be
    written."""
    made = {path.resolve() for path in written}
    for name in used:
        path = locate(name).resolve()
        if not made.isdisjoint([path, *path.parents]):
            raise ValueError(f"{name} would be overwritten: choose another --out")


def _expand(given: str, others: list[Path]) -> Iterator[tuple[Path, str]]:
    """The files that an input stands for, each with its name. Adds to `others`."""
    path = Path(given)
    if path.is_dir():
        inside = look_into(path, deep=True)
        made = _results_in(path)
        others += [file for file in inside.others if file not in made]
        pictures = [file for file in inside.pictures if file not in made]
        if not pictures:
            there = kinds(inside.others) or "nothing"
            if inside.pictures:
                there = f"{len(inside.pictures)} results of earlier runs"
            raise ValueError(f"{given} has no picture to segment; it has {there}")
        yield from ((p, str(p.relative_to(path))) for p in pictures)
    elif path.exists() or not any(c in given for c in _GLOB):
        yield path, path.name
    else:
        matches = [Path(p) for p in sorted(glob.glob(given, recursive=True))]
        files = [p for p in matches if p.is_file() and not _is_litter(p)]
        if not files:
            raise ValueError(f"{given} matches no file")
        yield from ((p, p.name) for p in files)


def _results_in(folder: Path) -> set[Path]:
    """Files below a folder that earlier runs of `segment` wrote. A folder whose notes
    cannot be read is taken as it is."""
    made: set[Path] = set()
    for notes in folder.rglob(INPUTS):
        with contextlib.suppress(ValueError, OSError):
            made |= written(notes.parent)
    return made


def _is_litter(path: Path) -> bool:
    """Whether a pattern that matches the file does not mean it. Its folders may begin
    with a dot, as `..` does."""
    return hidden(Path(path.name)) or "__MACOSX" in path.parts
