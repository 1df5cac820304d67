"""Generated inputs are read rightly, or refused in words. `run.py` makes more."""

import collections

import pytest

from tests.fuzz.outcomes import GOOD
from tests.fuzz.run import KINDS, attempts, run

# Numbers of a seed, by kind: these need neither a model nor a process of their own.
_FEW = {"images": 100, "masks": 100, "prompts": 60, "weights": 12}


@pytest.mark.filterwarnings("ignore::UserWarning:PIL")  # of damaged tags
@pytest.mark.parametrize("kind", _FEW)
def test_a_few_inputs_are_read_or_refused(kind, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    attempt = attempts(kind, 0, tmp_path)
    found = collections.Counter(
        attempt(number, raising=True).name for number in range(_FEW[kind])
    )
    assert set(found) == set(GOOD)  # the generator makes both


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_more_inputs_are_read_or_refused(kind):
    outcomes = [*run(kind, 1, range(40), limit=60)]
    assert [outcome for outcome in outcomes if outcome.name not in GOOD] == []
    assert len(outcomes) == 40


@pytest.mark.slow
def test_a_crash_and_a_hang_are_caught():
    """The process of an input that dies, or stands still, is replaced."""
    found = [*run("faults", 0, range(4), limit=5)]
    assert [outcome.name for outcome in found] == ["right", "crash", "hang", "right"]
