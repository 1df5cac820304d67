"""The log as a person sees it."""

import io
import logging as py_logging
import sys

import pytest
from absl import logging

from seggpt_jax.runs import log


@pytest.fixture
def alone(monkeypatch):
    """A function that takes pytest's own handlers away; it returns the stream."""
    before = logging.get_verbosity()

    def begin():
        monkeypatch.setattr(py_logging.root, "handlers", [])
        monkeypatch.setattr(sys, "stderr", io.StringIO())
        return sys.stderr

    yield begin
    logging.set_verbosity(before)


def test_lines_have_the_time_and_no_names_of_libraries(alone):
    said = alone()
    py_logging.basicConfig()  # as a library does that logs while it is imported
    log.show(logging.INFO)
    log.show(logging.INFO)  # one handler, one line
    logging.info("step %d", 3)
    logging.debug("unseen")
    logging.warning("a mask is soft")
    first, second = said.getvalue().splitlines()
    assert first[2] == first[5] == ":" and first[8:] == " step 3"
    assert second == "warning: a mask is soft"


def test_without_information_warnings_stay(alone):
    said = alone()
    log.show(logging.WARNING)
    logging.info("unseen")
    py_logging.getLogger("seggpt_jax.data").warning("a mask is soft")
    assert said.getvalue() == "warning: a mask is soft\n"
