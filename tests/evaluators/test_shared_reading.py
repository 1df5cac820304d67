"""Several processes score as one does, and read as many records as one does.

Threads play the processes. Real ones: tests/runs/test_hosts.py.
"""

import collections

import numpy as np
import pytest

from seggpt_jax.data import dataset
from seggpt_jax.data.sample import BadRecord
from seggpt_jax.evaluators.cases import Cases
from seggpt_jax.evaluators.common import prefetch
from seggpt_jax.runs import hosts
from tests.evaluators import test_pairs
from tests.evaluators.test_row_answers import build, data  # noqa: F401
from tests.support import row_miniatures
from tests.support.processes import play

# One row, or more, of every type of evaluator that reads a source.
ROWS = (
    "indexed", "chest_xray", "ade20k_examples", "ade20k_tuned", "coco_panoptic_tuned",
    "ytvos18",
)  # fmt: skip


@pytest.fixture
def reads(monkeypatch):
    """(Set, record) -> how often it was read."""
    found, read = collections.Counter(), dataset.Raw.__getitem__

    def counted(self, index):
        found[self.root.name, self.split, index] += 1
        return read(self, index)

    monkeypatch.setattr(dataset.Raw, "__getitem__", counted)
    return found


def evaluated(row, data, folder):  # noqa: F811
    """The scores of a row with an interval each, the records of its cases and the
    captions of its pictures."""
    group, found = build(row, data, row_miniatures.reader(set())), []
    for number, evaluator in enumerate(group.evaluators.values()):
        place = folder / str(number)
        with Cases(place, {"row": row}, active=hosts.is_first()) as cases:
            scores = dict(evaluator.run(None, cases))
        records = [{**r, "seconds": 0} for r in evaluator.records]
        pictures = evaluator.rows(None, range(min(2, evaluator.count)))
        found.append((scores, records, [picture.caption for picture in pictures]))
    return found


@pytest.mark.parametrize("row", ROWS)
def test_processes_read_each_record_once_in_all(row, data, tmp_path, reads):  # noqa: F811
    wanted, alone = evaluated(row, data, tmp_path / "one"), reads.copy()
    reads.clear()
    results = play(3, lambda: evaluated(row, data, tmp_path / "three"))
    assert reads == alone and alone
    for found in results:
        np.testing.assert_equal(found, wanted)  # as nan is nan


def test_processes_agree_on_what_is_left_after_a_stop(data, tmp_path, reads):  # noqa: F811
    wanted = evaluated("chest_xray", data, tmp_path / "whole")
    folders = tmp_path / "one", tmp_path / "three"
    for folder in folders:
        whole = (tmp_path / "whole/0/cases.jsonl").read_text().splitlines(True)
        (folder / "0").mkdir(parents=True)
        (folder / "0/cases.jsonl").write_text("".join(whole[:6]))
    reads.clear()
    assert evaluated("chest_xray", data, folders[0]) == wanted
    alone = reads.copy()
    reads.clear()
    assert play(3, lambda: evaluated("chest_xray", data, folders[1])) == [wanted] * 3
    assert reads == alone


def test_processes_make_each_pair_once_in_all():
    made = []

    class Pairs(list):
        def __getitem__(self, index):
            made.append(index)
            return super().__getitem__(index)

    pairs = Pairs(test_pairs.make_pairs(5))
    truth = test_pairs.truth_of(list(pairs))

    def scores():
        return dict(test_pairs.evaluator(pairs, truth).run(None))

    assert play(2, scores) == [{"memorised/episode_miou": 1.0}] * 2
    assert sorted(made) == list(range(5))


def test_an_unreadable_record_is_one_error_everywhere_in_its_turn():
    def read(index):
        if index == 4:
            raise BadRecord("record 4: torn")
        return np.full(2**21, index, np.uint8)  # more than one piece of an exchange

    def work():
        results = prefetch(read, range(20), threads=2, ahead=3)
        firsts = [int(next(results)[-1]) for _ in range(4)]
        with pytest.raises(BadRecord, match="record 4: torn"):
            next(results)
        return firsts

    assert play(3, work) == [[0, 1, 2, 3]] * 3
