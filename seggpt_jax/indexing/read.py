"""Reads the masks of a folder, or of a COCO file, and finds out what they mean."""

import collections
import os
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from seggpt_jax.colors import unique_colors
from seggpt_jax.config import counted, shorten
from seggpt_jax.data.decode import check_size, naming_errors, orientation
from seggpt_jax.data.layout import Entry, Flaw, Skipped
from seggpt_jax.data.masks import INEXACT
from seggpt_jax.data.sample import BACKGROUND, IGNORE, BadRecord
from seggpt_jax.data.sources import coco_file
from seggpt_jax.data.sources.coco import CocoJson
from seggpt_jax.pictures.images import (
    NEAR,
    exact_colors,
    painted_over,
    read_image,
    read_mask,
)

Failed = tuple[Path, str]
# Wraps what is looped over, of a known length, in a bar: `show(items, total)`.
Show = Callable[[Iterable[Any], int], Iterable[Any]]

_MANY = 100  # values; so many classes are rare
_BLACK = (0, 0, 0)


class Row(NamedTuple):
    """A line of the index. mask: a file; None for `values` int32 `[h, w]`, which must
    be written. ids: the classes that it shows."""

    name: str
    image: Path
    mask: Path | None
    size: tuple[int, int]
    ids: tuple[int, ...]


class Found(NamedTuple):
    """rows: of the index, by name. names: id -> name of a class, "" where nothing says
    it. values: of a row, makes the mask that is to be written; None where masks stay as
    they are. notes: for the user. failed: what is left out, and why."""

    rows: list[Row]
    names: dict[int, str]
    values: Callable[[Row], np.ndarray] | None
    notes: list[str]
    failed: list[Failed]


class _Look(NamedTuple):
    """What a mask has. values: those that are not 0; or colours, by frequency. exact:
    of colours, whether they are all meant."""

    size: tuple[int, int]
    values: tuple[int, ...]
    colors: tuple[tuple[int, ...], ...]
    pictured: bool
    exact: bool = True


def read_masks(
    files: Mapping[str, tuple[Path, Path]], named: Mapping[int, str], show: Show
) -> Found:
    """Masks of any form that docs/data.md lists. named: id -> name, as the user says.

    Raises ValueError for masks that mean different things.
    """
    looks: dict[str, _Look] = {}
    failed: list[Failed] = []

    def look(name: str) -> _Look | BadRecord | OSError:
        image, mask = files[name]
        try:
            found = _look(mask)
            _check_pair(image, mask, found.size)
            if not found.exact:
                _check_paint(image, mask)
            return found
        except (BadRecord, OSError) as error:
            return error

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        done = show(pool.map(look, files), len(files))
        for name, result in zip(files, done, strict=True):
            if isinstance(result, _Look):
                looks[name] = result
            else:
                failed.append((files[name][1], str(result)))
    if not looks:
        return Found([], {}, None, [], failed)
    paths = {name: files[name][1] for name in looks}
    if any(one.colors for one in looks.values()):
        return _painted(files, looks, paths, failed)
    ids, notes = _meant(looks, paths, named)
    rows = [
        Row(name, *files[name], one.size, tuple(v for v in one.values if v in ids))
        for name, one in looks.items()
    ]
    return Found(rows, dict.fromkeys(ids, ""), None, notes, failed)


