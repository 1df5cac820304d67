"""A folder of results: the files of every image, and those that join all images.

`inputs.json` in it says which input each name of a result belongs to, and so the
number of each image. A later run adds to the folder, and never takes the file of
another input for its own.
"""

import json
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from seggpt_jax.results import coco, table, yolo
from seggpt_jax.results.categories import Categories
from seggpt_jax.results.forms import FORMS, Shown, as_json
from seggpt_jax.runs import staging
from seggpt_jax.runs.buckets import BucketPath, each
from seggpt_jax.runs.paths import AnyPath

INPUTS = "inputs.json"
JOINED = {"coco-json": coco.FILE, "csv": table.FILE, "yolo": yolo.FILE}


def files(out: AnyPath, forms: Iterable[str], names: Iterable[str]) -> list[AnyPath]:
    """Every file that a run may write for inputs of these names."""
    joined = [out / JOINED[form] for form in forms if form in JOINED]
    each = [place(out, name, form) for name in names for form in forms]
    return [out / INPUTS, *joined, *each]


def place(out: AnyPath, name: str, form: str) -> AnyPath:
    return out / f"{name}{FORMS[form].suffix}"


def _ignores_case(folder: AnyPath) -> bool:
    """Whether `A.png` and `a.png` are one file there, as on macOS and Windows. Told by
    the folder's own name, or that of the first folder above that is there."""
    if isinstance(folder, BucketPath):
        return False
    for path in (folder.absolute(), *folder.absolute().parents):
        if path.exists() and path.name.swapcase() != path.name:
            other = path.with_name(path.name.swapcase())
            return other.exists() and other.samefile(path)
    return False


def written(out: AnyPath) -> set[AnyPath]:
    """The files that earlier runs wrote for their inputs in a folder, if any."""
    inputs = _read_inputs(out / INPUTS)
    return {place(out, n, form) for n, each in inputs.items() for form in each.forms
            if form in FORMS}  # fmt: skip


class _Input(NamedTuple):
    """path: of the file, without links. forms: of the results that it has here. size:
    of the file, in bytes; 0 where an older version did not note it."""

    path: str
    forms: list[str]
    size: int = 0


