"""Indexed folders: the rule for mask values, and every error of a set."""

import os
import pickle
import shutil
import time

import numpy as np
import pytest
from PIL import Image

from seggpt_jax.data.prepare import prepare
from seggpt_jax.data.prepared import Prepared
from seggpt_jax.data.sample import CATEGORY, IGNORE, INSTANCE, BadRecord
from seggpt_jax.data.sources import make_layout, open_sources
from seggpt_jax.data.sources.indexed import Indexed
from seggpt_jax.evaluators.episodes import Episodes
from tests.support.folders import (
    CLASSES,
    HEAD,
    HEADER,
    ROW,
    indexed,
    mask_values,
    picture,
    write,
)


@pytest.fixture
def root(tmp_path):
    return write(tmp_path / "pets")


# What is read.


def test_round_trip(root):
    source = indexed(root, "train")
    sample = source[0]
    expected = np.where(mask_values() == 77, 0, mask_values()).astype(np.int32)
    np.testing.assert_array_equal(sample.segments, expected)
    np.testing.assert_array_equal(sample.image, np.asarray(picture()))
    assert sample.image.dtype == np.uint8 and sample.segments.dtype == np.int32
    assert sample.classes == (1, 2) and sample.kind == CATEGORY
    assert source.name == "pets" and not source.same_image_only
    assert source.class_names == {1: "dog", 2: "cat", 3: "owl"}
    assert {k: v.tolist() for k, v in source.by_class.items()} == {1: [0], 2: [0]}
    assert len(source) == len(list(source)) == 2
    assert source[np.int64(-1)].classes == (1, 2)


def test_two_masks_of_an_image_are_never_query_and_prompt(tmp_path):
    """The answer would lie in the prompt."""
    rows = [f"train\t{n}.png\t{n}_mask.png\t9\t6\t1" for n in "aabb"]
    root = write(tmp_path / "x", rows)
    for name in ("b.png", "b_mask.png"):
        (root / name).write_bytes((root / name.replace("b", "a", 1)).read_bytes())
    source = indexed(root, "train")
    assert source.origins.tolist() == [0, 0, 1, 1]
    episodes = Episodes(source, (6, 9), min_pixels=1)
    for number in range(20):
        query, prompt = episodes.draw(number)[0].records
        assert source.origins[query] != source.origins[prompt]
    (root / "index.tsv").write_text(HEADER + "\n".join(rows[1:3]))
    assert indexed(root, "train").origins is None  # each has its own


def test_a_digest_tells_changed_data(root, tmp_path):
    """A copy has the same, whatever the times of its files."""
    prepare(make_layout("indexed", {}), root, tmp_path / "made" / "pets")
    made, before = (indexed(r, "train").digest for r in (tmp_path / "made/pets", root))
    assert len({made, before, indexed(root, "val").digest}) == 3
    copy = shutil.copytree(root, tmp_path / "copy" / "pets")
    os.utime(copy / "a_mask.png", (1, 1))
    assert indexed(copy, "train").digest == before
    mask = (copy / "a_mask.png").read_bytes()
    (copy / "a_mask.png").write_bytes(mask[:-1] + b"x")  # corrected in place
    assert indexed(copy, "train").digest != before
    (copy / "a_mask.png").write_bytes(mask)
    (copy / "index.tsv").write_text(HEADER + ROW + "\n")
    assert indexed(copy, "train").digest != before
    write(tmp_path / "new" / "pets", [ROW])
    prepare(make_layout("indexed", {}), tmp_path / "new/pets", tmp_path / "two/pets")
    assert indexed(tmp_path / "two/pets", "train").digest != made


def test_by_class_decodes_nothing(root):
    for name in ("a.png", "a_mask.png"):
        (root / name).write_bytes(b"not a picture")
    assert indexed(root, "val").by_class[2].tolist() == [0]


@pytest.mark.parametrize("chosen", [["cat"], [2], (2, "cat")])
def test_kept_classes_leave_background(root, chosen):
    source = indexed(root, "train", classes=chosen)
    assert source.class_names == {2: "cat"} and list(source.by_class) == [2]
    assert set(np.unique(source[0].segments)) == {0, 2, IGNORE}
    assert (source[0].segments[:2] == 0).all() and source[0].classes == (2,)


