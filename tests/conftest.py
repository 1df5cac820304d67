"""Hostile settings for every test: many devices, no silent broadcasting."""

import os
import pathlib
from collections.abc import Iterator

os.environ.setdefault("JAX_PLATFORMS", "cpu")
# Most of the tests' time is compiling programs that run once: without LLVM's
# optimisation it takes 0.6 of it (test_model and test_optim, 2026-11-28).
os.environ.setdefault("XLA_FLAGS", "--xla_backend_optimization_level=0")

import jax
import pytest

jax.config.update("jax_num_cpu_devices", 8)
jax.config.update("jax_numpy_rank_promotion", "raise")

REPOSITORY = pathlib.Path(__file__).parents[1]


@pytest.fixture(scope="session")
def data_dir(tmp_path_factory) -> Iterator[pathlib.Path]:
    """Real pictures: $SEGGPT_DATA, else ../shared/data beside the checkout. Indices of
    sets that are read-only go to a folder of the tests, not to the user's cache."""
    default = REPOSITORY.parent / "shared" / "data"
    folder = pathlib.Path(os.environ.get("SEGGPT_DATA", default))
    if not (folder / "sets.tsv").exists():
        message = f"no data sets in {folder}; set SEGGPT_DATA to their folder"
        if os.environ.get("SEGGPT_REQUIRE_DATA") == "1":
            pytest.fail(message)
        pytest.skip(message)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield folder