def read_coco(images: Path, file: Path, show: Show) -> Found:
    """The objects of a COCO file, as masks to be written. Raises ValueError."""
    plain = str(images.absolute()).replace("{", "{{").replace("}", "}}")
    notes = str(file.absolute()).replace("{", "{{").replace("}", "}}")
    layout = CocoJson(annotations=notes, images=plain)
    root = images.absolute()
    folder, path = layout.watched(root, "all")
    coco = coco_file.read_coco(path)
    listing = layout.listing(coco, root, folder, path.name)
    rows, said, failed = list[Row](), list[str](), list[Failed]()
    annotations: dict[str, str] = {}
    empty = 0
    records = [*listing.records]
    for one in show(records, len(records)):
        if isinstance(one, Skipped):
            empty += not one.fault
            if one.fault:
                failed.append((images / one.id, one.reason))
        elif isinstance(one, Flaw):
            said.append(f"{one.id} {one.reason}")
        else:
            _add_entry(one, images, layout, rows, annotations, failed)
    notes_ = list[str]()
    if crowds := sum(note.crowd for each in coco.notes.values() for note in each):
        objects = counted(crowds, "object")
        notes_.append(f"ignored: {objects} with iscrowd 1, crowds; {coco_file.CROWDS}")
    if empty:
        left_out = counted(empty, "image without objects", "images without objects")
        notes_.append(f"left out: {left_out}")
    if said:
        notes_.append(f"annotations that do not count as they are, {len(said)}: "
                      f"{'; '.join(said[:3])}")  # fmt: skip
    shown = {label for row in rows for label in row.ids}
    names = {label: name for label, name in listing.names.items() if label in shown}

    def values(row: Row) -> np.ndarray:
        return layout.decode(b"", annotations[row.name]).segments

    return Found(rows, names, values, notes_, failed)


def _add_entry(
    entry: Entry, images: Path, layout: CocoJson, rows: list[Row],
    annotations: dict[str, str], failed: list[Failed],
) -> None:  # fmt: skip
    image = images / entry.image
    segments = layout.decode(b"", entry.annotation).segments
    size = segments.shape[0], segments.shape[1]
    try:
        _check_pair(image, Path("the JSON"), size)
    except (BadRecord, OSError) as error:
        failed.append((image, str(error)))
        return
    name = Path(entry.id).with_suffix("").as_posix()
    if name in annotations:
        failed.append((image, f"{name} is the name of another image"))
        return
    # What lies under other objects altogether is not shown.
    shown = set(np.unique(segments).tolist()) - {BACKGROUND, IGNORE}
    annotations[name] = entry.annotation
    rows.append(Row(name, image, None, size, tuple(sorted(shown))))


def _look(path: Path) -> _Look:
    mask = read_mask(path)
    size = mask.values.shape[0], mask.values.shape[1]
    if mask.values.ndim == 2:
        found = tuple(v for v in np.unique(mask.values).tolist() if v != BACKGROUND)
        return _Look(size, found, (), mask.pictured)
    values, exact = exact_colors(mask.values)
    with Image.open(path) as opened:
        if opened.format in INEXACT:
            raise BadRecord(
                f"{path} is painted in colours, which a JPEG blurs: save masks as PNG"
            )
    return _Look(size, (), tuple(map(tuple, values.tolist())), True, exact)


def _check_paint(image: Path, mask: Path) -> None:
    """Raises `BadRecord` for a photograph with paint over it."""
    if painted_over(read_mask(mask).values, read_image(image).pixels):
        raise BadRecord(
            f"{mask} looks like its image with paint over it: save the paint alone, on "
            "black"
        )


def _check_pair(image: Path, mask: Path, size: tuple[int, int]) -> None:
    """Raises `BadRecord` where the image has not the size of its mask, stored or
    upright. Only its header is read."""
    with naming_errors(str(image), "replace it"), Image.open(image) as opened:
        check_size(opened)
        stored = opened.height, opened.width
        if size != stored and not (orientation(opened) >= 5 and size == stored[::-1]):
            raise BadRecord(
                f"is {stored[1]} x {stored[0]}, but its mask {mask} is {size[1]} x "
                f"{size[0]}"
            )


