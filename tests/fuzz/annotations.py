"""Data sets of every format: right ones, and with files, lists or settings spoiled.

What a set shows is known, and read again from its spoiled lists (`again`). A set is
opened and every record is read: each shows what is right, or is named with its fault.
"""

import contextlib
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from seggpt_jax.data.prepare import prepare
from seggpt_jax.data.sample import IGNORE
from seggpt_jax.data.sources import make_layout, open_sources
from tests.fuzz import again, nasty, objects, owners, sets
from tests.fuzz.outcomes import Refused, Wrong, check_message, damaged, short
from tests.fuzz.prompts import _spoil

_SPARSE = ("stare", "chest_xray", "suim")  # an image without a mask is no record
_EVERY = (*sets.EVERY, *owners.EVERY, *objects.EVERY)
_QUOTED = "cannot be read:"
_POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 9\n"


def start(home: Path) -> tuple[sets.Made, Path]:
    """A prepared set, and the set that it is made of."""
    os.environ["XDG_CACHE_HOME"] = str(home / "cache")
    root = home / "given" / "voc"
    root.mkdir(parents=True)
    made = sets.voc(np.random.default_rng(0), root)
    out = home / "prepared" / "voc"
    prepare(make_layout("voc", {}), root, out, splits=("val",), workers=0)
    return made, out


def attempt(rng: np.random.Generator, folder: Path, started: Any) -> None:
    if rng.random() < 0.05:
        return _prepared(rng, folder, *started)
    root = folder / str(rng.choice(["set", "my set", "été", "[x]", "a{b}"]))
    root.mkdir()
    made = _EVERY[rng.integers(len(_EVERY))](rng, root)
    with contextlib.suppress(again.Unsure):
        made = made._replace(truth=again.read(made, root))
    ways: list[Callable] = [_right, _right, _file, _file, _settings]
    if made.lists:
        ways += [_lists] * 5
    ways[rng.integers(len(ways))](rng, root, made)


def _right(rng, root: Path, made: sets.Made) -> None:
    """As it is, with files that systems leave."""
    for name in ("._x.png", "Thumbs.db", "__MACOSX/y.jpg", ".DS_Store"):
        places = {Path(file).parent for pair in made.files.values() for file in pair}
        for place in places if rng.random() < 0.3 else ():
            path = root / place / name
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(b"\0\5\x16\7")
    said, found, _ = _read(root, made)
    if said or found.keys() != made.truth.keys():
        raise Wrong(f"a right set of {made.type} is refused: {said}")
    _compare(made, found)


def _read(
    root: Path, made: sets.Made
) -> tuple[list[str], dict[str, np.ndarray], list[str]]:
    """What is said about a set, the label map of each record that can be read, and the
    remarks that `seggpt check` lists."""
    spec = {"folder": root.name, **made.settings, "type": made.type}
    spec.setdefault("split", made.split)
    try:
        source = open_sources({"own": spec}, root.parent)["own"]
    except (ValueError, OSError) as error:
        return [str(error)], {}, []
    catalog = source.store.catalog
    items = [*catalog.skipped, *catalog.unreadable, *catalog.flaws]
    said = [f"{item.id} {item.reason}" for item in items]
    found, remarks = {}, []
    for index in range(len(source)):
        try:
            sample, about = source.inspect(source.store[index])
            found[source.record_id(index)] = sample.segments
            remarks += [f"{remark.what}: {remark.detail}" for _, remark in about]
        except ValueError as error:  # a BadRecord is one
            said.append(str(error))
    # Of a frame without a mask all is ignored, and that is said.
    for name in [n for n, x in found.items() if (x == IGNORE).all()]:
        if any(name in text for text in said):
            del found[name]
    return said, found, remarks


