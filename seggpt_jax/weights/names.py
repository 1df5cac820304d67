"""A model's name: a path; else a bundled name; else one of the hub."""

import os
from pathlib import Path
from typing import NamedTuple

from seggpt_jax.config import shorten
from seggpt_jax.runs import hosts, paths
from seggpt_jax.runs.buckets import BucketPath
from seggpt_jax.weights import hub

DEFAULT = "mini"  # the bundled model for photographs
_BUNDLED = Path(__file__).parents[1] / "bundled"


class Model(NamedTuple):
    """Where a model is, and the name that says which one it is.

    name: as given; of the hub's models `owner/name@commit`, which never changes.
    """

    path: paths.AnyPath
    name: str


class Known(NamedTuple):
    """A model that others may want: its bytes, its licence, what it is good for."""

    size: int
    licence: str
    use: str


# Of the hub's models: sizes and licences as their pages state them.
KNOWN = {
    "mini": Known(0, "research only", "a first look at photographs; low scores"),
    "shapes": Known(0, "Apache-2.0", "procedural scenes; shows that everything works"),
    "BAAI/seggpt-vit-large": Known(
        1_480_000_000, "Apache-2.0", "SegGPT ViT-L as released: photographs and videos"
    ),
    "BAAI/SegGPT": Known(
        1_480_000_000, "MIT", "the same in the authors' .pth; needs PyTorch"
    ),
    "BAAI/Painter": Known(
        1_480_000_000, "MIT", "Painter, to start training from; needs PyTorch"
    ),
}


def bundled() -> dict[str, Path]:
    """Name -> folder of the models that come with the package."""
    found = sorted(_BUNDLED.iterdir()) if _BUNDLED.is_dir() else []
    return {path.name: path for path in found}


def resolve(name: str | os.PathLike) -> Model:
    """Finds a model by its name, and fetches one of the hub.

    name: a path that exists, also in a bucket; else a bundled name; else, of a text,
    `owner/name` or `owner/name@revision` on the hub. Raises FileNotFoundError where it
    is none of them, ValueError for an address, and what `hub.fetch` raises.
    """
    text = os.fspath(name)
    paths.check("model", text, paths.MODEL)
    path = paths.locate(text)
    if path.exists() if isinstance(path, BucketPath) else os.path.exists(text):
        return Model(path, text)
    if isinstance(path, BucketPath):
        raise FileNotFoundError(
            f"{text}: there is no such model, or no bucket {path.parts[2]!r}"
        )
    if text in bundled():
        return Model(bundled()[text], text)
    if isinstance(name, str) and hub.is_name(name):
        return Model(*hub.fetch(name))
    raise FileNotFoundError(
        f"{text} is neither a file, nor a folder, nor a bundled model "
        f"({shorten(bundled())}), nor of the form owner/name of the hub"
    )


def repository(name: str) -> str:
    """The repository of a `Model.name` of the hub; "" of another."""
    return "" if os.path.exists(name) or name in bundled() else name.partition("@")[0]


def pinned(name: str) -> str:
    """The name by which all processes of a run, now and after a restart, read the same
    model: to a name of the hub, whose branches move, the commit is added.

    Every process of a run must make the call. Raises what `resolve` raises.
    """
    return hosts.on_first(lambda: resolve(name).name)
