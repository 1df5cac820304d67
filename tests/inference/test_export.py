"""Exported functions compute what the model does, in a process without this package."""

import json
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import jax
import numpy as np
import pytest
from jax import export as jax_export
from safetensors.numpy import load

from seggpt_jax.cli import command
from seggpt_jax.inference import Predictor, export
from seggpt_jax.predict import make_predict_fns
from seggpt_jax.weights.pretrained import Weights
from tests.conftest import REPOSITORY
from tests.support.models import SMALL, random_params, small

PARAMS = jax.device_get(random_params(small()))
WEIGHTS = Weights(SMALL, PARAMS, name="small")
EXAMPLES = REPOSITORY / "docs/examples"
CONSUMER = """
import sys
import numpy as np
{reading}
{running}
np.save("painting.npy", painting)
assert not [name for name in sys.modules if name.startswith("seggpt")]
"""


def drawn(batch: int, prompts: int = 2):
    """A set of prompts, its kind, and queries."""
    rng = np.random.default_rng(batch)
    shape = (1, prompts, *SMALL.half, 3)
    images, targets = rng.normal(size=(2, *shape)).astype(np.float32)
    queries = rng.normal(size=(batch, *SMALL.half, 3)).astype(np.float32)
    return images, targets, np.ones(1, np.int32), queries


def ours(images, targets, kind, queries) -> np.ndarray:
    encode, predict = make_predict_fns(small())
    return np.asarray(predict(PARAMS, encode(PARAMS, images, targets, kind), queries))


@pytest.fixture(scope="module")
def stablehlo(tmp_path_factory):
    """The functions of a file for two prompts, and its parameters."""
    pytest.importorskip("flatbuffers", reason="of the extra export")
    out = tmp_path_factory.mktemp("export") / "small.zip"
    export.export(WEIGHTS, "stablehlo", 2, out)
    with zipfile.ZipFile(out) as file:
        loaded = [
            jax_export.deserialize(bytearray(file.read(f"{name}.stablehlo")))
            for name in ("encode", "paint")
        ]
        return *(one.call for one in loaded), load(file.read(export.PARAMS))


def test_stablehlo_agrees_at_any_batch(stablehlo):
    """One, that no other part of the file has."""
    encode, paint, params = stablehlo
    images, targets, kind, queries = drawn(3)
    prompts = encode(params, images, targets, kind)
    (painting,) = paint(params, *prompts, kind, queries)
    # Sums of float32 in another order, on values of scale 1 to 10.
    wanted = ours(images, targets, kind, queries)
    np.testing.assert_allclose(painting, wanted, rtol=1e-5, atol=1e-5)


@pytest.mark.slow
def test_stablehlo_of_a_one_way_model_agrees(tmp_path):
    """Its prompts are other arrays."""
    pytest.importorskip("flatbuffers", reason="of the extra export")
    weights = WEIGHTS._replace(config=SMALL.replace(one_way=True))
    export.export(weights, "stablehlo", 2, tmp_path / "small.zip")
    with zipfile.ZipFile(tmp_path / "small.zip") as file:
        encode, paint = (
            jax_export.deserialize(bytearray(file.read(f"{name}.stablehlo"))).call
            for name in ("encode", "paint")
        )
        params = load(file.read(export.PARAMS))
        about = json.loads(file.read(export.ABOUT))
    images, targets, kind, queries = drawn(3)
    prompts = encode(params, images, targets, kind)
    assert about["functions"]["encode"]["outputs"] == [
        "keys",
        "values",
        "target",
        "seam",
    ]
    (painting,) = paint(params, *prompts, kind, queries)
    fns = make_predict_fns(small(one_way=True))
    wanted = fns.predict(
        PARAMS, fns.encode_prompts(PARAMS, images, targets, kind), queries
    )
    np.testing.assert_allclose(painting, wanted, rtol=1e-5, atol=1e-5)


def test_stablehlo_refuses_other_sizes_with_the_right_one(stablehlo):
    encode, _, params = stablehlo
    images, targets, kind, _ = drawn(1, prompts=3)
    with pytest.raises(ValueError, match=r"\(b, 2, 16, 16, 3\)|\[b,2,16,16,3\]"):
        encode(params, images, targets, kind)