def test_excluded_classes_are_ignored_and_counted(root, caplog):
    with caplog.at_level("INFO"):
        source = indexed(root, "train", exclude_classes=["dog"])
    assert "1 of 2 images" in caplog.text
    assert (source[0].segments[:2] == IGNORE).all() and source[0].classes == (2,)
    assert 1 not in source.class_names and 1 not in source.by_class


def test_reserved_ids_move(tmp_path):
    table = "id\tname\timages\n0\tsky\t1\n255\tvessel\t1\n256\twall\t1\n"
    root = write(tmp_path / "x", ["train\ta.png\ta_mask.png\t9\t6\t0,255"], table)
    source = indexed(root, "train")
    assert source.layout.labels == {0: 257, 255: 258, 256: 256}
    assert source.class_names == {257: "sky", 258: "vessel", 256: "wall"}
    segments, values = source[0].segments, mask_values()
    np.testing.assert_array_equal(segments == 257, values == 0)
    np.testing.assert_array_equal(segments == 258, values == 255)
    assert (segments == 0).sum() == (values % 255 != 0).sum()
    hidden = indexed(root, "train", exclude_classes=[255])[0].segments
    np.testing.assert_array_equal(hidden == IGNORE, values == 255)


def test_what_no_table_lists_is_said(tmp_path, caplog):
    """Once for a set: a smooth mask, and its inside, which the table does not list."""
    root = write(tmp_path / "x", ["train\ta.png\ta_mask.png\t9\t6\t1"] * 2)
    smooth = np.array([[0, 0, 0, 40 + 30 * k, *[255] * 5] for k in range(6)], np.uint8)
    Image.fromarray(smooth).save(root / "a_mask.png")
    source = indexed(root, "train")
    for sample in source:
        np.testing.assert_array_equal(sample.segments, np.where(smooth < 128, 0, 255))
    assert [line.split(";")[0] for line in caplog.messages] == [
        "x: smooth masks are cut at half: 128 and more is inside",
        "x: masks of 0 and 255 only teach nothing where classes.tsv does not list 255: "
        "it is ignored",
    ]
    (root / "classes.tsv").write_text(CLASSES + "255\tvessel\t1\n")
    np.testing.assert_array_equal(
        indexed(root, "train")[0].segments, np.where(smooth < 128, 0, 4)
    )


@pytest.mark.parametrize(
    "name, kind, same",
    [("regions", INSTANCE, True), ("pets", CATEGORY, False), ("new", CATEGORY, False)],
)
def test_sets_table_tells_class_agnostic(tmp_path, name, kind, same):
    table = "set\tkind\nregions\tclass-agnostic regions\npets\tsemantic\n"
    (tmp_path / "sets.tsv").write_text(table)
    root = write(tmp_path / name)
    source = indexed(root, "train")
    assert (source.same_image_only, source.kind, source[0].kind) == (same, kind, kind)
    other = indexed(root, "train", same_image_only=True, kind="category")
    assert other.same_image_only and other.kind == CATEGORY
    assert indexed(root, "train", same_image_only=not same).kind != kind


def test_pickles_small_and_opens_lazily(root):
    packed = pickle.dumps(indexed(root, "train"))
    assert len(packed) < 1000
    source = pickle.loads(packed)
    (root / "index.tsv").rename(root / "kept.tsv")
    with pytest.raises(ValueError, match="no such file"):
        len(source)
    (root / "kept.tsv").rename(root / "index.tsv")
    assert len(source) == 2 and source[0].classes == (1, 2)


def test_opens_a_large_index_fast(tmp_path):
    rng = np.random.default_rng(0)
    ids = rng.integers(1, 81, (118_000, 3))
    rows = [
        f"train\timages/{i:012d}.jpg\tmasks/{i:012d}.png\t640\t480\t{a},{b},{c}"
        for i, (a, b, c) in enumerate(ids.tolist())
    ]
    classes = "id\tname\timages\n" + "".join(f"{i}\tc{i}\t1\n" for i in range(1, 81))
    root = write(tmp_path / "coco", rows, classes)
    start = time.process_time()  # the machine is shared: other work does not count
    source = indexed(root, "train", check_files=False)
    assert time.process_time() - start < 4  # it takes 1 s
    assert source.by_class[7].tolist() == np.flatnonzero((ids == 7).any(1)).tolist()


