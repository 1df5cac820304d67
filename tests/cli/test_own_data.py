"""`seggpt new`, `seggpt index` and `configs/finetune.py`: from own files to a model."""

import io
import json
import sys

import numpy as np
import pytest
from PIL import Image

from configs import finetune
from seggpt_jax.cli import command, inputs, talk
from seggpt_jax.data.sources import open_sources
from seggpt_jax.results.folder import INPUTS
from seggpt_jax.train import train
from seggpt_jax.training import config_file
from seggpt_jax.training.settings import read_settings
from tests import tiny


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(command, "cache_compiled", lambda: "elsewhere")
    return tmp_path


def run(*argv: str) -> int:
    with pytest.raises(SystemExit) as stopped:
        command.main(list(argv))
    return int(stopped.value.code or 0)


def draw(folder, count=8):
    """Images of a bright disc each, and black and white masks of it."""
    rows, columns = np.mgrid[:64, :64]
    for name in ("images", "masks"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    for k in range(count):
        y, x = np.random.default_rng(k).integers(20, 44, 2)
        disc = (rows - y) ** 2 + (columns - x) ** 2 < 150
        image = np.where(disc[..., None], (220, 200, 40), (30, 60, 90 + k))
        Image.fromarray(image.astype(np.uint8)).save(folder / f"images/{k}.png")
        mask = Image.fromarray((disc * 255).astype(np.uint8))
        mask.save(folder / f"masks/{k}.png")


# ml_collections loads config files by it.
LOADS = pytest.mark.filterwarnings("ignore:the load_module:DeprecationWarning")


@LOADS
def test_a_new_folder_has_a_config_that_loads(here, capsys):
    assert run("new", "mine") == 0
    c = config_file.read("mine/config.py:steps=7,form=decoder")
    assert c.data_dir == "data" and c.stages.paint.steps == 7
    assert c.optim.trainable == "decoder/.*"
    assert (here / "mine/data/masks").is_dir()
    assert run("new", "mine") == 2
    assert "mine is there already" in capsys.readouterr().err


def test_index_says_what_it_found_and_names_what_it_left_out(here, capsys):
    draw(here / "own")
    (here / "own/masks/3.png").write_bytes(b"no picture")
    assert run("index", "own/images", "own/masks", "--names", "255=disc") == 1
    out, err = capsys.readouterr()
    assert "own/index.tsv: 7 images, 5 train, 2 val" in out
    assert "the masks have only 0 and 255: 255 is the class" in out
    assert err.count("own/masks/3.png") == 1
    spec = {"type": "indexed", "folder": "own", "split": "val"}
    assert open_sources({"own": spec}, here)["own"].class_names == {1: "disc"}


def test_masks_that_no_table_lists_are_named_with_their_values(here):
    draw(here / "own")
    assert run("index", "own/images", "own/masks") == 0
    table = (here / "own/classes.tsv").read_text().replace("255", "1")
    (here / "own/classes.tsv").write_text(table)
    rows = (here / "own/index.tsv").read_text().replace("\t255\n", "\t\n")
    (here / "own/index.tsv").write_text(rows)
    with pytest.raises(ValueError, match="has the values 0, 255, .*are 1 object"):
        open_sources(
            {"own": {"type": "indexed", "folder": "own", "split": "val"}}, here
        )


def test_results_of_earlier_runs_are_no_inputs(here):
    draw(here / "photos", 1)
    made = here / "photos/out"
    made.mkdir()
    Image.new("RGB", (4, 4)).save(made / "0.png")
    Image.new("RGB", (4, 4)).save(made / "0_overlay.jpg")
    Image.new("RGB", (4, 4)).save(made / "mine.png")  # no result
    notes = {"0": {"path": "/x/0.png", "forms": ["segments", "overlay"]}}
    (made / INPUTS).write_text(json.dumps(notes))
    # A video's frames, and the pictures of a training.
    video = {"input": "/x/clip.mp4", "memory": 8}
    (made / "clip.config.json").write_text(json.dumps(video))
    run_ = here / "photos/tuned.run"
    for path in (made / "clip/00000.png", run_ / "pictures/0000010/val.png"):
        path.parent.mkdir(parents=True)
        Image.new("RGB", (4, 4)).save(path)
    (run_ / "config.json").write_text("{}")
    (run_ / "metrics.jsonl").write_text("")
    mask = "photos/masks/0.png"
    found = inputs.find_inputs(["photos"], here / "other", [mask])
    assert sorted(found.inputs) == ["images/0", "out/mine"]
    results, masks = found.left_out()[1:]
    assert "photos/out/0.png" in results and results.endswith(" and 1 more")
    assert masks == f"left out, masks of the prompts: {mask}"
    found = inputs.find_inputs([mask, "photos/out/*.png"], here / "other", [mask])
    assert sorted(found.inputs) == ["0", "mine"]
    with pytest.raises(ValueError, match="nothing to segment in photos; left out"):
        inputs.find_inputs(["photos"], here / "photos")


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.mark.parametrize("quiet, stream, said", [
    (False, Terminal, True), (True, Terminal, False), (False, io.StringIO, False),
])  # fmt: skip
def test_what_is_said_is_for_a_terminal(monkeypatch, quiet, stream, said):
    monkeypatch.setattr(sys, "stderr", stream())
    talk.say(quiet, "loading")
    assert list(talk.bar(quiet, unit="x")([1, 2])) == [1, 2]
    shown = sys.stderr.getvalue()
    assert ("loading" in shown, "2/2" in shown) == (said, said)


def test_help_of_a_command_is_about_that_command():
    parser = command.make_parser()
    (choices,) = [a.choices for a in parser._actions if isinstance(a.choices, dict)]
    for name, one in choices.items():
        for line in (one.epilog or "").splitlines():
            if line.strip().startswith("seggpt "):
                assert line.split()[1] in (name, "segment"), line
        assert "--quiet" in one.format_help()


@LOADS
def test_a_config_without_arguments_says_so(here):
    (here / "plain.py").write_text("def get_config():\n    return {}\n")
    with pytest.raises(ValueError, match="takes no :argument"):
        config_file.read("plain.py:steps=150")


def test_forms_of_finetuning():
    settings = read_settings(finetune.get_config("steps=20,form=decoder,val="))
    assert not settings.evals and settings.steps == 20
    with pytest.raises(ValueError, match="form = 'all but': must be all or decoder"):
        finetune.get_config("form=all but")


@pytest.mark.slow
def test_own_data_of_one_class_are_trained_and_scored(here, monkeypatch):
    tiny.one_device(monkeypatch)
    draw(here / "own", 12)
    assert run("index", "own/images", "own/masks") == 0
    c = finetune.get_config("steps=4,batch=8,model=shapes")
    c.data_dir, c.evals.val.episodes = "own", 4
    scores = train(c, "run")
    assert scores["val/own/1shot/copy/miou"] > 0
    assert not any("wrong" in name for name in scores)
    lines = (here / "run/metrics.jsonl").read_text().splitlines()
    assert [x["step"] for x in map(json.loads, lines) if "val/own/1shot/miou" in x] == [
        0, 2, 4,
    ]  # fmt: skip
