"""Weights of every form, intact and damaged, read by `weights.build.load_model`.

What was written is the second reading: intact weights, and those that are damaged where
sums tell it, must give the parameters of a small model that is known.
"""

import argparse
import json
import shutil
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
from safetensors.numpy import save as to_bytes
from safetensors.numpy import save_file

from seggpt_jax.models.params import to_torch
from seggpt_jax.runs import checksums
from seggpt_jax.weights import release
from seggpt_jax.weights.build import load_model
from seggpt_jax.weights.torch_bridge import port_config
from tests.fuzz.outcomes import Wrong, check_equal, damaged, refusing
from tests.support.models import SMALL, random_params, small

State = dict[str, np.ndarray]
# Names that torch, safetensors and JSON have for what is damaged.
_QUOTED = "cannot be read"


def start(home: Path) -> dict[str, Any]:
    params = jax.device_get(random_params(small()))
    # Of the position of the cls token, which is never read, nothing is kept.
    states = {name: to_torch(SMALL, params, name) for name in ("official", "hf")}
    return {"params": params, **states}


def attempt(rng: np.random.Generator, folder: Path, started: dict[str, Any]) -> None:
    form = _FORMS[rng.integers(len(_FORMS))]
    layout = str(rng.choice(["official", "hf"]))
    state = dict(started[layout])
    same = True
    if rng.random() < 0.4 and form not in (_release, _odd_release):
        state, same = _changed(rng, state)
    path, safe = form(rng, folder, state, layout, started["params"])
    if rng.random() < 0.4:
        files = sorted(p for p in folder.rglob("*") if p.is_file())
        one = files[rng.integers(len(files))]
        _damage(rng, one)
        same = same and (True if safe else None)
    _check(rng, path, folder, same, started["params"])


def _check(rng, path: Path, folder: Path, same: bool | None, params: Any) -> None:
    """same: whether the weights are those known; None where nothing can tell. Only
    with false they must be refused."""
    name = f"{path}/" if path.is_dir() and rng.random() < 0.1 else str(path)
    with refusing(str(folder), quoted=_QUOTED):
        _, weights = load_model(name)
    if same is None:
        return
    if not same:
        raise Wrong("weights that do not fit, or have no numbers, were read")
    found, wanted = jax.tree.leaves(weights.params), jax.tree.leaves(params)
    for one, right in zip(found, wanted, strict=True):
        if not np.array_equal(one, right):
            check_equal(np.asarray(one), np.asarray(right), "parameters")
            raise Wrong("other parameters were read than written")
    if weights.config.geometry != SMALL.geometry:
        raise Wrong(f"another geometry was read: {weights.config}")


