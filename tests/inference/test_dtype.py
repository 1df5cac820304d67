"""`dtype="auto"`: where a prediction is in bfloat16."""

import types

import jax
import pytest

from seggpt_jax import Predictor
from seggpt_jax.inference import dtype


@pytest.fixture
def machine(monkeypatch):
    def pretend(platform="cpu", flags=("avx512_bf16",), version=(0, 12, 0), **device):
        found = types.SimpleNamespace(platform=platform, **device)
        monkeypatch.setattr(jax, "devices", lambda *_: [found])
        monkeypatch.setattr(jax, "__version_info__", version)
        monkeypatch.setattr(dtype, "cpu_flags", lambda: frozenset(flags))

    return pretend


@pytest.mark.parametrize("width, setting, wanted", [
    (1024, {}, "bfloat16"),
    (192, {"flags": ("fma", "amx_bf16")}, "bfloat16"),
    (96, {}, "float32"),
    (1024, {"flags": ("avx512f", "avx512_vnni")}, "float32"),
    (1024, {"flags": ()}, "float32"),
    (1024, {"version": (0, 10, 2)}, "float32"),
    (1024, {"version": (1, 0, 0)}, "bfloat16"),
    (96, {"platform": "tpu", "version": (0, 10, 2)}, "bfloat16"),
    (96, {"platform": "gpu", "compute_capability": "9.0"}, "bfloat16"),
    (1024, {"platform": "gpu", "compute_capability": "10.0"}, "bfloat16"),
    (1024, {"platform": "gpu", "compute_capability": "8.0"}, "bfloat16"),
    (1024, {"platform": "gpu", "compute_capability": "7.5"}, "float32"),
    (1024, {"platform": "gpu", "compute_capability": "gfx90a"}, "float32"),
    (1024, {"platform": "other"}, "float32"),
])  # fmt: skip
def test_automatic_is_bfloat16_where_it_is_faster(machine, width, setting, wanted):
    machine(**setting)
    assert dtype.automatic(width) == wanted


def test_flags_are_those_of_linux(tmp_path):
    cpu = tmp_path / "cpuinfo"
    cpu.write_text("model name\t: A CPU\nflags\t\t: fpu fma avx512_bf16\nbugs\t\t: \n")
    assert dtype.cpu_flags(str(cpu)) == {"fpu", "fma", "avx512_bf16"}
    assert dtype.cpu_flags(str(tmp_path / "none")) == set()  # another system


@pytest.mark.parametrize("found", ["float32", "bfloat16"])
def test_a_predictor_takes_it(found, monkeypatch):
    asked = []
    monkeypatch.setattr(
        "seggpt_jax.inference.predictor.automatic", lambda w: asked.append(w) or found
    )
    predictor = Predictor.from_pretrained("mini", dtype="auto")
    assert predictor.config.dtype == found and asked == [predictor.config.width]


def test_another_type_is_named_with_all_choices():
    said = "dtype 'float16' is unknown; .*hoices: auto, bfloat16, float32"
    with pytest.raises(ValueError, match=said):
        Predictor.from_pretrained("mini", dtype="float16")
