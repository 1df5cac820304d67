"""The entry point: what is wrong is said in one line, and nothing is left half-done."""

import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from configs import vitl
from seggpt_jax import main
from seggpt_jax.runs import runtime
from seggpt_jax.train import check_start
from seggpt_jax.training import config_file
from seggpt_jax.training.settings import read_settings
from tests import tiny
from tests.conftest import REPOSITORY


def call(*arguments):
    """The exit status and the lines on stderr of the command."""
    environment = tiny.environment(JAX_PLATFORMS="cpu")
    command = [sys.executable, "-m", "seggpt_jax.main", *map(str, arguments)]
    done = subprocess.run(
        command, cwd=REPOSITORY, env=environment, capture_output=True, text=True
    )
    return done.returncode, done.stderr.splitlines()


def test_misspelt_setting_on_the_command_line(tmp_path):
    config, workdir = "--config=tests/tiny.py", f"--workdir={tmp_path / 'x'}"
    status, lines = call(config, workdir, "--config.optim.weight_deca=1")
    assert status == 2 and len(lines) == 1, lines
    assert lines[0].startswith("error: unknown setting 'weight_deca'. Did you mean")
    assert not (tmp_path / "x").exists()


def test_a_config_may_leave_settings_out(tmp_path):
    """One line where a setting has no default, after the traceback if that is asked
    for; else the run goes its way."""
    path = tmp_path / "short.py"
    path.write_text(
        "from tests import tiny\n"
        "def get_config(argument=None):\n"
        "    c = tiny.get_config()\n"
        "    del c.masking, c.mode, c.cpu_devices, c.context.tries\n"
        "    del c.stages.paint.lr\n"
        "    return c\n"
    )
    command = f"--config={path}", f"--workdir={tmp_path / 'x'}", "--verbosity=1"
    status, lines = call(*command)
    assert (status, lines[-1]) == (2, "error: setting stages.paint.lr is missing")
    assert lines[0].startswith("Traceback")


def test_training_without_sections(tmp_path, monkeypatch):
    config = tiny.config("evals")
    del config.masking, config.context, config.recolor, config.mesh, config.tune
    del config.mode, config.view.flip
    config.optim = {"layer_decay": 1.0}
    tiny.one_device(monkeypatch)
    scores = main.run(config, str(tmp_path))
    assert "heldout/shapes/1shot/miou" in scores


CAUSES = [
    (FileNotFoundError(2, "No such file", "a.py"), "No such file: 'a.py'"),
    (AttributeError(KeyError("'a'\nDid you mean b?")), "unknown setting 'a'. Did you"),
    (
        ValueError(
            "Traceback (most recent call last):\n  File\nValueError: bad steps\n"
        ),
        "bad steps",
    ),
    (
        OSError("Failed loading\n  Attempted:\n    [Errno 2] No such file: 'a'"),
        "No suc",
    ),
]


@pytest.mark.parametrize("error, cause", CAUSES)
def test_first_cause_is_one_line(error, cause):
    text = config_file.first_cause(error)
    assert text.startswith(cause) and "\n" not in text


def test_compiled_programs_are_kept_where_the_user_keeps_caches(tmp_path, monkeypatch):
    import jax

    folder = jax.config.jax_compilation_cache_dir
    least = jax.config.jax_persistent_cache_min_compile_time_secs
    variable = "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"
    try:
        jax.config.update("jax_compilation_cache_dir", None)
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
        monkeypatch.setenv(variable, str(least))
        runtime.cache_compiled()
        assert jax.config.jax_persistent_cache_min_compile_time_secs == least
        monkeypatch.delenv(variable)
        runtime.cache_compiled()  # those of small models, too
        assert jax.config.jax_persistent_cache_min_compile_time_secs == 0.1
        expected = str(tmp_path / "seggpt_jax" / "xla")
        assert jax.config.jax_compilation_cache_dir == expected
        monkeypatch.setenv("XDG_CACHE_HOME", "/elsewhere")
        runtime.cache_compiled()  # told already
        assert jax.config.jax_compilation_cache_dir == expected
    finally:
        jax.config.update("jax_compilation_cache_dir", folder)
        jax.config.update("jax_persistent_cache_min_compile_time_secs", least)


