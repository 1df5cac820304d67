"""Opening sources by config, docs/data.md, and the real data sets."""

import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from configs import common
from seggpt_jax.config import plain
from seggpt_jax.data.sample import CATEGORY, IGNORE, INSTANCE
from seggpt_jax.data.sources import TYPES, make_layout, open_groups, open_sources
from seggpt_jax.data.sources.indexed import Indexed
from seggpt_jax.indexing.tables import write_tables
from tests.support.folders import HEAD, ROW, indexed, mask_values, picture, write

# The sets of the paper's training, by the names of their types.
PAPER = [one for name in common.WEIGHTS for one in common.MEMBERS.get(name, (name,))]
DOCS = Path(__file__).parents[2] / "docs" / "data.md"


@pytest.fixture
def root(tmp_path):
    return write(tmp_path / "pets")


def test_open_sources_by_config(root):
    spec = {"type": "indexed", "folder": "pets", "split": "train"}
    cats = {**spec, "classes": ["cat"]}
    sources = open_sources({"all": spec, "cats": cats}, root.parent)
    assert [*sources] == ["all", "cats"] == [s.name for s in sources.values()]
    assert sources["cats"].class_names == {2: "cat"}


def test_only_the_chosen_module_is_imported(root, monkeypatch):
    monkeypatch.setitem(TYPES, "shapes", "no_such_module:Shapes")
    specs = {"pets": {"type": "indexed", "folder": "pets", "split": "val"}}
    assert [*open_sources(specs, root.parent)] == ["pets"]
    with pytest.raises(ModuleNotFoundError):
        open_sources({"shapes": {"type": "shapes"}})


def test_shapes_needs_no_data():
    source = open_sources({"scenes": {"type": "shapes", "length": 10}})["scenes"]
    assert len(source) == 10 and source[0].image.shape[-1] == 3
    with pytest.raises(ValueError, match="sources.x: type 'shapes' .* mean 'length'"):
        open_sources({"x": {"type": "shapes", "lenght": 10}})


@pytest.mark.parametrize(
    "change, message",
    [
        ({"type": "indexd"}, r"sources.x.type .*'indexd'; did you mean 'indexed'\?"),
        ({"type": None}, r"sources.x.type has no None; choices: ade20k, "),
        ({"spilt": "train"}, r"sources.x: .* has no 'spilt'; did you mean 'split'\?"),
        ({"root": "pets"}, r"sources.x: type 'indexed' has no 'root'.*folder"),
        ({"exclude": ["pets"]}, r"sources.x: type 'indexed' has no 'exclude'"),
        ({"split": None}, r"sources.x: type 'indexed' needs the setting 'split'"),
        ({"folder": "*"}, r"sources.x: folder '\*' needs .*sets.tsv"),
    ],
)
def test_bad_specs(root, change, message):
    spec = {"type": "indexed", "folder": "pets", "split": "train", **change}
    if spec["split"] is None:
        del spec["split"]
    with pytest.raises(ValueError, match=message):
        open_sources({"x": spec}, root.parent)


def test_all_missing_data_in_one_error(root):
    specs: dict = {
        name: {"type": "indexed", "folder": name, "split": "train"}
        for name in ("pets", "birds", "fish")
    }
    specs |= {n: plain(spec) for n, spec in common.paper_sources().items()}
    for spec in specs.values():
        spec.pop("weight", None)
        for one in [spec, *spec.get("members", {}).values()]:
            one.pop("view", None)
    with pytest.raises(ValueError) as error:
        open_sources(specs, root.parent)
    message = str(error.value)
    for name in ("birds", "fish", *PAPER):
        assert f"{name} (folder {root.parent / name}" in message
    assert "pets (" not in message and "docs/data.md" in message
    assert [*open_sources(specs, root.parent, skip_missing=True)] == ["pets"]
    del specs["pets"]
    with pytest.raises(ValueError, match="data is missing for: birds"):
        open_sources(specs, root.parent, skip_missing=True)
    for data_dir in (None, "", root / "nowhere"):
        with pytest.raises(ValueError, match="data_dir: .* is no folder"):
            open_sources({"fish": specs["fish"]}, data_dir)


