"""Indexed folders: the rule for mask values, file forms, and every error."""

import io
import pickle
import re
import struct
import time
import warnings
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from seggpt_jax.data.sample import CATEGORY, IGNORE, INSTANCE, BadRecord
from seggpt_jax.data.sources import PLANNED, TYPES, open_groups, open_sources
from seggpt_jax.data.sources.indexed import Indexed, splits

HEADER = "split\timage\tmask\twidth\theight\tclasses\n"
CLASSES = "id\tname\timages\n1\tdog\t2\n2\tcat\t2\n3\towl\t0\n"
SIZE = (6, 9)  # h, w
DOCS = Path(__file__).parents[1] / "docs" / "data.md"


def picture(mode="RGB", size=SIZE):
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (*size, 3)).astype(np.uint8)
    return Image.fromarray(pixels).convert(mode)


def mask_values():
    values = np.zeros(SIZE, np.uint8)
    values[:2], values[2:4], values[4, :3], values[5, 0] = 1, 2, 255, 77
    return values


def write(root, rows=None, classes=CLASSES, header=HEADER):
    root.mkdir(parents=True, exist_ok=True)
    if rows is None:
        rows = [
            "train\ta.png\ta_mask.png\t9\t6\t1,2",
            "train\ta.png\ta_mask.png\t9\t6\t",
            "val\ta.png\ta_mask.png\t9\t6\t2",
        ]
    (root / "index.tsv").write_text(header + "".join(row + "\n" for row in rows))
    (root / "classes.tsv").write_text(classes)
    picture().save(root / "a.png")
    Image.fromarray(mask_values()).save(root / "a_mask.png")
    return root


@pytest.fixture
def root(tmp_path):
    return write(tmp_path / "pets")


def one(root, image, mask, classes=CLASSES, **settings):
    """The sample of a set of one row."""
    write(root, [f"train\t{image}\t{mask}\t9\t6\t1"], classes)
    return lambda: Indexed(root, "train", **settings)[0]


# What is read.


def test_round_trip(root):
    source = Indexed(root, "train")
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


def test_by_class_decodes_nothing(root):
    for name in ("a.png", "a_mask.png"):
        (root / name).write_bytes(b"not a picture")
    assert Indexed(root, "val").by_class[2].tolist() == [0]


@pytest.mark.parametrize("chosen", [["cat"], [2], (2, "cat")])
def test_kept_classes_leave_background(root, chosen):
    source = Indexed(root, "train", classes=chosen)
    assert source.class_names == {2: "cat"} and list(source.by_class) == [2]
    assert set(np.unique(source[0].segments)) == {0, 2, IGNORE}
    assert (source[0].segments[:2] == 0).all() and source[0].classes == (2,)


def test_excluded_classes_are_ignored_and_counted(root, caplog):
    with caplog.at_level("INFO"):
        source = Indexed(root, "train", exclude_classes=["dog"])
    assert "1 of 2 images" in caplog.text
    assert (source[0].segments[:2] == IGNORE).all() and source[0].classes == (2,)
    assert 1 not in source.class_names and 1 not in source.by_class


def test_reserved_ids_move(tmp_path):
    table = "id\tname\timages\n0\tsky\t1\n255\tvessel\t1\n256\twall\t1\n"
    root = write(tmp_path / "x", ["train\ta.png\ta_mask.png\t9\t6\t0,255"], table)
    source = Indexed(root, "train")
    assert source.labels == {0: 257, 255: 258, 256: 256}
    assert source.class_names == {257: "sky", 258: "vessel", 256: "wall"}
    segments, values = source[0].segments, mask_values()
    np.testing.assert_array_equal(segments == 257, values == 0)
    np.testing.assert_array_equal(segments == 258, values == 255)
    assert (segments == 0).sum() == (values % 255 != 0).sum()
    hidden = Indexed(root, "train", exclude_classes=[255])[0].segments
    np.testing.assert_array_equal(hidden == IGNORE, values == 255)


@pytest.mark.parametrize(
    "name, kind, same",
    [("regions", INSTANCE, True), ("pets", CATEGORY, False), ("new", CATEGORY, False)],
)
def test_sets_table_tells_class_agnostic(tmp_path, name, kind, same):
    table = "set\tkind\nregions\tclass-agnostic regions\npets\tsemantic\n"
    (tmp_path / "sets.tsv").write_text(table)
    root = write(tmp_path / name)
    source = Indexed(root, "train")
    assert (source.same_image_only, source.kind, source[0].kind) == (same, kind, kind)
    other = Indexed(root, "train", same_image_only=True, kind="category")
    assert other.same_image_only and other.kind == CATEGORY
    assert Indexed(root, "train", same_image_only=not same).kind != kind


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGBA", "CMYK"])
def test_image_modes_become_rgb(tmp_path, mode):
    name = "b.tif" if mode == "CMYK" else "b.png"
    load = one(tmp_path / "x", name, "a_mask.png", check_files=False)
    image = picture(mode)
    expected = np.asarray(image.convert("RGB"))
    # Of palettes with a transparency table Pillow warns, and warnings are errors.
    settings = {"transparency": bytes(range(256))} if mode == "P" else {}
    image.save(tmp_path / "x" / name, **settings)
    loaded = load().image
    assert loaded.dtype == np.uint8
    np.testing.assert_array_equal(loaded, expected)