def _file(rng, root: Path, made: sets.Made) -> None:
    """One file of a record, or a folder of them, is not what it was."""
    record = list(made.files)[rng.integers(len(made.files))]
    image, mask = made.files[record]
    chosen = mask if mask and rng.random() < 0.7 else image
    path = root / chosen
    ways = ["bytes", "bytes", "bytes", "gone", "pointer", "folder", "renamed", "text"]
    # A mask of FSS-1000 is scaled to its image.
    way = str(rng.choice(ways + ["turned"] * (made.type != "fss1000")))
    content = path.read_bytes()
    if way == "bytes":
        way, content = damaged(rng, content)
        path.write_bytes(content)
    elif way == "pointer":
        path.write_bytes(_POINTER)
    elif way == "text":
        path.write_text("no picture")
    elif way == "turned" and path.suffix == ".png":
        with sets.Image.open(path) as picture:
            turned = picture.transpose(sets.Image.Transpose.ROTATE_90)
            turned.save(path)
    else:
        path.unlink()
        if way == "folder":
            path.mkdir()
        elif way == "renamed":
            path.with_name("other" + path.suffix).write_bytes(content)
    said, found, _ = _read(root, made)
    touched = {n for n, pair in made.files.items() if chosen in pair}
    touched |= {n for n in made.truth if n.split("#")[0] in touched}
    _check_said(said, root, chosen, [*touched, *["other"] * (way == "renamed")])
    lost = made.truth.keys() - found.keys()
    no_mask = chosen == mask and not path.is_file()
    if lost and not said and not (no_mask and made.type in _SPARSE):
        raise Wrong(f"{made.type}: {lost} is lost without a word ({chosen} {way})")
    image_only = chosen == image and image != mask
    if not image_only and way not in ("flip", "flips", "zeros", "inserted", "head"):
        touched = set()  # what is read of it must be right
    with_sums = chosen.endswith(".png")
    _compare(made, found, set() if with_sums or image_only else touched)
    if said:
        raise Refused(f"{made.type}, {chosen} {way}: {said[0]}")


def _lists(rng, root: Path, made: sets.Made) -> None:
    """A list of records, or the JSON of annotations, with other words."""
    path = root / made.lists[rng.integers(len(made.lists))]
    before, way = path.read_bytes(), ""
    if path.suffix == ".json" and rng.random() < 0.85:
        data = sets.load(path)
        for _ in range(rng.integers(1, 3)):
            _spoil(rng, data)
        path.write_text(_json(data))
    elif path.suffix in (".txt", ".tsv") and rng.random() < 0.8:
        text = _line(rng, before.decode())
        path.write_bytes(text.encode(str(rng.choice(["utf-8"] * 8 + ["utf-16"]))))
    else:
        way, content = damaged(rng, before)
        path.write_bytes(content)
    said, found, remarks = _read(root, made)
    where = f"{made.type}, {path.name} {way}"
    try:
        right = again.read(made, root)
    except again.Unsure:
        right = None
    listed = path.read_text(errors="replace").split() if path.suffix == ".txt" else ()
    _check_said(said, root, path.name, {*made.truth, *listed})
    if right is not None:
        _compare(made._replace(truth=right), found)
        if lost := right.keys() - found.keys():
            if not said:
                raise Wrong(f"{where}: {lost} is lost without a word")
    elif not said and not remarks:
        same = found.keys() == made.truth.keys()
        differ = [n for n in found if n in made.truth and not _same(made, found, n)]
        if not same or differ:
            text = path.read_bytes().decode(errors="replace")
            raise Unsaid(f"{where}: {short(sorted(found))}, other {differ}: {text}")
    if said:
        raise Refused(f"{where}: {said[0]}")


class Unsaid(Wrong):
    """A list that is not right was read, not as before, without a word."""


def _json(data: Any) -> str:
    return sets.json.dumps(data)


