"""Released parameters: a folder with safetensors, the model's config and checksums."""

import contextlib
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from flax import traverse_util
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from seggpt_jax.runs import checksums, paths, staging
from seggpt_jax.runs.workdir import CONFIG, check_writable
from seggpt_jax.weights.files import MODEL, read_json, write_json


def export_params(
    path: str | os.PathLike, params: Mapping[str, Any], config: Mapping[str, Any]
) -> None:
    """Writes a release folder: `model.safetensors`, `config.json` and `SHA256SUMS`.

    params: nested dicts of arrays; names in the file are joined by slashes. An existing
    release at `path` is replaced; anything else there raises FileExistsError.
    """
    with new_folder(path) as new:
        write_params(new, params, config)


def write_params(
    folder: Path, params: Mapping[str, Any], config: Mapping[str, Any]
) -> None:
    """Writes the files of a release into an empty folder."""
    flat = traverse_util.flatten_dict(params, sep="/")
    # safetensors writes the memory of an array as it is, and ignores its strides.
    arrays = {name: np.asarray(x, order="C") for name, x in flat.items()}
    save_file(arrays, folder / MODEL)
    write_json(folder / CONFIG, config)
    checksums.write(folder)


def check_new(path: paths.AnyPath) -> None:
    """Raises OSError where `new_folder` cannot write, or would replace anything but a
    release."""
    if staging.complete(path) and not is_release(path):
        raise FileExistsError(
            f"{path} exists and is not a release; nothing was written"
        )
    check_writable(path.parent)


@contextlib.contextmanager
def new_folder(path: str | os.PathLike) -> Iterator[Path]:
    """A new folder to write into; it becomes `path` if no error was raised.

    A release at `path` is replaced; anything else there raises FileExistsError.
    """
    path = paths.locate(path)
    check_new(path)
    with staging.new_folder(path, last=checksums.SUMS) as new:
        try:
            yield new
        except SafetensorError as error:
            raise OSError(f"{path / MODEL} could not be written: {error}") from error
        for file in new.iterdir():
            file.chmod(0o644)  # safetensors lets nobody else read its files


def is_release(path: str | os.PathLike) -> bool:
    """Whether a folder is a release, whole or not, as `export_params` writes it."""
    return (paths.locate(path) / checksums.SUMS).is_file()


def load_params(path: str | os.PathLike) -> tuple[dict[str, Any], dict[str, Any]]:
    """Reads a release folder as `(params, config)`, params as nested NumPy dicts.

    Raises FileNotFoundError when the folder is no release and ValueError, naming the
    file, when one is missing or differs from its checksum.
    """
    path = Path(path)
    for name in (checksums.SUMS, MODEL, CONFIG):
        if not (path / name).is_file():
            raise FileNotFoundError(f"{path} is not a release: it has no {name}")
    fault = checksums.fault(path, {MODEL, CONFIG})
    if fault:
        raise ValueError(f"release {path} is damaged: {fault}. Fetch it again")
    config = read_json(path / CONFIG)
    try:
        params = traverse_util.unflatten_dict(load_file(path / MODEL), sep="/")
    # AttributeError and KeyError: a number type that NumPy does not have. TypeError
    # and IndexError: a tensor where others have a folder.
    except (SafetensorError, LookupError, AttributeError, TypeError) as error:
        why = error if isinstance(error, SafetensorError) else "its tensors do not nest"
        raise ValueError(
            f"release {path} cannot be read: {why}; fetch {MODEL} again"
        ) from error
    return params, config