def test_16_bit_image_keeps_the_upper_8(tmp_path):
    load = one(tmp_path / "x", "b.png", "a_mask.png", check_files=False)
    ramp = np.arange(54, dtype=np.uint16).reshape(SIZE) * 1200
    Image.fromarray(ramp).save(tmp_path / "x" / "b.png")
    np.testing.assert_array_equal(load().image[..., 1], ramp // 256)


@pytest.mark.parametrize("form", ["palette", "gif", "tif", "16 bits", "1 bit"])
def test_mask_forms(tmp_path, form):
    name = {"gif": "b.gif", "tif": "b.tif"}.get(form, "b.png")
    table = "id\tname\timages\n1\tdog\t1\n300\tcat\t1\n"
    load = one(tmp_path / "x", "a.png", name, table, check_files=False)
    values = mask_values().astype(np.uint16)
    if form == "16 bits":
        values[values == 2] = 300
    if form == "1 bit":
        values = np.where(values == 1, 255, 0)
    image = Image.fromarray(values if form == "16 bits" else values.astype(np.uint8))
    if form == "palette":
        image.putpalette(bytes(range(255, -1, -1)) * 3)
    image.convert("1" if form == "1 bit" else image.mode).save(tmp_path / "x" / name)
    expected = np.where(np.isin(values, (1, 255, 300)), values, 0)
    np.testing.assert_array_equal(load().segments, expected)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("upright", [True, False])
def test_orientation_is_followed_if_the_mask_fits(tmp_path, orientation, upright):
    load = one(tmp_path / "x", "b.png", "a_mask.png", check_files=False)
    turns = orientation >= 5
    stored = picture(size=SIZE[::-1] if turns and upright else SIZE)
    exif = Image.Exif()
    exif[274] = orientation
    stored.save(tmp_path / "x" / "b.png", exif=exif)
    pixels = np.asarray(stored)
    if turns and not upright:
        expected = pixels  # drawn on the pixels as stored
    else:  # EXIF 2.3 table 6: where the zeroth row and column are
        expected = {
            1: pixels, 2: pixels[:, ::-1], 3: pixels[::-1, ::-1], 4: pixels[::-1],
            5: pixels.swapaxes(0, 1), 6: pixels[::-1].swapaxes(0, 1),
            7: pixels[::-1, ::-1].swapaxes(0, 1), 8: pixels.swapaxes(0, 1)[::-1],
        }[orientation]  # fmt: skip
    np.testing.assert_array_equal(load().image, expected)


def test_pickles_small_and_opens_lazily(root):
    packed = pickle.dumps(Indexed(root, "train"))
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
    source = Indexed(root, "train", check_files=False)
    assert time.process_time() - start < 2
    assert source.by_class[7].tolist() == np.flatnonzero((ids == 7).any(1)).tolist()


# Errors of a set. Each is one message that names the place and what is wanted.

ROW = "train\ta.png\ta_mask.png\t9\t6\t1"
HEAD = "id\tname\timages\n"


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
        ({"rows": ["train\tno.png\ta_mask.png\t9\t6\t1"]}, r"1 files .*no.png;"),
        ({"rows": ["train\ta.png\tno.png\t9\t6\t1"]}, r"1 files .*no.png; restore"),
        ({"rows": ["train\ta.png\ta_mask.png\t9\t6\t"]}, r"no image of any kept class"),
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
        Indexed(write(tmp_path / "x", **tables), "train")


@pytest.mark.parametrize(
    "settings, message",
    [
        ({"split": "trian"}, r"split: .*'trian'; did you mean 'train'\?.*: train, val"),
        (
            {"classes": ["dgo"]},
            r"classes: .*'dgo'; did you mean 'dog'\?.*dog, cat, owl",
        ),
        ({"classes": [4]}, r"classes: .*classes.tsv has no 4; there is: dog"),
        ({"classes": "dog"}, r"classes: 'dog' must be a list"),
        ({"classes": ["dog", "owl"]}, r"classes: split 'train' .* no image of owl"),
        ({"exclude_classes": ["kat"]}, r"exclude_classes: .*did you mean 'cat'"),
        ({"exclude_classes": [1, 2, 3]}, r"no image of any kept class"),
        ({"classes": [1], "exclude_classes": ["dog"]}, r"both have dog"),
        ({"kind": "thing"}, r"kind: 'thing' must be category or instance"),
    ],
)
def test_bad_settings(root, settings, message):
    with pytest.raises(ValueError, match=message):
        Indexed(**{"root": root, "split": "train", **settings})


@pytest.mark.parametrize("name", ["index.tsv", "classes.tsv"])
def test_missing_or_garbled_table(root, name):
    (root / name).write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ValueError, match=rf"{name}: not a readable UTF-8 table"):
        Indexed(root, "train")
    (root / name).unlink()
    with pytest.raises(ValueError, match=rf"{name}: no such file; .*docs/data.md"):
        Indexed(root, "train")


