"""Cases, maps and answers of evaluators in a bucket are those of a disk."""

import io
from zipfile import ZipFile

import pytest

from seggpt_jax.evaluators.cases import Cases
from seggpt_jax.predict import PredictFns
from seggpt_jax.runs.paths import locate
from tests.evaluators import test_examples_evaluator as examples
from tests.evaluators import test_vos as vos
from tests.evaluators.test_examples_evaluator import sets  # noqa: F401
from tests.evaluators.test_vos import youtube  # noqa: F401


def test_a_stopped_closed_set_goes_on_at_its_seed(bucket, sets):  # noqa: F811
    folder, settings = locate(bucket) / "cases", dict(examples=(1, 2))
    reference, _ = examples.run(sets, examples.seer(), **settings)
    encodes: list = []
    fns = examples.seer(encodes)

    def encode(*args):
        if len(encodes) == 4:  # 12 in all: 3 classes, 2 numbers, 2 seeds
            raise InterruptedError
        return fns.encode_prompts(*args)

    with pytest.raises(InterruptedError), Cases(folder) as cases:
        examples.run(sets, PredictFns(encode, fns.predict), cases=cases, **settings)
    for left in (9, 0):
        encodes = []
        with Cases(folder) as cases:
            scores, evaluator = examples.run(
                sets, examples.seer(encodes), cases=cases, **settings
            )
        assert scores == reference and len(encodes) == left
        assert folder.files() == ["N1-seed1000-winner.npy", "cases.jsonl"]
        assert len(evaluator.rows(None, [0])) == 1


def test_answers_for_a_server(bucket, youtube, tmp_path):  # noqa: F811
    packed = []
    for folder in (tmp_path / "cases", locate(bucket) / "cases"):
        for _ in range(2):  # the second time there is nothing left to do
            with Cases(folder) as cases:
                vos.run(youtube, cases=cases, appear=True, export="answers.zip")
        with ZipFile(io.BytesIO((folder / "answers.zip").read_bytes())) as archive:
            packed.append({name: archive.read(name) for name in archive.namelist()})
    assert packed[0] == packed[1]
    assert len((locate(bucket) / "cases").files()) == 7  # 5 pictures, cases, the zip
