"""Settings of jax."""

import jax
import numpy as np

from seggpt_jax.models.seggpt import INITIALIZERS, SegGPTConfig
from seggpt_jax.runs.runtime import quick_compile


def test_quickly_compiled_programs_draw_the_same_parameters():
    config = SegGPTConfig.of("ti16")
    kinds = "pos_embed", "patch_embed"  # of both distributions, and 0.15 M values
    draw = jax.jit(lambda key: [INITIALIZERS[kind](key, config) for kind in kinds])
    lowered, key = draw.lower(jax.random.key(0)), jax.random.key(5)
    # XLA's default is 3; the tests' own is 0, with which some last bits differ.
    want, found = (
        lowered.compile(options)(key)
        for options in ({"xla_backend_optimization_level": 3}, quick_compile())
    )
    assert quick_compile()
    jax.tree.map(np.testing.assert_array_equal, found, want)