def _meant(
    looks: Mapping[str, _Look], paths: Mapping[str, Path], named: Mapping[int, str]
) -> tuple[list[int], list[str]]:
    """Which values of masks are classes, and what to tell the user of it."""
    files: dict[int, list[str]] = collections.defaultdict(list)
    for name, one in looks.items():
        for value in one.values:
            files[value].append(name)
    values = sorted(files)
    if not values:
        raise ValueError("the masks show nothing: every pixel is 0, the background")
    both = set(files[IGNORE]) if IGNORE in files else set()
    others = [value for value in values if value != IGNORE]
    beside = {name for value in others for name in files[value]}
    if not others:
        return [IGNORE], ["the masks have only 0 and 255: 255 is the class"]
    notes = [f"the masks have the values {shorten([BACKGROUND, *values], 20)}"]
    if IGNORE in files and IGNORE not in named:
        if len(others) == 1 and not both & beside:
            raise ValueError(
                f"255 is in {counted(len(both), 'mask')} ({paths[min(both)]}), "
                f"{others[0]} in {len(beside)} ({paths[min(beside)]}), and none has "
                "both: make "
                f"them alike, or name the two classes: --names {others[0]}=a,255=b"
            )
        notes.append(
            "255 is ignored, as the edges of objects often are; if it is a class, name "
            "it: --names 255=NAME"
        )
        values = others
    if len(values) > _MANY:
        notes.append(
            f"{len(values)} values are many for classes: where they number objects, "
            "docs/data.md, Class-agnostic sets, says what to do"
        )
    return values, notes


def _painted(
    files: Mapping[str, tuple[Path, Path]],
    looks: Mapping[str, _Look],
    paths: Mapping[str, Path],
    failed: list[Failed],
) -> Found:
    """Paintings: each colour is a class, and its id is its place by frequency."""
    greys = [name for name, one in looks.items() if one.values and not one.pictured]
    if greys:
        painted = next(paths[name] for name, one in looks.items() if one.colors)
        raise ValueError(
            f"{painted} is painted in colours, and {paths[greys[0]]} has numbers: make "
            "the masks alike"
        )
    colors = _palette(looks.values())
    if len(colors) >= IGNORE:
        raise ValueError(
            f"the masks have {len(colors)} colours, too many for classes: are they "
            "pictures?"
        )
    table = np.array([_BLACK, *colors], np.int64)
    names = {k: "#{:02x}{:02x}{:02x}".format(*c) for k, c in enumerate(colors, 1)}

    def ids(one: _Look) -> tuple[int, ...]:
        own = np.array([*one.colors, *((v, v, v) for v in one.values)]).reshape(-1, 3)
        return tuple(np.setdiff1d(_place_of(own, table), BACKGROUND).tolist())

    def values(row: Row) -> np.ndarray:
        mask = read_mask(paths[row.name]).values
        if mask.ndim == 2:
            mask = np.repeat(mask[..., None], 3, -1)
        # Blends and noise become one of the mask's own colours, never a third class.
        choices = np.array([BACKGROUND, *row.ids])
        found, index, _ = unique_colors(mask)
        return choices[_place_of(found, table[choices])][index].astype(np.int32)

    rows = [
        Row(name, files[name][0], None, one.size, ids(one))
        for name, one in looks.items()
    ]
    notes = [f"the masks are painted: {counted(len(colors), 'colour')}, each a class"]
    if blurred := [paths[name] for name, one in looks.items() if not one.exact]:
        notes.append(
            f"{len(blurred)} of them are smooth ({shorten(blurred, 1)}): each pixel "
            "gets the nearest of the mask's main colours"
        )
    return Found(rows, names, values, notes, failed)


def _palette(looks: Iterable[_Look]) -> list[tuple[int, ...]]:
    """The colours of all paintings, the most frequent first. Those of smooth masks
    are those of the others, as far as they are near them."""
    counts: collections.Counter[tuple[int, ...]] = collections.Counter()
    for one in sorted(looks, key=lambda look: not look.exact):
        counts.update((value, value, value) for value in one.values)
        for color in one.colors:
            known = () if one.exact else (_BLACK, *counts)
            near = [c for c in known if _apart(c, color) <= NEAR]
            counts[near[0] if near else color] += 1
    del counts[_BLACK]
    return [color for color, _ in counts.most_common()]


def _place_of(colors: np.ndarray, table: np.ndarray) -> np.ndarray:
    """The place of the nearest colour of a table `[c, 3]`, for each of `[n, 3]`."""
    return np.abs(colors[:, None].astype(np.int64) - table).sum(-1).argmin(-1)


def _apart(one: tuple[int, ...], other: tuple[int, ...]) -> int:
    return sum(abs(a - b) for a, b in zip(one, other, strict=True))
