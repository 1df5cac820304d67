"""The images of tasks: found by name in one folder of the server, or in the task.

What a task names is only a key of the list of the folder's files. It is never opened,
joined to a path or fetched.
"""

import base64
import binascii
import os
import threading
import time
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from urllib.parse import parse_qs, unquote, urlsplit

from seggpt_jax.config import shorten
from seggpt_jax.serve.uploads import Upload

_PAUSE = 1.0  # seconds after which an unknown name makes the folder be listed again
_HASH = 8  # hexadecimal digits that Label Studio writes before the name of an upload


class Media:
    """The files in a folder and the folders in it, by name. folder: None has none.
    megabytes: the largest file that is read.

    Links to folders are not followed.
    """

    def __init__(self, folder: Path | None, megabytes: int):
        self._folder, self._megabytes = folder, megabytes
        self._lock = threading.Lock()
        self._listed = 0.0
        self._by_name = self._list()

    def read(self, value: str) -> Upload:
        """The image that a task's value names: `/data/upload/3/cat.jpg`,
        `/data/local-files/?d=pets/cat.jpg`, `s3://bucket/pets/cat.jpg`, any other
        address, or the image itself as `data:image/png;base64,...`.

        Among files of one name it is the one whose folders agree with most of the
        address, from its end. Raises ValueError for a name that no file has, or
        several."""
        if value.startswith("data:"):
            return _content(value)
        path = self._find(value)
        try:
            if not path.is_file():
                raise ValueError(f"image {_short(value)} is no file any more")
            if path.stat().st_size > self._megabytes * 1_000_000:
                raise ValueError(
                    f"image {_short(value)} is longer than {self._megabytes} MB"
                )
            return path.name, path.read_bytes()
        except OSError as error:
            raise ValueError(
                f"image {_short(value)} cannot be read: {error.strerror}"
            ) from None

    def _find(self, value: str) -> Path:
        if self._folder is None:
            raise ValueError(
                f"image {_short(value)} is an address, and the server opens none: "
                "start it with --label-studio-media and the folder of the images"
            )
        parts = _parts(value)
        with self._lock:
            found = self._known(parts)
            if not found and time.monotonic() - self._listed > _PAUSE:
                self._by_name = self._list()
                found = self._known(parts)
        if not found:
            raise ValueError(
                f"image {_short(value)}: no file in the server's folder of images is "
                f"named {_short(parts[-1] if parts else value)}"
            )
        if len(found) > 1:
            names = sorted("/".join(each) for each in found)
            raise ValueError(
                f"image {_short(value)} could be any of {shorten(names, 3)} in the "
                "server's folder of images: give the files different names"
            )
        return self._folder.joinpath(*found[0])

    def _known(self, parts: Sequence[str]) -> list[tuple[str, ...]]:
        """The files that agree with most of an address, from its end."""
        if not parts:
            return []
        *folders, name = parts
        found = self._by_name.get(name, [])
        digits, dash, rest = name.partition("-")
        if not found and dash and len(digits) == _HASH and _is_hexadecimal(digits):
            name, found = rest, self._by_name.get(rest, [])
        agreed = [_agreement([*folders, name], each) for each in found]
        return [found[i] for i, x in enumerate(agreed) if x == max(agreed)]

    def _list(self) -> dict[str, list[tuple[str, ...]]]:
        """Name -> the parts of the paths of the files, below the folder."""
        by_name: dict[str, list[tuple[str, ...]]] = {}
        self._listed = time.monotonic()
        if self._folder is not None:
            for place, _, files in os.walk(self._folder):
                above = Path(place).relative_to(self._folder).parts
                for name in files:
                    by_name.setdefault(name, []).append((*above, name))
        return by_name


def _parts(value: str) -> list[str]:
    """The folders and the name in an address, without those that lead upwards."""
    try:
        url = urlsplit(value)
    except ValueError:
        return []
    query = parse_qs(url.query)
    path = unquote(url.path)
    if "d" in query and path.endswith("/local-files/"):
        path = query["d"][0]
    elif "fileuri" in query and path.endswith("/resolve/"):
        try:
            inner = base64.urlsafe_b64decode(query["fileuri"][0]).decode()
            path = unquote(urlsplit(inner).path)
        except ValueError:
            return []
    parts = PurePosixPath(path.replace("\\", "/")).parts
    return [part for part in parts if part not in ("/", "..")]


def _agreement(address: Sequence[str], path: Sequence[str]) -> tuple[int, bool]:
    """How many parts are equal, from the end, and whether they are all of the path."""
    count = 0
    for one, other in zip(reversed(address), reversed(path), strict=False):
        if one != other:
            break
        count += 1
    return count, count == len(path)


def _is_hexadecimal(text: str) -> bool:
    return all(letter in "0123456789abcdef" for letter in text)


def _content(value: str) -> Upload:
    head, comma, body = value.partition(",")
    if not comma or not head.endswith(";base64"):
        raise ValueError("image data:... is not such as data:image/png;base64,...")
    try:
        return "image", base64.b64decode(body, validate=True)
    except binascii.Error:
        raise ValueError("image data:... is no base64") from None


def _short(text: str) -> str:
    return repr(text if len(text) <= 80 else f"{text[:77]}...")
