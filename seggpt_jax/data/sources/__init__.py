"""Sources: data sets as sequences of samples, opened from plain config data.

How to bring data: docs/data.md.
"""

import importlib
import inspect
import logging
import os
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

from seggpt_jax.config import construct, require, suggest
from seggpt_jax.data.dataset import Dataset
from seggpt_jax.data.layout import Layout
from seggpt_jax.data.prepared import open_store
from seggpt_jax.runs.paths import AnyPath, locate

CHOSEN = ("classes", "exclude_classes", "bits")  # settings of a `Dataset`

logger = logging.getLogger(__name__)

# Type of a config -> module of this package, and class.
TYPES = {
    "indexed": "indexed:Indexed",
    "shapes": "shapes:Shapes",
    # Data sets of the paper's training (supplementary) ...
    "ade20k": "ade20k:Ade20k",
    "chase_db1": "vessels:ChaseDb1",
    "cityscapes": "cityscapes:Cityscapes",
    "coco_instance": "coco:CocoInstance",
    "coco_panoptic": "coco_panoptic:CocoPanoptic",
    "coco_panoptic_segments": "coco_panoptic:CocoPanopticSegments",
    "coco_stuff": "coco_stuff:CocoStuff",
    "drive": "vessels:Drive",
    "hrf": "vessels:Hrf",
    "isaid": "isaid:Isaid",
    "lip": "lip:Lip",
    "loveda": "loveda:LoveDa",
    "paco": "paco:Paco",
    "stare": "vessels:Stare",
    "voc": "voc:Voc",
    # ... of its evaluations, and of evaluations that others report SegGPT in.
    "chest_xray": "chest_xray:ChestXray",
    "coco20i": "coco20i:Coco20i",
    "cvc_clinicdb": "polyps:CvcClinicDb",
    "davis2016": "davis:Davis2016",
    "davis2017": "davis:Davis2017",
    "etis_larib": "polyps:EtisLarib",
    "fss1000": "fss1000:Fss1000",
    "isaid5i": "isaid5i:Isaid5i",
    "isic2018": "isic:Isic2018",
    "kvasir_seg": "polyps:KvasirSeg",
    "lvis": "lvis:Lvis",
    "lvis92i": "lvis:Lvis92i",
    "mose": "mose:Mose",
    "paco_part": "paco_part:PacoPart",
    "pascal5i": "pascal5i:Pascal5i",
    "pascal_part": "pascal_part:PascalPart",
    "permis": "permis:Permis",
    "suim": "suim:Suim",
    "youtube_vos": "youtube_vos:YoutubeVos",
    # Formats of one's own data.
    "coco_json": "coco:CocoJson",
    "hf_dataset": "hf_dataset:HfDataset",
    "png_folders": "folders:PngFolders",
    # Folders that tensorflow-datasets prepared itself.
    "tfds_cityscapes": "tfds:TfdsCityscapes",
    "tfds_coco_panoptic": "tfds:TfdsCocoPanoptic",
    "tfds_davis": "tfds:TfdsDavis",
    "tfds_lvis": "tfds:TfdsLvis",
    "tfds_oxford_pet": "tfds:TfdsOxfordPet",
    "tfds_scene_parse150": "tfds:TfdsSceneParse150",
}


class MissingData(ValueError):
    """Folders of data sets that are not there; the message names all of them.

    folders: each once, in order.
    """

    def __init__(self, message: str, folders: Iterable[AnyPath]):
        super().__init__(message)
        self.folders = list(dict.fromkeys(folders))


