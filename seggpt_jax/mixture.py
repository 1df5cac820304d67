"""The training mixture: a config's sources, weighed, as one endless set of pairs."""

import math
from collections.abc import Mapping
from typing import Any

from absl import logging

from seggpt_jax.config import construct, plain, require
from seggpt_jax.data.augment import View
from seggpt_jax.data.context import Context
from seggpt_jax.data.masking import Masking
from seggpt_jax.data.pipeline import make_dataset
from seggpt_jax.data.recolor import Recolor
from seggpt_jax.data.sources import open_groups
from seggpt_jax.models.seggpt import SegGPT


def build_dataset(config: Any, model: SegGPT):
    """The training mixture of a config: its sources by name, and the endless pairs."""
    rows, cols = model.config.canvas
    parts = {
        "recolor": construct(Recolor, "recolor", config.recolor),
        "masking": construct(Masking, "masking", config.masking),
        "patch": model.config.patch,
    }

    def make_context(where: str, own: Mapping[str, Any]) -> Context:
        settings = plain(config.view) | own
        view = construct(View, where, settings, size=(rows // 2, cols))
        return construct(Context, "context", config.context, view=view, **parts)

    specs = plain(config.sources)
    weights = {name: spec.pop("weight", None) for name, spec in specs.items()}
    check_weights(weights)
    views = pop_views(specs)
    groups = open_groups(specs, config.data_dir, config.skip_missing)
    shares = split_weights(weights, groups, config.group_power)
    sources = {n: source for group in groups.values() for n, source in group.items()}
    logging.info("%s", table(shares, sources))
    contexts = {
        name: make_context(f"sources.{where}.view", own)
        for where, own in views.items()
        for name in (groups.get(where) or {where: None})
        if name in sources
    }
    dataset = make_dataset(
        list(sources.values()), [shares[name] for name in sources],
        make_context("view", {}), config.seed, config.bad_share, contexts=contexts,
    )  # fmt: skip
    if config.fixed_pairs:  # memorise these very pairs
        dataset = dataset.slice(slice(0, config.fixed_pairs)).repeat(
            reseed_each_epoch=False
        )
    return sources, dataset


def pop_views(specs: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    """Takes the setting `view` out of specs and their members: name -> settings of
    `View` that take the place of the common ones."""
    views = {}
    for name, spec in specs.items():
        for member, one in {name: spec, **spec.get("members", {})}.items():
            if "view" in one:
                views[member] = one.pop("view")
    return views


def table(shares: Mapping[str, float], sources: Mapping[str, Any]) -> str:
    """The mixture for people: share, records, classes, name."""
    lines = ["mixture:    share    records  classes  source"]
    for name, share in shares.items():
        records, classes = len(sources[name]), len(sources[name].class_names)
        lines.append(f"         {share:8.4f} {records:10,} {classes:8,}  {name}")
    return "\n".join(lines)


def check_weights(weights: Mapping[str, Any]):
    """Every source has a weight, and every weight is positive and finite."""
    require(bool(weights), "sources", dict(weights), "one source or more")
    for name, weight in weights.items():
        number = isinstance(weight, (int, float)) and math.isfinite(weight)
        require(number and weight > 0, f"sources.{name}.weight", weight,
                "a positive number")  # fmt: skip


def split_weights(weights, groups, power: float | int) -> dict[str, float]:
    """Sampling share of every source: a group's weight is divided among its sources by
    their size to the `power`, then all shares are normalised."""
    shares: dict[str, float] = {}
    for group, sources in groups.items():
        for name, source in sources.items():
            if not len(source):
                raise ValueError(f"source {name} is empty")
            if name in shares:
                raise ValueError(f"source {name} is in two groups of sources")
        sizes = {name: len(source) ** power for name, source in sources.items()}
        total = math.fsum(sizes.values())
        shares |= {name: weights[group] * s / total for name, s in sizes.items()}
    total = math.fsum(shares.values())
    return {name: share / total for name, share in shares.items()}
