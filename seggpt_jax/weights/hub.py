"""Models of the Hugging Face hub: fetched once, then read from the library's cache.

This module and `card` alone know huggingface_hub. They import it late: half a second
that models of this machine do not need.
"""

import os
import re
from collections.abc import Callable
from logging import WARNING, getLogger
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from absl import logging

from seggpt_jax.config import shorten
from seggpt_jax.runs import checksums
from seggpt_jax.runs.workdir import CONFIG
from seggpt_jax.weights import torch_bridge
from seggpt_jax.weights.files import (
    INDEX,
    SUFFIXES,
    TORCH,
    model_files,
    parts,
    read_json,
    shards,
)

if TYPE_CHECKING:
    from huggingface_hub import HFCacheInfo

_NAME = re.compile(r"([A-Za-z0-9][\w.-]*/[\w.-]+?)(?:@(\S+))?", re.ASCII)
_COMMIT = re.compile("[0-9a-f]{40}")
_SHA256 = re.compile("[0-9a-f]{64}")
_BRANCH = "main"  # where a name says no other
_TYPE = "seggpt"  # of transformers, in config.json
_TIMEOUT = 10  # seconds for the hub's first answer
_SUMS: dict[tuple[Path, int, int, int], str] = {}  # of files that were read


class Cached(NamedTuple):
    """A model in the cache: its repository and commit, the branches and tags that were
    asked for, its folder, and the bytes of all its files."""

    repository: str
    commit: str
    revisions: frozenset[str]
    folder: Path
    size: int

    @property
    def name(self) -> str:
        return f"{self.repository}@{self.commit}"

    @property
    def shortest(self) -> str:
        """The shortest name by which it is read from the cache."""
        if _BRANCH in self.revisions:
            return self.repository
        return f"{self.repository}@{min([*self.revisions, self.commit], key=len)}"


def is_name(name: str) -> bool:
    """Whether a text may be a model of the hub: `owner/name` or `owner/name@revision`.

    A name that ends like a file of weights is a file that is not there.
    """
    return bool(_NAME.fullmatch(name)) and not name.endswith(SUFFIXES)


def fetch(name: str) -> tuple[Path, str]:
    """Fetches what is missing of a model -> its folder, and its name with the commit.

    A commit that is in the cache is read without a request, and so is everything with
    HF_HUB_OFFLINE=1. If the hub fails, the cache serves, with a warning. Raises OSError
    or ValueError, one sentence with the remedy.
    """
    from huggingface_hub import constants

    found = _NAME.fullmatch(name)
    assert found, name
    repository, revision = found[1], found[2] or _BRANCH
    known = constants.HF_HUB_OFFLINE or _COMMIT.fullmatch(revision)
    folder = _kept(name, repository, revision) if known else None
    if folder is None:
        try:
            folder = _download(name, repository, revision)
        except OSError as error:
            folder = _kept(name, repository, revision)
            if folder is None:
                raise
            kept = f"{repository}@{folder.name}"
            logging.warning("%s. Taking %s from the cache", error, kept)
    _check(folder)
    return folder, f"{repository}@{folder.name}"


def _check(folder: Path) -> None:
    """Raises ValueError where a file is not what the hub has.

    The cache names large files by their sha256, and keeps links to them. Where a file
    system has no links, nothing can be checked.
    """
    for path in parts(folder):
        wanted = path.readlink().name if path.is_symlink() else ""
        if _SHA256.fullmatch(wanted) and _sha256(path, path.stat()) != wanted:
            raise ValueError(
                f"{path} is damaged: it differs from its sha256. Delete "
                f"{folder.parents[1]} to have it fetched again"
            )


def _sha256(path: Path, state: os.stat_result) -> str:
    """Of a file in this state, once for a process: `names.pinned` has it computed, and
    then whoever reads the model."""
    key = path.resolve(), state.st_ino, state.st_size, state.st_mtime_ns
    if key not in _SUMS:
        _SUMS[key] = checksums.sha256(path)
    return _SUMS[key]


def cached() -> list[Cached]:
    """The whole models in the cache, by name; SegGPT's alone, as far as files tell."""
    from huggingface_hub import constants

    if not Path(constants.HF_HUB_CACHE).is_dir():
        return []
    found = [
        Cached(repo.repo_id, one.commit_hash, one.refs, one.snapshot_path,
               one.size_on_disk)
        for repo in _scan().repos
        if repo.repo_type == "model"
        for one in repo.revisions
    ]  # fmt: skip
    return sorted(one for one in found if _is_whole(one.folder))


def _scan() -> "HFCacheInfo":
    """The whole cache. The library fails where another process renames a file of it
    meanwhile, which takes no time: so it is asked again."""
    from huggingface_hub import scan_cache_dir

    for _ in range(9):
        try:
            return scan_cache_dir()
        except FileNotFoundError:
            continue
    return scan_cache_dir()


