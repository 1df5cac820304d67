"""The training mixture: a config's sources with their weights, as endless pairs."""

import dataclasses
import itertools
import math
from collections.abc import Iterator, Mapping
from typing import Any

from absl import logging

from seggpt_jax.config import construct, plain, require, suggest
from seggpt_jax.data.augment import View
from seggpt_jax.data.context import Context
from seggpt_jax.data.pipeline import by_pair, in_turn, make_dataset
from seggpt_jax.data.sources import check_specs, open_groups
from seggpt_jax.training.settings import RunSettings


def build_dataset(config: RunSettings, size: tuple[int, int], patch: int):
    """The training mixture of a config: its sources by name, and the endless pairs.

    Stages with their own `weights` have their own mixtures, one after the other. size:
    rows and columns of one image. patch: pixels along a side of the model's patches.
    """
    common = Context(
        config.context, config.view, config.recolor, config.masking, size, patch
    )
    specs = plain(config.sources)
    check_specs(specs)
    weights = {name: spec.pop("weight", None) for name, spec in specs.items()}
    check_weights(weights)
    views = pop_views(specs)
    groups = open_groups(specs, config.data_dir, config.skip_missing)
    sources = {n: source for group in groups.values() for n, source in group.items()}
    contexts = {
        name: dataclasses.replace(common, view=own_view(config.view, where, own))
        for where, own in views.items()
        for name in (groups.get(where) or {where: None})
        if name in sources
    }
    mixtures, ends = [], list[int]()
    for k, (own, end) in enumerate(stretches(config, weights)):
        shares = split_weights({**weights, **own}, groups, config.group_power)
        since = f" from step {ends[-1]} on" if k else ""
        logging.info("mixture%s: %s", since, table(shares, sources))
        dataset = make_dataset(
            list(sources.values()), [shares[name] for name in sources], common,
            f"{config.seed}/{k}" if k else config.seed, config.bad_share,
            own=contexts,
        )  # fmt: skip
        if config.fixed_pairs:  # memorise these very pairs
            dataset = dataset.slice(slice(0, config.fixed_pairs)).repeat(
                reseed_each_epoch=False
            )
        mixtures.append(by_pair(dataset, config.context.prompts))
        ends.append(end)
    batch_size = config.loader.batch_size
    return sources, in_turn(mixtures, [end * batch_size for end in ends[:-1]])


def stretches(
    config: RunSettings, weights: Mapping[str, Any]
) -> Iterator[tuple[Mapping[str, Any], int]]:
    """Neighbouring stages with the same weights: these weights, which replace the
    sources' own, and the step where the last of these stages ends.

    Raises ValueError for the weight of an unknown source, and if all weights are 0.
    """

    def own(stage: tuple[str, range]) -> Mapping[str, Any]:
        name = stage[0]
        found = config.stages[name].weights
        for source, weight in found.items():
            where = f"stages.{name}.weights.{source}"
            if source not in weights:
                raise ValueError(f"{where}: no source{suggest(source, weights)}")
            require(_is_number(weight) and weight >= 0, where, weight,
                    "a number, at least 0")  # fmt: skip
        require(any({**weights, **found}.values()), f"stages.{name}.weights", found,
                "above 0 for one source or more")  # fmt: skip
        return found

    stages = zip(config.stages, config.spans, strict=True)
    for given, alike in itertools.groupby(stages, key=own):
        *_, (_, last) = alike
        yield given, last.stop


def own_view(view: View, source: str, own: Mapping[str, Any]) -> View:
    """The view of a source that has some settings of its own."""
    return construct(View, f"sources.{source}.view", plain(view) | own)


def pop_views(specs: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    """Takes the setting `view` out of specs and of their members: name -> settings of
    `View` that replace the common ones."""
    views = {}
    for name, spec in specs.items():
        for member, one in {name: spec, **spec.get("members", {})}.items():
            if "view" in one:
                where, view = f"sources.{member}.view", one.pop("view")
                require(isinstance(view, Mapping), where, view, "settings by name")
                views[member] = view
    return views


def table(shares: Mapping[str, float], sources: Mapping[str, Any]) -> str:
    """The mixture for people: share, records, classes, name."""
    lines = ["   share    records  classes  source"]
    for name, share in shares.items():
        records, classes = len(sources[name]), len(sources[name].class_names)
        lines.append(f"         {share:8.4f} {records:10,} {classes:8,}  {name}")
    return "\n".join(lines)


def check_weights(weights: Mapping[str, Any]):
    """Every source has a weight, and every weight is positive and finite."""
    require(bool(weights), "sources", dict(weights), "one source or more")
    for name, weight in weights.items():
        require(_is_number(weight) and weight > 0, f"sources.{name}.weight", weight,
                "a positive number")  # fmt: skip


def _is_number(weight: Any) -> bool:
    return isinstance(weight, (int, float)) and math.isfinite(weight)


def split_weights(weights, groups, power: float | int) -> dict[str, float]:
    """Sampling share of every source. A group's weight is divided among its sources in
    proportion to size ** power; then all shares are normalised."""
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
    if not total:
        raise ValueError(f"every source that is there has weight 0: {list(shares)}")
    return {name: share / total for name, share in shares.items()}
