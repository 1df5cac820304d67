"""Checkpoints come back bit-exact, and damaged ones never do."""

import contextlib
import logging
import os
import re
import resource
import shutil
import signal
import subprocess
import sys
import textwrap

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import struct
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

from seggpt_jax.weights import checkpoint
from seggpt_jax.weights.checkpoint import Checkpoints


@struct.dataclass
class State:
    step: jax.Array
    params: dict
    ema: dict | None
    opt: tuple
    key: jax.Array


def mesh(*shape):
    names = ("data", "fsdp")[: len(shape)]
    return jax.make_mesh(shape, names, axis_types=(AxisType.Auto,) * len(shape))


def make_state(step, size=16, ema=True):
    kernel = jax.random.normal(jax.random.key(step), (size, 8))
    params = {"block": {"kernel": kernel, "bias": jnp.full((8,), step, jnp.bfloat16)}}
    return State(
        step=jnp.int32(step),
        params=params,
        ema=jax.tree.map(lambda x: x + 1, params) if ema else None,
        opt=({"mu": kernel * 2}, ()),
        key=jax.random.key(step),
    )


def abstract(state):
    return jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), state
    )


def assert_same(a, b):
    assert jax.tree.structure(a) == jax.tree.structure(b)
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        if jax.dtypes.issubdtype(x.dtype, jax.dtypes.prng_key):
            x, y = jax.random.key_data(x), jax.random.key_data(y)
        assert x.dtype == y.dtype
        np.testing.assert_array_equal(np.asarray(x), np.asarray(y))


def save(folder, *steps, keep=9):
    with Checkpoints(folder, keep=keep) as saver:
        for step in steps:
            saver.save(step, make_state(step), {"step": step})


def restored_step(folder):
    with Checkpoints(folder) as reader:
        return reader.restore(abstract(make_state(0)))[2]


def test_a_run_that_went_on_saves_when_it_is_preempted_again(tmp_path, monkeypatch):
    """Orbax asks jax on its own whether the several processes of a run got a SIGTERM,
    and then fails on the times of the checkpoints that it found on disk."""
    save(tmp_path, 1)
    with Checkpoints(tmp_path) as saver:
        saver.restore(abstract(make_state(0)))
        with monkeypatch.context() as patch:
            ask = "jax.experimental.multihost_utils.reached_preemption_sync_point"
            patch.setattr(ask, lambda step: True)
            saver.save(2, make_state(2), {"step": 2})
            saver.wait()
    assert restored_step(tmp_path) == 2


def data_file(saved):
    return max((saved / "state").rglob("d/*"), key=lambda p: p.stat().st_size)