def test_missing_folder_and_bad_sets_table(root):
    with pytest.raises(ValueError, match="nowhere: no such folder"):
        Indexed(root.parent / "nowhere", "train")
    (root.parent / "sets.tsv").write_text("name,kind\n")
    with pytest.raises(ValueError, match=r"sets.tsv line 1: .*set and kind"):
        Indexed(root, "train")


def test_many_missing_files_are_counted(tmp_path):
    rows = [f"train\t{i}.png\tm{i}.png\t9\t6\t1" for i in range(50)]
    with pytest.raises(
        ValueError, match=r"100 files .*0.png, .*m1.png, .*95 more"
    ) as e:
        Indexed(write(tmp_path / "x", rows), "train")
    assert "\n" not in str(e.value) and str(e.value).count(".png") == 5


# Errors of a record.


def header_only_png(width, height):
    def chunk(kind, data):
        body = kind + data
        return struct.pack(">I", len(data)) + body + struct.pack(">I", zlib.crc32(body))

    fields = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", fields)
        + chunk(b"IDAT", zlib.compress(b""))
        + chunk(b"IEND", b"")
    )


def encoded(image, form, **settings):
    file = io.BytesIO()
    image.save(file, form, **settings)
    return file.getvalue()


GREY = Image.fromarray(mask_values())
BITS_4 = header_only_png(9, 6).replace(b"\x08\x00\x00\x00\x00", b"\x04\x00\x00\x00\x00")
IHDR_4 = struct.pack(">IIBBBBB", 9, 6, 4, 0, 0, 0, 0)
BITS_4 = BITS_4[:29] + struct.pack(">I", zlib.crc32(b"IHDR" + IHDR_4)) + BITS_4[33:]


@pytest.mark.parametrize(
    "role, content, message",
    [
        ("image", encoded(picture(size=(60, 90)), "JPEG")[:1500], "cannot be read"),
        ("image", encoded(picture(size=(60, 90)), "PNG")[:5000], "cannot be read"),
        ("mask", encoded(GREY, "PNG")[:50], "cannot be read"),
        ("image", b"", "cannot be read"),
        ("mask", b"text", "cannot be read"),
        ("image", header_only_png(0, 6), "no pixels|cannot be read"),
        ("mask", header_only_png(9, 0), "no pixels|cannot be read"),
        ("image", header_only_png(9000, 9000), "9000 x 9000 pixels, more than"),
        ("mask", header_only_png(11000, 11000), "11000 x 11000|121000000 pixels"),
        ("mask", header_only_png(60000, 60000), "3600000000 pixels"),
        (
            "image",
            encoded(picture(size=(9, 6)), "PNG"),
            "is 6 x 9, but its mask .*9 x 6",
        ),
        ("mask", encoded(picture(), "PNG"), r"has colours \(mode RGB\)"),
        ("mask", encoded(GREY, "JPEG"), "is a JPEG"),
        ("mask", BITS_4, "2 or 4 bits of grey"),
        (
            "mask",
            encoded(Image.fromarray(mask_values() - np.int32(1)), "TIFF"),
            "outside",
        ),
        ("image", encoded(picture("F"), "TIFF"), "floating-point"),
    ],
)
def test_bad_records_name_the_file(tmp_path, role, content, message):
    names = {"image": "a.png", "mask": "a_mask.png", role: "bad.bin"}
    load = one(tmp_path / "x", *names.values(), check_files=False)
    (tmp_path / "x" / "bad.bin").write_bytes(content)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        with pytest.raises(BadRecord, match=message) as error:
            load()
    assert str(error.value).startswith(
        f"{tmp_path / 'x' / 'bad.bin'} (index.tsv line 2)"
    )
    assert "\n" not in str(error.value)


def test_file_gone_after_opening(root):
    source = Indexed(root, "train")
    (root / "a.png").unlink()
    with pytest.raises(BadRecord, match=r"a.png .*cannot be read"):
        source[0]
    with pytest.raises(IndexError):
        source[2]


