"""Makes the prepared form of a data set: ArrayRecord files of encoded bytes.

    python tools/prepare_data.py ade20k --root=ADE20K --out=DATA

Writes DATA/ade20k/1.0.0. Training takes it instead of the owners' files, and
tensorflow-datasets reads it too. After a stop, run the command again: it goes on where
it stopped. docs/datasets.md lists the sets and the folders they need.
"""

import logging
import os
import pathlib
import sys

from absl import app, flags

from seggpt_jax.config import parse_settings
from seggpt_jax.data.prepare import prepare
from seggpt_jax.data.prepared import read_manifest
from seggpt_jax.data.sources import make_layout
from seggpt_jax.runs import paths


def define_flags():
    flags.DEFINE_string("root", None, "The owners' folder.", required=True)
    flags.DEFINE_string("out", None, "The set goes to OUT/NAME.", required=True)
    flags.DEFINE_string("name", "", "Name of the set; by default its type.")
    flags.DEFINE_list("splits", [], "Splits to prepare; by default all of the type.")
    flags.DEFINE_multi_string("set", [], "Setting of the type: tile=512.")
    flags.DEFINE_integer("shard_records", 1000, "Records per file.")
    flags.DEFINE_integer("workers", os.cpu_count(), "Processes; 0: none.")
    flags.DEFINE_bool("beam", False, "Run over Apache Beam instead of processes.")
    flags.DEFINE_string("beam_flags", "--runner=DirectRunner", "Of the pipeline.")


def main(argv):
    F = flags.FLAGS
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    if len(argv) != 2:
        sys.exit("error: name one type of data set: prepare_data.py ade20k --root=...")
    kind = argv[1]
    given = {f"--{name}": F[name].value for name in ("root", "out", "name", "splits",
                                                     "set")}  # fmt: skip
    try:
        paths.check_all(given)
        folder = prepare(
            make_layout(kind, parse_settings(F.set)),
            pathlib.Path(F.root),
            pathlib.Path(F.out) / (F.name or kind),
            F.splits,
            shard_records=F.shard_records,
            workers=F.workers,
            beam=F.beam_flags.split() if F.beam else None,
        )
    except (ValueError, OSError) as error:
        sys.exit(f"error: {error}")
    for split, made in read_manifest(folder)["splits"].items():
        print(
            f"{folder}: {split} has {made['records']} records in "
            f"{len(made['shards'])} files, {len(made['skipped'])} skipped "
            f"(manifest.json says which and why)"
        )


if __name__ == "__main__":
    define_flags()
    app.run(main)
