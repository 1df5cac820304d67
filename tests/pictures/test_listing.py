"""Pictures of a user's folder."""

from pathlib import Path

import pytest

from seggpt_jax.data.files import hidden
from seggpt_jax.data.layout import files_in, pictures, tree_of
from seggpt_jax.pictures.listing import in_order, kinds, look_into
from seggpt_jax.results.earlier import results_in


def test_pictures_other_kinds_and_what_is_not_meant(tmp_path):
    names = ("b.PNG", "a.jpg", "c.cr3", "d.NEF", "e.nef", "f", "more/g.tif", "._a.jpg",
             "__MACOSX/a.jpg", ".cache/h.png", "Thumbs.db", "desktop.ini")  # fmt: skip
    for name in names:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    found = look_into(tmp_path)
    assert [path.name for path in found.pictures] == ["a.jpg", "b.PNG"]
    assert kinds(found.others) == "2 .nef, 1 .cr3, 1 without ending"
    deep = look_into(tmp_path, deep=True)
    assert [path.name for path in deep.pictures] == ["a.jpg", "b.PNG", "g.tif"]


def test_a_link_to_nothing_is_not_passed_over(tmp_path):
    (tmp_path / "a.png").symlink_to(tmp_path / "not fetched")
    (tmp_path / "b").symlink_to(tmp_path)
    assert look_into(tmp_path, deep=True).pictures == [tmp_path / "a.png"]


def test_linked_folders_are_searched_and_circles_end(tmp_path):
    photos, other = tmp_path / "photos", tmp_path / "other"
    for folder in (photos / "own", other / "deep"):
        folder.mkdir(parents=True)
        (folder / "a.png").touch()
    (photos / "linked").symlink_to(other)
    (other / "back").symlink_to(photos)
    (other / "up").symlink_to(tmp_path)
    for folder in (photos, photos / "own"):
        (folder / "itself.png").symlink_to(folder / "itself.png")
    wanted = [
        photos / name
        for name in ("itself.png", "linked/deep/a.png", "own/a.png", "own/itself.png")
    ]
    assert look_into(photos, deep=True).pictures == [*pictures(photos)] == wanted
    assert files_in(photos) == {p.relative_to(photos).as_posix() for p in wanted}
    assert [*pictures(photos / "own/a.png")] == []
    assert [path.relative_to(photos).as_posix() for path in tree_of(photos)] == [
        ".", "linked", "linked/deep", "own"
    ]  # fmt: skip
    (other / "inputs.json").write_text(
        '{"deep/a": {"path": "x", "forms": ["segments"]}}'
    )
    assert results_in(photos) == {photos / "linked/deep/a.png"}


def test_order_of_numbers():
    names = ["f10.png", "f9.png", "10.png", "9.png", "f9b.png"]
    found = [path.name for path in in_order(map(Path, names))]
    assert found == ["9.png", "10.png", "f9.png", "f9b.png", "f10.png"]
    for double in ("f09.png", "f9.jpg"):
        with pytest.raises(ValueError, match=f"{double}.* would both be f0?9: give"):
            in_order([*map(Path, names), Path(double)])


@pytest.mark.parametrize(
    "path, is_hidden",
    [("a/b.png", False), ("a/._b.png", True), (".a/b.png", True),
     ("x__MACOSX/b", False), ("__macosx/b.png", True), ("a/thumbs.db", True)],
)  # fmt: skip
def test_hidden_paths(path, is_hidden):
    assert hidden(Path(path)) == is_hidden
