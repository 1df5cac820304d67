"""The folder of one run: checked to be usable and to belong to this run's config."""

import fnmatch
import json
import os
import re
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from seggpt_jax.runs import paths, staging
from seggpt_jax.runs.buckets import BucketPath
from seggpt_jax.runs.paths import AnyPath

CONFIG = "config.json"
RUN = "a run of another config"
RESULTS = "results of other prompts or settings"
_ABSENT = object()
_SHA256 = re.compile("[0-9a-f]{64}")
_TRIAL = ".trial"  # written and removed, to see whether a bucket lets us


def prepare_workdir(
    workdir: str | os.PathLike,
    config: str,
    may_change: Sequence[str] = (),
    complete: Callable[[str], str] = str,
    name: str = CONFIG,
    holds: str = RUN,
) -> None:
    """Checks the folder, and stores `config`, a JSON object, as file `name` in it.

    Call it on process 0 only, and only after all checks of the config: afterwards the
    workdir belongs to this config.
    """
    check_workdir(workdir, config, may_change, complete, name, holds)
    path = paths.locate(workdir) / name
    with staging.new_file(path) as new:
        new.write_text(json.dumps(json.loads(config), indent=2, sort_keys=True) + "\n")


def check_workdir(
    workdir: str | os.PathLike,
    config: str,
    may_change: Sequence[str] = (),
    complete: Callable[[str], str] = str,
    name: str = CONFIG,
    holds: str = RUN,
) -> None:
    """Creates the folder, or refuses it; call it before anything is built.

    A workdir with a file `name` belongs to a run already: ValueError lists the settings
    that differ. may_change: shell patterns of the dotted names of settings that may
    differ on resume, such as `log_every` or `mesh.*`. complete: adds the defaults that
    a stored config leaves out. holds: what a folder of other settings holds, for the
    error. Raises OSError when the folder cannot be written.
    """
    paths.check("workdir", workdir, paths.BUCKET)
    folder = paths.locate(workdir)
    check_writable(folder)
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / name
    if path.exists():
        _check_same_run(path, json.loads(config), may_change, complete, holds)


def check_writable(folder: AnyPath) -> None:
    """Raises OSError where files cannot be written into a folder. A folder that is not
    there yet is not made: the nearest folder above it must be writable."""
    # Only a write tells: permission bits are no use for root or on a read-only mount.
    if isinstance(folder, BucketPath):
        try:
            (folder / _TRIAL).write_bytes(b"\0")
            (folder / _TRIAL).unlink()
        except OSError as error:
            raise OSError(f"{folder} cannot be written: {error}") from error
        return
    whole = folder.absolute()
    there = next(p for p in (whole, *whole.parents) if os.path.exists(p))
    try:
        with tempfile.TemporaryFile(dir=there) as file:
            file.write(b"\0")
    except OSError as error:
        raise OSError(
            f"{folder} cannot be written ({error.strerror}); choose another folder"
        ) from error


def _check_same_run(
    path: AnyPath,
    new: Any,
    may_change: Sequence[str],
    complete: Callable[[str], str],
    holds: str,
) -> None:
    try:
        old = json.loads(complete(path.read_text()))
    except ValueError as error:
        raise ValueError(
            f"{path} is not JSON ({error}): restore it, or use a new workdir"
        ) from error
    before, after = dict(_settings(old)), dict(_settings(new))
    changed = [
        f"  {name}: {_shown(before, name)} -> {_shown(after, name)}"
        for name in sorted(before.keys() | after.keys())
        if before.get(name, _ABSENT) != after.get(name, _ABSENT)
        and not any(fnmatch.fnmatchcase(name, pattern) for pattern in may_change)
    ]
    if changed:
        raise ValueError(
            f"{path.parent} holds {holds} (old -> new):\n"
            + "\n".join(changed)
            + "\nUse the old settings to go on with it, or a new folder"
        )


def _settings(config: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Dotted names and plain values; lists count by position, as `augment.0.size`."""
    if isinstance(config, list):
        config = dict(enumerate(config))
    if not isinstance(config, Mapping) or not config:
        yield prefix.removesuffix("."), config
        return
    for key, value in config.items():
        yield from _settings(value, f"{prefix}{key}.")


def _shown(settings: Mapping[str, Any], name: str) -> str:
    if name not in settings:
        return "(not set)"
    value = settings[name]
    if isinstance(value, str) and _SHA256.fullmatch(value):
        return f"sha256 {value[:8]}..."
    return json.dumps(value)