def refused(config, workdir):
    """The message of a config that is refused, as `main` prints it."""
    with pytest.raises((ValueError, OSError)) as raised:
        main.run(config, str(workdir))
    assert not list(workdir.glob("*")), "something was written before the error"
    return str(raised.value)


@pytest.mark.parametrize(
    "settings, message",
    [
        ({"mode": "trian"}, "mode 'trian' is unknown; did you mean 'train'?"),
        ({"model__size": "l61"}, "model size 'l61' is unknown; did you mean 'l16'?"),
        ({"model__dtype": "int8"}, "model.dtype 'int8' is not one of float32"),
        ({"sources__shapes__weight": -1.0}, "sources.shapes.weight = -1.0: must be a"),
        ({"sources__shapes__type": "shape"}, "type has no 'shape'; did you mean 'shap"),
        ({"sources__shapes__sise": 1}, "has no 'sise'; did you mean 'size'?"),
        ({"sources": {}}, "setting sources = {}: must be one source or more"),
        ({"sources__shapes": 3}, "setting sources.shapes = 3: must be settings by"),
        ({"sources__shapes__size": (32, "x")}, "sources.shapes.size = (32, 'x'): must"),
        (
            {"sources__shapes__seed": None},
            "sources.shapes.seed = None: must be a whole",
        ),
        ({"sources__shapes__tasks": {"part": "x"}}, "tasks = {'part': 'x'}: must be"),
        ({"sources__shapes__view": (1, 2)}, "sources.shapes.view = (1, 2): must be"),
        ({"evals": {"a": None}}, "setting evals.a = None: must be settings by name"),
        ({"model__patch": 0}, "setting model.patch = 0: must be at least 1"),
        ({"model__width": "wide"}, "setting model.width = 'wide': must be a whole"),
        ({"group_power": 10**30}, "setting group_power = 1"),
        ({"stages": {}}, "setting stages = {}: must be one stage or more"),
        ({"stages__paint__los": "l2"}, "stages.paint.los is unknown; did you mean 'lo"),
        ({"stages__paint__lr": -1.0}, "lr = -1.0: must be positive"),
        ({"loader__thread": 1}, "loader.thread is unknown; did you mean 'threads'?"),
        ({"loader__threads": -1}, "loader.threads = -1: must be at least 0"),
        ({"loader__batch_size": 12}, "batch_size 12 is not divisible by data x fsdp"),
        ({"mesh__tensr": 1}, "mesh.tensr is unknown; did you mean 'tensor'?"),
        ({"mesh__data": 3}, "does not fit 8 devices"),
        ({"view__flip": 2.0}, "settings of view: flip=2.0: must be in [0, 1]"),
        ({"masking__share": 0.0}, "settings of masking: share=0.0: must be in (0, 1]"),
        ({"recolor__max_colours": 3}, "recolor.max_colours is unknown; did you mean"),
        ({"optim__betas": (0.9, 1.0)}, "betas"),
        ({"ema": 1.0}, "setting ema = 1.0: must be in [0, 1)"),
        ({"init_from": "/nowhere"}, "/nowhere is neither a file"),
        ({"evals": {"x": {"type": "f"}}}, "evals.x.type = 'f' is unknown"),
        ({"evals": {"x": {"type": {}}}}, "evals.x.type = {} is unknown"),
        ({"sources__shapes__type": {}}, "type has no {}; choices: ade20k"),
        ({"fixed_pairs": 2**63 - 1}, "fixed_pairs = 9223372036854775807: must be"),
    ],
)
def test_wrong_settings(tmp_path, settings, message):
    workdir = tmp_path / "run"
    if "init_from" in settings:  # found after the checkpoints folder is there
        with pytest.raises(OSError, match=message):
            main.run(tiny.config("batch=8", **settings), str(workdir))
        assert not (workdir / "config.json").exists()
    else:
        assert message in refused(tiny.config("batch=8", **settings), workdir)


