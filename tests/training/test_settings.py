"""A config is parsed once: defaults, names, types, and the paper's numbers."""

import dataclasses
import json
import pathlib
import re

import pytest

from configs import common, vitl
from seggpt_jax.config import plain
from seggpt_jax.models.seggpt import SegGPTConfig
from seggpt_jax.training.settings import RunSettings, Stage, complete, read_settings
from tests import tiny

# Written down from the paper ("One-Shot Training Details" and supplementary) and, where
# it says nothing, from Painter's released script; not read from the config.
PAPER = {
    "sources.coco_instance.weight": 0.22,
    "sources.ade20k.weight": 0.15,
    "sources.coco_panoptic.weight": 0.15,
    "sources.cityscapes.weight": 0.07,
    "sources.coco_stuff.weight": 0.07,
    "sources.lip.weight": 0.07,
    "sources.voc.weight": 0.07,
    "sources.paco.weight": 0.07,
    "sources.aerial.weight": 0.06,
    "sources.vessels.weight": 0.06,
    "model.size": "l16",
    "model.canvas": (896, 448),
    "model.drop_path": 0.1,
    "context.same_image": 0.5,
    "context.prompts": 1,
    "context.one_prompt": 0.0,
    "context.absent_prob": 0.0,
    "view.crop_scale": (0.3, 1.0),
    "view.crop_ratio": (3 / 4, 4 / 3),
    "view.flip": 0.5,
    "view.vertical_flip": 0.0,
    "view.jitter": (0.4, 0.4, 0.2, 0.1),
    "view.jitter_prob": 0.8,
    "view.swap_sides": True,
    "recolor.fixed": False,
    "masking.share": 784 / 1568,
    "masking.half_prob": 0.1,
    "masking.block_share": (16 / 1568, 392 / 1568),
    "masking.aspect": (0.3, 1 / 0.3),
    "loader.batch_size": 2048,
    "optim.algorithm": "adamw",
    "optim.weight_decay": 0.05,
    "optim.betas": (0.9, 0.999),
    "optim.eps": 1e-8,
    "optim.clip": 3.0,
    "optim.layer_decay": 0.8,
    "optim.trainable": ".*",
    "stages.paint.steps": 9000,
    "stages.paint.warmup": 1800,
    "stages.paint.lr": 1e-4,
    "stages.paint.end_lr": 0.0,
    "stages.paint.loss": "smooth_l1",
    "stages.paint.beta": 0.01,
    "stages.paint.max_foreground_weight": 1.0,
    "stages.paint.background_prob": 0.0,
    "ema": 0.0,
}
MEMBERS = {
    "aerial": {"isaid", "loveda"},
    "vessels": {"chase_db1", "drive", "hrf", "stare"},
}
DOCUMENT = pathlib.Path(__file__).parents[2] / "docs/training.md"


