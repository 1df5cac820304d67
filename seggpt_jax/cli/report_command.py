"""What `seggpt report` does: results of evaluations as one page."""

import argparse

from seggpt_jax.config import counted
from seggpt_jax.evaluators import page
from seggpt_jax.runs import staging
from seggpt_jax.runs.paths import AnyPath, locate


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of the command."""
    parser.add_argument(
        "workdirs", nargs="+", metavar="WORKDIR", help="of evaluations; runs/*"
    )
    parser.add_argument(
        "--out", required=True, metavar="DIR",
        help="folder for index.html, report.md, report.json and pictures; "
        "an earlier report there is replaced",
    )  # fmt: skip


def run(args: argparse.Namespace, failed: object) -> None:
    """Writes the page, and says where it is."""
    folders = [locate(name) for name in args.workdirs]
    for folder in folders:
        if not folder.is_dir():
            raise FileNotFoundError(f"{folder}: no such folder")
    out = locate(args.out)
    if staging.complete(out) and not (out.is_dir() and _replaceable(out)):
        raise FileExistsError(
            f"{out}: holds other things than a report; choose another folder"
        )
    found = page.read(folders)
    with staging.new_folder(out) as new:
        page.write(found, new)
    print(f"{counted(len(found.rows), 'row')}, {len(found.left_out)} left out: "
          f"{out / 'index.html'}, {out / 'report.md'}")  # fmt: skip


def _replaceable(folder: AnyPath) -> bool:
    names = {path.name for path in folder.iterdir()}
    return names <= {"index.html", "report.md", "report.json", "pictures"}
