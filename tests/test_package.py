"""What is built and installed, and systems on which some packages do not exist."""

import configparser
import importlib.metadata
import os
import re
import shutil
import subprocess
import sys
import zipfile

import pytest
import yaml
from packaging.requirements import Requirement

import seggpt_jax
from tests.conftest import REPOSITORY
from tests.support.folders import write

BUILT_OF = ("setup.py", "setup.cfg", "pyproject.toml", "README.md", "LICENSE")


def start(*argv, cwd, path):
    """A run of Python to its end, with `path` in place of this checkout."""
    return subprocess.run(
        [sys.executable, "-W", "ignore", *map(str, argv)], cwd=cwd, text=True,
        capture_output=True, env={**os.environ, "PYTHONPATH": str(path)},
    )  # fmt: skip


def python(*argv, cwd, path=""):
    """What `start` prints; it ends well."""
    done = start(*argv, cwd=cwd, path=path)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def sources(tmp_path_factory):
    """A copy of the checkout, since setuptools writes into it."""
    copy = tmp_path_factory.mktemp("sources") / "seggpt_jax"
    for name in ("seggpt_jax", "configs"):
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(REPOSITORY / name, copy / name, ignore=ignored)
    for name in BUILT_OF:
        shutil.copy(REPOSITORY / name, copy)
    return copy


def test_what_is_installed(sources, tmp_path):
    """All that belongs to the package; the configs are read without a checkout."""
    site = tmp_path / "site"
    python("setup.py", "-q", "build_py", f"--build-lib={site}", cwd=sources)
    assert [path.name for path in site.iterdir()] == ["seggpt_jax"]
    ours = {
        path.relative_to(REPOSITORY / "seggpt_jax")
        for path in (REPOSITORY / "seggpt_jax").rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    folder = site / "seggpt_jax"
    made = {path.relative_to(folder) for path in folder.rglob("*") if path.is_file()}
    configs = {path.relative_to(folder) for path in folder.glob("packaged/configs/*")}
    assert made == ours | configs and ("py.typed" in {*map(str, made)})
    for path in REPOSITORY.glob("configs/*.py"):
        packaged = folder / "packaged/configs" / path.name
        assert packaged.read_bytes() == path.read_bytes()
    read = (
        "from seggpt_jax.training import config_file; "
        "print(config_file.read('configs/vitl.py:tiny', ['--config.seed=3']).seed)"
    )
    empty = tmp_path / "empty"
    empty.mkdir()
    assert python("-P", "-c", read, cwd=empty, path=site) == "3\n"


def test_a_checkout_beside_a_script_does_not_hide_the_package(sources, tmp_path):
    """A folder of its name is a namespace package, which a path file precedes."""
    python("setup.py", "-q", "editable_wheel", f"--dist-dir={tmp_path}", cwd=sources)
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path / "site")
    script = tmp_path / "script.py"
    script.write_text(
        f"import site; site.addsitedir({str(tmp_path / 'site')!r})\n"
        "import seggpt_jax; print(seggpt_jax.__version__)\n"
    )
    (tmp_path / "seggpt_jax").mkdir()
    version = importlib.metadata.version("seggpt_jax")
    assert python(script, cwd=tmp_path) == f"{version}\n"


def test_every_bundled_model_has_a_licence_that_the_metadata_names():
    setup = configparser.ConfigParser()
    setup.read(REPOSITORY / "setup.cfg")
    expression = setup["metadata"]["license_expression"]
    assert expression == "Apache-2.0 AND LicenseRef-seggpt-jax-mini"
    for folder in (REPOSITORY / "seggpt_jax/bundled").iterdir():
        text = (folder / "LICENSE").read_text()
        apache = "Apache License, Version 2.0: the file LICENSE" in text
        assert apache or f"LicenseRef-seggpt-jax-{folder.name}" in expression


# What Windows lacks (setup.cfg): an import of it fails. grain looks for the system.
LACKING = """
import importlib, platform, sys

class Lacking:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("array_record", "tensorflow_datasets", "fcntl",
                                  "resource"):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Lacking())
for name in ("fcntl", "resource"):
    sys.modules.pop(name, None)
known, platform.system = platform.system, lambda: "Windows"
import grain
platform.system = known
for name in ("main", "train", "tune", "evaluate", "inference", "serve.app", "serve.run",
             "data.check", "training.batch_sheet"):
    importlib.import_module(f"seggpt_jax.{name}")
from seggpt_jax.cli import command
for line in sys.argv[1:]:
    try:
        command.main(line.split())
    except SystemExit as stopped:
        print(line.split()[0], stopped.code, flush=True)
"""


def lacking(*commands, cwd):
    done = start("-c", LACKING, *commands, cwd=cwd, path=REPOSITORY)
    return done.stdout.splitlines(), done.stderr


