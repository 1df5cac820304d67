"""The notebooks are pairs of `.py` and `.ipynb`, and their first cells keep what they
say: they install what is missing, and nothing where all is there."""

import importlib.util
import json
import os
import re
import subprocess
import types
from pathlib import Path

import jupytext
import numpy as np
import pytest
from PIL import Image

ROOT = Path(__file__).parents[2]
NOTEBOOKS = sorted(ROOT.glob("notebooks/*.py"))
ADDRESS = re.compile(r"github(?:\.com)?/([\w-]+/seggpt_jax)\b")
SUCCESS = types.SimpleNamespace(returncode=0)
by_name = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)


def cells(path, kind=None):
    """Kinds and sources of a notebook's cells."""
    found = [(cell.cell_type, cell.source) for cell in jupytext.read(path).cells]
    return [source for one, source in found if one == kind] if kind else found


def setup_cells(path):
    """The code of the cells that install, and that check the device."""
    return cells(path, "code")[:2]


def test_there_are_five():
    names = {path.stem for path in NOTEBOOKS}
    assert names == {"segment", "video", "tune_own_data", "train_tpu", "evaluate"}
    assert names == {path.stem for path in ROOT.glob("notebooks/*.ipynb")}
    table = (ROOT / "notebooks/README.md").read_text()
    assert names == set(re.findall(r"^\| \[(\w+)\]\(\1\.ipynb\)", table, re.MULTILINE))


@by_name
def test_both_forms_agree_and_hold_no_outputs(path):
    stored = path.with_suffix(".ipynb")
    assert cells(path) == cells(stored)
    for cell in json.loads(stored.read_text())["cells"]:
        if cell["cell_type"] == "code":
            assert cell["outputs"] == [] and cell["execution_count"] is None


@by_name
def test_the_first_cell_says_what_is_needed(path):
    kind, first = cells(path)[0]
    assert kind == "markdown" and first.startswith("# ")
    badge = re.search(r"\(https://colab\.research\.google\.com/(\S+)\)\n", first)
    assert badge[1].endswith(f"/blob/main/notebooks/{path.stem}.ipynb")
    assert re.search(r"^\| runtime \|.* time \| memory \|$", first, re.MULTILINE)
    # The badge, the install cell and links name one repository.
    assert len(set(ADDRESS.findall(path.read_text()))) == 1
    assert not re.search("torch", path.read_text())


def test_the_setup_is_the_same_in_all():
    """But for the extras and modules that a notebook wants."""
    own = re.compile(r"^(EXTRAS|MODULES) = .*?[\]}]\n", re.MULTILINE | re.DOTALL)
    found = {
        tuple(own.sub("", source) for source in setup_cells(path)) for path in NOTEBOOKS
    }
    assert len(found) == 1
    assert len({ADDRESS.search(path.read_text())[0] for path in NOTEBOOKS}) == 1


@pytest.fixture
def install(monkeypatch):
    """Runs the install cell of a notebook; returns the commands that it would run."""

    def run(name, missing=(), **environment):
        commands, find = [], importlib.util.find_spec
        monkeypatch.setattr(
            importlib.util,
            "find_spec",
            lambda module: None if module in missing else find(module),
        )
        monkeypatch.setattr(
            subprocess,
            "run",
            lambda words, **_: commands.append([*words]) or SUCCESS,
        )
        for variable, value in environment.items():
            monkeypatch.setitem(os.environ, variable, value)
        source = setup_cells(ROOT / f"notebooks/{name}.py")[0]
        exec(source.replace("/OWNER/", "/someone/"), {})
        return commands

    return run


@by_name
def test_in_a_checkout_nothing_is_installed(path, install, monkeypatch):
    monkeypatch.chdir(ROOT / "notebooks")
    assert install(path.stem) == []


