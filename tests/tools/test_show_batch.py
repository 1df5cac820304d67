"""The command writes the contact sheet of a batch."""

import pytest

from configs import vitl
from tools import show_batch


def test_writes_a_picture(tmp_path):
    show_batch.main(vitl.get_config("tiny"), str(tmp_path / "b.png"), 0, 2)
    assert (tmp_path / "b.png").stat().st_size > 1000
    with pytest.raises(SystemExit, match="error: "):
        show_batch.main(vitl.get_config("tiny"), str(tmp_path / "no" / "b.png"), 0, 1)
