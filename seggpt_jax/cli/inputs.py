"""Input files of `seggpt segment`."""

import glob
from collections.abc import Iterable, Sequence
from pathlib import Path

_GLOB = "*?["


def find_inputs(
    inputs: Sequence[str], suffixes: Iterable[str], out: Path
) -> dict[str, Path]:
    """Files, globs and folders (searched through) -> output name -> input file.

    An output name is the file's path within its folder, or its name, without the
    suffix. Files below `out` are results of an earlier run and are left out, unless
    named one by one. Raises ValueError when nothing is found, or two files would have
    one name.
    """
    suffixes, made = set(suffixes), out.resolve()
    found: dict[str, Path] = {}
    for given in inputs:
        for path, name in _expand(given, suffixes):
            if str(path) != given and path.resolve().is_relative_to(made):
                continue
            stem = str(Path(name).with_suffix(""))
            if stem in found and found[stem] != path:
                raise ValueError(
                    f"{found[stem]} and {path} would both be written as {stem}: use "
                    "two runs and two --out"
                )
            found[stem] = path
    if not found:
        raise ValueError(f"nothing to segment in {', '.join(inputs)}")
    return found


def check_apart(written: Iterable[Path], used: Iterable[str | Path]) -> None:
    """Raises ValueError if a file that is to be written is one that is read."""
    read = {Path(path).resolve() for path in used}
    for path in written:
        if path.resolve() in read:
            raise ValueError(f"{path} would be overwritten: choose another --out")


def _expand(given: str, suffixes: set[str]) -> list[tuple[Path, str]]:
    path = Path(given)
    if path.is_dir():
        inside = sorted(
            p for p in path.rglob("*") if p.suffix.lower() in suffixes and p.is_file()
        )
        if not inside:
            kinds = ", ".join(sorted(suffixes))
            raise ValueError(f"{given} has no file to segment ({kinds})")
        return [(p, str(p.relative_to(path))) for p in inside]
    if path.exists() or not any(c in given for c in _GLOB):
        return [(path, path.name)]
    files = [Path(p) for p in sorted(glob.glob(given, recursive=True))]
    files = [path for path in files if path.is_file()]
    if not files:
        raise ValueError(f"{given} matches no file")
    return [(p, p.name) for p in files]