def test_the_tables_are_read_again_when_they_or_the_files_change(root):
    first, table = indexed(root, "train"), root / "index.tsv"
    before = table.stat().st_mtime_ns
    table.write_text(HEADER + ROW + "\n")
    os.utime(table, ns=(before, before))  # told by its size alone
    assert len(first) == 2 and len(indexed(root, "train")) == 1
    (root / "classes.tsv").write_text(CLASSES.replace("dog", "fox"))  # by its time
    assert indexed(root, "train").class_names[1] == "fox"
    (root.parent / "sets.tsv").write_text("set\tkind\npets\tclass-agnostic\n")
    assert indexed(root, "train").same_image_only
    (root / "a.png").unlink()
    with pytest.raises(ValueError, match=r"1 file .*a.png; restore"):
        indexed(root, "train")
    assert len(indexed(root, "train", check_files=False)) == 1


def test_the_prepared_form_reads_equal(tmp_path):
    table = HEAD + "0\tsky\t1\n255\tvessel\t1\n1\tdog\t1\n"
    rows = [
        "train\ta.png\ta_mask.png\t9\t6\t0,1,255",
        "train\ta.png\ta_mask.png\t9\t9\t1",
        "val\ta.png\ta_mask.png\t9\t6\t255",
    ]
    root = write(tmp_path / "own" / "regions", rows, table)
    sets = "set\tkind\nregions\tclass-agnostic regions\n"
    (tmp_path / "own" / "sets.tsv").write_text(sets)
    out = tmp_path / "data" / "regions"
    prepare(make_layout("indexed", {}), root, out)
    for settings in ({}, {"classes": [0]}, {"exclude_classes": [255, "dog"]}):
        for split in ("train", "val") if not settings else ("train",):
            raw, made = (indexed(r, split, **settings) for r in (root, out))
            assert isinstance(made.store, Prepared) and len(made) == len(raw)
            assert [*made.class_names.items()] == [*raw.class_names.items()]
            assert made.by_class.keys() == raw.by_class.keys()
            assert made.same_image_only and made.kind == raw.kind == INSTANCE
            for k in range(len(raw)):
                assert made.record_id(k) == raw.record_id(k) == ("a.png", "a.png#3")[k]
                np.testing.assert_array_equal(made[k].image, raw[k].image)
                np.testing.assert_array_equal(made[k].segments, raw[k].segments)
                assert made[k].classes == raw[k].classes
    other = indexed(out, "train", same_image_only=False, strict=True, check_files=False)
    assert other.kind == CATEGORY and not other.same_image_only
    with pytest.raises(BadRecord, match="a.png#3 has values that .* list: 2, 77"):
        other[1]
    (out.parent / "sets.tsv").write_text(sets)
    every = {"type": "indexed", "folder": "*", "split": "val"}
    assert [*open_sources({"all": every}, out.parent)] == ["regions"]
    every["split"] = "vla"
    with pytest.raises(
        ValueError, match="has no 'vla'; did you mean 'val'.*train, val"
    ):
        open_sources({"all": every}, out.parent)


# Errors of a set. Each is one message that names the place and what is wanted.


@pytest.mark.parametrize(
    "tables, message",
    [
        (
            {"header": "split,image,mask\n"},
            r"index.tsv line 1: .*split, image.*found s",
        ),
        ({"header": "", "rows": []}, r"index.tsv line 1: .*found nothing"),
        ({"rows": []}, r"index.tsv has no rows"),
        ({"rows": [ROW, "train\ta.png"]}, r"index.tsv line 3: 2 fields instead of 6"),
        ({"rows": [ROW + "\t"]}, r"index.tsv line 2: 7 fields instead of 6"),
        ({"rows": [ROW + ",x"]}, r"index.tsv line 2: class id 'x' must be a whole"),
        ({"rows": [ROW, ROW + ",9"]}, r"line 3: class id 9 is not in .*classes.tsv"),
        ({"rows": ["train\ta\tb\t0\t6\t1"]}, r"line 2: width '0' .* 1 or more"),
        ({"rows": ["train\ta\tb\t9\t-6\t1"]}, r"line 2: height '-6' .* 1 or more"),
        ({"rows": ["train\tno.png\ta_mask.png\t9\t6\t1"]}, r"1 file .*no.png;"),
        ({"rows": ["train\ta.png\tno.png\t9\t6\t1"]}, r"1 file .*no.png; restore"),
        (
            {"rows": ["train\ta.png\ta_mask.png\t9\t6\t"]},
            r"of 1 record 0 .* and 1 have no class",
        ),
        ({"classes": "name\tid\n"}, r"classes.tsv line 1: .*id, name.*found name, id"),
        ({"classes": HEAD}, r"classes.tsv lists no class"),
        ({"classes": HEAD + "1\tdog\n"}, r"classes.tsv line 2: 2 fields instead of 3"),
        ({"classes": HEAD + "one\tdog\t1\n"}, r"classes.tsv line 2: id 'one' must be"),
        ({"classes": HEAD + "70000\tdog\t1\n"}, r"line 2: id 70000 must be 0 to 65535"),
        ({"classes": CLASSES + "1\tcow\t1\n"}, r"classes.tsv line 5: id 1 is .* twice"),
        ({"classes": CLASSES + "4\tcat\t1\n"}, r"line 5: name 'cat' is listed twice"),
    ],
)
def test_bad_tables(tmp_path, tables, message):
    with pytest.raises(ValueError, match=message):
        indexed(write(tmp_path / "x", **tables), "train")