def test_on_a_tpu_the_extra_comes_with_the_package(install, monkeypatch, tmp_path):
    """As in Colab: an empty folder, and jax for another libtpu is there."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(Path, "exists", lambda path: False)  # no NVIDIA device
    clone, pip = install("video", {"seggpt_jax", "av"}, COLAB_TPU_1VM="1")
    assert clone[:2] == ["git", "clone"] and clone[-1] == str(tmp_path / "seggpt-files")
    assert pip[1:5] == ["-m", "pip", "install", "-q"]
    assert pip[5] == f"{tmp_path}/seggpt-files[video,tpu]"
    assert [word for word in pip if word.startswith("numpy==")]  # it stays as it is
    assert not [word for word in pip if word.startswith("jax[cuda")]


def test_a_gpu_gets_a_plugin_for_its_driver(install, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    nvidia = Path("/dev/nvidia0")
    monkeypatch.setattr(Path, "exists", lambda path: path == nvidia)
    _, pip = install("segment", {"seggpt_jax", "cv2"}, COLAB_TPU_1VM="")
    assert pip[5] == f"{tmp_path}/seggpt-files"
    assert {"opencv-python-headless", "jax[cuda12]"} <= {*pip}


def test_a_folder_of_the_name_is_no_package(install, monkeypatch, tmp_path):
    """Where the checkout lies beside the notebook as `seggpt_jax`, Python finds the
    folder, and nothing in it."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(Path, "exists", lambda path: True)
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util,
        "find_spec",
        lambda module: (
            types.SimpleNamespace(origin=None)
            if module == "seggpt_jax"
            else find(module)
        ),
    )
    commands = install("evaluate")
    assert [words[3] for words in commands] == ["install"]


def test_without_an_owner_the_cell_says_what_to_write(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(Path, "exists", lambda path: False)
    source = setup_cells(ROOT / "notebooks/segment.py")[0]
    if "/OWNER/" in source:
        with pytest.raises(AssertionError, match="REPOSITORY, in this cell"):
            exec(source, {})


@pytest.mark.parametrize(
    "backend, machine, right",
    [("cpu", {}, True), ("cpu", {"COLAB_TPU_1VM": "1"}, False)],
)
def test_an_unseen_accelerator_is_an_error(backend, machine, right, monkeypatch):
    """jax falls back to the CPU in silence where libtpu does not fit it."""
    monkeypatch.chdir(ROOT / "notebooks")
    monkeypatch.delenv("JAX_PLATFORMS", raising=False)
    monkeypatch.setattr("jax.default_backend", lambda: backend)
    for variable, value in machine.items():
        monkeypatch.setenv(variable, value)
    source = setup_cells(ROOT / "notebooks/segment.py")[1]
    if right:
        exec(source, {})
    else:
        with pytest.raises(AssertionError, match="has a TPU.* uses a cpu.*Restart"):
            exec(source, {})


def test_own_data_may_have_spaces_in_their_names_and_results_of_their_own(
    tmp_path, monkeypatch
):
    from seggpt_jax.cli import command

    data = tmp_path / "my data"
    (data / "photos of mine").mkdir(parents=True)
    (data / "masks").mkdir()
    rng = np.random.default_rng(0)
    for k in range(4):
        noise = rng.integers(0, 255, (20, 30, 3)).astype(np.uint8)
        Image.fromarray(noise).save(data / f"photos of mine/{k}.png")
        mask = np.zeros((20, 30), np.uint8)
        mask[5:9] = 1 + k % 2
        Image.fromarray(mask).save(data / f"masks/{k}.png")
    first, second = (
        next(cell for cell in cells(ROOT / "notebooks/tune_own_data.py", "code") if own
             in cell)
        for own in ("IMAGES, MASKS, NAMES = ", "ROOT = ")
    )  # fmt: skip
    given = f'IMAGES, MASKS, NAMES = "{data}/photos of mine", "{data}/masks", ""'
    first = re.sub("^IMAGES, MASKS, NAMES = .*", given, first, flags=re.MULTILINE)
    names = {"Path": Path, "np": np, "Image": Image, "FILES": ROOT, "on_colab": False}
    monkeypatch.setattr(command, "cache_compiled", lambda: "elsewhere")
    exec(first, names)
    exec(second, names)
    rows = (data / "index.tsv").read_text().splitlines()[1:]
    assert len(rows) == 4 and all("photos of mine/" in row for row in rows)
    assert names["OUT"].name == "my data-results"
