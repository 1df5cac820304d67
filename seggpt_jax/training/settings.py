"""Every setting of a config, parsed once.

A setting that a config leaves out has its default from here, or from the dataclass of
its section (`View`, `Stage`, ...). configs/common.py shows the paper's values, and
docs/training.md gives the reasons; those of `model` and of `stages.*.warmup` differ
from the defaults.
"""

import dataclasses
import itertools
import json
from collections.abc import Mapping
from typing import Any

from seggpt_jax.config import (
    check_names,
    check_types,
    construct,
    plain,
    require,
    suggest,
)
from seggpt_jax.data.augment import View
from seggpt_jax.data.context import ContextSettings
from seggpt_jax.data.masking import Masking
from seggpt_jax.data.recolor import Recolor
from seggpt_jax.runs import paths
from seggpt_jax.training.optim import OptimSettings
from seggpt_jax.training.train_step import Stage

_PLACES = {
    "checkpoint": paths.MODEL, "init_from": paths.MODEL, "checkpoints": paths.BUCKET,
    "data_dir": paths.BUCKET,
}  # fmt: skip
_NO_PATHS = ("about", "trainable")  # words, and a regex
_MOST_POWER = 10  # sizes to a higher power are no numbers
INITS = ("example", "noise")
PALETTES = ("spread", "painter", "locations")


@dataclasses.dataclass(frozen=True)
class Loader:
    """How batches are made: the arguments of `data.pipeline.make_iterator`."""

    batch_size: int = 2048
    threads: int = 16
    workers: int = 0
    prefetch: int = 2

    def __post_init__(self):
        for name, least in dict(batch_size=1, threads=0, workers=0, prefetch=0).items():
            value = getattr(self, name)
            require(value >= least, f"loader.{name}", value, f"at least {least}")


@dataclasses.dataclass(frozen=True)
class MeshSettings:
    """Devices along each axis of the mesh (`sharding.make_mesh`). One axis may be -1:
    it takes all devices that the others leave."""

    data: int = -1
    fsdp: int = 1
    tensor: int = 1


@dataclasses.dataclass(frozen=True)
class TuneSettings:
    """The task of a tuned prompt; docs/training.md gives the reasons.

    classes: names or labels of the source; none: all. palette: colours of the classes,
    far apart ("spread", `colors.spread_palette`) or Painter's for closed sets; with
    "locations" an instance has the colour of its place, as in Painter. prompts: how
    many are learned together. init: a random example of the source, or noise. heldout:
    the source that the prompt is scored on; none: no scores. images: how many images of
    it are scored at most; 0: all.
    """

    classes: tuple[str | int, ...] = ()
    palette: str = "spread"
    prompts: int = 1
    init: str = "example"
    images: int = 0
    heldout: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    def __post_init__(self):
        require(self.prompts >= 1, "tune.prompts", self.prompts, "at least 1")
        require(self.images >= 0, "tune.images", self.images, "at least 0")
        for name, choices in (("init", INITS), ("palette", PALETTES)):
            if (value := getattr(self, name)) not in choices:
                raise ValueError(
                    f"setting tune.{name} = {value!r} is unknown"
                    f"{suggest(value, choices)}"
                )
        if self.palette == "locations":
            require(not self.classes, "tune.classes", self.classes,
                    "empty where instances are painted by their locations")  # fmt: skip
            require(not self.heldout, "tune.heldout", self.heldout,
                    "empty: instances are scored by configs/eval.py")  # fmt: skip


def _none() -> Any:
    return dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class RunSettings:
    """Every top-level setting of a config; docs/training.md describes each.

    Mappings are settings of other rooms, which check them: `model` of `SegGPTConfig`,
    `sources` of `data.sources`, `evals` of evaluators.
    """

    mode: str = "train"
    seed: int = 0
    data_dir: str = ""
    checkpoint: str = ""
    init_from: str = ""
    model: Mapping[str, Any] = _none()
    sources: Mapping[str, Any] = _none()
    skip_missing: bool = False
    group_power: float | int = 1.0
    bad_share: float | int = 0.01
    fixed_pairs: int = 0
    view: View = View()
    context: ContextSettings = ContextSettings()
    recolor: Recolor = Recolor()
    masking: Masking = Masking()
    loader: Loader = Loader()
    accumulate: int = 1
    optim: OptimSettings = OptimSettings()
    stages: Mapping[str, Stage] = _none()
    ema: float | int = 0.0
    mesh: MeshSettings = MeshSettings()
    cpu_devices: int = 1
    log_every: int = 10
    save_every: int = 500
    keep: int = 3
    best: str = ""
    checkpoints: str = ""
    eval_every: int = 1000
    evals: Mapping[str, Any] = _none()
    tune: TuneSettings = TuneSettings()

    def __post_init__(self):
        for name in ("accumulate", "cpu_devices", "log_every", "save_every", "keep"):
            require(getattr(self, name) >= 1, name, getattr(self, name), "at least 1")
        for name in ("seed", "fixed_pairs", "eval_every"):
            require(getattr(self, name) >= 0, name, getattr(self, name), "at least 0")
        require(self.fixed_pairs < 2**31, "fixed_pairs", self.fixed_pairs,
                "below 2**31")  # fmt: skip
        power = self.group_power
        require(0 <= power <= _MOST_POWER, "group_power", power,
                f"in [0, {_MOST_POWER}]")  # fmt: skip
        require(0 <= self.bad_share <= 1, "bad_share", self.bad_share, "in [0, 1]")
        require(0 <= self.ema < 1, "ema", self.ema, "in [0, 1)")

    @property
    def spans(self) -> list[range]:
        """The steps of each stage, counted from the start of the run.

        Raises ValueError without any stage.
        """
        require(bool(self.stages), "stages", self.stages, "one stage or more")
        steps = [stage.steps for stage in self.stages.values()]
        ends = itertools.accumulate(steps)
        return [range(e - n, e) for e, n in zip(ends, steps, strict=True)]

    @property
    def steps(self) -> int:
        """The steps of all stages."""
        return self.spans[-1].stop

    def stage_at(self, step: int) -> int:
        """The number, from 0, of the stage that a step below `steps` belongs to."""
        return next(k for k, span in enumerate(self.spans) if step in span)


def read_settings(config: Any) -> RunSettings:
    """The settings of a config: a ConfigDict, any mapping, or settings read before.

    Raises ValueError for a setting that is unknown, missing, of another type or out of
    range; the message names it, as `stages.paint.lr`.
    """
    if isinstance(config, RunSettings):
        return config
    given = plain(config)
    require(isinstance(given, Mapping), "config", given, "settings by name")
    paths.check_all(given, _PLACES, free=_NO_PATHS, prefix="setting ")
    fields = {field.name: field.type for field in dataclasses.fields(RunSettings)}
    check_names("", given, fields)
    check_types("", given, RunSettings)
    sections = {
        name: construct(kind, name, given.pop(name))
        for name, kind in fields.items()
        if name in given and dataclasses.is_dataclass(kind)
    }
    sections["stages"] = {
        name: construct(Stage, f"stages.{name}", stage)
        for name, stage in given.pop("stages", {}).items()
    }
    return construct(RunSettings, "", given, **sections)


def complete(config: str) -> str:
    """A stored config, JSON, completed with the defaults of settings that it leaves
    out; unchanged if this version cannot read it."""
    try:
        settings = plain(read_settings(json.loads(config)))
        # A model like the weights of `init_from` has every field of its time.
        if "width" in settings["model"] and "size" not in settings["model"]:
            settings["model"] = {"one_way": False} | settings["model"]
        return json.dumps(settings)
    except ValueError:
        return config
