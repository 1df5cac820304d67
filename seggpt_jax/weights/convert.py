"""Weights from one form to another, compared with PyTorch where it is installed."""

import dataclasses
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import jax
import numpy as np
from safetensors.numpy import save_file

from seggpt_jax.config import suggest
from seggpt_jax.models.params import to_torch
from seggpt_jax.models.seggpt import SegGPTConfig, quarters
from seggpt_jax.predict import make_predict_fn
from seggpt_jax.runs import paths
from seggpt_jax.runs.workdir import CONFIG
from seggpt_jax.weights import pretrained, release, torch_bridge
from seggpt_jax.weights.build import build_model
from seggpt_jax.weights.card import CARD, write_card
from seggpt_jax.weights.files import MODEL, write_json
from seggpt_jax.weights.names import repository

FORMS = ("ours", "official", "hf", "hub-folder")
_HUB = FORMS[3]
_OFFICIAL, _PROCESSOR = "seggpt.pth", "preprocessor_config.json"


def convert(
    source: str | os.PathLike,
    output: str | os.PathLike,
    to: str = "ours",
    raw: bool = False,
    license: str = "",
    say: Callable[[str], object] = lambda text: None,
) -> Iterator[str]:
    """Writes the weights at `source` as a folder; yields lines for the user.

    source, raw: as in `pretrained.load`. to: `ours`, a release; `official`, a .pth file
    like the authors'; `hf`, a folder that transformers loads; `hub-folder`, the same
    with a model card, to be uploaded. license: what the card says. say: is told what
    is done next, before each part that takes long. A failed output leaves nothing
    behind, and only an existing release is replaced.
    """
    if to not in FORMS:
        raise ValueError(f"--to={to} is unknown{suggest(to, FORMS)}")
    if license and to != _HUB:
        raise ValueError(f"--license={license} is for a model card: --to={_HUB}")
    paths.check("output", output, paths.BUCKET)
    output = paths.locate(output)
    release.check_new(output)
    if to == "official":
        torch_bridge.require(output)
    say(f"reading {source}")
    weights = pretrained.load(source, raw)
    config, params = weights.config, weights.params
    count = sum(np.size(leaf) for leaf in jax.tree.leaves(params))
    yield (f"{source}: {config.depth} blocks of width {config.width}, "
           f"{count:,} parameters")  # fmt: skip
    yield from weights.notes
    say(f"writing {output}")
    with release.new_folder(output) as folder:
        if to == "ours":
            release.write_params(folder, params, dataclasses.asdict(config))
        else:
            _write_torch(folder, config, params, to)
            yield "the unused position of the cls token is written as zeros"
        if to == _HUB:
            origin = repository(weights.name)
            write_card(folder / CARD, output.name, config, count, origin, license)
        yield check(folder, config, params, say)
    as_released = config.merge_after == 2 and config.taps == quarters(config.depth)
    if to == "official" and not as_released:
        yield (
            "the authors' code merges after block 2 and taps each quarter of the "
            "depth: with these weights it computes another function"
        )
    yield f"wrote {output} ({to})"
    if to == _HUB and not license:
        yield f"its {CARD} names no licence: write it there before you upload"
    if to == _HUB:
        yield f"upload it: hf upload OWNER/{output.name} {output}"


def check(
    path: str | os.PathLike,
    config: SegGPTConfig,
    params,
    say: Callable[[str], object] = lambda text: None,
) -> str:
    """Reads the folder back and compares its forward pass with PyTorch's. say: as of
    `convert`.

    Returns a line for the user. Raises ValueError where the folder reads differently.
    """
    say("reading it back")
    again = pretrained.load(path)
    same = map(np.array_equal, jax.tree.leaves(again.params), jax.tree.leaves(params))
    if not all(same) or again.config.geometry != config.geometry:
        raise ValueError(f"{path} reads back differently from what was written")
    if not torch_bridge.installed("torch", "transformers"):
        return (
            "read back, equal; not checked against PyTorch: pip install "
            "'seggpt_jax[torch]' for that"
        )
    if config.one_way:
        return "read back, equal; PyTorch has no one-way model to check it against"
    say("comparing it with PyTorch on a random pair: both models run")
    rng = np.random.default_rng(0)
    images, targets, query = rng.standard_normal((3, 1, *config.half, 3), np.float32)
    state = to_torch(again.config, again.params, "hf")
    theirs = torch_bridge.run_port(
        torch_bridge.build_port(config, state), images, targets, query
    )
    exact = build_model({"dtype": "float32", "attention": "auto"}, again)
    ours = make_predict_fn(exact)(
        again.params, images[None], targets[None], query, np.zeros(1, np.int32)
    )
    apart = float(np.abs(np.asarray(ours) - theirs).max())
    scale = float(np.abs(theirs).max())
    return (
        f"checked against PyTorch: paintings of a random pair differ by at most "
        f"{apart:.1e}, on values up to {scale:.2g}"
    )


def _write_torch(folder: Path, config: SegGPTConfig, params, to: str) -> None:
    layout = "official" if to == "official" else "hf"
    state = to_torch(config, params, layout)
    settings = {
        "architectures": ["SegGptForImageSegmentation"],
        "model_type": "seggpt",
        **torch_bridge.port_config(config),
    }
    write_json(folder / CONFIG, settings)
    if layout == "official":
        torch_bridge.save_state(folder / _OFFICIAL, state)
    else:
        save_file(state, folder / MODEL, metadata={"format": "pt"})
        write_json(folder / _PROCESSOR, torch_bridge.processor_config(config))