@contextlib.contextmanager
def disk_full_at(limit):
    """Writes past `limit` bytes in a file fail with EFBIG, as a full disk's do."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_round_trip_onto_another_mesh(tmp_path):
    state = make_state(7)
    rows = NamedSharding(mesh(4, 2), P("data", "fsdp"))
    state = state.replace(opt=jax.device_put(state.opt, rows))
    with Checkpoints(tmp_path / "run") as saver:
        saver.save(7, state, {"data": {"next": 56}, "name": "é"})
    target = abstract(state)
    columns = NamedSharding(mesh(2), P(None, "data"))
    mu = jax.ShapeDtypeStruct((16, 8), jnp.float32, sharding=columns)
    target = target.replace(opt=({"mu": mu}, ()))
    with Checkpoints(tmp_path / "run") as reader:
        restored, meta, step = reader.restore(target)
    assert_same(restored, state)
    assert restored.opt[0]["mu"].sharding == columns
    assert (meta, step) == ({"data": {"next": 56}, "name": "é"}, 7)
    same = jax.random.normal(restored.key, (3,)) == jax.random.normal(state.key, (3,))
    assert same.all()


def test_state_may_be_donated_straight_after_save(tmp_path):
    state = make_state(1, size=4096)
    kept = jax.tree.map(np.array, state.params)
    spoil = jax.jit(lambda p: jax.tree.map(lambda x: x * 0, p), donate_argnums=0)
    with Checkpoints(tmp_path) as saver:
        saver.save(1, state, {})
        spoil(state.params)
    params, _ = checkpoint.restore_params(tmp_path)
    assert_same(params, kept)


def test_keeps_the_newest_and_saves_a_step_once(tmp_path):
    with Checkpoints(tmp_path, keep=2) as saver:
        assert saver.restore(abstract(make_state(0))) is None
        for step in (8, 9, 10, 10):  # numbers: as words 10 would come before 9
            saver.save(step, make_state(step), {})
        saver.wait()
        assert saver.steps() == [9, 10]
    with Checkpoints(tmp_path, keep=2) as saver:
        with pytest.raises(ValueError, match="already has a checkpoint of step 10"):
            saver.save(10, make_state(10), {})
        assert saver.restore(abstract(make_state(0)))[2] == 10
        saver.save(10, make_state(10), {})  # nothing was trained since: nothing to do
    with pytest.raises(ValueError, match="keep=0 must be at least 1"):
        Checkpoints(tmp_path, keep=0)


def test_keeps_the_best_besides(tmp_path):
    with Checkpoints(tmp_path, keep=1) as saver:
        for step, best in ((1, None), (2, 2), (3, 2), (4, 2), (5, 5), (6, 5)):
            saver.save(step, make_state(step), {"step": step})
            saver.best = best
        saver.wait()
        assert saver.steps() == [5, 6]
    params, meta = checkpoint.restore_params(tmp_path, "ema", 5)
    assert meta == {"step": 5}
    assert_same(params, jax.device_get(make_state(5).ema))
    with pytest.raises(FileNotFoundError, match="holds no checkpoint of step 4"):
        checkpoint.restore_params(tmp_path, "ema", 4)


def truncate(saved):
    file = data_file(saved)
    os.truncate(file, file.stat().st_size // 2)


def flip_one_bit(saved):
    data = bytearray(data_file(saved).read_bytes())
    data[len(data) // 2] ^= 1
    data_file(saved).write_bytes(data)


def empty(saved):
    shutil.rmtree(saved)
    saved.mkdir()


def cut_sums(saved):
    lines = (saved / "SHA256SUMS").read_text().splitlines(keepends=True)
    (saved / "SHA256SUMS").write_text("".join(lines[:3]))


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (truncate, "/d/.* differs from its sha256"),
        (flip_one_bit, "/d/.* differs from its sha256"),
        (lambda saved: data_file(saved).unlink(), "/d/.* is missing"),
        (lambda saved: shutil.rmtree(saved / "state"), "state/.* is missing"),
        (lambda saved: (saved / "SHA256SUMS").unlink(), "SHA256SUMS is missing"),
        (lambda saved: os.truncate(saved / "SHA256SUMS", 0), "SHA256SUMS is torn"),
        (cut_sums, "SHA256SUMS is torn"),
        (empty, "SHA256SUMS is missing"),
    ],
)
def test_damaged_newest_is_skipped_then_replaced(tmp_path, caplog, damage, reason):
    save(tmp_path, 1, 2)
    damage(tmp_path / "2")
    with Checkpoints(tmp_path, keep=1) as run:
        state, meta, step = run.restore(abstract(make_state(0)))
        assert (step, meta) == (1, {"step": 1})
        assert_same(state, make_state(1))
        run.save(2, make_state(2), {})  # the run gets there again
    messages = [r.getMessage() for r in caplog.records]
    assert len(messages) == 1
    assert re.search("of step 2: .*" + reason, messages[0])
    assert restored_step(tmp_path) == 2


def test_bookkeeping_of_orbax_is_not_needed(tmp_path):
    """The two files left out of the sums: whatever happens to them, data is right."""
    save(tmp_path, 1)
    (tmp_path / "1" / "_CHECKPOINT_METADATA").write_text("{torn")
    (tmp_path / "1" / "commit_success.txt").unlink()
    with Checkpoints(tmp_path) as reader:
        assert_same(reader.restore(abstract(make_state(0)))[0], make_state(1))


def test_error_when_every_checkpoint_is_damaged(tmp_path):
    save(tmp_path, 1, 2)
    truncate(tmp_path / "1")
    empty(tmp_path / "2")
    with Checkpoints(tmp_path) as reader:
        with pytest.raises(
            OSError, match=r"(?s)is intact:.*step 2: .*step 1: .*delete"
        ):
            reader.restore(abstract(make_state(0)))
    with pytest.raises(OSError, match="is intact"):
        checkpoint.restore_params(tmp_path)


def test_checkpoint_of_another_model_lists_the_names(tmp_path):
    save(tmp_path, 1)
    state = make_state(1, size=32)
    state.params["head"] = state.params["block"].pop("bias")
    with Checkpoints(tmp_path) as reader:
        with pytest.raises(ValueError) as raised:
            reader.restore(abstract(state))
    message = str(raised.value)
    assert f"{tmp_path / '1'} is a checkpoint of another model" in message
    assert "missing from the checkpoint: params/head\n" in message
    assert "only in the checkpoint: params/block/bias\n" in message
    assert (
        "params/block/kernel: float32[16, 8] in the checkpoint, float32[32, 8]"
        in message
    )
    assert "step" not in message.replace("opt/", "").split("model", 1)[1]


@pytest.fixture(scope="module")
def too_big():
    """One array: of several, writes under way complain of a closed event loop. Made
    while there is room for the programs that make it."""
    return {"x": jax.random.normal(jax.random.key(0), (1 << 14,))}


def test_full_disk_is_named_and_leaves_nothing_behind(tmp_path, caplog, capfd, too_big):
    third = make_state(3)
    with Checkpoints(tmp_path) as saver:
        saver.save(1, make_state(1), {})
        saver.wait()
        with disk_full_at(1 << 12):
            saver.save(2, too_big, {})  # fails in the background
            with pytest.raises(OSError) as raised:
                saver.save(3, third, {})
        assert "step 2 could not be saved in " + str(tmp_path) in str(raised.value)
        assert "File too large" in str(raised.value)
        assert saver.steps() == [1]
        saver.save(4, make_state(4), {})  # there is room again
    assert not caplog.records and not capfd.readouterr().err
    assert restored_step(tmp_path) == 4
    assert sorted(os.listdir(tmp_path)) == ["1", "4"]


def test_failed_save_surfaces_in_wait_and_close(tmp_path, too_big):
    saver = Checkpoints(tmp_path)
    with disk_full_at(1 << 12):
        saver.save(5, too_big, {})
        with pytest.raises(OSError, match="step 5 could not be saved"):
            saver.wait()
        saver.wait()  # told once
        saver.save(6, too_big, {})
        with pytest.raises(OSError, match="step 6 could not be saved"):
            saver.close()


def test_unusable_folder_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match=f"folder {tmp_path}/file/run cannot be used"):
        Checkpoints(tmp_path / "file" / "run")


def test_folder_that_vanishes_is_named(tmp_path):
    saver = Checkpoints(tmp_path / "gone")
    shutil.rmtree(tmp_path / "gone")
    (tmp_path / "gone").write_text("")
    message = rf"step 1 could not be saved in {tmp_path}/gone: \[Errno (2|20)\]"
    with pytest.raises(OSError, match=message):
        saver.save(1, make_state(1), {})
        saver.wait()
    saver.close()


def test_kill_in_mid_save_keeps_the_one_before(tmp_path):
    script = """
        import os, signal, sys
        import jax.numpy as jnp
        from seggpt_jax.weights.checkpoint import Checkpoints
        saver = Checkpoints(sys.argv[1])
        saver.save(1, {"params": {"x": jnp.ones((8, 8))}}, {"step": 1})
        saver.wait()
        saver.save(2, {"params": {"x": jnp.ones((4096, 4096))}}, {"step": 2})
        os.kill(os.getpid(), signal.SIGKILL)
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(script), tmp_path])
    assert done.returncode == -signal.SIGKILL
    # 64 MiB take longer to write and hash than the kill takes to arrive.
    assert any("tmp" in name for name in os.listdir(tmp_path))
    params, meta = checkpoint.restore_params(tmp_path)
    assert meta == {"step": 1}
    assert_same(params, {"x": np.ones((8, 8), np.float32)})
    with Checkpoints(tmp_path) as run:
        assert run.steps() == [1]
        state = {"params": {"x": jnp.zeros((8, 8))}}
        run.restore(abstract(state))
        run.save(2, state, {})
    assert sorted(os.listdir(tmp_path)) == ["1", "2"]


def test_restore_params(tmp_path):
    with pytest.raises(FileNotFoundError, match="holds no checkpoint"):
        checkpoint.restore_params(tmp_path / "none")
    save(tmp_path / "run", 3)
    for which in ("params", "ema"):
        params, meta = checkpoint.restore_params(tmp_path / "run", which)
        assert meta == {"step": 3}
        assert all(type(x) is np.ndarray for x in jax.tree.leaves(params))
        assert_same(params, jax.device_get(getattr(make_state(3), which)))
    with Checkpoints(tmp_path / "plain") as saver:
        saver.save(1, make_state(1, ema=False), {})
    with pytest.raises(ValueError, match="has no 'ema'; it holds .*params"):
        checkpoint.restore_params(tmp_path / "plain", "ema")


def test_our_log_records_are_not_orbaxs(tmp_path, caplog):
    with caplog.at_level(logging.DEBUG, logger="absl"):
        save(tmp_path, 1)
        logging.getLogger("absl").info("somebody else")
    assert [r.getMessage() for r in caplog.records if r.name == "absl"] == [
        "somebody else"
    ]