def _kept(name: str, repository: str, revision: str) -> Path | None:
    """The folder of a model in the cache; None if it is not there, or in part."""
    from huggingface_hub import snapshot_download

    try:  # No patterns: the files of a model are looked at here.
        folder = _ask(name, snapshot_download, repository, revision=revision,
                      local_files_only=True, allow_patterns=[])  # fmt: skip
    except OSError:
        return None
    return Path(folder) if _is_whole(Path(folder)) else None


def _is_whole(folder: Path) -> bool:
    try:
        found = parts(folder)
        foreign = folder / CONFIG in found and _foreign(folder / CONFIG)
    except (ValueError, OSError):
        return False
    return bool(found) and not foreign and all(path.exists() for path in found)


def _foreign(config: Path) -> str:
    """The model's type, where it is not SegGPT's; a release states none."""
    kind = read_json(config).get("model_type", _TYPE)
    return "" if kind == _TYPE else str(kind)


def _download(name: str, repository: str, revision: str) -> Path:
    """Fetches a model's files, and nothing else of its repository -> their folder."""
    from huggingface_hub import HfApi, hf_hub_download

    _quiet_requests()
    info = _ask(name, HfApi().model_info, repository, revision=revision,
                timeout=_TIMEOUT)  # fmt: skip
    names = [one.rfilename for one in info.siblings or [] if "/" not in one.rfilename]
    try:
        files = model_files(names)
    except ValueError as error:
        raise ValueError(f"{name} holds {error}; fetch it, and give its path") from None
    if not files:
        raise ValueError(
            f"{name} holds no model: neither a release, nor transformers' files, nor a "
            f".pth, but {shorten(names, 5)}"
        )
    if files[-1].endswith(TORCH):
        torch_bridge.require(f"{name} ({files[-1]})")

    def get(file: str, at: str) -> Path:
        return Path(_ask(name, hf_hub_download, repository, file, revision=at))

    # The first file ties the revision to a commit; the others are of this commit.
    folder = get(files[0], revision).parent
    for place, file in enumerate(files):
        path = get(file, folder.name) if place else folder / file
        # Before gigabytes are fetched in vain.
        if file == CONFIG and (kind := _foreign(path)):
            raise ValueError(f"{name} is a model of type {kind!r}, and no SegGPT")
        if file == INDEX:
            files += shards(path)
    logging.info("%s: commit %s, in %s", name, folder.name, folder)
    return folder


def _ask(name: str, function: Callable[..., Any], *args: Any, **settings: Any) -> Any:
    """Calls a function of huggingface_hub; any failure is one sentence."""
    from huggingface_hub import constants, errors

    hub, repository = constants.ENDPOINT, args[0]
    try:
        return function(*args, **settings)
    except errors.HFValidationError as error:
        raise ValueError(
            f"{name} is no path, nor a name of the hub: {error}"
        ) from error
    except errors.GatedRepoError as error:
        raise PermissionError(
            f"{name} is gated: accept its terms at {hub}/{repository}, then log in "
            "(`hf auth login`, or set HF_TOKEN)"
        ) from error
    except errors.RepositoryNotFoundError as error:
        raise FileNotFoundError(
            f"{name}: there is no such file or folder, and {hub} has no such model; "
            "a private one asks for a login (`hf auth login`, or set HF_TOKEN)"
        ) from error
    except errors.RevisionNotFoundError as error:
        raise FileNotFoundError(
            f"{name}: {repository} has no branch, tag or commit of this name"
        ) from error
    except errors.OfflineModeIsEnabled as error:
        raise ConnectionError(
            f"{name}: there is no such file or folder, no such model in the cache "
            f"({constants.HF_HUB_CACHE}), and HF_HUB_OFFLINE=1 forbids to ask {hub}"
        ) from error
    # The library lets through what its transports raise: httpx, httpx2, hf_xet.
    except Exception as error:
        cause = error.__cause__ if isinstance(error, FileNotFoundError) else None
        lines = str(cause or error).split("\n")
        reason = lines[0] or type(cause or error).__name__
        if isinstance(error, OSError) and error.errno:
            raise OSError(
                f"{name} could not be written into the cache "
                f"({constants.HF_HUB_CACHE}): {error.strerror}"
            ) from error
        raise ConnectionError(
            f"{name}: there is no such file or folder, and it could not be fetched "
            f"from {hub}: {reason}"
        ) from error


def _quiet_requests() -> None:
    """A line of log for each request would hide a training run's own lines."""
    for library in ("httpx", "httpx2"):
        getLogger(library).setLevel(WARNING)
