"""A model's name is a path, else a bundled name, else a name of the hub."""

from pathlib import Path

import pytest

from seggpt_jax.weights import names
from seggpt_jax.weights.names import Model, resolve

COMMIT = "me/model@" + 40 * "c"


@pytest.fixture
def asked(tmp_path, monkeypatch):
    """An empty folder; and the names that the hub is asked for."""
    monkeypatch.chdir(tmp_path)
    found = []

    def fetch(name):
        found.append(name)
        return Path("cache"), COMMIT

    monkeypatch.setattr(names.hub, "fetch", fetch)
    return found


def test_a_path_comes_first_then_the_package_then_the_hub(asked):
    assert resolve("mini") == Model(names._BUNDLED / "mini", "mini")
    assert resolve("me/model") == Model(Path("cache"), COMMIT)
    assert names.pinned("me/model@v1") == COMMIT
    assert asked == ["me/model", "me/model@v1"]
    for name in ("mini", "me/model", "me/model@v1"):
        Path(name).mkdir(parents=True)
        assert resolve(name) == resolve(Path(name)) == Model(Path(name), name)
        assert names.pinned(name) == name
    assert len(asked) == 2


@pytest.mark.parametrize(
    "name",
    ["me/model/more", "model", "", "/me/m",
     "./model", "../model", "~/model", "me/", "me/my model", "me/model@", "me/m.pth",
     "me/model.safetensors", Path("me/model")],
)  # fmt: skip
def test_what_is_no_name_of_the_hub_is_not_asked_for(asked, name):
    with pytest.raises(
        FileNotFoundError, match="nor of the form owner/name of the hub"
    ):
        resolve(name)
    assert not asked


@pytest.mark.parametrize("name", ["s3://bucket/model", "http://host/model", "gs:/b"])
def test_an_address_is_no_name(asked, name):
    Path(name).mkdir(parents=True)  # what earlier versions made of it
    with pytest.raises(ValueError, match=f"model {name}: must be a path on this mach"):
        resolve(name)
    assert not asked