def open_sources(
    specs: Mapping[str, Mapping[str, Any]],
    data_dir: str | os.PathLike[str] | None = None,
    skip_missing: bool = False,
) -> dict[str, Any]:
    """Opens the sources of a config: name -> `{"type": ..., settings}`.

    All types but `shapes` take `folder`, below `data_dir`; by default it is the name of
    the type. Where the folder has the prepared form, that is used; in a bucket every
    folder must have it. The folder "*" of
    `indexed` is every set of `<data_dir>/sets.tsv` that has the split, but for those of
    `exclude`; each set hides those of `exclude_classes` (names) that it has.
    `{"members": {name: spec}}` stands for several sources.

    Args:
      specs: name -> the type and settings of a source.
      data_dir: the folder of the data sets.
      skip_missing: leave out sources whose folder is missing, with a line in the log.

    Returns name -> source (`data.sample.Source`); a set of "*" has its own name.

    Raises:
      MissingData: for all missing folders at once.
      ValueError: for a wrong type, setting or name.
    """
    sources: dict[str, Any] = {}
    for group in open_groups(specs, data_dir, skip_missing).values():
        if twice := sources.keys() & group.keys():
            raise ValueError(
                f"sources: {min(twice)!r} is there twice; exclude it from folder '*' "
                f"or rename it"
            )
        sources |= group
    return sources


class _Call(NamedTuple):
    """One source to open. root: None for a source without files."""

    group: str
    name: str
    type: str
    root: AnyPath | None
    settings: dict[str, Any]


def open_groups(
    specs: Mapping[str, Mapping[str, Any]],
    data_dir: str | os.PathLike[str] | None = None,
    skip_missing: bool = False,
) -> dict[str, dict[str, Any]]:
    """As `open_sources`, but returns name of the spec -> name -> source."""
    check_specs(specs)
    calls = [
        call
        for group, spec in specs.items()
        for name, one in spec.get("members", {group: spec}).items()
        for call in _calls(group, name, one, data_dir)
    ]
    missing = [call for call in calls if call.root and not call.root.is_dir()]
    if missing and (not skip_missing or len(missing) == len(calls)):
        listed = ", ".join(f"{call.name} (folder {call.root})" for call in missing)
        raise MissingData(
            f"data is missing for: {listed}. docs/datasets.md tells how to get each "
            f"data set, docs/data.md how to bring your own; skip_missing=True leaves "
            f"out what is not there",
            [call.root for call in missing if call.root],
        )
    groups: dict[str, dict[str, Any]] = {group: {} for group in specs}
    for call in calls:
        if call in missing:
            logger.warning("left out: %s, no folder %s", call.name, call.root)
        else:
            groups[call.group][call.name] = _open(call)
    return {group: sources for group, sources in groups.items() if sources}


def _calls(
    group: str, name: str, spec: Mapping[str, Any], data_dir: Any
) -> Iterator[_Call]:
    where = f"sources.{group}" if name == group else f"sources.{group}.members.{name}"
    settings = dict(spec)
    kind = settings.pop("type", None)
    if not isinstance(kind, str) or kind not in TYPES:
        raise ValueError(f"{where}.type has no {kind!r}{suggest(kind, TYPES)}")
    _check_settings(where, kind, load(kind), settings)
    if kind == "shapes":
        yield _Call(group, name, kind, None, settings)
        return
    if kind == "indexed" and not (data_dir and locate(data_dir).is_dir()):
        raise ValueError(
            f"data_dir: {str(data_dir or '')!r} is no folder; it must hold the folders "
            f"of all sources (docs/data.md)"
        )
    # Also without `data_dir`: one error then names all missing data.
    root = locate(data_dir or "<data_dir>")
    folder = settings.pop("folder", kind)
    if kind == "indexed" and folder == "*":
        for member, one in _expand(where, settings, root):
            yield _Call(group, member, kind, root / member, one)
    else:
        yield _Call(group, name, kind, root / folder, settings)


def check_specs(specs: Mapping[str, Any], where: str = "sources") -> None:
    """Raises ValueError for a source, or a member of a group, without settings."""
    require(isinstance(specs, Mapping), where, specs, "sources by name")
    for name, spec in specs.items():
        own = f"{where}.{name}"
        require(isinstance(spec, Mapping), own, spec, "settings by name")
        if "members" in spec:
            check_specs(spec["members"], f"{own}.members")