class Folder:
    """The results of inputs, name -> file, in some forms.

    todo: the names that lack a file, and those whose input has changed: its size tells.
    Nothing is written before `claim`. Raises ValueError where two files of results
    would have one name, or where a file is there already that is no result of the same
    input.
    """

    def __init__(self, out: AnyPath, forms: Sequence[str], found: Mapping[str, Path]):
        self._out, self._forms = out, forms
        self._there = _there(out)
        # A request takes as long as a picture: several go at once.
        self._each: Any = each if isinstance(out, BucketPath) else _in_turn
        older = _read_inputs(out / INPUTS)
        self._inputs = dict(older)
        self._stale = dict[str, list[str]]()  # name -> forms
        for name, file in found.items():
            path, size = os.path.realpath(file), _size(file)
            before = older.get(name, _Input(path, []))
            if before.path != path:
                raise ValueError(
                    f"{out / name} is the name of the results of {before.path}, and "
                    f"would be that of {file}: choose another --out"
                )
            if before.size and before.size != size:
                self._stale[name] = before.forms
                before = before._replace(forms=[])
            self._inputs[name] = _Input(path, sorted({*before.forms, *forms}), size)
        self._check_names(older)
        self._old_coco = coco.read(out / coco.FILE) if "coco-json" in forms else None
        self._old_rows = table.read(out / table.FILE) if "csv" in forms else []
        self.todo = [
            name
            for name in found
            if name in self._stale
            or not all(self._there(place(out, name, form)) for form in forms)
        ]

    def _check_names(self, older: Mapping[str, _Input]) -> None:
        """Raises ValueError for a file of two owners, and for one of others."""
        own = {form for each in older.values() for form in each.forms}
        owners, new = dict[AnyPath | str, str](), list[AnyPath]()
        one_case = _ignores_case(self._out)
        for form, file in JOINED.items():
            if form in own or form in self._forms:
                path = self._out / file
                known = str(path).casefold() if one_case else path
                owners[known] = f"the {form} of all images"
            if form not in own and form in self._forms:
                new.append(self._out / file)
        for name, (source, forms, _) in self._inputs.items():
            for form in forms:
                path, what = place(self._out, name, form), f"the {form} of {source}"
                known = str(path).casefold() if one_case else path
                if known in owners:
                    raise ValueError(
                        f"{path} would hold {owners[known]} and {what}: use two runs "
                        "and two --out"
                    )
                owners[known] = what
                if name not in older or form not in older[name].forms:
                    new.append(path)
        for path in new:
            if self._there(path):
                raise ValueError(
                    f"{path} is there, and no earlier run wrote it: choose another "
                    "--out"
                )

    def claim(self) -> None:
        """Notes in the folder which input each name belongs to. The files that an input
        had before it changed go, so that they never pass for its results. The files of
        all images are written anew by `join`; there its older objects stay if it
        cannot be read now."""
        for name, forms in self._stale.items():
            for form in forms:
                place(self._out, name, form).unlink(missing_ok=True)
        inputs = {name: each._asdict() for name, each in self._inputs.items()}
        _write(self._out / INPUTS, as_json(inputs))

    def write(self, name: str, shown: Shown) -> None:
        """Writes all forms of one image; each file appears when it is whole."""

        def one(form: str) -> None:
            path = place(self._out, name, form)
            path.parent.mkdir(parents=True, exist_ok=True)
            _write(path, FORMS[form].content(shown))

        self._each(one, self._forms)

    def join(self, categories: Categories, as_results: bool) -> None:
        """Writes the files that join the images of this run and of earlier ones.
        as_results: a list of results for a COCO file, instead of a data set."""
        there = _there(self._out)
        if "yolo" in self._forms:
            _write(self._out / yolo.FILE, yolo.class_list(categories).encode())
        if "csv" in self._forms:
            files = [place(self._out, name, "csv") for name in self._inputs]
            new = self._each(table.read, filter(there, files))
            rows = table.join(self._old_rows, new)
            _write(self._out / table.FILE, table.text(rows).encode())
        if "coco-json" in self._forms:
            places = [place(self._out, name, "coco-json") for name in self._inputs]
            numbered = [(k, path) for k, path in enumerate(places, 1) if there(path)]
            parts = self._each(coco.read_piece, [path for _, path in numbered])
            pieces = {k: part for (k, _), part in zip(numbered, parts, strict=True)}
            joined: object
            if as_results:
                joined = coco.join_results(self._old_coco, pieces.values())
            else:
                joined = coco.join_set(self._old_coco, pieces, categories)
            _write(self._out / coco.FILE, as_json(joined))


def _in_turn(do: Callable[[Any], Any], items: Iterable[Any]) -> list[Any]:
    return [do(item) for item in items]


def _there(out: AnyPath) -> Callable[[AnyPath], bool]:
    """Whether a file is in a folder. A bucket is asked once for all its names."""
    if not isinstance(out, BucketPath):
        return lambda path: path.exists()
    names = {str(out / name) for name in out.files()}
    return lambda path: str(path) in names


def _size(file: Path) -> int:
    """0 of a link to nothing, which fails when it is read."""
    return file.stat().st_size if file.exists() else 0


def _read_inputs(path: AnyPath) -> dict[str, _Input]:
    if not path.exists():
        return {}
    try:
        content = json.loads(path.read_bytes())
        return {
            name: _Input(
                str(each["path"]),
                [str(form) for form in each["forms"]],
                int(each.get("size", 0)),
            )
            for name, each in content.items()
        }
    except (ValueError, AttributeError, KeyError, TypeError) as error:
        raise ValueError(
            f"{path} is damaged, or of another program: choose another --out"
        ) from error


def _write(path: AnyPath, content: bytes) -> None:
    with staging.new_file(path) as temporary:
        temporary.write_bytes(content)
