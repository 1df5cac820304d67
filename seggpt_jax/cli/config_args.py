"""Options of the commands about data: a config with changed settings, or a type."""

import argparse

from ml_collections import ConfigDict

from seggpt_jax.training import config_file


def add_arguments(parser: argparse.ArgumentParser, about: str) -> None:
    """--config. What follows as --config.NAME=VALUE becomes `changes`."""
    parser.add_argument(
        "--config", metavar="FILE[:ARGUMENT]",
        help=f"{about}; --config.NAME=VALUE changes a setting",
    )  # fmt: skip
    parser.set_defaults(changes=[])


def add_setting(parser: argparse.ArgumentParser) -> None:
    """--set, for a setting of a type of data set."""
    parser.add_argument(
        "--set", action="append", default=[], metavar="NAME=VALUE",
        help="setting of the TYPE, as tile=512; may be given again",
    )  # fmt: skip


def read(args: argparse.Namespace) -> ConfigDict:
    """The config of these options."""
    return config_file.read(args.config, args.changes)


def take_changes(args: argparse.Namespace, rest: list[str]) -> list[str]:
    """Stores the settings among arguments that the parser does not know; returns the
    others."""
    if not getattr(args, "config", None):
        return rest
    args.changes = [text for text in rest if text.startswith("--config.")]
    return [text for text in rest if text not in args.changes or "=" not in text]
