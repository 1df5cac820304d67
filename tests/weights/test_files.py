"""Which files of a folder are a model."""

import pytest

from seggpt_jax.weights.files import model_files


@pytest.mark.parametrize("name", ["a.pth", "model.safetensors", "pytorch_model.bin"])
def test_system_files_are_no_models(name):
    """macOS leaves `._NAME` beside a file on foreign disks."""
    assert model_files([name, f"._{name}", ".DS_Store", "readme.md"]) == [name]
    assert model_files([f"._{name}"]) == []
