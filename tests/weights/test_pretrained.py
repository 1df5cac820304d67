"""Weights of every form are read as one, or refused with the file named."""

import argparse
import dataclasses
import json
import os
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.numpy
import torch

from seggpt_jax.canvas import query_half, stitch
from seggpt_jax.models.params import to_torch
from seggpt_jax.models.seggpt import SegGPT, SegGPTConfig
from seggpt_jax.predict import make_predict_fn
from seggpt_jax.runs import checksums
from seggpt_jax.weights import pretrained, release, torch_bridge
from seggpt_jax.weights.build import load_model
from seggpt_jax.weights.checkpoint import Checkpoints
from seggpt_jax.weights.convert import check, convert
from tests.support.models import SMALL, inputs, random_params, small
from tests.weights.test_checkpoint import assert_same

PARAMS = jax.device_get(random_params(small()))


def state(layout: str = "official", **more):
    """A state dict of the small model; its cls position is not zero."""
    tensors = to_torch(SMALL, PARAMS, layout)
    name = next(n for n in tensors if "pos_embed" in n or "position_emb" in n)
    tensors[name][0, 0] = 1.0
    return tensors | more


def save(path, tensors, wrap=lambda tensors: {"model": tensors}):
    torch.save(wrap({n: torch.tensor(x) for n, x in tensors.items()}), path)
    return path


@pytest.mark.parametrize("layout", ["official", "hf"])
@pytest.mark.parametrize(
    "wrap",
    [
        lambda t: t,
        lambda t: {"model": t, "epoch": 3, "args": argparse.Namespace(lr=1.0)},
        lambda t: {"state_dict": {f"module.{n}": x for n, x in t.items()}},
    ],
)
def test_reads_pth_files(tmp_path, layout, wrap):
    weights = pretrained.load(save(tmp_path / "x.pth", state(layout), wrap))
    assert weights.config == SMALL
    assert_same(weights.params, PARAMS)
    assert weights.notes == ("the unused position of the cls token was dropped",)


def test_reads_half_precision(tmp_path):
    half = {n: torch.tensor(x).bfloat16() for n, x in state().items()}
    torch.save(half, tmp_path / "x.pth")
    params = pretrained.load(tmp_path / "x.pth").params
    assert {x.dtype for x in jax.tree.leaves(params)} == {np.dtype("float32")}
    assert_same(
        params,
        jax.tree.map(lambda x: np.float32(jnp.asarray(x, jnp.bfloat16)), PARAMS),
    )
    halves = {n: x.astype(np.float16) for n, x in state("hf").items()}
    safetensors.numpy.save_file(halves, tmp_path / "x.safetensors")
    params = pretrained.load(tmp_path / "x.safetensors").params
    assert_same(params, jax.tree.map(lambda x: np.float32(np.float16(x)), PARAMS))


def test_a_folder_of_transformers_says_what_tensors_do_not(tmp_path):
    other = {"merge_index": 0, "intermediate_hidden_state_indices": [0, 3]}
    (tmp_path / "config.json").write_text(json.dumps(other))
    safetensors.numpy.save_file(state("hf"), tmp_path / "model.safetensors")
    config = pretrained.load(tmp_path).config
    assert config == SMALL.replace(merge_after=0, taps=(0, 3))


def test_shards_of_transformers_are_joined(tmp_path):
    tensors = state("hf")
    names = sorted(tensors)
    parts = {"a.safetensors": names[:9], "b.safetensors": names[9:]}
    for file, part in parts.items():
        safetensors.numpy.save_file({n: tensors[n] for n in part}, tmp_path / file)
    where = {n: file for file, part in parts.items() for n in part}
    index = tmp_path / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": where}))
    (tmp_path / "config.json").write_text("{}")
    assert_same(pretrained.load(tmp_path).params, PARAMS)
    safetensors.numpy.save_file(tensors, tmp_path / "b.safetensors")
    with pytest.raises(ValueError, match=f"doubled tensors: {names[0]}"):
        pretrained.load(tmp_path)


