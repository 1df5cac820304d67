"""Maps of the winning class of every pixel, for all images at once. Classes compete one
after the other.

The maps of 2,000 images of ADE20K are larger than the memory, so they are files. A
stopped run goes on at the class where it stopped; with a folder in a bucket, which has
no files to map, at the first class.
"""

import io
import itertools
import json
import tempfile
from pathlib import Path

import jax
import numpy as np

from seggpt_jax.runs import hosts
from seggpt_jax.runs.buckets import BucketPath
from seggpt_jax.runs.paths import AnyPath
from seggpt_jax.runs.staging import new_file


class Maps:
    """The winning class of every pixel so far, of n images.

    winner: uint16 `[n, h, w]`, the place of the class among the competing classes, from
    1; 0 for none. Smaller images lie in the upper left. done: the number of classes
    that have competed, in order. A class wins a pixel only with a larger share than
    `empty`. With a `folder` the first process keeps the maps in files that begin with
    `name`.
    """

    def __init__(
        self,
        folder: AnyPath | None,
        name: str,
        shape: tuple[int, int, int],
        empty: float,
    ):
        self._stem: Path | None = None
        self._bucket: BucketPath | None = None  # where the winners go in the end
        self.done = 0
        if not (folder and hosts.is_first()):
            self.winner = np.zeros(shape, np.uint16)
            self._share = np.full(shape, empty, np.float16)
        elif isinstance(folder, BucketPath):
            self._bucket = folder / f"{name}-winner.npy"
            # Arrays stay mapped when the names of their files are gone.
            with tempfile.TemporaryDirectory() as temp:
                self._open(Path(temp) / name, shape, empty)
        else:
            self._stem = folder / name
            self._open(self._stem, shape, empty)
        self.done = hosts.agree(self.done)
        if self.done and jax.process_count() > 1:
            for array, image in itertools.product(
                (self.winner, self._share), range(len(self.winner))
            ):
                array[image] = hosts.broadcast(array[image])

    def _open(self, stem: Path, shape: tuple[int, int, int], empty: float) -> None:
        count = _path(stem, ".json")
        paths = _path(stem, "-winner.npy"), _path(stem, "-share.npy")
        if all(path.exists() for path in (count, *paths)):
            self.done = json.loads(count.read_text())
        self.winner, self._share = (
            np.lib.format.open_memmap(path, "r+" if self.done else "w+", kind, shape)
            for path, kind in zip(paths, (np.uint16, np.float16), strict=True)
        )
        if not self.done:
            self._share[:] = empty

    def offer(self, image: int, place: int, share: np.ndarray) -> None:
        """A class takes the pixels of an image where its share `[h, w]` is the largest
        so far; the first class of the same share keeps them."""
        height, width = share.shape
        winner = self.winner[image][:height, :width]
        best = self._share[image][:height, :width]
        wins = share > best
        # Winners are written before shares: after a kill the class is done once more,
        # and must not lose to its own share.
        winner[wins] = place
        best[wins] = share[wins]

    def finish(self, place: int) -> None:
        """Notes that a class has been offered for every image."""
        if self._stem:
            with new_file(_path(self._stem, ".json")) as part:
                part.write_text(str(place))

    def close(self, keep: bool) -> None:
        """The files go, but for the winners if `keep`."""
        if self._stem:
            _path(self._stem, ".json").unlink()
            _path(self._stem, "-share.npy").unlink()
            if not keep:
                _path(self._stem, "-winner.npy").unlink()
        if self._bucket and keep:
            with new_file(self._bucket) as new:
                np.save(new, self.winner)


def _path(stem: Path, ending: str) -> Path:
    return stem.with_name(stem.name + ending)


def kept_winner(folder: AnyPath, name: str, shape: tuple[int, int, int]) -> np.ndarray:
    """The winners that an earlier run kept; the first process alone has them."""
    if not hosts.is_first():
        return np.zeros(shape, np.uint16)
    path = folder / f"{name}-winner.npy"
    if isinstance(path, BucketPath):
        return np.load(io.BytesIO(path.read_bytes()))
    return np.load(path, mmap_mode="r")