def test_onnx_agrees_at_any_batch(tmp_path):
    pytest.importorskip("jax2onnx", reason="docs/export.md has its environment")
    onnxruntime = pytest.importorskip("onnxruntime")
    export.export(WEIGHTS, "onnx", 2, tmp_path / "small.zip")
    with zipfile.ZipFile(tmp_path / "small.zip") as file:
        encode, paint = (
            onnxruntime.InferenceSession(file.read(f"{name}.onnx")).run
            for name in ("encode", "paint")
        )
    for batch in (1, 3):
        images, targets, kind, queries = drawn(batch)
        given = {"images": images, "targets": targets, "kind": kind}
        image, target = encode(None, given)
        given = {"image": image, "target": target, "kind": kind, "queries": queries}
        (painting,) = paint(None, given)
        wanted = ours(images, targets, kind, queries)
        np.testing.assert_allclose(painting, wanted, rtol=1e-4, atol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize(
    "to, block, needs, apart",
    [("stablehlo", 1, "flatbuffers", 1e-5), ("onnx", 2, "jax2onnx", 1e-4)],
)
def test_a_process_without_this_package(to, block, needs, apart, tmp_path):
    """The consumers of docs/export.md find what a Predictor finds."""
    pytest.importorskip(needs, reason="docs/export.md says how to install it")
    page = (REPOSITORY / "docs/export.md").read_text()
    parts = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    code = CONSUMER.format(reading=parts[0], running=parts[block])
    given = {"cat.jpg": "prompt.jpg", "cat-mask.png": "prompt-mask.png"}
    for name, own in (given | {"photos/1.jpg": "query.jpg"}).items():
        code = code.replace(name, str(EXAMPLES / own))
    with pytest.raises(SystemExit, match="0"):
        command.main(["export", "--model", "shapes", "--to", to, "--out",
                      str(tmp_path / "model.zip")])  # fmt: skip
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=True)
    predictor = Predictor.from_pretrained("shapes")
    predictor.set_prompts(EXAMPLES / "prompt.jpg", EXAMPLES / "prompt-mask.png")
    wanted = predictor(EXAMPLES / "query.jpg").painting
    mean, std = np.float32([0.485, 0.456, 0.406]), np.float32([0.229, 0.224, 0.225])
    painting = np.load(tmp_path / "painting.npy")[0] * std + mean
    np.testing.assert_allclose(painting.clip(0, 1), wanted / 255, atol=apart)


def test_the_file_tells_how_to_use_it(tmp_path):
    pytest.importorskip("flatbuffers", reason="of the extra export")
    export.export(WEIGHTS, "stablehlo", 1, tmp_path / "small.zip")
    with zipfile.ZipFile(tmp_path / "small.zip") as file:
        about = json.loads(file.read(export.ABOUT))
    assert (about["size"], about["prompts"], about["model"]) == ([16, 16], 1, "small")
    shapes = about["functions"]["paint"]["inputs"]
    assert shapes["queries"] == "float32[b,16,16,3]"
    assert shapes["target"] == "float32[1,2,4,4,24]"


REFUSED = {
    "no prompt": (["--prompts", "0"], "--prompts 0: must be 1 to "),
    "too many": (["--prompts", "99999"], "--prompts 99999: must be 1 to "),
    "another name": (["--out", "x.onnx"], "--out x.onnx: a name that ends in .zip"),
    "a file": (["--out", "there.zip"], "--out there.zip exists"),
    "a bucket": (["--out", "gs://b/x.zip"], "--out gs://b/x.zip: must be a path"),
    "a model": (["--model", "nothing.zip"], "nothing.zip"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_exported(name, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(command, "cache_compiled", lambda: "")
    Path("there.zip").write_bytes(b"mine")
    more, message = REFUSED[name]
    with pytest.raises(SystemExit) as stopped:
        command.main(["export", "--model", "shapes", "--out", "new.zip", *more])
    lines = capsys.readouterr().err.splitlines()
    assert stopped.value.code == 2 and len(lines) == 1
    assert lines[0].startswith("error: ") and message in lines[0]
    assert [p.name for p in tmp_path.iterdir()] == ["there.zip"]
    assert Path("there.zip").read_bytes() == b"mine"


def test_a_model_too_large_for_onnx(tmp_path):
    huge = {"leaf": np.broadcast_to(np.float32(0), (1 << 29,))}
    with pytest.raises(ValueError, match="2.1 GB of parameters.* 2 GB: take --to"):
        next(export._onnx(SMALL, huge, ()))


def test_the_package_that_is_missing_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(export.importlib.util, "find_spec", lambda name: None)
    for to, needs in (
        ("stablehlo", r"flatbuffers: pip install 'seggpt_jax\[export\]'"),
        ("onnx", r"jax2onnx: docs/export\.md"),
    ):
        with pytest.raises(ValueError, match=f"{to} needs {needs}"):
            export.export(WEIGHTS, to, 1, tmp_path / "x.zip")
    assert not list(tmp_path.iterdir())