def test_painter_starts_without_a_kind(tmp_path):
    tensors = {n: x for n, x in state().items() if not n.startswith("type_token")}
    weights = pretrained.load(save(tmp_path / "painter.pth", tensors))
    assert "no kind tokens" in weights.notes[0]
    assert not weights.params["kind_tokens"].any()
    rest = {n: x for n, x in weights.params.items() if n != "kind_tokens"}
    assert_same(rest, {n: PARAMS[n] for n in rest})


TINY = SegGPTConfig.of("ti16", patch=4, canvas=(32, 16), pos_grid=3, decoder_width=8)
TINY_PARAMS = jax.device_get(random_params(SegGPT(TINY)))


def mae(**more):
    """An encoder of MAE as its authors save it."""
    here = {
        n: x
        for n, x in to_torch(TINY, TINY_PARAMS).items()
        if n.split(".")[0] in ("patch_embed", "pos_embed", "norm", "blocks")
        and "rel_pos" not in n
    }
    return here | {"cls_token": np.zeros((1, 1, 192), np.float32)} | more


def test_mae_gives_an_encoder(tmp_path):
    decoder = {"decoder_embed.weight": np.zeros((8, 192), np.float32)}
    weights = pretrained.load(save(tmp_path / "mae.pth", mae(**decoder)))
    assert "only the encoder" in weights.notes[0]
    config, params = weights.config, weights.params
    assert (config.width, config.depth, config.heads) == (192, 12, 3)
    assert config.canvas == (56 * 4, 28 * 4)
    for name in ("patch_embed", "norm", "pos_embed"):
        assert_same(params[name], TINY_PARAMS[name])
    assert_same(params["blocks"]["mlp"], TINY_PARAMS["blocks"]["mlp"])
    assert not params["blocks"]["attn"]["rel_pos_h"].any()
    assert params["decoder"]["embed"]["kernel"].any()
    missing = {n: x for n, x in mae().items() if n != "blocks.1.mlp.fc1.weight"}
    with pytest.raises(ValueError, match=r"missing: blocks.1.mlp.fc1.weight"):
        pretrained.load(save(tmp_path / "torn.pth", missing))
    with pytest.raises(ValueError, match=r"unexpected: head.weight"):
        pretrained.load(save(tmp_path / "x.pth", mae(**{"head.weight": np.ones(1)})))
    short = {n: x for n, x in mae().items() if not n.startswith("blocks.11.")}
    with pytest.raises(ValueError, match="width 192 and 11 blocks: the number of"):
        pretrained.load(save(tmp_path / "x.pth", short))
    with pytest.raises(ValueError, match=r"flat.pth: "):
        flat = mae(pos_embed=np.ones(3, np.float32))
        pretrained.load(save(tmp_path / "flat.pth", flat))


def test_of_a_run_the_average_of_the_newest_step_is_taken(tmp_path):
    """Unless the parameters themselves, or one of its steps, are asked for."""
    run, shift = tmp_path / "run", lambda by: jax.tree.map(lambda x: x + by, PARAMS)
    with Checkpoints(run / "checkpoints") as saver:
        for step in (9, 10):
            state = {"params": shift(step), "ema": shift(-step)}
            saver.save(step, jax.device_put(state), {"step": step})
    settings = {"model": dataclasses.asdict(SMALL), "stages": {}}
    (run / "config.json").write_text(json.dumps(settings))
    for path, raw, step in (
        (run, False, 10), (run, True, 10), (run / "checkpoints", False, 10),
        (run / "checkpoints/9", False, 9), (run / "checkpoints/9", True, 9),
    ):  # fmt: skip
        weights = pretrained.load(path, raw)
        assert weights.step == step and weights.config == SMALL
        assert_same(weights.params, jax.device_get(shift(step if raw else -step)))
    list(convert(run, tmp_path / "raw", raw=True))
    assert_same(pretrained.load(tmp_path / "raw").params, jax.device_get(shift(10)))