def leaves(settings, prefix=""):
    """Dotted names and values of nested settings."""
    for name, value in settings.items():
        if isinstance(value, dict) and value:
            yield from leaves(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def without(name):
    """The base config less a setting or a section."""
    config = plain(common.base())
    *parents, last = name.split(".")
    here = config
    for parent in parents:
        here = here[parent]
    del here[last]
    return config


BASE = dict(leaves(plain(common.base())))


def test_the_papers_run_has_the_papers_numbers():
    config = plain(vitl.get_config())
    found = dict(leaves(config))
    assert {name: found[name] for name in PAPER} == PAPER
    weights = {name for name in found if re.fullmatch(r"sources\.\w+\.weight", name)}
    assert weights <= set(PAPER)  # no other set has a part
    assert list(config["stages"]) == ["paint"]
    for name, spec in config["sources"].items():
        members = spec.get("members", {name: spec})
        assert set(members) == MEMBERS.get(name, {name})
        assert all(one["type"] == kind for kind, one in members.items())


def test_base_shows_every_setting_at_its_default():
    base, defaults = plain(common.base()), plain(RunSettings())
    assert base.keys() == defaults.keys()
    stage = base["stages"].pop("paint")
    assert stage == plain(Stage(steps=9000, lr=1e-4, warmup=1800))
    needed = {"steps": 1, "lr": 1.0}
    assert plain(common.stage(**needed)) == plain(Stage(**needed))
    del base["model"], defaults["model"]  # a plug-in's, without a default
    assert base == defaults


@pytest.mark.parametrize(
    "name", [*BASE, *(name for name, v in plain(common.base()).items() if v)]
)
def test_a_setting_that_is_left_out_has_its_default_or_is_asked_for(name):
    if name in ("stages.paint.steps", "stages.paint.lr"):
        with pytest.raises(ValueError, match=f"setting {name} is missing"):
            read_settings(without(name))
        return
    found = dict(leaves(plain(read_settings(without(name)))))
    own = {"model": {}, "stages": {}, "stages.paint.warmup": 0}
    for other, value in BASE.items():
        if not other.startswith(f"{name}.") and other != name:
            assert found[other] == value
        elif name.startswith(("model", "stages")) and name != other:
            assert other not in found  # the section is empty
        elif not other.startswith("model"):
            assert found[other] == own.get(other, value)


def test_read_settings_keeps_the_order_of_stages():
    c = common.base()
    c.stages = common.ordered(
        z=common.stage(steps=1, lr=0.1), a=common.stage(steps=2, lr=0.1)
    )
    assert list(read_settings(c).stages) == ["z", "a"]


@pytest.mark.parametrize(
    "name, value",
    [
        ("accumulate", 0),
        ("log_every", 0),
        ("save_every", -1),
        ("keep", 0),
        ("eval_every", -1),
        ("seed", -1),
        ("fixed_pairs", -1),
        ("group_power", float("nan")),
        ("bad_share", 1.5),
        ("ema", 1.0),
    ],
)
def test_ranges(name, value):
    with pytest.raises(ValueError, match=rf"setting {name} = {value}: must be (at|in)"):
        read_settings(tiny.config(**{name: value}))


@pytest.mark.parametrize(
    "settings, message",
    [
        ({"save_evry": 5}, "setting save_evry is unknown; did you mean 'save_every'?"),
        ({"masking": {"half_prb": 1}}, "setting masking.half_prb is unknown; did you "
         "mean 'half_prob'? Choices: aspect, block_share, half_prob, share"),
        ({"masking": 3}, "setting masking = 3: must be settings by name"),
        ({"seed": "x"}, "setting seed = 'x': must be a whole number"),
        ({"seed": True}, "setting seed = True: must be a whole number"),
        ({"skip_missing": 1}, "setting skip_missing = 1: must be True or False"),
        ({"ema": "a"}, "setting ema = 'a': must be a number"),
        ({"view": {"crop_scale": 0.5}},
         "setting view.crop_scale = 0.5: must be 2 numbers"),
        ({"view": {"jitter": (0.1, 0.1)}}, "setting view.jitter = (0.1, 0.1): must be"),
        ({"tune": {"classes": "dog"}},
         "setting tune.classes = 'dog': must be a list of texts or whole numbers"),
        ({"loader": {"batch_size": 0}},
         "setting loader.batch_size = 0: must be at least 1"),
        ({"mesh": {"tensr": 2}}, "setting mesh.tensr is unknown; did you mean"),
        ({"stages": 3}, "setting stages = 3: must be settings by name"),
        ({"stages": {"a": 3}}, "setting stages.a = 3: must be settings by name"),
        ({"stages": {"a": {"steps": 1, "lr": "x"}}},
         "setting stages.a.lr = 'x': must be a number"),
        ({"stages": {"a": {"steps": 0, "lr": 0.1}}},
         "setting stages.a.steps = 0: must be positive"),
        ({"stages": {"a": {"steps": 1, "lr": 0.1, "lss": "l2"}}},
         "setting stages.a.lss is unknown; did you mean 'loss'?"),
    ],
)  # fmt: skip
def test_wrong_settings_are_named(settings, message):
    with pytest.raises(ValueError, match=re.escape(message)) as raised:
        read_settings(settings)
    assert "\n" not in str(raised.value)


def test_settings_are_read_once_and_stored_as_they_were():
    config = tiny.config("evals")
    read = read_settings(config)
    assert read_settings(read) is read
    assert json.dumps(plain(read), sort_keys=True) == json.dumps(
        plain(config), sort_keys=True
    )
    assert read_settings(plain(read)) == read


def test_a_stored_config_is_completed_if_it_can_be_read():
    sparse = {"seed": 3, "masking": {}, "stages": {"a": {"steps": 2, "lr": 0.1}}}
    whole = json.loads(complete(json.dumps(sparse)))
    assert whole == json.loads(json.dumps(plain(read_settings(sparse))))
    # A model with every field is like the weights that a run began with.
    for model, whole in (({"width": 8}, True), ({"size": "ti16", "width": 8}, False)):
        found = json.loads(complete(json.dumps(sparse | {"model": model})))["model"]
        assert found == (model | {"one_way": False} if whole else model)
    for text in ("{", "3", "[1]", '{"gone": 1}'):
        assert complete(text) == text


def test_bounds_of_stages():
    stages = {n: {"steps": k, "lr": 0.1} for n, k in (("a", 3), ("b", 1), ("c", 2))}
    read = read_settings({"stages": stages})
    assert read.spans == [range(3), range(3, 4), range(4, 6)] and read.steps == 6
    assert [read.stage_at(step) for step in range(6)] == [0, 0, 0, 1, 2, 2]
    with pytest.raises(ValueError, match="stages = {}: must be one stage or more"):
        _ = read_settings({}).spans


def test_the_document_has_a_row_for_each_setting_and_no_other():
    found = re.findall(r"^\| `([\w.*]+)` \|", DOCUMENT.read_text(), re.MULTILINE)
    rows = [name for name in found if name in names() or "." in name]
    assert sorted(set(rows)) == sorted(rows)
    model = {f"model.{field.name}" for field in dataclasses.fields(SegGPTConfig)}
    model.add("model.size")
    assert set(rows) - model == names()
    assert {name for name in BASE if name.startswith("model.")} <= set(rows)


def names() -> set[str]:
    """Every setting that a config may have, one stage standing for all."""
    stages = {"*": Stage(steps=1, lr=1.0)}
    every = plain(dataclasses.replace(RunSettings(), stages=stages))
    del every["model"]
    return set(dict(leaves(every)))
