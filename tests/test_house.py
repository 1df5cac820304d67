"""What the documents say is true of the code."""

import ast
import configparser
import importlib
import importlib.metadata
import pathlib
import pkgutil
import re
import sys

import pytest
from absl.flags import FLAGS
from ml_collections import ConfigDict

from configs import common
from seggpt_jax import main
from seggpt_jax.models.seggpt import SegGPTConfig

ROOT = pathlib.Path(__file__).parents[1]
DOCUMENTS = sorted(
    path
    for folder in ("", "docs/**/", "launch/", "notebooks/", "seggpt_jax/**/")
    for path in ROOT.glob(f"{folder}*.md")
)
FILES = [
    f"/{path.relative_to(ROOT)}"
    for path in (*ROOT.glob("*.py"), *ROOT.glob("[!.]*/**/*.py"))  # no environments
]
# Files that documents name and that are elsewhere: the reader's, and other projects'.
ELSEWHERE = {
    "configs/mine.py",
    "seggpt_inference.py",
    "matcher/data/lvis.py",
    "util/lr_decay.py",
}


def leaves(config, prefix=""):
    """Dotted names and values of a config; one stage stands for all."""
    for name, value in config.items():
        name = f"{prefix}{name}".replace("stages.paint", "stages.*")
        if isinstance(value, ConfigDict):
            yield from leaves(value, f"{name}.")
        else:
            yield name, value


# Fields of the model with a row of their own, though no config of the paper's has them.
MORE = [("model.one_way", SegGPTConfig.one_way)]


@pytest.mark.parametrize("name, value", [*leaves(common.base()), *MORE])
def test_every_setting_is_documented_with_its_value(name, value):
    text = (ROOT / "docs/training.md").read_text()
    found = re.search(rf"`{re.escape(name)}`(?: \|)? `([^`]*)`", text)
    assert found, f"docs/training.md does not list {name}"
    shown = eval(found[1], {"__builtins__": {}})  # fractions, as in the config
    assert shown == value, f"docs/training.md: {name} is {found[1]}, but {value!r}"


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda p: p.name)
def test_commands_name_configs_that_load(path):
    for name, argument in set(
        re.findall(r"configs/(\w+)\.py(?::([\w=,]+))?", path.read_text())
    ):
        if name in ("common", "mine", "NAME"):  # the base, and the reader's own
            continue
        module = importlib.import_module(f"configs.{name}")
        module.get_config(argument or None)


def anchors(path):
    """The anchors of a page, as GitHub names its headings."""
    text = re.sub(r"^```.*?^```", "", path.read_text(), flags=re.MULTILINE | re.DOTALL)
    for heading in re.findall(r"^#+ (.*)$", text, re.MULTILINE):
        yield re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda p: p.name)
def test_links_lead_somewhere(path):
    text = path.read_text()
    for target, anchor in re.findall(r"\]\((?!https?:)([^)#]*)#?([^)]*)\)", text):
        page = path.parent / target if target else path
        assert page.exists(), f"{path.name}: {target}"
        assert not anchor or anchor in anchors(page), f"{path.name}: {target}#{anchor}"


def test_every_flag_of_the_main_program_is_documented():
    flags = FLAGS.get_key_flags_for_module(main)
    text = (ROOT / "docs/commands.md").read_text()
    rows = re.findall(r"^\| `--(\w+)` \|(.*?) \|", text, re.MULTILINE)
    defaults = {"auto": " `auto`", 100: " `100`", 0: " `0`", None: ""}
    own = {flag.name: defaults[flag.default] for flag in flags}
    assert dict(rows) == {"config": ""} | own


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda p: p.name)
def test_code_that_documents_name_exists(path):
    text = path.read_text()
    for name in set(re.findall(r"\w[\w./-]*\.py\b", text)) - ELSEWHERE:
        if "NAME" not in name:  # of a recipe
            here = any(file.endswith(f"/{name}") for file in FILES)
            assert here, f"{path.name}: there is no {name}"
    for name in set(re.findall(r"\bseggpt_jax(?:\.\w+)+", text)):
        if not name.endswith(".py"):
            assert pkgutil.resolve_name(name), f"{path.name}: there is no {name}"


def test_the_file_tree_names_every_room_and_no_other():
    text = (ROOT / "docs/tour.md").read_text()
    tree = re.search(r"^seggpt_jax/.*\n((?:  .*\n|\n)+)", text, re.M)
    lines = re.findall(r"^  (\S.*?)  ", tree[1], re.MULTILINE)
    names = ", ".join(lines).split(", ")
    modules = {path.stem for path in (ROOT / "seggpt_jax").glob("[!_]*.py")}
    rooms = {f"{p.parent.name}/" for p in (ROOT / "seggpt_jax").glob("*/__init__.py")}
    assert {name.removesuffix(".py") for name in names} == modules | rooms


def test_the_tour_names_every_file_of_the_rooms():
    text = (ROOT / "docs/tour.md").read_text()
    part = re.search(r"^### In the rooms\n(.*?)^##", text, re.MULTILINE | re.DOTALL)
    shown = set(re.findall(r"`(\w+)`", part[1]))
    found = {path.stem for path in (ROOT / "seggpt_jax").glob("*/[!_]*.py")
             if path.parent.name != "metrics"}  # fmt: skip
    assert not found - shown, f"docs/tour.md does not name {found - shown}"


def test_levels_of_the_design_are_those_of_the_linter():
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg")
    levels = setup["importlinter:contract:layers"]["layers"].strip().splitlines()
    block = re.search(r"^main \| cli .*?(?=```)", (ROOT / "docs/design.md").read_text(),
                      re.MULTILINE | re.DOTALL)  # fmt: skip
    shown = [line.split("  ")[0] for line in block[0].splitlines()]
    assert shown == [level.strip() for level in levels]


def test_every_import_is_declared():
    """setup.cfg lists every package that the code imports, if only as an extra."""
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg")
    lists = [setup["options"]["install_requires"]]
    extras = setup["options.extras_require"].items()
    lists += [text for name, text in extras if name != "dev"]
    names = re.findall(r"^([\w-]+)", "\n".join(lists), re.MULTILINE)
    declared = {name.lower() for name in names}
    imported = set[str]()
    own = ("seggpt_jax", "configs", "tools")
    for path in (path for folder in own for path in (ROOT / folder).rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                imported |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                imported.add(node.module)
    modules = {name.split(".")[0] for name in imported} - {*own}
    packages = importlib.metadata.packages_distributions()
    # jax2onnx asks for an older orbax than ours: docs/export.md.
    for module in modules - sys.stdlib_module_names - {"jax2onnx", "onnx_ir"}:
        owners = {name.lower().replace("_", "-") for name in packages[module]}
        assert owners & declared, f"{module} is of {owners}: not in setup.cfg"


def test_no_field_defaults_to_a_read_only_mapping():
    """Python 3.11 refuses it where a dataclass is made, later ones do not."""
    found = [
        f"{path.name}:{line.lineno}"
        for path in sorted((ROOT / "seggpt_jax").rglob("*.py"))
        for made in ast.walk(ast.parse(path.read_text()))
        if isinstance(made, ast.ClassDef)
        for line in made.body
        if isinstance(line, ast.AnnAssign) and isinstance(line.value, ast.Call)
        if ast.unparse(line.value.func).endswith("MappingProxyType")
    ]
    assert found == []