def test_a_folder_of_several_models_is_refused(tmp_path):
    for name in ("a.pth", "b.pth"):
        save(tmp_path / name, state())
    with pytest.raises(ValueError, match=r"several models: choose one of a.pth, b.pth"):
        pretrained.load(tmp_path)


@pytest.mark.parametrize("to", ["ours", "official", "hf"])
@pytest.mark.parametrize("source", ["ours", "official", "hf"])
def test_round_trips_are_exact(tmp_path, source, to):
    """Where blocks are merged and tapped, which no tensor tells, included."""
    first, second = tmp_path / "first", tmp_path / "second"
    other = SMALL.replace(merge_after=0, taps=(0, 3))
    release.export_params(tmp_path / "x", PARAMS, dataclasses.asdict(other))
    list(convert(tmp_path / "x", first, source))
    said = list(convert(first, second, to))
    checked = next(line for line in said if "at most" in line)
    apart = float(checked.split("at most ")[1].split(",")[0])
    assert apart < 1e-4  # float32 in another order, on paintings of scale 10
    weights = pretrained.load(second)
    assert weights.config == other
    assert_same(weights.params, PARAMS)
    assert any("another function" in line for line in said) == (to == "official")


def test_one_way_models_are_not_for_pytorch(tmp_path):
    """A release of one is copied, compared with none; files of before are two-way."""
    one_way = dataclasses.asdict(SMALL.replace(one_way=True))
    release.export_params(tmp_path / "x", PARAMS, one_way)
    said = list(convert(tmp_path / "x", tmp_path / "y"))
    assert any("no one-way model" in line for line in said)
    assert pretrained.load(tmp_path / "y").config.one_way
    for to in ("official", "hf", "hub-folder"):
        with pytest.raises(ValueError, match="model.one_way = True: no model in"):
            list(convert(tmp_path / "x", tmp_path / to, to))
        assert not (tmp_path / to).exists()
    del one_way["one_way"]
    release.export_params(tmp_path / "z", PARAMS, one_way)
    assert pretrained.load(tmp_path / "z").config == SMALL


def test_what_is_written_is_what_pytorch_had(tmp_path):
    """The cls position alone, which nothing reads, comes back as zeros."""
    out, begun = tmp_path / "out", list[str]()
    source = save(tmp_path / "x.pth", state())
    said = list(convert(source, out, "official", say=begun.append))
    assert any("zeros" in line for line in said)
    assert [line.split()[0] for line in begun] == ["reading", "writing", "reading",
                                                   "comparing"]  # fmt: skip
    wanted = state()
    wanted["pos_embed"][0, 0] = 0
    found = torch.load(out / "seggpt.pth", weights_only=True)["model"]
    assert_same({n: x.numpy() for n, x in found.items()}, wanted)


def test_torch_xla_is_left_alone(monkeypatch):
    """What transformers and accelerate ask before they import it."""

    class Library:
        def __getattr__(self, name):
            seen.append(os.environ.get("USE_TORCH_XLA"))
            raise ImportError(name)

    seen: list[str | None] = []
    monkeypatch.delenv("USE_TORCH_XLA", raising=False)
    monkeypatch.setitem(sys.modules, "transformers", Library())
    with pytest.raises(ImportError):
        torch_bridge.build_port(SMALL, {})
    assert set(seen) == {"0"} and "USE_TORCH_XLA" not in os.environ


def test_a_release_predicts_as_its_model(tmp_path):
    list(convert(save(tmp_path / "x.pth", state()), tmp_path / "out"))
    weights = pretrained.load(tmp_path / "out")
    images, targets, _, kind = inputs()
    prompt, query = images[:, :16], images[:, 16:]
    painted = make_predict_fn(SegGPT(weights.config))(
        weights.params, prompt[:, None], targets[:, None, :16], query, kind
    )
    hidden = np.broadcast_to(query_half(SMALL.grid), (2, *SMALL.grid))
    halves = stitch(targets[:, :16], targets[:, :16])
    wanted, _ = jax.jit(small().apply)({"params": PARAMS}, images, halves, hidden, kind)
    # The same sums in another order, on outputs of scale 1.
    np.testing.assert_allclose(painted, wanted[:, 16:], atol=1e-5)


