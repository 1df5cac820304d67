"""A run and an evaluation whose workdirs are in a bucket, killed again and again while
they write: they end as on a disk, bit for bit.

SEGGPT_SOAK_KILLS is the number of kills, by default few.
"""

import contextlib
import itertools
import os
import re
import signal
import subprocess
import sys

import pytest
from gcp_storage_emulator.exceptions import NotFound
from gcp_storage_emulator.storage import Storage

from seggpt_jax.evaluators import page
from seggpt_jax.runs import checksums
from seggpt_jax.runs.paths import locate
from seggpt_jax.weights.checkpoint import _AFTER_SUMS
from tests import tiny
from tests.conftest import REPOSITORY

KILLS = int(os.environ.get("SEGGPT_SOAK_KILLS", 3))
STEPS = 4 * KILLS
# Every case and every line is an upload of its own: all are places to be killed at.
PROGRAM = """
from absl import app
from seggpt_jax import main
from seggpt_jax.runs import staging

staging._LEAST_S, staging._SHARE = 0.0, 1e9
app.run(main.main, flags_parser=main.parse_flags)
"""
TRAIN = [
    f"--config=tests/tiny.py:steps={STEPS},first=3,evals=True", "--config.eval_every=4",
    "--config.keep=2", "--config.evals.heldout.episodes=40",
]  # fmt: skip
# What is written when a life ends, and which of these writes, in turn: while training,
# and while scoring.
TRAINING = [
    (r"checkpoints/\d+/state/", 3), (r"metrics\.jsonl", 3),
    (r"checkpoints/\d+/SHA256SUMS", 2), (r"checkpoints/\d+/commit", 2),
    (r"pictures/", 1), (r"tensorboard/", 2), (r"delete:checkpoints/", 2),
    (r"checkpoints/\d+/meta/", 1), (r"checkpoints/", 25),
]  # fmt: skip
CASES = r"results/.*/cases\.jsonl", 3
SCORED = [(r"results/[^/]*\.json", 1), (r"metrics\.jsonl", 1)]


class Killer:
    """Kills a process when it asks for the `count`-th write that matches `pattern`,
    before the write is done or after it."""

    def __init__(self, patch: pytest.MonkeyPatch):
        self.process = self.pattern = None
        self.count, self.before, self.killed_at = 0, True, list[str]()
        for name, mark in (("create_file", ""), ("delete_file", "delete:")):
            patch.setattr(Storage, name, self._wrapped(getattr(Storage, name), mark))

    def _wrapped(self, do, mark):
        def done(storage, bucket, name, *rest):
            hit = self.pattern and self.pattern.match(mark + name.partition("/")[2])
            self.count -= bool(hit)
            if not hit or self.count:
                return do(storage, bucket, name, *rest)
            if not self.before:
                with contextlib.suppress(NotFound):  # as for any client
                    do(storage, bucket, name, *rest)
            os.kill(self.process.pid, signal.SIGKILL)
            self.killed_at.append(mark + name)
            raise ConnectionAbortedError

        return done

    def live(self, arguments, pattern=None, count=1, before=True) -> bool:
        """Runs the program; whether it was killed."""
        self.pattern = pattern and re.compile(pattern)
        self.count, self.before = count, before
        self.process = subprocess.Popen(
            [sys.executable, "-c", PROGRAM, *arguments], cwd=REPOSITORY,
            env=tiny.environment(),
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        _, said = self.process.communicate()
        assert self.process.returncode in (0, -signal.SIGKILL), said
        return self.process.returncode != 0

    def through(self, arguments, places) -> None:
        """Runs the program to its end, through a kill at each place."""
        for number, place in enumerate(places):
            assert self.live(arguments, *place, before=bool(number & 1)), place
        assert not self.live(arguments)


def written(workdir) -> set[str]:
    """The files of a workdir, but for those whose names or number differ: TensorBoard's
    and the arrays of a checkpoint."""
    names = checksums.files(workdir)
    return {
        name
        for name in names
        if not re.match(r"tensorboard/|checkpoints/\d+/(state/|_CHECK|commit)", name)
    }


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_killed_runs_in_a_bucket_end_as_on_a_disk(bucket, tmp_path, monkeypatch):
    workdir, disk = f"{bucket}/run", tmp_path / "run"
    killer = Killer(monkeypatch)
    assert not killer.live([*TRAIN, f"--workdir={disk}"])
    count = KILLS // 3
    scoring = [CASES] * max(1, count - len(SCORED)) + SCORED
    training = itertools.islice(itertools.cycle(TRAINING), KILLS - count)
    killer.through([*TRAIN, f"--workdir={workdir}"], training)
    train = locate(workdir)
    tiny.assert_same_run(disk, train)
    assert written(train) == written(disk)
    for step in {name.split("/")[1] for name in written(disk) if "heckp" in name}:
        saved = train / "checkpoints" / step
        listed = set(checksums.files(saved)) - {*_AFTER_SUMS}
        assert checksums.fault(saved, listed) is None
        sums = (saved / checksums.SUMS).read_text()
        assert set(re.findall(r"^\w{64}  (.+)$", sums, re.M)) == listed

    evaluate = [*TRAIN, "--config.mode=evaluate", f"--config.checkpoint={workdir}"]
    ends = f"{bucket}/scores", tmp_path / "scores"
    assert not killer.live([*evaluate, f"--workdir={ends[1]}"])
    killer.through([*evaluate, f"--workdir={ends[0]}"], scoring[:count])
    assert written(locate(ends[0])) == written(ends[1])
    name = "results/heldout.json"
    found = [(locate(end) / name).read_text() for end in ends]
    told = [re.sub(r'"(date|seconds)": .*', "", text) for text in found]
    assert told[0] == told[1]
    pages = [page.read([locate(end)]) for end in ends]
    assert pages[0].rows[0].scores == pages[1].rows[0].scores
    assert len(killer.killed_at) == KILLS
    print(f"{KILLS} kills, {STEPS} steps, at", *killer.killed_at, sep="\n  ")
