"""What `seggpt prepare` does: a data set as ArrayRecord files of encoded bytes."""

import argparse
import os
from pathlib import Path

from seggpt_jax.cli import config_args
from seggpt_jax.config import counted, parse_list, parse_settings
from seggpt_jax.runs import paths


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of the command."""
    add = parser.add_argument
    add("type", metavar="TYPE", help="of data set, as ade20k")
    add("--root", required=True, metavar="DIR", help="the owners' folder")
    add(
        "--out",
        required=True,
        metavar="DIR",
        help="the set goes to DIR/NAME, also gs://...",
    )
    add("--name", help="of the set (default: its type)")
    add("--splits", help="separated by commas (default: all of the type)")
    config_args.add_setting(parser)
    add("--shard-records", type=int, default=1000, metavar="N",
        help="records of a file (default: 1000)")  # fmt: skip
    add("--workers", type=int, default=os.cpu_count(), metavar="N",
        help="processes; 0: none (default: one for each core)")  # fmt: skip
    add("--beam", action="store_true", help="over Apache Beam instead of processes")
    add("--beam-flags", default="--runner=DirectRunner", metavar="FLAGS",
        help="of its pipeline (default: %(default)s)")  # fmt: skip


def run(args: argparse.Namespace, failed: object) -> None:
    """Writes OUT/NAME/1.0.0, or goes on with it."""
    # Imported late: only this command needs what writes the files.
    from seggpt_jax.data.prepared import read_manifest, require_array_record

    require_array_record(args.out)
    from seggpt_jax.data.prepare import prepare
    from seggpt_jax.data.sources import make_layout

    folder = prepare(
        make_layout(args.type, parse_settings(args.set)),
        Path(args.root),
        paths.locate(args.out) / (args.name or args.type),
        parse_list(args.splits),
        shard_records=args.shard_records,
        workers=args.workers,
        beam=args.beam_flags.split() if args.beam else None,
        quiet=args.quiet,
    )
    for split, made in read_manifest(folder)["splits"].items():
        print(
            f"{folder}: {split} has {counted(made['records'], 'record')} in "
            f"{counted(len(made['shards']), 'file')}, {len(made['skipped'])} skipped "
            f"(manifest.json says which and why)"
        )