def _open(call: _Call) -> Any:
    cls, settings = load(call.type), dict(call.settings)
    if call.root is None:
        return construct(cls, f"sources.{call.name}", settings)
    chosen = {k: settings.pop(k) for k in CHOSEN if k in settings}
    split = settings.pop("split")
    store = open_store(make_layout(call.type, settings), call.root, split)
    return Dataset(store, call.name, **chosen)


def make_layout(kind: str, settings: Mapping[str, Any]) -> Layout:
    """The layout of a type. Raises ValueError for unknown types and settings."""
    if not issubclass(cls := load(kind), Layout):
        raise ValueError(f"type: {kind!r} has no prepared form")
    return construct(cls, kind, settings)


def load(kind: str) -> Any:
    """The class of a type; its module is imported only now."""
    if kind not in TYPES:
        raise ValueError(f"type: there is no {kind!r}{suggest(kind, TYPES)}")
    module, name = TYPES[kind].split(":")
    return getattr(importlib.import_module(f"{__name__}.{module}"), name)


def _check_settings(
    where: str, kind: str, cls: type, settings: Mapping[str, Any]
) -> None:
    """Refuses unknown and missing settings, before any data is looked at."""
    parameters = inspect.signature(cls).parameters
    allowed = set(parameters)
    required = {n for n, p in parameters.items() if p.default is p.empty}
    if issubclass(cls, Layout):
        allowed |= {"folder", "split"} | set(CHOSEN)
        required |= {"split"}
    if kind == "indexed":
        required |= {"folder"}
        if settings.get("folder") == "*":
            allowed |= {"exclude"}
    for setting in settings:
        if setting not in allowed:
            raise ValueError(
                f"{where}: type {kind!r} has no {setting!r}{suggest(setting, allowed)}"
            )
    for setting in ("folder", "split"):
        value = settings.get(setting, "")
        require(isinstance(value, str), f"{where}.{setting}", value, "text")
    if absent := sorted(required - settings.keys()):
        raise ValueError(f"{where}: type {kind!r} needs the setting {absent[0]!r}")


def _expand(
    where: str, settings: Mapping[str, Any], data_dir: AnyPath
) -> Iterator[tuple[str, dict[str, Any]]]:
    """Name and settings of each set that the folder "*" of `indexed` stands for."""
    from seggpt_jax.data.sources import indexed  # only when a config asks for it

    settings = dict(settings)
    exclude = settings.pop("exclude", ())
    hidden = settings.pop("exclude_classes", ())
    split = settings["split"]
    sets, listed = data_dir / indexed.SETS, indexed.set_kinds(data_dir)
    if not listed:
        raise ValueError(f"{where}: folder '*' needs {sets} with a row per set")
    for name in exclude:
        if name not in listed:
            raise ValueError(
                f"{where}.exclude: {sets} has no {name!r}{suggest(name, listed)}"
            )
    roots = {name: data_dir / name for name in listed if name not in exclude}
    # A missing set counts as if it had the split: it must be named as missing.
    contents = {
        name: indexed.contents(root) if root.is_dir() else {split: ()}
        for name, root in roots.items()
    }
    chosen = {name: has[split] for name, has in contents.items() if split in has}
    if not chosen:
        found = set().union(*contents.values())
        raise ValueError(
            f"{where}.split: {data_dir} has no {split!r}{suggest(split, found)}"
        )
    classes = set().union(*chosen.values())
    for name in hidden:
        if name not in classes:
            raise ValueError(
                f"{where}.exclude_classes: {data_dir} has no {name!r}"
                f"{suggest(name, classes)}"
            )
    for name, names in chosen.items():
        own = [hide for hide in hidden if hide in names]
        yield name, {**settings, "exclude_classes": own}
