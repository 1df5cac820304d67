"""Input files of `seggpt segment`."""

import glob
import mimetypes
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from seggpt_jax.config import shorten
from seggpt_jax.data.files import hidden
from seggpt_jax.pictures.listing import kinds, look_into
from seggpt_jax.results.earlier import results_in
from seggpt_jax.runs.paths import AnyPath, locate

BITS = "of images with more than 8 bits for a channel (default: %(default)s)"
_GLOB = "*?["
Failed = tuple[Path, str]  # a file, and why it was left out


class Found(NamedTuple):
    """inputs: output name -> file. others: files of the folders, of kinds that cannot
    be read. results, masks: pictures left out, of earlier runs and of the prompts."""

    inputs: dict[str, Path]
    others: list[Path]
    results: list[Path]
    masks: list[Path]

    def left_out(self) -> list[str]:
        """What is left out, a line for each reason."""
        lines = []
        if self.others:
            lines.append(
                f"left out, of kinds that cannot be read: {kinds(self.others)}"
            )
        for files, what in ((self.results, "results of earlier runs"),
                            (self.masks, "masks of the prompts")):  # fmt: skip
            if files:
                lines.append(f"left out, {what}: {shorten(files, 3)}")
        return lines


def find_inputs(
    inputs: Sequence[str], out: AnyPath, masks: Iterable[str] = ()
) -> Found:
    """What files, globs and folders (searched through) stand for.

    An output name is the file's path within its folder, or its name, without the
    suffix. Files below `out`, files that an earlier run wrote elsewhere below the
    folders, and `masks` are left out, unless named one by one. Raises ValueError when
    nothing is found, or two files would have one name; FileNotFoundError.
    """
    made, own = out.resolve(), {Path(mask).resolve() for mask in masks}
    found = Found({}, [], [], [])
    for given in inputs:
        for path, name in _expand(given, found):
            place = path.resolve()
            if str(path) != given and place.is_relative_to(made):
                found.results.append(path)
                continue
            if str(path) != given and place in own:
                found.masks.append(path)
                continue
            stem = str(Path(name).with_suffix(""))
            if stem in found.inputs and found.inputs[stem] != path:
                raise ValueError(
                    f"{found.inputs[stem]} and {path} would both be written as {stem}: "
                    "use two runs and two --out"
                )
            found.inputs[stem] = path
    others = [path for path in found.others if not path.resolve().is_relative_to(made)]
    found = found._replace(others=others)
    if not found.inputs:
        why = "".join(f"; {line}" for line in found.left_out())
        raise ValueError(f"nothing to segment in {', '.join(inputs)}{why}")
    return found


def check_apart(written: Iterable[AnyPath], used: Iterable[str | Path]) -> None:
    """Raises ValueError if a file that is read, or a folder above it, is to be
    written."""
    made = {path.resolve() for path in written}
    for name in used:
        path = locate(name).resolve()
        if not made.isdisjoint([path, *path.parents]):
            raise ValueError(f"{name} would be overwritten: choose another --out")


def _expand(given: str, found: Found) -> Iterator[tuple[Path, str]]:
    """The files that an input stands for, each with its name. Adds to what is left
    out."""
    path = Path(given)
    if path.is_dir():
        inside, made = look_into(path, deep=True), results_in(path)
        found.others.extend(file for file in inside.others if file not in made)
        found.results.extend(file for file in inside.pictures if file in made)
        if not inside.pictures:
            there = kinds(inside.others) or "nothing"
            raise ValueError(f"{given} has no picture to segment; it has {there}")
        yield from ((p, str(p.relative_to(path))) for p in inside.pictures
                    if p not in made)  # fmt: skip
    elif path.exists():
        if (mimetypes.guess_type(path.name)[0] or "").startswith("video/"):
            raise ValueError(
                f"{given} is a video, not a picture: `seggpt video` takes it"
            )
        yield path, path.name
    elif not any(c in given for c in _GLOB):
        raise FileNotFoundError(f"{given} does not exist")
    else:
        matches = [Path(p) for p in sorted(glob.glob(given, recursive=True))]
        files = [p for p in matches if p.is_file() and not _is_litter(p)]
        if not files:
            raise ValueError(f"{given} matches no file")
        made = {p for folder in {p.parent for p in files} for p in results_in(folder)}
        found.results.extend(p for p in files if p in made)
        yield from ((p, p.name) for p in files if p not in made)


def _is_litter(path: Path) -> bool:
    """Whether a pattern that matches the file does not mean it. Its folders may begin
    with a dot, as `..` does."""
    return hidden(Path(path.name)) or "__MACOSX" in path.parts
