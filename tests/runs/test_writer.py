"""A resumed run's files tell one history; progress is seen and never in the way."""

import io
import json
import math
import re
import subprocess
import sys
import time

import numpy as np
import pytest
from PIL import Image
from tensorboardX.proto import event_pb2
from tensorboardX.record_writer import masked_crc32c

from seggpt_jax.runs import log
from seggpt_jax.runs.writer import Clock, Progress, Writer, history
from tests.conftest import REPOSITORY


def lines(workdir):
    text = (workdir / "metrics.jsonl").read_text()
    return [json.loads(line, parse_constant=pytest.fail) for line in text.splitlines()]


def events(workdir):
    """All events on TensorBoard's disk, file by file in the order of their names."""
    found = []
    for path in sorted((workdir / "tensorboard").iterdir()):
        data = path.read_bytes()
        while data:
            size = int.from_bytes(data[:8], "little")
            record = data[12 : 12 + size]
            crc = int.from_bytes(data[12 + size : 16 + size], "little")
            assert crc == masked_crc32c(record)
            found.append(event_pb2.Event.FromString(record))
            data = data[16 + size :]
    return found


def test_scalars_are_json_and_tensorboard(tmp_path):
    before = time.time() - 1
    with Writer(tmp_path) as writer:
        writer.scalars(5, {"loss": np.float32(0.5), "mIoU/voc": 41})
        assert lines(tmp_path)[0]["loss"] == 0.5  # flushed, for whoever tails it
        writer.scalars(6, {"loss": math.nan, "grad": math.inf, "x": -math.inf})
    first, second = lines(tmp_path)
    assert before < first.pop("time") < time.time() + 1
    assert first == {"step": 5, "loss": 0.5, "mIoU/voc": 41.0}
    assert math.isnan(float(second["loss"]))
    assert (float(second["grad"]), float(second["x"])) == (math.inf, -math.inf)
    shown = [(e.step, v.tag) for e in events(tmp_path) for v in e.summary.value]
    assert shown == [(5, "loss"), (5, "mIoU/voc"), (6, "loss"), (6, "grad"), (6, "x")]


def test_resume_continues_one_history(tmp_path):
    with Writer(tmp_path, start=0) as writer:
        for step in (10, 20, 30, 40):
            writer.scalars(step, {"loss": step})
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 15, "loss": 1')  # killed in mid-line
    with Writer(tmp_path, start=20) as writer:
        writer.scalars(30, {"loss": -1})
    assert [(x["step"], x["loss"]) for x in lines(tmp_path)] == [
        (10, 10),
        (20, 20),
        (30, -1),
    ]
    purges = [e.step for e in events(tmp_path) if e.session_log.status]
    assert purges == [0, 21]
    assert [p.name for p in tmp_path.glob("metrics*")] == ["metrics.jsonl"]
    with Writer(tmp_path) as writer:  # an evaluation adds to what there is
        writer.scalars(0, {"mIoU": 1})
    assert [x["step"] for x in lines(tmp_path)] == [10, 20, 30, 0]
    with Writer(tmp_path, start=0):
        assert lines(tmp_path) == []  # from scratch


def test_the_history_of_a_score_has_its_numbers_alone(tmp_path):
    assert history(tmp_path, "a") == []
    with Writer(tmp_path) as writer:
        for step, value in ((2, math.nan), (4, 0.5), (6, -math.inf)):
            writer.scalars(step, {"a": value})
        writer.scalars(8, {"b": 1.0})
    assert history(tmp_path, "a") == [(0.5, 4), (-math.inf, 6)]


def test_images(tmp_path):
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (900, 1100, 3), dtype=np.uint8)
    with Writer(tmp_path) as writer:
        writer.images(70, "train/sheet", image)
        writer.images(70, "gray", image[..., 0])
        with pytest.raises(ValueError, match="'loss' is float32, but must be uint8"):
            writer.images(70, "loss", image.astype(np.float32))
    with Image.open(
        tmp_path / "pictures" / "0000070" / "train" / "sheet.png"
    ) as stored:
        np.testing.assert_array_equal(np.asarray(stored), image)
    assert (tmp_path / "pictures" / "0000070" / "gray.png").exists()
    values = [v for e in events(tmp_path) for v in e.summary.value]
    assert [v.tag for v in values] == ["train/sheet", "gray"]
    with Image.open(io.BytesIO(values[0].image.encoded_image_string)) as small:
        assert small.size == (512, 419)


def test_inactive_writer_touches_nothing(tmp_path):
    with Writer(tmp_path / "run", active=False) as writer:
        writer.scalars(1, {"loss": 1.0})
        writer.images(1, "x", np.zeros((2, 2, 3), np.uint8))
    assert not (tmp_path / "run").exists()


