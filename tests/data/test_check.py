"""`seggpt check` finds what is wrong, and nothing else."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from seggpt_jax.cli import check_command
from seggpt_jax.cli.command import main
from seggpt_jax.data import check as data_check
from seggpt_jax.data.prepare import prepare
from seggpt_jax.data.sources import make_layout, open_sources
from tests import tiny
from tests.support import miniatures
from tests.support.folders import write
from tests.support.layouts import mask, photo

ROOT = Path(__file__).parents[2]


@pytest.fixture
def voc(tmp_path):
    """Two images to train on, one to validate."""
    miniatures.voc(tmp_path / "voc", (24, 32), 3)
    folder = tmp_path / "voc" / "VOC2012"
    (folder / "ImageSets/Segmentation/val.txt").write_text("2007_000002\n")
    return folder


def check(kind, root, *splits, **settings):
    return data_check.run(*data_check.open_named(kind, str(root), [*splits], settings))


def test_nothing_is_wrong(voc, capsys):
    assert check("voc", voc.parent)
    out = capsys.readouterr().out
    assert "voc train: 2 records, 2 of 20 classes shown" in out
    assert "width 32 to 32, median 32; height 24 to 24, median 24" in out
    assert "       2    25.000  aeroplane" in out
    assert "             25.000  (ignored)" in out
    assert "voc val: 1 record," in out and "nothing is wrong" in out


def test_what_is_wrong_is_listed(voc, capsys):
    (voc / "JPEGImages/2007_000000.jpg").write_bytes(b"damaged")
    photo(voc / "JPEGImages/2007_000001.jpg", size=(9, 9))
    mask(voc / "SegmentationClassAug/2007_000003.png", (0, 1))
    photo(voc / "JPEGImages/2007_000004.jpg", 4)
    mask(voc / "SegmentationClassAug/2007_000004.png", (0,))
    shutil.copy(voc / "JPEGImages/2007_000004.jpg", voc / "JPEGImages/2007_000002.jpg")
    mask(voc / "SegmentationClassAug/2007_000002.png", (0, 1))
    assert not check("voc", voc.parent)
    out = capsys.readouterr().out
    assert "2 records that cannot be read or whose parts do not fit:" in out
    assert "2007_000000.jpg cannot be read" in out and "is 9 x 9, but its mask" in out
    assert "1 file that makes no record:\n  2007_000003 has no image" in out
    assert re.search(
        r"1 image without any class \(no error\):\n  .*/2007_000004.jpg", out
    )
    assert re.search(r"trained on:\n  .*/2007_000002.jpg is .*/2007_000004.jpg\n", out)


def test_images_that_look_alike_are_no_error(voc, capsys):
    """The trained image again, saved smaller: another file, the same picture."""
    from PIL import Image

    photo(voc / "JPEGImages/2007_000001.jpg", 0, (24, 32))
    picture = Image.open(voc / "JPEGImages/2007_000001.jpg")
    picture.save(voc / "JPEGImages/2007_000002.jpg", quality=80)
    assert check("voc", voc.parent)
    said = capsys.readouterr().out
    assert re.search(r"a trained one \(no error\):\n  .*/2007_000002.jpg and ", said)


def test_a_prepared_set(voc, tmp_path, capsys):
    out = tmp_path / "prepared" / "voc"
    folder = prepare(make_layout("voc", {}), voc.parent, out)
    assert check("voc", out)
    shard = folder / "voc-val.array_record-00000-of-00001"
    data = bytearray(shard.read_bytes())
    data[10] ^= 1  # a byte that no reader looks at
    shard.write_bytes(data)
    assert not check("voc", out)
    assert f"{shard} is not what was prepared" in capsys.readouterr().out


def test_ones_own_data(tmp_path, capsys):
    write(tmp_path / "pets")
    # The same picture is trained on and validated with.
    assert not check("indexed", tmp_path / "pets")
    out = capsys.readouterr().out
    assert "indexed train: 2 records, 2 of 3 classes shown" in out
    assert re.search(r"a.png \(index.tsv line 4\) is .*a.png \(index.tsv line 3\)", out)
    remark = "3 remarks that are no error: values that classes.tsv does not list are ba"
    assert remark in out
    assert "a_mask.png (index.tsv line 2): 77 (1.9% of the pixels)" in out
    capsys.readouterr()
    assert check("indexed", tmp_path / "pets", "val")
    assert "\n1 remark that is no error: values that" in capsys.readouterr().out
    assert check("indexed", tmp_path / "pets", "train")
    assert not check("indexed", tmp_path / "pets", "train", strict=True)
    with pytest.raises(ValueError, match="has no splits of its own; name --splits"):
        data_check.open_named("png_folders", str(tmp_path), [], {"ids": {"cat": 1}})


def test_a_config(voc, capsys):
    c = tiny.config(data_dir=str(voc.parents[1]))
    c.sources = {"mine": {"type": "voc", "split": "train", "weight": 1.0}}
    c.sources.scenes = {"type": "shapes", "weight": 1.0}  # a million of them: not read
    c.sources.mine.view = {"flip": 0.0}
    voc, scenes = {"type": "voc", "split": "val"}, {"type": "shapes", "length": 9}
    heldout = {"both": {"members": {"mine": voc, "scenes": scenes}}}
    c.evals.few = {"type": "fewshot", "sources": heldout, "episodes": 1}
    assert data_check.run(*check_command.open_configured(c))
    out = capsys.readouterr().out
    assert "mine: 2 records" in out and "mine (held out): 1 record," in out


def test_the_command(voc, capsys):
    def run(kind, *arguments):
        with pytest.raises(SystemExit) as stopped:
            main(["check", kind, f"--root={voc.parent}", *arguments])
        return int(stopped.value.code or 0), capsys.readouterr()

    status, said = run("voc", "--splits=val")
    assert status == 0 and "voc val: 1 record," in said.out
    (voc / "JPEGImages/2007_000002.jpg").write_bytes(b"")
    assert run("voc", "--splits=val")[0] == 1
    status, said = run("vok")
    assert status == 2 and "Traceback" not in said.err
    assert "there is no 'vok'; did you mean 'voc'?" in said.err
    # The program of the folder of tools is the same.
    program = [sys.executable, "tools/check_data.py", "voc", f"--root={voc.parent}"]
    done = subprocess.run(program, capture_output=True, cwd=ROOT, text=True)
    assert done.returncode == 1 and "cannot be read" in done.stdout


def test_what_is_not_there(voc):
    with pytest.raises(ValueError, match="data is missing for: voc train"):
        data_check.open_named("voc", str(voc / "no"), ["train"], {})


def test_every_miniature_of_the_paper_is_fine(tmp_path):
    data = miniatures.write_all(tmp_path / "data")
    for kind in miniatures.SETS:
        source = open_sources({"x": {"type": kind, "split": "train"}}, data)
        assert data_check.run(source, {}), kind