def _changed(rng: np.random.Generator, state: State) -> tuple[State, bool | None]:
    """A state dict with a fault, and whether it is still the known one."""
    names = list(state)
    name = names[rng.integers(len(names))]
    x = state[name]
    way = str(rng.choice(["missing", "extra", "shape", "nan", "type", "rename", "block",
                          "empty", "prefix", "swap", "scalar"]))  # fmt: skip
    if way == "missing":
        del state[name]
    elif way == "extra":
        more = ["extra", "model", "blocks.9.norm1.weight", "head.weight", "", "a/b"]
        state[str(rng.choice(more))] = np.ones((2, 3), np.float32)
    elif way == "shape":
        turns: list[Callable] = [
            lambda x: x.T if x.ndim > 1 and x.shape != x.T.shape else x[..., None],
            lambda x: x[..., : x.shape[-1] // 2], lambda x: x[None],
            lambda x: x.ravel() if x.ndim > 1 else x[None], lambda x: x[:0],
            lambda x: np.concatenate([x, x]),
        ]  # fmt: skip
        state[name] = np.ascontiguousarray(turns[rng.integers(len(turns))](x))
    elif way == "nan":
        bad = x.copy()
        bad.flat[rng.integers(x.size)] = rng.choice([np.nan, np.inf, -np.inf])
        unread = name.endswith(("pos_embed", "position_embeddings"))
        state[name] = bad
        return state, None if unread else False
    elif way == "type":
        kind = str(rng.choice(["f8", "f2", "i4", "u1", "?", "i8"]))
        state[name] = x.astype(kind)
        return state, True if kind == "f8" else None
    elif way == "rename":
        state[str(rng.choice([f"x.{name}", name.upper(), name[:-1], "é" + name]))] = x
        del state[name]
    elif way == "block":
        number = str(rng.choice(["999999999", "100000", "7", "-1", "1e9", "9" * 40]))
        state[f"blocks.{number}.norm1.weight"] = np.ones(24, np.float32)
        state[f"model.encoder.layers.{number}.layernorm_before.weight"] = x
    elif way == "empty":
        return {}, False
    elif way == "prefix":
        return {f"module.{name}": x for name, x in state.items()}, True
    elif way == "swap":
        other = names[rng.integers(len(names))]
        same = state[other].shape == x.shape
        state[name], state[other] = state[other], x
        return state, None if same else False
    else:
        state[name] = np.ones((), np.float32)
    return state, False


def _safetensors(rng, folder: Path, state: State, layout: str, params):
    path = folder / str(
        rng.choice(["w.safetensors", "model.safetensors", "é x.safetensors"])
    )
    save_file(state, path, metadata={"format": "pt"} if rng.random() < 0.5 else None)
    if rng.random() < 0.3:
        _settings(folder, state)  # beside a file it is not read
    return path, False


def _pth(rng, folder: Path, state: State, layout: str, params):
    import torch

    tensors: dict[str, Any] = {
        n: torch.from_numpy(np.array(x)) for n, x in state.items()
    }
    form = rng.integers(6)
    saved: Any = tensors
    if form == 1:
        saved = {
            "model": tensors,
            "epoch": 3,
            "args": argparse.Namespace(lr=1e-4, x=[1]),
        }
    elif form == 2:
        saved = {
            "state_dict": tensors,
            "optimizer": {"state": {}, "param_groups": [{}]},
        }
    elif form == 3:
        saved = {"model": {n: torch.nn.Parameter(x) if x.is_floating_point() else x
                           for n, x in tensors.items()}}  # fmt: skip
    path = folder / str(rng.choice(["w.pth", "w.pt", "w.bin"]))
    torch.save(saved, path, _use_new_zipfile_serialization=bool(rng.random() < 0.7))
    return path, False


def _odd_pth(rng, folder: Path, state: State, layout: str, params):
    """Files of PyTorch that hold something else."""
    import torch

    x = torch.ones(3)
    odd: list[Any] = [
        x, [x], {"model": 3}, {}, None, {"model": {}}, {"state_dict": [x]}, {3: x},
        {"model": {"a": "b"}}, "text", {"a": x.to_sparse()}, {"a": x.to("meta")},
        torch.nn.Linear(2, 2), {"a": torch.complex(x, x)}, {"a": None}, {"a": {"b": x}},
        {("a", 1): x}, {"a": x.to(torch.float8_e4m3fn)}, {"model": {"model": {"a": x}}},
        torch.dtype,
        {"pos_embed": x, "blocks.0.norm1.weight": x, "patch_embed.proj.weight": x},
    ]  # fmt: skip
    path = folder / "w.pth"
    torch.save(odd[rng.integers(len(odd))], path)
    raise_if_read(path, folder)
    return path, False


def raise_if_read(path: Path, folder: Path) -> None:
    with refusing(str(folder), str(Path("none").absolute()), quoted=_QUOTED):
        load_model(path)
    raise Wrong("a file without a model was read as one")


def _settings(folder: Path, state: State, **changed: Any) -> None:
    settings = {"model_type": "seggpt", **port_config(SMALL), **changed}
    (folder / "config.json").write_text(json.dumps(settings))


def _folder(rng, folder: Path, state: State, layout: str, params):
    """A folder of transformers: one file, shards, a .pth."""
    form = str(rng.choice(["one", "shards", "bin"]))
    _settings(folder, state)
    if form == "one":
        save_file(state, folder / "model.safetensors")
    elif form == "bin":
        _pth(np.random.default_rng(0), folder, state, layout, params)
        (folder / next(folder.glob("w.*")).name).rename(folder / "pytorch_model.bin")
    else:
        names = list(state)
        half = len(names) // 2
        files = ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"]
        parts = dict(zip(files, (names[:half], names[half:]), strict=True))
        where = {name: file for file, own in parts.items() for name in own}
        for file, own in parts.items():
            save_file({n: state[n] for n in own}, folder / file)
        index = {"metadata": {}, "weight_map": where}
        (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    return folder, False


def _odd_index(rng, folder: Path, state: State, layout: str, params):
    """An index that names other things than the files beside it."""
    save_file(state, folder / "a.safetensors")
    (folder.parent / "secret.safetensors").write_bytes(to_bytes(state))
    odd: list[Any] = [
        {"a": "../secret.safetensors"},
        {"a": str(folder.parent / "secret.safetensors")},
        {"a": "none.safetensors"}, {"a": 3}, {"a": None}, {"a": ["a.safetensors"]}, {},
        {"a": ""}, {"a": "a.safetensors", "b": "./a.safetensors"}, [], "a", None,
        {"a": "config.json"}, {"a": "."}, {"a": "a.safetensors/"}, {"a": "x\0y"},
        {"a": "n" * 300 + ".safetensors"}, {"a": 1, "b": "a.safetensors"},
    ]  # fmt: skip
    index = {"weight_map": odd[rng.integers(len(odd))]}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    try:
        raise_if_read(folder, folder)
    finally:
        (folder.parent / "secret.safetensors").unlink()
    return folder, False


_VALUES: list[Any] = [0, -1, 1, 2, 10**9, 10**30, 1.5, "2", "", None, [], [1], [0, 1,
                      2],
                      {}, True, [1, 3], [3, 1], ["1", "3"], [[1], 3], float("nan"),
                      float("inf"), [1e300, 3], "x" * 500]  # fmt: skip


def _value(rng: np.random.Generator) -> Any:
    return _VALUES[rng.integers(len(_VALUES))]


def _odd_settings(rng, folder: Path, state: State, layout: str, params):
    """A config.json of transformers with other values, or another file of that name."""
    save_file(state, folder / "model.safetensors")
    names = list(port_config(SMALL))
    _settings(folder, state, **{names[rng.integers(len(names))]: _value(rng)})
    if rng.random() < 0.4:
        odd = [b"", b"[]", b"null", b"{", b"\xff\xfe{\0}\0", b"[" * 5000, b"3",
               b'{"merge_index": 1, "merge_index": "x"}', b"\xef\xbb\xbf{}",
               b'{"intermediate_hidden_state_indices": [1, 3], "merge_index": 1}',
               b'{"stages": {}}', b'{"stages": {}, "model": 3}', b"{}",
               b'{"stages": {}, "model": {"size": "s16"}, "mode": "tune"}',
               ]  # fmt: skip
        (folder / "config.json").write_bytes(odd[rng.integers(len(odd))])
    with refusing(str(folder), quoted=_QUOTED):
        load_model(folder)
    return folder, False


def _release(rng, folder: Path, state: State, layout: str, params):
    path = folder / "release"
    release.export_params(path, params, dict(SMALL.__dict__))
    return path, True


def _odd_release(rng, folder: Path, state: State, layout: str, params):
    """A release whose sums are right, and whose settings or tensors are others."""
    path = folder / "release"
    settings = dict(SMALL.__dict__)
    form = str(rng.choice(["value", "less", "more", "form", "tensors"]))
    names = [n for n in settings if n not in ("dtype", "attention", "remat",
             "drop_path",
                                              "scan")]  # fmt: skip
    name = names[rng.integers(len(names))]
    right = settings[name]
    if form == "value":
        settings[name] = _value(rng)
    elif form == "less":
        del settings[name]
    elif form == "more":
        settings[str(rng.choice(["size", "x", "", "widht"]))] = _value(rng)
    release.export_params(path, params, settings)
    if form == "form":
        odd = ["", "[]", "null", "3", '"x"', "[" * 9000, '{"size": "l16"}', "{}"]
        (path / "config.json").write_text(odd[rng.integers(len(odd))])
    if form == "tensors":
        flat = {"a": np.ones(3, np.float32)}
        if rng.random() < 0.5:
            flat = {"a": np.ones(3, np.float32), "a/b": np.ones(3, np.float32)}
        save_file(flat, path / "model.safetensors")
    (path / "SHA256SUMS").unlink()
    checksums.write(path)
    with refusing(str(folder), quoted=_QUOTED):
        _, weights = load_model(path)
    if form in ("form", "tensors", "more"):
        raise Wrong(f"a release with wrong {form} was read")
    same = weights.config.geometry == SMALL.geometry or name == "taps"
    if not same and name not in ("merge_after", "canvas"):  # no tensor tells them
        raise Wrong(
            f"a release with {name} {settings.get(name)!r} for {right} was read"
        )
    shutil.rmtree(path)
    return _release(rng, folder, state, layout, params)


def _run(rng, folder: Path, state: State, layout: str, params):
    """Folders that look like a training run, and have no checkpoint."""
    odd = ["{}", '{"stages": {}}', '{"model": {}, "stages": {}}', "[]", "{", "null",
           '{"model": {"size": "ti16"}, "stages": {}, "checkpoints": 3}',
           '{"model": {"size": "ti16"}, "stages": {}, "checkpoints": "none"}',
           '{"model": {"size": ["ti16"]}, "stages": {}}', '{"stages": 3}',
           '{"model": {"size": "ti16", "patch": 0}, "stages": {}}',
           '{"model": {"size": "ti16"}, "stages": {}, "mode": "tune"}']  # fmt: skip
    if rng.random() < 0.8:
        (folder / "config.json").write_text(odd[rng.integers(len(odd))])
    path = folder
    if rng.random() < 0.7:
        step = (
            folder / "checkpoints" / str(rng.choice(["5", "0", "x", "99999999999999"]))
        )
        step.mkdir(parents=True)
        if rng.random() < 0.5:
            (step / "state").mkdir()
        if rng.random() < 0.3:
            (step / "SHA256SUMS").write_text("# 0 files\n")
        path = [folder, step, step.parent][rng.integers(3)]
    raise_if_read(path, folder)
    return path, False


def _none(rng, folder: Path, state: State, layout: str, params):
    """No model at all."""
    text = b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n"
    odd: list[tuple[str, bytes]] = [
        ("w.pth", b""), ("w.pth", text), ("w.safetensors", b""), ("w.safetensors",
        text),
        ("w.safetensors", struct.pack("<Q", 1 << 60) + b"{}"),
        ("w.safetensors", struct.pack("<Q", 2) + b"{}"), ("w.txt", b"x"), ("w", b"x"),
        ("w.safetensors", struct.pack("<Q", 20_000) + b"[" * 20_000),
        ("w.safetensors", struct.pack("<Q", 60)
         + b'{"a":{"dtype":"F32","shape":[9999999999],"data_offsets":[0,4]}}'[:60]),
        ("w.safetensors", to_bytes(state)[:-4]), ("w.pth", to_bytes(state)),
        ("w.pth", b"PK\x03\x04" + bytes(60)), ("w.pth", b"\x80\x02}q\x00."),
        ("w.pth", b"\x80\x02cos\nsystem\nq\x00X\x04\x00\x00\x00true\x85R."),
        ("w.npz", b"PK"), ("model.safetensors.index.json", b"{}"), ("w.zip", b"PK"),
    ]  # fmt: skip
    name, content = odd[rng.integers(len(odd))]
    (folder / name).write_bytes(content)
    path = folder / name if rng.random() < 0.7 else folder
    raise_if_read(path, folder)
    return path, False


def _damage(rng: np.random.Generator, path: Path) -> None:
    path.write_bytes(damaged(rng, path.read_bytes())[1])


_FORMS = (_safetensors, _safetensors, _pth, _pth, _odd_pth, _folder, _folder,
          _odd_index,
          _odd_settings, _release, _odd_release, _odd_release, _run, _none)  # fmt: skip