class Evil:
    def __reduce__(self):
        return os.mkdir, ("/tmp/seggpt-evil",)


def test_code_in_a_pth_is_never_run(tmp_path):
    torch.save({"model": {}, "args": Evil()}, tmp_path / "x.pth")
    with pytest.raises(ValueError, match=r"x.pth is damaged or holds code"):
        pretrained.load(tmp_path / "x.pth")
    assert not os.path.exists("/tmp/seggpt-evil")


@pytest.mark.parametrize(
    ("name", "content"),
    [("x.pth", b""), ("x.pth", b"PK\x03\x04 no zip"), ("x.pth", b"\x80\x02junk"),
     ("x.safetensors", b""), ("x.safetensors", b"\xff" * 99), ("x.bin", b"no")],
)  # fmt: skip
def test_damaged_files_are_named(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=f"{name} (cannot be read|is damaged)"):
        pretrained.load(tmp_path / name)


def test_every_wrong_tensor_is_listed_at_once(tmp_path):
    tensors = state(extra=np.ones(1, np.float32))
    del tensors["norm.weight"]
    tensors["mask_token"] = np.ones((1, 2), np.float32)
    with pytest.raises(ValueError) as caught:
        pretrained.load(save(tmp_path / "x.pth", tensors))
    for said in ("x.pth", "missing: norm.weight", "unexpected: extra",
                 "wrong shape: mask_token is (1, 2), not (1, 1, 1, 24)"):  # fmt: skip
        assert said in str(caught.value)
    with pytest.raises(ValueError, match=r"doubled tensors: norm.bias"):
        pretrained.load(
            save(tmp_path / "x.pth", state() | {"module.norm.bias": np.ones(24)})
        )
    with pytest.raises(ValueError, match=r"cannot be read: pos_embed is \(3,\)"):
        pretrained.load(save(tmp_path / "x.pth", state(pos_embed=np.ones(3))))


def test_wrong_places_are_named(tmp_path):
    for path, said in (
        (tmp_path / "none", "neither a file, nor a folder, nor a bundled model"),
        (tmp_path, "neither a release nor a training run"),
    ):
        with pytest.raises(FileNotFoundError, match=said):
            pretrained.load(path)
    (tmp_path / "x.txt").write_text("")
    with pytest.raises(ValueError, match="not a file of weights"):
        pretrained.load(tmp_path / "x.txt")
    torch.save([1, 2], tmp_path / "x.pth")
    with pytest.raises(ValueError, match="holds no state dict"):
        pretrained.load(tmp_path / "x.pth")
    release.export_params(tmp_path / "r", PARAMS, {"depht": 1})
    with pytest.raises(ValueError, match=r"model.depht is unknown; did you mean"):
        pretrained.load(tmp_path / "r")
    with pytest.raises(ValueError, match="is a part of a release"):
        pretrained.load(tmp_path / "r" / "model.safetensors")


