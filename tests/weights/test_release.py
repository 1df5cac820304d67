"""Releases round trip exactly, and a tampered one is refused."""

import json
import os
import subprocess

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from seggpt_jax.weights import release
from tests.weights.test_checkpoint import assert_same, disk_full_at

PARAMS = {
    "block": {"kernel": np.arange(6.0, dtype=np.float32).reshape(2, 3).T},
    "scale": jnp.float32(3),
    "half": jnp.ones((2,), jnp.bfloat16),
}


def test_release_round_trip(tmp_path):
    path = tmp_path / "deep" / "release"
    release.export_params(path, PARAMS, {"size": "l16", "depth": 24})
    params, config = release.load_params(path)
    assert config == {"size": "l16", "depth": 24}
    assert_same(params, jax.device_get(PARAMS))
    assert os.listdir(path.parent) == ["release"]
    assert {file.stat().st_mode & 0o777 for file in path.iterdir()} == {0o644}
    checked = subprocess.run(
        ["sha256sum", "--check", "--strict", "SHA256SUMS"],
        cwd=path,
        capture_output=True,
    )
    assert checked.returncode == 0, checked.stderr
    release.export_params(path, {"x": np.zeros(2)}, {})  # a newer release
    assert set(release.load_params(path)[0]) == {"x"}


def test_release_never_replaces_other_files(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(FileExistsError, match="is not a release"):
        release.export_params(tmp_path, PARAMS, {})
    with disk_full_at(1 << 12), pytest.raises(OSError, match="model.safetensors could"):
        release.export_params(tmp_path / "r", {"x": np.zeros(9999)}, {})
    assert os.listdir(tmp_path) == ["notes.txt"]


def test_tampered_release_is_refused(tmp_path):
    path = tmp_path / "release"
    release.export_params(path, PARAMS, {"size": "l16"})
    config = (path / "config.json").read_text()
    (path / "config.json").write_text(json.dumps({"size": "b16"}))
    with pytest.raises(ValueError, match="config.json differs from its sha256"):
        release.load_params(path)
    (path / "config.json").write_text(config)
    release.load_params(path)
    os.truncate(path / "model.safetensors", 100)
    with pytest.raises(ValueError, match="model.safetensors differs from its sha256"):
        release.load_params(path)
    (path / "model.safetensors").unlink()
    with pytest.raises(FileNotFoundError, match="has no model.safetensors"):
        release.load_params(path)