@pytest.mark.parametrize(
    "settings, message",
    [
        ({"split": "trian"}, r"split: .*'trian'; did you mean 'train'\?.*: train, val"),
        (
            {"classes": ["dgo"]},
            r"classes: .*'dgo'; did you mean 'dog'\?.*cat, dog, owl",
        ),
        ({"classes": [4]}, r"classes: /.*/classes.tsv has no 4; choices: cat, dog"),
        ({"classes": "dog"}, r"classes of pets: 'dog' must be a list"),
        ({"classes": ["dog", "owl"]}, r"classes: split 'train' .* no image of owl"),
        ({"exclude_classes": ["kat"]}, r"exclude_classes: .*did you mean 'cat'"),
        ({"exclude_classes": [1, 2, 3]}, r"no image of any kept class"),
        ({"classes": [1], "exclude_classes": ["dog"]}, r"both have dog"),
        ({"kind": "thing"}, r"kind: 'thing' must be category or instance"),
    ],
)
def test_bad_settings(root, settings, message):
    with pytest.raises(ValueError, match=message):
        indexed(root, **{"split": "train", **settings})


@pytest.mark.parametrize("name", ["index.tsv", "classes.tsv"])
def test_missing_or_garbled_table(root, name):
    (root / name).write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ValueError, match=rf"{name}: not a readable UTF-8 table"):
        indexed(root, "train")
    (root / name).unlink()
    with pytest.raises(ValueError, match=rf"{name}: no such file; .*docs/data.md"):
        indexed(root, "train")


def test_missing_folder_and_bad_sets_table(root):
    with pytest.raises(ValueError, match="nowhere: no such folder"):
        Indexed.splits_in(root.parent / "nowhere")
    (root.parent / "sets.tsv").write_text("name,kind\n")
    with pytest.raises(ValueError, match=r"sets.tsv line 1: .*set and kind"):
        indexed(root, "train")


def test_many_missing_files_are_counted(tmp_path):
    rows = [f"train\t{i}.png\tm{i}.png\t9\t6\t1" for i in range(50)]
    with pytest.raises(
        ValueError, match=r"100 files .*0.png, .*m1.png, .*95 more"
    ) as e:
        indexed(write(tmp_path / "x", rows), "train")
    assert "\n" not in str(e.value) and str(e.value).count(".png") == 5


# Errors of a record, but for those of files (test_decode).


@pytest.mark.parametrize(
    "row, message",
    [
        ("train\ta.png\ta_mask.png\t9\t6\t1,2", "classes.tsv does not list: 77"),
        ("train\ta.png\tb.png\t6\t9\t1,2", "9 x 6, but the row says 6 x 9"),
        ("train\ta.png\tb.png\t9\t6\t1,3", "has classes 1, 2, but the row says 1, 3"),
    ],
)
def test_strict_holds_masks_to_their_tables(tmp_path, row, message):
    root = write(tmp_path / "x", [row])
    Image.fromarray(np.where(mask_values() == 77, 0, mask_values())).save(
        root / "b.png"
    )
    indexed(root, "train")[0]
    with pytest.raises(BadRecord, match=message):
        indexed(root, "train", strict=True)[0]
