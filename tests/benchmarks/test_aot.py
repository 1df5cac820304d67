"""Collectives are counted as they run, and a real program for a TPU is compiled."""

import importlib.util
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from benchmarks import aot
from benchmarks.hlo import collectives
from configs import vitl
from seggpt_jax.runs import sharding
from tests import tiny
from tests.conftest import REPOSITORY

needs_libtpu = pytest.mark.skipif(
    importlib.util.find_spec("libtpu") is None, reason="needs pip install -e '.[tpu]'"
)
needs_cuda = pytest.mark.skipif(
    importlib.util.find_spec("jax_cuda13_plugin") is None,
    reason="needs pip install -e '.[cuda]'",
)

# As XLA writes them, for 8 chips: three forms of groups, loops whose length is said and
# is not, a pair of start and done, and a TPU's fusion for a scattered sum.
MODULE = """
HloModule jit_step, is_scheduled=true

%add (a: f32[], b: f32[]) -> f32[] {
  %a = f32[]{:T(128)} parameter(0)
  %b = f32[]{:T(128)} parameter(1)
  ROOT %sum = f32[]{:T(128)} add(%a, %b)
}

%all-reduce-scatter.1 (p: bf16[64,8]) -> bf16[8,8] {
  %p = bf16[64,8]{1,0:T(8,128)(2,1)} parameter(0)
  %all-reduce.5 = bf16[64,8]{1,0:T(8,128)(2,1)} all-reduce(%p), replica_groups=[1,8]<=[8], to_apply=%add
  ROOT %own = bf16[8,8]{1,0:T(8,128)(2,1)S(1)} dynamic-slice(%all-reduce.5, %i, %z), dynamic_slice_sizes={8,8}
}

%body (state: (s32[], f32[4,2])) -> (s32[], f32[4,2]) {
  %state = (s32[]{:T(128)}, f32[4,2]{1,0}) parameter(0)
  %all-gather-start = (bf16[8,8]{1,0:T(8,128)(2,1)}, bf16[64,8]{1,0}) all-gather-start(%w), replica_groups={{0,1,2,3,4,5,6,7}}, dimensions={0}, metadata={op_name="jit(step)/while/body/dot"}
  %all-gather-done = bf16[64,8]{1,0} all-gather-done(%all-gather-start)
  %scattered = bf16[8,8]{1,0} fusion(%all-gather-done), kind=kCustom, calls=%all-reduce-scatter.1
  ROOT %out = (s32[]{:T(128)}, f32[4,2]{1,0}) tuple(%n, %y)
}

%below (state.1: (s32[], f32[4,2])) -> pred[] {
  %state.1 = (s32[]{:T(128)}, f32[4,2]{1,0}) parameter(0)
  %limit = s32[]{:T(128)} constant(6)
  ROOT %lt = pred[]{:T(512)} compare(%n.1, %limit), direction=LT
}

%outer (state.2: (s32[], f32[4,2])) -> (s32[], f32[4,2]) {
  ROOT %while.1 = (s32[], f32[4,2]{1,0}) while(%state.2), condition=%below, body=%body
}

ENTRY %main (x: f32[4,2]) -> f32[4,2] {
  %x = f32[4,2]{1,0} parameter(0)
  %all-reduce.1 = (f32[]{:T(128)}, /*index=1*/f32[3,5]{1,0}) all-reduce(%l, %g), replica_groups=mesh['a'=4,'b'=2] {'a'}, to_apply=%add
  %while.2 = (s32[], f32[4,2]{1,0}) while(%init), condition=%unknown, body=%outer, backend_config={"known_trip_count":{"n":"3"}}
  ROOT %permuted = f32[4,2]{1,0} collective-permute(%x), source_target_pairs={{0,1},{1,0}}
}
"""  # noqa: E501


def test_collectives_of_a_text():
    found = {(one.kind, one.size, one.group, one.times): one
             for one in collectives(MODULE)}  # fmt: skip
    assert set(found) == {
        ("all-reduce", 4 + 60, 4, 1),
        ("all-gather", 64 * 8 * 2, 8, 18),
        ("reduce-scatter", 64 * 8 * 2, 8, 18),
        ("collective-permute", 32, 1, 1),
    }
    sent = {kind: one.sent for (kind, *_), one in found.items()}
    assert sent["all-reduce"] == 2 * 64 * 3 / 4
    assert sent["all-gather"] == sent["reduce-scatter"] == 18 * 1024 * 7 / 8
    assert sent["collective-permute"] == 32
    (gather,) = (one for one in found.values() if one.kind == "all-gather")
    assert gather.origin == "jit(step)/while/body/dot"


def test_a_loop_of_unknown_length_is_refused():
    text = MODULE.replace("constant(6)", "parameter(1)")
    with pytest.raises(ValueError, match=r"loop while.1 has collectives, and no trip"):
        collectives(text)