def test_clock_measures_shares_and_starts_over(monkeypatch):
    now = [100.0]
    monkeypatch.setattr(time, "perf_counter", lambda: now[0])
    clock = Clock(images_per_step=8)
    for _ in range(5):
        with clock.waiting():
            now[0] += 0.5
        now[0] += 1.5
    assert clock.read() == {"steps_per_s": 0.5, "images_per_s": 4.0, "data_wait": 0.25}
    now[0] += 1.0
    assert clock.read() == {"steps_per_s": 0.0, "images_per_s": 0.0, "data_wait": 0.0}


def test_progress_without_a_terminal_prints_few_plain_lines(capsys, monkeypatch):
    now = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    with Progress(1000, start=100, every_s=30.0) as progress:
        for step in range(101, 301):
            now[0] += 0.5  # 2 steps a second, 100 seconds
            progress.update(step, {"loss": 0.25} if step % 50 == 0 else None)
        rates = {"steps_per_s": 4.0, "images_per_s": 64.0, "data_wait": 0.125}
        now[0] += 30
        progress.update(301, rates)
        progress.update(1000)
    out, err = capsys.readouterr()
    assert not out and "\r" not in err
    assert err.splitlines() == [
        "step 160/1000, 2 steps/s, ETA 07:00, loss 0.25",
        "step 220/1000, 2 steps/s, ETA 06:30, loss 0.25",
        "step 280/1000, 2 steps/s, ETA 06:00, loss 0.25",
        "step 301/1000, 4 steps/s, ETA 02:54, loss 0.25, 64 images/s, data wait 12%",
        "step 1000/1000, 4 steps/s, ETA 00:00, loss 0.25, 64 images/s, data wait 12%",
    ]


def test_progress_says_what_it_is_of(capsys):
    with Progress(3, unit="case", name="heldout", every_s=0.0) as progress:
        progress.update(2)
        progress.update(3)
    assert re.fullmatch(
        r"heldout: case 2/3, ETA \?\nheldout: case 3/3, \S+ cases/s, ETA 00:00\n",
        capsys.readouterr().err,
    )


def test_brief_progress_leaves_nothing_behind(capsys, monkeypatch):
    for every, lines in ((30.0, 0), (0.0, 2)):
        with Progress(2, brief=True, every_s=every) as progress:
            progress.update(1)
            progress.update(2)
        assert len(capsys.readouterr().err.splitlines()) == lines
    terminal = io.StringIO()
    terminal.isatty = lambda: True
    monkeypatch.setattr(sys, "stderr", terminal)
    with Progress(2, brief=True, name="heldout") as progress:
        progress.update(2)
    *_, bar, after = terminal.getvalue().rsplit("\r", 2)
    assert "heldout" in terminal.getvalue() and not (bar + after).strip()


def test_progress_on_a_terminal_is_a_bar(monkeypatch):
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    with Progress(5000, start=10) as progress:
        for step in range(11, 4001):
            progress.update(step, {"loss": 2.0, "images_per_s": 10.0})
    frames = terminal.getvalue().split("\r")
    assert "4000/5000" in frames[-1] and "loss 2, 10 images/s" in frames[-1]
    assert len(frames) < 20  # by time, never one per step


@pytest.mark.parametrize("terminal", [True, False])
def test_a_quiet_program_shows_no_progress(monkeypatch, terminal):
    stream = io.StringIO()
    monkeypatch.setattr(stream, "isatty", lambda: terminal)
    monkeypatch.setattr(sys, "stderr", stream)
    monkeypatch.setattr(log, "_quiet", True)
    with Progress(3, every_s=0.0) as progress:
        progress.update(3, {"loss": 1.0})
    assert stream.getvalue() == "" and not log.bars()


def test_inactive_progress_prints_nothing(capsys):
    with Progress(3, active=False, every_s=0.0) as progress:
        progress.update(3, {"loss": 1.0})
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("module", "late"),
    [
        ("seggpt_jax.cli.command", ("jax",)),
        ("seggpt_jax.cli.segment_command", ("scipy", "orbax", "optax", "grain")),
        ("seggpt_jax.main", ("scipy", "tensorboardX", "torch")),
    ],
)
def test_what_a_start_does_not_need_is_imported_late(module, late):
    """tensorboardX imports PyTorch where it is installed, which takes seconds."""
    code = f"import sys, {module}; assert not {{*{late}}} & {{*sys.modules}}"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=REPOSITORY)


def test_events_wait_for_the_first_value(tmp_path):
    with Writer(tmp_path, start=0) as writer:
        writer.store()
        assert not (tmp_path / "tensorboard").exists()
        writer.scalars(1, {"loss": 1.0})
        assert list((tmp_path / "tensorboard").iterdir())