@pytest.mark.slow
def test_images_are_segmented_where_there_is_no_array_record(tmp_path):
    examples = REPOSITORY / "docs/examples"
    (tmp_path / "data/1.0.0").mkdir(parents=True)
    (tmp_path / "data/1.0.0/manifest.json").write_text(
        '{"layout": {}, "splits": {"train": {"shards": []}}}'
    )
    said, errors = lacking(
        f"segment --model mini --out out {examples}/query.jpg "
        f"--prompt {examples}/prompt.jpg:{examples}/prompt-mask.png",
        "prepare voc --root=x --out=y",
        "check voc --root=data",
        "show --config=configs/vitl.py:tiny --rows=1",
        cwd=tmp_path,
    )
    codes = [line for line in said if re.fullmatch(r"\w+ \d", line)]
    assert codes == ["segment 0", "prepare 2", "check 2", "show 0"], errors
    lines = [line for line in errors.splitlines() if line.startswith("error: ")]
    need = "ArrayRecord files need the package array-record, which does not exist for"
    assert [need in line for line in lines] == [True, True], errors


@pytest.mark.slow
def test_a_prompt_is_tuned_where_there_is_no_array_record(tmp_path):
    write(tmp_path / "pets")
    said, errors = lacking(
        "tune --model mini --data pets --out p.safetensors --steps 1 --batch 1",
        cwd=tmp_path,
    )
    assert said[-1] == "tune 0", errors


def test_oldest_versions_are_those_that_are_allowed():
    """The constraints of the workflow pin every requirement to its floor."""
    setup = configparser.ConfigParser()
    setup.read(REPOSITORY / "setup.cfg")
    extras = setup["options.extras_require"]
    lists = [setup["options"]["install_requires"], extras["video"], extras["serve"]]
    allowed = [Requirement(line) for text in lists for line in text.split("\n") if line]
    floors = {
        one.name.lower().replace("_", "-"): spec.version
        for one in allowed
        for spec in one.specifier
        if spec.operator == ">="
    }
    text = (REPOSITORY / ".github/oldest.txt").read_text()
    pins = dict(re.findall(r"^([\w-]+)==(\S+)", text, re.MULTILINE))
    assert len(floors) == len({one.name for one in allowed}), "one without a floor"
    for name, floor in floors.items():
        assert f"{pins[name]}.0.0".startswith(f"{floor}."), name


def test_a_version_is_the_same_everywhere():
    """As .github/workflows/release.yml asks of a tag."""
    version = seggpt_jax.__version__
    said = (REPOSITORY / "CITATION.cff").read_text()
    assert yaml.safe_load(said)["version"] == version
    assert re.search(
        f"^## {version} ", (REPOSITORY / "CHANGELOG.md").read_text(), re.MULTILINE
    )
    assert (
        f'__version__ = "{version}"\n'
        in (REPOSITORY / "seggpt_jax/__init__.py").read_text()
    )


def test_pypi_gets_addresses_for_links_and_pictures(tmp_path):
    text = (REPOSITORY / ".github/workflows/release.yml").read_text()
    steps = yaml.safe_load(text)["jobs"]["build"]["steps"]
    (run,) = [x["run"] for x in steps if x.get("name") == "addresses for PyPI"]
    for name in ("README.md", "setup.cfg"):
        shutil.copy(REPOSITORY / name, tmp_path)
    known = {"GITHUB_REPOSITORY": "me/seggpt_jax", "GITHUB_REF_NAME": "v1"}
    subprocess.run(["bash", "-ec", run], cwd=tmp_path, check=True,
                   env={**os.environ, **known})  # fmt: skip
    before, after = (
        re.findall(r"(!?)\[[^]]*\]\(([^)]*)\)", (folder / "README.md").read_text())
        for folder in (REPOSITORY, tmp_path)
    )
    places = {"!": "https://raw.githubusercontent.com/me/seggpt_jax/v1/",
              "": "https://github.com/me/seggpt_jax/blob/v1/"}  # fmt: skip
    for (kind, old), (_, new) in zip(before, after, strict=True):
        assert new == (old if "://" in old else places[kind] + old)
    assert {"!"} < {kind for kind, _ in after}
    config = configparser.ConfigParser()
    config.read(tmp_path / "setup.cfg")
    urls = config["metadata"]["project_urls"]
    assert "Source = https://github.com/me/seggpt_jax\n" in urls


@pytest.mark.parametrize(
    "path", sorted(REPOSITORY.glob(".github/workflows/*.yml")), ids=lambda p: p.name
)
def test_workflows_use_actions_of_one_commit(path):
    """A tag can be moved to other code; a commit cannot. The comment is the tag."""
    workflow = yaml.safe_load(path.read_text())
    assert workflow["permissions"] == {"contents": "read"}
    used = re.findall(r"uses: *(.*)", path.read_text())
    assert used
    for action in used:
        assert re.fullmatch(r"[\w-]+/[\w-]+@[0-9a-f]{40} # v\d+(\.\d+){2}", action)
