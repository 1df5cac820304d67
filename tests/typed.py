"""What type checkers of users see; read by mypy, not run."""

from collections.abc import Iterator
from typing import assert_type

from seggpt_jax import Predictor, Result


def segment() -> Result:
    predictor = Predictor.from_pretrained("shapes")
    assert_type(predictor, Predictor)
    predictor.set_prompts("image.png", "mask.png")
    assert_type(predictor(["query.png"]), list[Result])
    assert_type(predictor(iter(["query.png"])), Iterator[Result])
    return assert_type(predictor("query.png"), Result)
