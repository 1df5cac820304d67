"""Sources: data sets as sequences of samples, opened from plain config data.

How to bring data: docs/data.md.
"""

import importlib
import inspect
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from seggpt_jax.config import suggest

TYPES = {
    "indexed": "seggpt_jax.data.sources.indexed:Indexed",
    "shapes": "seggpt_jax.data.sources.shapes:Shapes",
}
# The data sets of the paper (section 4.1) in their own layouts.
PLANNED = frozenset({
    "ade20k", "chase_db1", "cityscapes", "coco_instance", "coco_panoptic",
    "coco_stuff", "drive", "hrf", "isaid", "lip", "loveda", "paco", "stare", "voc",
})  # fmt: skip


def open_sources(
    specs: Mapping[str, Mapping[str, Any]],
    data_dir: str | os.PathLike[str] | None = None,
) -> dict[str, Any]:
    """Opens the sources of a config: name -> `{"type": ..., constructor settings}`.

    `indexed` takes `folder`, below `data_dir`, instead of `root`. The folder "*" is
    every set of `<data_dir>/sets.tsv` that has the split, but for those of `exclude`;
    each of these hides those of `exclude_classes` (names) that it has.

    Returns name -> source (`data.sample.Source`); sets of "*" have their own names.

    Raises:
      ValueError: for a wrong type, setting or name, and for all missing data at once.
    """
    sources: dict[str, Any] = {}
    for group in open_groups(specs, data_dir).values():
        for name, source in group.items():
            if name in sources:
                raise ValueError(
                    f"sources: {name!r} is there twice; exclude it from folder '*' or "
                    f"rename it"
                )
            sources[name] = source
    return sources


def open_groups(
    specs: Mapping[str, Mapping[str, Any]],
    data_dir: str | os.PathLike[str] | None = None,
) -> dict[str, dict[str, Any]]:
    """As `open_sources`, but name of the spec -> name -> source."""
    calls: list[tuple[str, str, str, dict[str, Any]]] = []
    missing: list[str] = []
    for group, spec in specs.items():
        settings = dict(spec)
        kind = settings.pop("type", None)
        if kind in PLANNED:
            folder = Path(data_dir or "<data_dir>") / kind
            missing.append(f"{kind} (folder {folder}; no reader in this version)")
            continue
        if kind not in TYPES:
            choices = [*TYPES, *sorted(PLANNED)]
            raise ValueError(
                f"sources.{group}.type has no {kind!r}{suggest(kind, choices)}"
            )
        _check_settings(group, kind, settings)
        if kind != "indexed":
            calls.append((group, group, kind, settings))
            continue
        for name, one in _expand(group, settings, _need(data_dir)).items():
            if not one["root"].is_dir():
                missing.append(f"{name} (folder {one['root']})")
            calls.append((group, name, kind, {**one, "name": name}))
    if missing:
        raise ValueError(
            f"data is missing for: {', '.join(missing)}. docs/data.md tells how to get "
            f"each data set, and how to bring any as an indexed folder"
        )
    groups: dict[str, dict[str, Any]] = {group: {} for group in specs}
    for group, name, kind, settings in calls:
        groups[group][name] = _load(kind)(**settings)
    return groups


def _load(kind: str) -> type:
    module, name = TYPES[kind].split(":")
    return getattr(importlib.import_module(module), name)


def _check_settings(group: str, kind: str, settings: Mapping[str, Any]) -> None:
    """Refuses unknown and missing settings, before any data is looked at."""
    parameters = inspect.signature(_load(kind)).parameters
    allowed = set(parameters)
    required = {n for n, p in parameters.items() if p.default is p.empty}
    if kind == "indexed":
        allowed = allowed - {"root", "name"} | {"folder"}
        required = required - {"root"} | {"folder"}
        if settings.get("folder") == "*":
            allowed |= {"exclude"}
    for setting in settings:
        if setting not in allowed:
            raise ValueError(
                f"sources.{group}: type {kind!r} has no {setting!r}"
                f"{suggest(setting, allowed)}"
            )
    if absent := sorted(required - settings.keys()):
        raise ValueError(
            f"sources.{group}: type {kind!r} needs the setting {absent[0]!r}"
        )


def _need(data_dir: str | os.PathLike[str] | None) -> Path:
    if not data_dir or not Path(data_dir).is_dir():
        raise ValueError(
            f"data_dir: {str(data_dir or '')!r} is no folder; it must hold the "
            f"folders of all sources of type 'indexed' (docs/data.md)"
        )
    return Path(data_dir)


def _expand(
    group: str, settings: Mapping[str, Any], data_dir: Path
) -> dict[str, dict[str, Any]]:
    """Name -> settings of `Indexed`: one folder, or each set that "*" stands for."""
    settings = dict(settings)
    folder = settings.pop("folder")
    if folder != "*":
        return {group: {**settings, "root": data_dir / folder}}

    from seggpt_jax.data.sources import indexed  # only when a config asks for it

    sets = data_dir / indexed.SETS
    listed = indexed.set_kinds(data_dir)
    if not listed:
        raise ValueError(f"sources.{group}: folder '*' needs {sets} with a row per set")
    exclude = settings.pop("exclude", ())
    hidden = settings.pop("exclude_classes", ())
    for name in exclude:
        if name not in listed:
            raise ValueError(
                f"sources.{group}.exclude: {sets} has no {name!r}"
                f"{suggest(name, listed)}"
            )

    chosen: dict[str, dict[str, Any]] = {}
    classes: set[str] = set()
    found: set[str] = set()
    for name in listed:
        root = data_dir / name
        if name in exclude:
            continue
        if not root.is_dir():
            chosen[name] = {**settings, "root": root}  # for the list of what is missing
        elif (root / indexed.INDEX).is_file():  # others have a layout of their own
            found.update(splits := indexed.splits(root))
            if settings["split"] in splits:
                names = set(indexed.class_table(root).values())
                classes |= names
                hide = [c for c in hidden if c in names]
                chosen[name] = {**settings, "root": root, "exclude_classes": hide}
    if not chosen:
        what = f"sources.{group}.split: {data_dir}"
        raise ValueError(
            f"{what} has no {settings['split']!r}{suggest(settings['split'], found)}"
        )
    for name in hidden:
        if name not in classes:
            what = f"sources.{group}.exclude_classes: {data_dir}"
            raise ValueError(f"{what} has no {name!r}{suggest(name, classes)}")
    return chosen
