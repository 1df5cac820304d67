"""Names of leaves and rules over them."""

import jax.numpy as jnp
import numpy as np
import pytest

from seggpt_jax.trees import digest, first_match, map_named, named_leaves, table

TREE = {"blocks": {"norm": {"scale": jnp.ones(2)}}, "norm": {"scale": jnp.ones(1)}}


def test_names_join_keys_by_slashes():
    assert list(named_leaves(TREE)) == ["blocks/norm/scale", "norm/scale"]
    assert map_named(lambda name, leaf: name, TREE)["norm"]["scale"] == "norm/scale"


def test_first_rule_wins_and_matches_whole_ends():
    rules = [(r"blocks/.*", 1), (r"norm/scale", 2)]
    assert first_match(rules, "blocks/norm/scale") == 1
    assert first_match(rules, "opt/mu/norm/scale") == 2
    with pytest.raises(ValueError, match="no rule for parameter prenorm/scale"):
        first_match(rules, "prenorm/scale")


def test_table_is_aligned():
    assert table(("a", "b"), [("long", 1), ("x", 22)]) == "a     b\nlong  1\nx     22"


def test_the_digest_tells_weights_apart():
    params = {"a": np.arange(6.0), "b": {"c": np.zeros(2, np.float32)}}
    own = digest(params)
    assert digest({"b": {"c": np.zeros(2, np.float32)}, "a": np.arange(6.0)}) == own
    for other in (
        params | {"a": np.arange(6.0) + [0, 0, 0, 0, 0, 1e-9]},
        params | {"a": np.arange(6.0).reshape(2, 3)},
        params | {"b": {"d": np.zeros(2, np.float32)}},
        params | {"b": {"c": np.zeros(2, np.int32)}},
    ):
        assert digest(other) != own