@pytest.mark.filterwarnings("ignore::UserWarning")  # Pillow on damaged EXIF and TIFF
def test_damaged_bytes_give_a_sample_or_a_bad_record(tmp_path):
    """Cut and flipped bytes never surface as anything but `BadRecord`."""
    rng = np.random.default_rng(0)
    load = one(tmp_path / "x", "b.bin", "c.bin", check_files=False)
    originals = [
        [encoded(picture(), form) for form in ("PNG", "JPEG", "BMP", "GIF", "WEBP")],
        [encoded(GREY, form) for form in ("PNG", "GIF", "BMP")],
    ]
    outcomes = set()
    for trial in range(400):
        for name, choices in zip(("b.bin", "c.bin"), originals, strict=True):
            data = bytearray(choices[rng.integers(len(choices))])
            if trial % 2 == (name == "b.bin"):
                data[rng.integers(len(data))] = rng.integers(256)
                data = data[: rng.integers(len(data) // 2, len(data) + 1)]
            (tmp_path / "x" / name).write_bytes(data)
        try:
            outcomes.add(load().image.shape)
        except BadRecord:
            outcomes.add("bad")
    assert outcomes == {(*SIZE, 3), "bad"}


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
    Indexed(root, "train")[0]
    with pytest.raises(BadRecord, match=message):
        Indexed(root, "train", strict=True)[0]


# open_sources.


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
        ({"type": None}, r"sources.x.type has no None; there is: indexed, shapes"),
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
    specs |= {name: {"type": name} for name in PLANNED}
    with pytest.raises(ValueError) as error:
        open_sources(specs, root.parent)
    message = str(error.value)
    for name in ("birds", "fish", *PLANNED):
        assert f"{name} (folder {root.parent / name}" in message
    assert "pets (" not in message and "docs/data.md" in message
    assert message.count("no reader in this version") == len(PLANNED)
    for data_dir in (None, "", root / "nowhere"):
        with pytest.raises(ValueError, match="data_dir: .* is no folder"):
            open_sources({"pets": specs["pets"]}, data_dir)


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


def test_documented_conversion(tmp_path, monkeypatch, capsys):
    """The Python of docs/data.md turns images and masks into a set that is strict."""
    root = tmp_path / "my-data"
    (root / "images").mkdir(parents=True)
    (root / "masks").mkdir()
    for i in range(6):
        picture().save(root / "images" / f"rex{i}.jpg")
        values = np.where(mask_values() == 77, 0, mask_values())
        Image.fromarray(values).save(root / "masks" / f"rex{i}.png")
    painted = np.zeros((4, 4, 3), np.uint8)
    painted[1], painted[2], painted[3] = (255, 0, 0), (0, 255, 0), (9, 9, 9)
    Image.fromarray(painted).save(root / "painted.png")

    blocks = re.findall(r"```python\n(.*?)```", DOCS.read_text(), re.S)
    tables, colors, check, config = blocks
    scope: dict = {}
    monkeypatch.chdir(root)
    exec(tables, scope)
    assert len(tables.splitlines()) <= 22
    monkeypatch.chdir(tmp_path)
    exec(check, scope)
    assert "train 4 {'dog': 4, 'cat': 4}" in capsys.readouterr().out
    assert splits(root) == ("val", "train")
    monkeypatch.chdir(root)
    exec(colors, scope)
    saved = np.asarray(Image.open(root / "masks" / "rex.png"))
    assert saved[:, 0].tolist() == [0, 1, 2, 0]
    exec(config, scope)
    del scope["sources"]["shapes"]
    sources = open_sources(scope["sources"], tmp_path)
    assert [*sources] == ["pets", "dogs"]
    assert len(sources["pets"]) == 4 and sources["dogs"].class_names == {1: "dog"}


def test_documentation_names_every_planned_set():
    for name in PLANNED:
        assert f"| `{name}` |" in DOCS.read_text()


def test_every_real_set_agrees_with_its_tables(data_dir):
    roots = sorted(path.parent for path in data_dir.glob("*/index.tsv"))
    assert len(roots) >= 30
    for root in roots:
        for split in splits(root):
            source = Indexed(root, split)
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
        source = Indexed(data_dir / name, "train", strict=True)
        assert source.class_names == {256: "retinal vessel"}
        assert source.labels == {255: 256}
        segments = source[0].segments
        assert set(np.unique(segments)) == {0, 256}
        assert 0.02 < (segments == 256).mean() < 0.2  # vessels are thin
    camvid = Indexed(data_dir / "camvid", "train")
    assert camvid.labels[0] == 256 and 256 in camvid[0].classes


def test_real_class_agnostic_sets(data_dir):
    spec = {"type": "indexed", "folder": "*", "split": "train"}
    for source in open_sources({"all": spec}, data_dir).values():
        agnostic = source.name in ("bsds500", "grabcut-sample")
        assert source.same_image_only == agnostic
        assert source.kind == (INSTANCE if agnostic else CATEGORY)
