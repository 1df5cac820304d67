"""Checkpoints in a bucket, which a server of this machine plays."""

import http.server

import fsspec
import jax.numpy as jnp
import numpy as np
import pytest
from gcp_storage_emulator.server import create_server

from seggpt_jax.weights import checkpoint
from seggpt_jax.weights.checkpoint import Checkpoints


@pytest.fixture
def bucket(monkeypatch):
    """The address of an empty bucket."""
    # Orbax opens more connections at once than Python's server lets wait.
    monkeypatch.setattr(http.server.HTTPServer, "request_queue_size", 256)
    server = create_server("127.0.0.1", 0, in_memory=True, default_bucket="bucket")
    server.start()
    host, port = server._api._httpd.server_address
    for name in ("STORAGE_EMULATOR_HOST", "TENSORSTORE_GCS_HTTP_URL"):
        monkeypatch.setenv(name, f"http://{host}:{port}")
    monkeypatch.setenv("NO_GCE_CHECK", "true")  # no search for credentials
    yield "gs://bucket"
    fsspec.get_filesystem_class("gs").clear_instance_cache()
    server.stop()


def test_checkpoints_are_kept_and_restored(bucket, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folder = f"{bucket}/runs/x/checkpoints"
    state = {"params": {"w": jnp.arange(6.0).reshape(2, 3)}}
    checkpoints = Checkpoints(folder, keep=2)
    for step in (1, 2, 3):
        scaled = {"params": {"w": step * state["params"]["w"]}}
        checkpoints.save(step, scaled, {"step": step})
    checkpoints.wait()
    assert checkpoints.steps() == [2, 3]
    checkpoints.close()
    again = Checkpoints(folder, keep=2)
    found, meta, step = again.restore(state)
    again.close()
    assert step == meta["step"] == 3
    np.testing.assert_array_equal(found["params"]["w"], 3 * state["params"]["w"])
    params, meta = checkpoint.restore_params(folder, "params", 2)
    np.testing.assert_array_equal(params["w"], 2 * state["params"]["w"])
    assert not list(tmp_path.iterdir())
