"""What `seggpt check` does: every record of data sets is read, and faults are named."""

import argparse
from collections.abc import Mapping
from typing import Any

from seggpt_jax.cli import config_args
from seggpt_jax.config import parse_list, parse_settings, plain
from seggpt_jax.data.dataset import Dataset

Sources = dict[str, Dataset]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of the command."""
    add = parser.add_argument
    add("type", nargs="?", metavar="TYPE", help="of data set, as ade20k or indexed")
    add("--root", metavar="DIR", help="folder of the data set")
    add("--splits", help="separated by commas (default: all)")
    config_args.add_setting(parser)
    config_args.add_arguments(parser, "instead of a TYPE: all data sets of a config")


def run(args: argparse.Namespace, failed: object) -> int:
    """Prints what there is. The status is 1 where something is wrong."""
    # Imported late: what reads data sets is only needed by commands about them.
    from seggpt_jax.data import check

    if args.config:
        if args.type or args.root or args.splits or args.set:
            raise ValueError("give --config, or a TYPE and --root, not both")
        sources = open_configured(config_args.read(args))
    elif args.type and args.root:
        splits, settings = parse_list(args.splits), parse_settings(args.set)
        sources = check.open_named(args.type, args.root, splits, settings)
    else:
        raise ValueError("give a TYPE and --root, or --config")
    return 0 if check.run(*sources, args.quiet) else 1


def open_configured(config: Any) -> tuple[Sources, Sources]:
    """The sources of a config: (to train on, held out)."""
    from seggpt_jax.data.sources import open_groups, open_sources
    from seggpt_jax.training.mixture import pop_views
    from seggpt_jax.training.settings import read_settings

    config = plain(read_settings(config))
    specs = config["sources"]
    pop_views(specs)
    for spec in specs.values():
        spec.pop("weight", None)
    trained = open_sources(specs, config["data_dir"], config["skip_missing"])
    held_out: dict[str, Any] = {}
    for name, settings in config["evals"].items():
        specs = settings.get("sources", {})
        for group, sources in open_groups(specs, config["data_dir"]).items():
            held_out |= {f"{name}.{group}.{n}": s for n, s in sources.items()}
    return _on_disk(trained), _on_disk(held_out)


def _on_disk(sources: Mapping[str, Any]) -> Sources:
    """Without the sources that draw their scenes: these have no files to check."""
    return {n: source for n, source in sources.items() if isinstance(source, Dataset)}
