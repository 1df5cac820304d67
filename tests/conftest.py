"""Hostile settings for every test: many devices, no silent broadcasting."""

import functools
import gc
import os
import pathlib
import shutil
import sys
from collections.abc import Iterator
from importlib.metadata import version

os.environ.setdefault("JAX_PLATFORMS", "cpu")
# Most of the tests' time is compiling programs that run once, so XLA does it quickly:
# without LLVM's optimisation and, where jax still has them, by the older emitters.
os.environ.setdefault(
    "XLA_FLAGS",
    "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true"
    + " --xla_cpu_use_fusion_emitters=false" * version("jax").startswith("0.10."),
)
# To keep a smaller program takes longer than to compile it again.
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.2")

import jax
import pytest

jax.config.update("jax_num_cpu_devices", 8)
jax.config.update("jax_numpy_rank_promotion", "raise")

REPOSITORY = pathlib.Path(__file__).parents[1]
CACHE_LIMIT = 2**30  # bytes


def pytest_configure(config):
    """One cache of compiled programs for all tests, the processes that they start and
    later runs. `pytest --cache-clear` empties it, as does a size above the limit.
    Python's own files, *.pyc, are kept as well: without them the imports of a worker
    take twice as long."""
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    sys.dont_write_bytecode = False
    cache = REPOSITORY / ".pytest_cache/d/xla"
    if cache.exists() and not hasattr(config, "workerinput"):
        if sum(file.stat().st_size for file in cache.iterdir()) > CACHE_LIMIT:
            shutil.rmtree(cache)
    folder = os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(cache))
    jax.config.update("jax_compilation_cache_dir", folder)


def pytest_collection_finish():
    """What the imports made stays: the garbage collector need not look at it again."""
    gc.freeze()


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


@pytest.fixture
def bucket(monkeypatch) -> Iterator[str]:
    """The address of an empty bucket, `gs://...`."""
    from tests.support.buckets import serve  # no other test needs its packages

    with serve(monkeypatch) as address:
        yield address


@pytest.fixture(autouse=True, scope="session")
def compiled_once():
    """Train steps, optimizers, first states and engines of equal arguments are one
    object in a process: jax then traces and compiles them once, and not in every test.
    All are pure functions.

    A test that patches a function of the step or the model finds the unpatched program
    where another test asked for the same one: its settings must be its own.
    """
    from seggpt_jax import evaluate, predict, train
    from seggpt_jax.inference import predictor
    from seggpt_jax.training import train_step

    def once(function):
        made = {}

        @functools.wraps(function)
        def find(*given, **settings):
            key = repr((given, settings))
            if key not in made:  # with its arguments: an address in a key stays theirs
                made[key] = function(*given, **settings), given, settings
            return made[key][0]

        return find

    init, inits = train.Loop.init, {}

    def first_state(loop):
        made = functools.partial(init, loop)
        if not isinstance(loop.trained, train.Whole):
            return made
        key = repr((loop.trained.model, loop.stages[0], loop.config.optim))
        return inits.setdefault((key, loop.config.ema > 0), made)

    with pytest.MonkeyPatch.context() as patch:
        for module in (evaluate, predictor, train):
            patch.setattr(module, "Engine", functools.cache(predict.Engine))
        patch.setattr(train, "paint_model", functools.cache(train_step.paint_model))
        patch.setattr(train, "make_train_step", once(train_step.make_train_step))
        optimizer = once(train_step.Stage.optimizer)
        patch.setattr(train_step.Stage, "optimizer", optimizer)
        patch.setattr(train.Loop, "init", property(first_state))
        yield
