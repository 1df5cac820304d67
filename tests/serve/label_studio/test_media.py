"""Images of tasks by name: what an address finds, and what it never opens."""

import base64
import os

import pytest

from seggpt_jax.serve.label_studio import media
from seggpt_jax.serve.label_studio.media import Media


@pytest.fixture
def folder(tmp_path):
    for name in ("cat.jpg", "pets/dog.jpg", "pets/one/x.png", "pets/two/x.png",
                 "upload/3/0a1b2c3d-hen.jpg", "my cow.jpg"):  # fmt: skip
        path = tmp_path / "images" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)
    (tmp_path / "secret.txt").write_text("secret")
    return tmp_path / "images"


def resolved(uri):
    code = base64.urlsafe_b64encode(uri.encode()).decode()
    return f"/tasks/7/resolve/?fileuri={code}"


@pytest.mark.parametrize(
    "value, found",
    [
        ("/data/local-files/?d=images/pets/dog.jpg", "pets/dog.jpg"),
        ("/data/local-files/?d=pets%2Ftwo%2Fx.png", "pets/two/x.png"),
        ("/data/upload/3/0a1b2c3d-hen.jpg", "upload/3/0a1b2c3d-hen.jpg"),
        ("/data/upload/9/0123abcd-cat.jpg", "cat.jpg"),  # the prefix of an upload
        ("s3://bucket/elsewhere/one/x.png", "pets/one/x.png"),
        ("gs://bucket/my cow.jpg", "my cow.jpg"),
        ("https://a.example/pets/dog.jpg?signature=1", "pets/dog.jpg"),
        ("https://a.example/my%20cow.jpg", "my cow.jpg"),
        (resolved("s3://bucket/two/x.png"), "pets/two/x.png"),
        ("C:\\pets\\dog.jpg", "pets/dog.jpg"),
        ("../../pets/../dog.jpg", "pets/dog.jpg"),
    ],
)
def test_the_file_that_agrees_with_most_of_an_address(folder, value, found):
    name, content = Media(folder, 1).read(value)
    assert content.decode() == found and found.endswith(name)


@pytest.mark.parametrize(
    "value, text",
    [
        ("/data/upload/3/x.png",
         "could be any of pets/one/x.png, pets/two/x.png in the server's folder of "
         "images: give the files different names"),
        ("https://a.example/goat.jpg", "no file in the server's folder of images is "
         "named 'goat.jpg'"),
        ("/data/local-files/?d=../secret.txt", "is named 'secret.txt'"),
        ("../secret.txt", "is named 'secret.txt'"),
        ("/data/upload/../../secret.txt", "is named 'secret.txt'"),
        ("file:///etc/passwd", "is named 'passwd'"),
        ("/pets/", "is named 'pets'"),
        ("", "is named ''"),
        ("https://[", "is named"),
        ("a" * 9999, "is named 'aaa"),
        ("c\0at.jpg", "is named"),
        (resolved("")[:-3] + "*", "is named"),
        ("data:image/png;base64,???", "image data:... is no base64"),
        ("data:image/png,x", "is not such as data:image/png;base64,..."),
    ],
)  # fmt: skip
def test_names_that_find_nothing(folder, value, text):
    with pytest.raises(ValueError) as refused:
        Media(folder, 1).read(value)
    assert text in str(refused.value) and len(str(refused.value)) < 400


def test_an_image_in_the_task_needs_no_folder():
    value = "data:image/png;base64," + base64.b64encode(b"content").decode()
    assert Media(None, 1).read(value) == ("image", b"content")
    with pytest.raises(ValueError, match="start it with --label-studio-media"):
        Media(None, 1).read("/data/upload/1/a.png")


def test_an_unknown_name_makes_the_folder_be_listed_again(folder, monkeypatch):
    images, listed = Media(folder, 1), []
    list_ = Media._list
    monkeypatch.setattr(Media, "_list", lambda self: listed.append(0) or list_(self))
    for _ in range(9):  # not at once: names may be asked for in vain
        with pytest.raises(ValueError):
            images.read("new.jpg")
    assert not listed
    monkeypatch.setattr(media, "_PAUSE", 0.0)
    (folder / "pets/new.jpg").write_text("new")
    assert images.read("new.jpg") == ("new.jpg", b"new") and len(listed) == 1
    assert images.read("cat.jpg")[1] == b"cat.jpg" and len(listed) == 1


def test_files_that_cannot_be_read_are_named(folder):
    images = Media(folder, 1)
    (folder / "cat.jpg").unlink()
    (folder / "pets/dog.jpg").write_bytes(bytes(1_000_001))
    (folder / "pets/one/x.png").unlink()
    os.mkfifo(folder / "pets/one/x.png")
    for value, text in (("cat.jpg", "is no file any more"),
                        ("dog.jpg", "is longer than 1 MB"),
                        ("one/x.png", "is no file any more")):  # fmt: skip
        with pytest.raises(ValueError, match=text):
            images.read(value)