def _line(rng, text: str) -> str:
    """A text with one of its lines or words lost, doubled, moved or replaced."""
    lines = text.split("\n")
    place = int(rng.integers(len(lines)))
    way = int(rng.integers(9))
    if way == 0:
        del lines[place]
    elif way == 1:
        lines.insert(place, lines[place])
    elif way == 2:
        lines.insert(place, nasty.word(rng))
    elif way in (3, 4, 5):
        mark = "\t" if "\t" in text else "_"
        words = lines[place].split(mark)
        words[rng.integers(len(words))] = nasty.word(rng)
        lines[place] = mark.join(words)
    elif way == 6:
        lines[place] = lines[place].replace("\t", " ", 1)
    elif way == 7:
        return str(rng.choice(["\ufeff", ""])) + text.replace("\n", "\r\n")
    else:
        other = int(rng.integers(len(lines)))
        lines[place], lines[other] = lines[other], lines[place]
    return "\n".join(lines).encode(errors="replace").decode()


def _settings(rng, root: Path, made: sets.Made) -> None:
    """A setting of the source with a value that it should not have."""
    names = ["classes", "exclude_classes", "bits", "split", "kind", "images", "masks",
             "fold", "lists", "ids", "image", "mask", "shots", "resolution", "frames",
             "image_suffix", "annotations", "tile", "folder", "x"]  # fmt: skip
    own = [n for n in names if n in made.settings] + ["classes", "split"]
    name = str(rng.choice(names + 4 * own))
    value = nasty.value(rng)
    settings = {**made.settings, name: value}
    said, found, _ = _read(root, made._replace(settings=settings))
    if said:
        told = (name, "own", str(root), root.parent.name, str(value))
        for text in said:
            check_message(text, told, _QUOTED)
        raise Refused(f"{made.type}, {name}={short(value)}: {said[0]}")


def _check_said(said: list[str], root: Path, name: str, records: Any) -> None:
    """name: the file that is not right; its catalog is named after the set."""
    for text in said:
        check_message(text, (), _QUOTED)
    names = [str(root), name, Path(name).stem, *records]
    names += [n.partition("#")[0] for n in records]
    names += [n.partition("_")[0] for n in records]  # of a tile
    if said and not any(n in text for n in names for text in said):
        raise Wrong(f"the messages name none of {names}: {said}")


def _same(made: sets.Made, found: dict[str, np.ndarray], name: str) -> bool:
    right, values = made.truth[name], found[name]
    if right is None or right.shape != values.shape:
        return right is None
    if not made.objects:
        return bool((right == values).all())
    pairs = set(zip(right.ravel().tolist(), values.ravel().tolist(), strict=True))
    fixed = all((a in (0, 255)) <= (a == b) for a, b in pairs)
    one = len(pairs) == len({a for a, _ in pairs}) == len({b for _, b in pairs})
    return fixed and one


def _compare(made: sets.Made, found: dict[str, np.ndarray], free=()) -> None:
    """Raises `Wrong` for a record that shows anything else. free: may be otherwise."""
    for name in found:
        if name not in made.truth:
            raise Wrong(f"{made.type}: a record {name!r} is read and is not listed")
        if name not in free and not _same(made, found, name):
            raise Wrong(f"{made.type}: {name} shows other labels than is right")


def _prepared(rng, folder: Path, made: sets.Made, out: Path) -> None:
    """A prepared set of damaged files."""
    root = folder / "voc"
    shutil.copytree(out, root)
    files = sorted(path for path in root.rglob("*") if path.is_file())
    path = files[rng.integers(len(files))]
    way = "gone"
    if rng.random() < 0.2:
        path.unlink()
    elif rng.random() < 0.9:
        way, content = damaged(rng, path.read_bytes())
        path.write_bytes(content)
    said, found, _ = _read(root, made)
    _compare(made, found)
    if lost := made.truth.keys() - found.keys():
        if not said:
            raise Wrong(f"prepared: {lost} is lost without a word ({path.name} {way})")
    for text in said:
        check_message(text, (str(root), *made.truth), _QUOTED)
    if said:
        raise Refused(f"prepared, {path.name} {way}: {said[0]}")