def test_all_sets_of_a_folder(tmp_path):
    write(tmp_path / "pets")
    write(tmp_path / "birds", [ROW], HEAD + "1\tgull\t1\n")
    write(tmp_path / "fish", [ROW.replace("train", "test")])
    (tmp_path / "clips").mkdir()
    names = ["pets", "birds", "fish", "clips"]
    table = "set\tkind\n" + "".join(f"{name}\tsemantic\n" for name in names)
    (tmp_path / "sets.tsv").write_text(table)

    def run(**settings):
        spec = {"type": "indexed", "folder": "*", "split": "train", **settings}
        return open_sources({"all": spec}, tmp_path)

    assert [*run()] == ["pets", "birds"]
    assert [*run(exclude=["pets"])] == ["birds"]
    assert [*run(split="test")] == ["fish"]
    sources = run(exclude_classes=["dog"])
    assert sources["pets"].class_names == {2: "cat", 3: "owl"}
    assert sources["birds"].class_names == {1: "gull"}
    for settings, message in [
        ({"split": "tset"}, r"split: .*did you mean 'test'\?.*: test, train, val"),
        ({"exclude": ["bird"]}, r"exclude: .*did you mean 'birds'"),
        ({"exclude_classes": ["dgo"]}, r"exclude_classes: .*did you mean 'dog'"),
    ]:
        with pytest.raises(ValueError, match=rf"sources.all.{message}"):
            run(**settings)

    everything = {"type": "indexed", "folder": "*", "split": "train"}
    specs = {"all": everything, "pets": {**everything, "folder": "pets"}}
    assert {k: [*v] for k, v in open_groups(specs, tmp_path).items()} == {
        "all": ["pets", "birds"],
        "pets": ["pets"],
    }
    with pytest.raises(ValueError, match="'pets' is there twice"):
        open_sources(specs, tmp_path)
    (tmp_path / "sets.tsv").write_text(table + "frogs\tsemantic\n")
    with pytest.raises(ValueError, match=r"missing for: frogs \(folder"):
        run()


# The documentation, and real data.


def test_documented_folders(tmp_path, monkeypatch, capsys):
    """The Python of docs/data.md opens the tables that `seggpt index` makes of images
    and masks, and other layouts."""
    root = tmp_path / "my-data"
    (root / "images").mkdir(parents=True)
    (root / "masks").mkdir()
    for i in range(6):
        picture().save(root / "images" / f"rex{i}.jpg")
        values = np.where(mask_values() == 77, 0, mask_values())
        Image.fromarray(values).save(root / "masks" / f"rex{i}.png")
    names = {1: "dog", 2: "cat"}
    write_tables(root / "images", root / "masks", None, names, "", lambda x, total: x)
    blocks = re.findall(r"```python\n(.*?)```", DOCS.read_text(), re.S)
    check, config, *formats = blocks
    scope: dict = {}
    monkeypatch.chdir(tmp_path)
    exec(check, scope)
    assert "train 4 {'dog': 4, 'cat': 4}" in capsys.readouterr().out
    assert {*Indexed.splits_in(root)} == {"train", "val"}
    exec(config, scope)
    del scope["sources"]["shapes"]
    sources = open_sources(scope["sources"], tmp_path)
    assert [*sources] == ["pets", "dogs"]
    assert len(sources["pets"]) == 4 and sources["dogs"].class_names == {1: "dog"}
    assert len(sources["dogs"]) == 2
    for block in formats:
        ((_, spec),) = exec_names(block).items()
        kind = spec.pop("type")
        assert spec.pop("folder") and spec.pop("split")
        assert {*spec} <= vars(make_layout(kind, spec)).keys()
    assert len(formats) == 3


def exec_names(block: str) -> dict:
    scope: dict = {}
    exec(block, {}, scope)
    return scope


def test_documentation_names_every_type():
    text = DOCS.read_text() + DOCS.with_name("datasets.md").read_text()
    for name in TYPES:
        assert f"`{name}`" in text


def test_every_real_set_agrees_with_its_tables(data_dir):
    roots = sorted(path.parent for path in data_dir.glob("*/index.tsv"))
    assert len(roots) >= 30
    for root in roots:
        for split in Indexed.splits_in(root):
            source = indexed(root, split)
            for index in {0, len(source) // 2, len(source) - 1}:
                sample = source[index]
                listed = {k for k, v in source.by_class.items() if index in v}
                assert set(sample.classes) == listed, (root.name, split, index)
                shown = set(np.unique(sample.segments)) - {0, IGNORE}
                assert (
                    shown == listed and sample.image.shape[:2] == sample.segments.shape
                )


def test_real_reserved_ids(data_dir):
    for name in ("drive", "chase-db1"):
        source = indexed(data_dir / name, "train", strict=True)
        assert source.class_names == {1: "retinal vessel"}
        assert source.layout.labels == {255: 1}
        segments = source[0].segments
        assert set(np.unique(segments)) == {0, 1}
        assert 0.02 < (segments == 1).mean() < 0.2  # vessels are thin
    camvid = indexed(data_dir / "camvid", "train")
    assert camvid.layout.labels[0] == 11 and 11 in camvid[0].classes


def test_real_class_agnostic_sets(data_dir):
    spec = {"type": "indexed", "folder": "*", "split": "train"}
    for source in open_sources({"all": spec}, data_dir).values():
        agnostic = source.name in ("bsds500", "grabcut-sample")
        assert source.same_image_only == agnostic
        assert source.kind == (INSTANCE if agnostic else CATEGORY)
