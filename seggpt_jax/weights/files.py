"""Which files of a folder, or of a repository on the hub, are a model."""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from seggpt_jax.data.files import hidden
from seggpt_jax.runs import checksums
from seggpt_jax.runs.paths import AnyPath
from seggpt_jax.runs.workdir import CONFIG

MODEL = "model.safetensors"
INDEX = f"{MODEL}.index.json"
TORCH = (".pth", ".pt", ".bin")  # suffixes of PyTorch's files
SUFFIXES = (".safetensors", *TORCH)


def model_files(names: Iterable[str]) -> list[str]:
    """The files among `names` that are a model, weights last; none without a model.

    The first of these forms that is there: a release; shards of transformers, by their
    index alone (`shards` names the rest); its one file; a `.pth`. Raises ValueError
    where there are several `.pth`.
    """
    found = {name for name in names if not hidden(Path(name))}
    if {checksums.SUMS, CONFIG, MODEL} <= found:
        return [checksums.SUMS, CONFIG, MODEL]
    settings = [CONFIG] if CONFIG in found else []
    for name in (INDEX, MODEL, "pytorch_model.bin"):
        if name in found:
            return [*settings, name]
    single = sorted(name for name in found if Path(name).suffix in (".pth", ".pt"))
    if len(single) > 1:
        raise ValueError(f"several models: choose one of {', '.join(single)}")
    return [*settings, *single] if single else []


def parts(folder: Path) -> list[Path]:
    """The files of the model in a folder, also those that an index misses. Raises
    ValueError where there are several `.pth`."""
    try:
        found = model_files(path.name for path in folder.iterdir())
    except ValueError as error:
        raise ValueError(f"{folder} holds {error}") from error
    if INDEX in found:
        found += shards(folder / INDEX)
    return [folder / name for name in found]


def shards(index: Path) -> list[str]:
    """The files that hold the tensors, by the index of transformers."""
    where = read_json(index).get("weight_map")
    if not isinstance(where, dict) or not where:
        raise ValueError(f"{index} has no weight_map")
    for name in where.values():
        # A name of another folder would read what the user did not mean.
        if not isinstance(name, str) or Path(name).name != name or "\0" in name:
            raise ValueError(f"{index}: {name!r} is no name of a file beside it")
    return sorted(set(where.values()))


def read_json(path: AnyPath) -> dict[str, Any]:
    """Reads a JSON object. Raises ValueError that names the file."""
    try:
        content = json.loads(path.read_text())
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is not JSON: {error}") from error
    if not isinstance(content, dict):
        raise ValueError(f"{path} is no JSON object")
    return content


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Writes a JSON object that people may read."""
    path.write_text(json.dumps(dict(content), indent=2) + "\n")