def test_forms_of_the_papers_run():
    config = vitl.get_config("scratch,vitb")
    assert config.model.size == "b16" and config.optim.layer_decay == 1
    assert [*config.stages] == ["find", "paint"] and config.stages.find.loss == "l2"
    check_start(read_settings(config))
    assert config.stages.paint == vitl.get_config().stages.paint


def test_paper_config_lists_the_data_that_is_missing(tmp_path):
    config = vitl.get_config()
    message = refused(config, tmp_path / "run")
    assert "init_from is empty" in message and "BAAI/Painter" in message
    config.init_from = "shapes"
    message = refused(config, tmp_path / "run")
    assert "coco_instance" in message and "stare" in message
    assert "docs/data.md" in message


def test_workdir_of_another_config_and_unusable_ones(tmp_path):
    config = tiny.config("batch=8")
    (tmp_path / "file").write_text("")
    for workdir in (tmp_path / "file", "/proc/self"):
        with pytest.raises(OSError, match="cannot be written"):
            main.run(config, str(workdir))
    with pytest.raises(ValueError, match="--workdir is missing"):
        main.run(config, None)
    # Settings that may change are no difference.
    (tmp_path / "config.json").write_text('{"seed": 3, "log_every": 7}')
    with pytest.raises(ValueError, match="holds a run of another config") as raised:
        main.run(config, str(tmp_path))
    assert "seed: 3 -> 0" in str(raised.value)
    assert "log_every" not in str(raised.value)


@pytest.fixture
def pets(tmp_path):
    """An indexed folder of 4 images of two classes, and what trains on it."""
    root = tmp_path / "data" / "pets"
    root.mkdir(parents=True)
    (root / "classes.tsv").write_text("id\tname\timages\n1\tdog\t2\n2\tcat\t2\n")
    rows = ["split\timage\tmask\twidth\theight\tclasses"]
    rng = np.random.default_rng(0)
    for n in range(4):
        Image.fromarray(rng.integers(0, 255, (32, 32, 3), np.uint8)).save(
            root / f"{n}.jpg"
        )
        mask = np.zeros((32, 32), np.uint8)
        mask[:16, :16] = 1 + n % 2
        Image.fromarray(mask).save(root / f"{n}.png")
        rows.append(f"train\t{n}.jpg\t{n}.png\t32\t32\t{1 + n % 2}")
    (root / "index.tsv").write_text("\n".join(rows) + "\n")
    return root


def on_pets(pets, **settings):
    c = tiny.config("evals", data_dir=str(pets.parent), **settings)
    spec = {"type": "indexed", "folder": "pets", "split": "train"}
    c.sources = {"pets": {**spec, "weight": 1.0}}
    if c.evals:
        c.evals.heldout.sources = {"pets": spec}
    return c


def truncated(root):
    path = root / "1.jpg"
    path.write_bytes(path.read_bytes()[:200])
    return path


def other_size(root):
    Image.fromarray(np.ones((5, 7), np.uint8)).save(root / "1.png")
    return root / "1.png"


@pytest.mark.parametrize("damage", [truncated, other_size])
def test_bad_record(pets, tmp_path, monkeypatch, caplog, damage):
    """Skipped and named in training; an error that names the file in evaluation."""
    name = damage(pets).name
    tiny.one_device(monkeypatch)
    with caplog.at_level("WARNING"):
        main.run(on_pets(pets, evals={}), str(tmp_path / "run"))
        assert "source pets: skipped bad record 1" in caplog.text
        assert name in caplog.text
        with pytest.raises(ValueError, match=name):
            saved = str(tmp_path / "run" / "checkpoints")
            config = on_pets(pets, mode="evaluate", checkpoint=saved)
            main.run(config, str(tmp_path / "scores"))
    assert not (tmp_path / "scores" / "pictures").exists()