def test_collectives_of_a_program():
    """Weights cut over 8 devices are gathered once per layer and pass, and gradients
    summed once per layer."""
    mesh = sharding.make_mesh(1, 8, 1)
    depth, width = 3, 16

    def loss(weights, x):
        def layer(x, w):
            y = jnp.tanh(x @ w)
            place = NamedSharding(mesh, sharding.BATCH)
            return jax.lax.with_sharding_constraint(y, place), None

        return jax.lax.scan(layer, x, weights)[0].sum()

    cut = NamedSharding(mesh, P(None, "fsdp"))
    weights = jax.ShapeDtypeStruct((depth, width, width), np.float32, sharding=cut)
    rows = NamedSharding(mesh, sharding.BATCH)
    x = jax.ShapeDtypeStruct((8, width), np.float32, sharding=rows)
    step = jax.jit(jax.value_and_grad(loss), out_shardings=(None, cut))
    found = collectives(step.lower(weights, x).compile().as_text())
    whole = [one for one in found if one.size == 4 * width**2]
    assert {one.group for one in whole} == {8}
    times = {kind: sum(one.times for one in whole if one.kind == kind)
             for kind in {one.kind for one in whole}}  # fmt: skip
    assert times.pop("all-gather") == 2 * depth
    assert sum(times.values()) == depth  # CPUs sum, and take their part


@pytest.mark.parametrize(
    "needs, wanted, compiled",
    [
        (lambda rows: 20 + 10 * rows, (8, 8), [4, 8]),
        (lambda rows: 5 + 5 * rows, (16, 19), [4, 8, 16]),
        (lambda rows: 20 + 5 * rows + rows**2 // 8, (8, 12), [4, 8]),
        (lambda rows: 5 + 5 * rows + (rows > 8) * 99, (8, 15), [4, 8, 16]),
        (lambda rows: 85 + 10 * rows, (1, 1), [1, 4, 8]),
        (lambda rows: 95 + 10 * rows, (0, 0), [4, 8]),
    ],
)
def test_most_rows_are_found(needs, wanted, compiled):
    asked = set()

    def ask(rows):
        asked.add(rows)
        return needs(rows)

    assert aot.most_rows(ask, [1, 2, 4, 8, 16, 32], 100) == wanted
    assert sorted(asked) == compiled


@pytest.mark.parametrize("size, wanted", [(30, (6, 6)), (300, (0, 0))])
def test_one_choice_of_rows(size, wanted):
    assert aot.most_rows(lambda _: size, [6], 100) == wanted


def test_the_abstract_batch_is_that_of_the_data():
    config = vitl.get_config("tiny")
    target = aot.Target("cpu", aot.CHIPS["v5e"], jax.devices())
    loop = aot.make_loop(config, target)
    _, batch = tiny.batch_of(config, 0)
    ours = aot.abstract_batch(loop)
    assert set(ours) == set(batch) - {"source", "record"}
    for name, leaf in ours.items():
        assert (leaf.shape, leaf.dtype) == (batch[name].shape, batch[name].dtype), name


@pytest.mark.parametrize(
    "name, message",
    [
        ("v5x:4x4", "'v5x'; did you mean 'v5"),
        ("v5e", "must be such as v5e:4x4"),
        ("v5e:4y4", "must be such as v5e:4x4"),
        ("h100:4x4", "must be such as h100:8"),
        pytest.param("v5e:3x5", "v5e:3x5: ", marks=needs_libtpu),
    ],
)
def test_unknown_topologies_are_refused(name, message):
    with pytest.raises(ValueError, match=message) as error:
        aot.find(name)
    assert "\n" not in str(error.value)


@needs_libtpu
def test_meshes_that_do_not_fit_the_chips():
    target = aot.find("v4:2x2x2")
    with pytest.raises(ValueError, match="mesh .* does not fit 8 devices"):
        aot.make_loop(tiny.config("batch=24", mesh__data=3), target)


@needs_libtpu
@pytest.mark.slow
def test_a_train_step_and_a_prediction_for_a_tpu():
    """Two blocks, sharded both ways, with the TPU's own attention."""
    config = tiny.config("batch=8", mesh__fsdp=2, model__dtype="bfloat16")
    target = aot.find("v5e:2x2")
    step, painting = aot.measure(config, target, fit=False, painted=2)
    assert step["mesh"] == {"data": 2, "fsdp": 2, "tensor": 1}
    # Forward and backward of two blocks that are compiled apart.
    assert step["kernels"] == 4 and painting["kernels"] > 0
    assert step["bytes"]["total"] > step["bytes"]["arguments"] > 0
    kinds = {each["kind"] for each in step["collectives"]}
    assert kinds and "all-to-all" not in kinds
    assert step["flop_per_chip"] > 0 and step["sent_bytes"] > 0
    for row in (step, painting):
        assert row["topology"] in aot.show(row)


@needs_cuda
@pytest.mark.slow
@pytest.mark.parametrize("attention, kernels", [("auto", 4), ("xla", 0)])
def test_a_train_step_for_gpus(attention, kernels):
    """cuDNN's attention goes forward and backward in two blocks, where asked for."""
    config = tiny.config(
        "batch=8", model__dtype="bfloat16", model__attention=attention
    )  # fmt: skip
    (row,) = aot.measure(config, aot.find("h100:4"), fit=False, painted=0)
    assert row["mesh"] == {"data": 4, "fsdp": 1, "tensor": 1}
    assert row["kernels"] == kernels
    assert row["bytes"]["total"] > row["bytes"]["arguments"] > 0
    assert row["sent_bytes"] > 0 and "h100:4" in aot.show(row)


@pytest.mark.parametrize(
    "given, error",
    [
        ("--config=tests/tiny.py --config.model.hats=3", "error: unknown setting 'h"),
        ("--config=nothere.py", "error: --config nothere.py: there is no such file"),
    ],
)
def test_a_wrong_config_is_one_line(given, error):
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.aot", *given.split()], text=True,
        cwd=REPOSITORY, capture_output=True,
    )  # fmt: skip
    (line,) = done.stderr.splitlines()
    assert done.returncode == 1 and line.startswith(error)