def test_a_folder_that_hides_a_bundled_model_is_said(tmp_path, monkeypatch):
    """Results in a folder `mini`, and the next command in the folder beside it."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mini").mkdir()
    with pytest.raises(FileNotFoundError, match="hides the bundled model mini: rename"):
        pretrained.load("mini")
    (tmp_path / "other").mkdir()
    with pytest.raises(FileNotFoundError, match=r"nor a \.pth$"):
        pretrained.load("other")


def test_output_that_is_no_release_stays(tmp_path):
    source = save(tmp_path / "x.pth", state())
    (tmp_path / "out").mkdir()
    with pytest.raises(FileExistsError, match="is not a release"):
        list(convert(source, tmp_path / "out", "hf"))
    with pytest.raises(ValueError, match="--to=pytorch is unknown"):
        list(convert(source, tmp_path / "new", "pytorch"))
    assert sorted(p.name for p in tmp_path.iterdir()) == ["out", "x.pth"]


def test_a_changed_output_is_noticed(tmp_path):
    list(convert(save(tmp_path / "x.pth", state()), tmp_path / "out"))
    other = jax.tree.map(lambda x: x + 1, PARAMS)
    with pytest.raises(ValueError, match="reads back differently"):
        check(tmp_path / "out", SMALL, other)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_weights_that_are_not_finite_are_refused(tmp_path, value):
    """A model of a run that diverged would paint anything."""
    broken = state(**{"norm.bias": np.full(24, value, np.float32)})
    with pytest.raises(ValueError, match=r"x.pth has values that .* in norm/bias$"):
        pretrained.load(save(tmp_path / "x.pth", broken))
    tree = jax.tree.map(np.array, PARAMS)
    tree["norm"]["bias"][3] = value
    release.export_params(tmp_path / "release", tree, dataclasses.asdict(SMALL))
    with pytest.raises(ValueError, match="release has values that are not finite"):
        pretrained.load(tmp_path / "release")


@pytest.mark.parametrize(
    "settings, said",
    [
        ({"heads": 0}, "config.json: setting model.heads = 0: must be at least 1"),
        ({"pos_grid": 10**30}, "model.pos_grid = 10+: must be below 65536"),
        (
            {"canvas": "big"},
            "config.json: setting model.canvas = 'big': must be 2 whole numbers",
        ),
        ({"taps": [1.5]}, r"config.json: setting model.taps = \(1.5,\): must be"),
        (
            {"patch": None},
            "config.json: setting model.patch = None: must be a whole number",
        ),
        ({"widht": 3}, "config.json: setting model.widht is unknown; did you mean"),
        ({"size": ["l16"]}, "config.json: setting model.size = .*: must be"),
        ({"width": 48}, "does not fit the model:\n  shape: blocks/attn/proj/bias"),
        ({"depth": 5, "taps": [4]}, "does not fit the model"),
    ],
)
def test_a_release_with_other_settings_is_refused(tmp_path, settings, said):
    release.export_params(tmp_path / "x", PARAMS, dataclasses.asdict(SMALL) | settings)
    with pytest.raises(ValueError, match=said) as raised:
        load_model(tmp_path / "x")
    assert str(tmp_path / "x") in str(raised.value)
    assert len(str(raised.value).splitlines()) <= 22


@pytest.mark.parametrize("content", ["null", "[]", "{", "[" * 100_000])
def test_a_release_whose_config_is_no_object_is_refused(tmp_path, content):
    release.export_params(tmp_path / "x", PARAMS, dataclasses.asdict(SMALL))
    (tmp_path / "x/config.json").write_text(content)
    checksums.write(tmp_path / "x")
    with pytest.raises(ValueError, match="config.json is n"):
        pretrained.load(tmp_path / "x")


def test_a_number_of_a_block_far_too_high_is_refused_at_once(tmp_path):
    odd = state(**{f"blocks.{10**9}.norm1.weight": np.ones(24, np.float32)})
    with pytest.raises(ValueError, match="numbered up to 1000000000, and there are 5"):
        pretrained.load(save(tmp_path / "x.pth", odd))


@pytest.mark.parametrize(
    "name", ["../w.safetensors", 3, None, ["a"], "a/b", "x\0", "."]
)
def test_an_index_names_files_beside_it(tmp_path, name):
    folder = tmp_path / "model"
    folder.mkdir()
    safetensors.numpy.save_file(state(), tmp_path / "w.safetensors")
    index = {"weight_map": {"a": name}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(ValueError, match=r"index.json: .* is no name of a file beside"):
        pretrained.load(folder)


@pytest.mark.parametrize(
    "turn", [lambda x: x.to("meta"), lambda x: x.to_sparse()], ids=["meta", "sparse"]
)
def test_tensors_without_plain_values_are_named(tmp_path, turn):
    torch.save({"mask_token": turn(torch.ones(3))}, tmp_path / "x.pth")
    with pytest.raises(ValueError, match="x.pth: .mask_token. cannot be made an array"):
        pretrained.load(tmp_path / "x.pth")
