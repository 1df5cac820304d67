"""Reads and writes videos, one frame at a time (PyAV). A folder of pictures is a video
too."""

import contextlib
import importlib.util
import os
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from seggpt_jax.pictures import images
from seggpt_jax.pictures.listing import in_order, kinds, look_into
from seggpt_jax.runs import staging

_RATE = Fraction(25)  # frames per second, where nothing tells it
_REMEDY = "pip install 'seggpt_jax[video]'"


class Frame(NamedTuple):
    """A frame of a video. image: uint8 `[h, w, 3]`. time: seconds since the start of
    the video, None where nothing tells it."""

    image: np.ndarray
    time: float | None


class VideoInfo(NamedTuple):
    """fps: frames per second. frames: their number according to the file's header, 0 if
    it gives none."""

    fps: Fraction
    frames: int


def probe(path: str | os.PathLike) -> VideoInfo:
    """Reads the header of a video file, or counts the frames of a folder, which has 25
    a second. Raises ValueError, naming the file."""
    if Path(path).is_dir():
        return VideoInfo(_RATE, len(_frame_files(Path(path))))
    with _opened(path) as (container, stream):
        fps = stream.average_rate or stream.guessed_rate or _RATE
        count = stream.frames
        if not count and container.duration:
            count = round(container.duration / 1_000_000 * fps)
        return VideoInfo(Fraction(fps), int(count))


def read_frames(path: str | os.PathLike) -> Iterator[np.ndarray]:
    """The frames uint8 `[h, w, 3]` of a video file, decoded one at a time, upright; or
    the pictures of a folder, by the numbers in their names: 1, 2, 10.

    Raises ValueError, naming the file, when it cannot be decoded.
    """
    if Path(path).is_dir():
        yield from _read_folder(Path(path))
        return
    _require(path)
    import av

    with _opened(path) as (container, stream):
        stream.thread_type = "AUTO"
        count = 0
        try:
            for frame in container.decode(stream):
                image = frame.to_ndarray(format="rgb24")
                yield np.rot90(image, round(frame.rotation / 90) % 4)
                count += 1
        except av.FFmpegError as error:
            raise ValueError(
                f"{path} is damaged after {count} frames: {error.strerror}"
            ) from error
        if not count:
            raise ValueError(f"{path} has no frames")


def _frame_files(path: Path) -> list[Path]:
    found = look_into(path)
    if not found.pictures:
        there = kinds(found.others) or "nothing"
        raise ValueError(f"{path} has no picture to be a frame; it has {there}")
    return in_order(found.pictures)


def _read_folder(path: Path) -> Iterator[np.ndarray]:
    size = None
    for file in _frame_files(path):
        frame = images.read_rgb(file)
        size = size or frame.shape
        if frame.shape != size:
            h, w = frame.shape[:2]
            raise ValueError(
                f"{file} is {w} x {h}, but the first frame is {size[1]} x {size[0]}"
            )
        yield frame


@contextlib.contextmanager
def writer(
    path: str | os.PathLike, fps: Fraction
) -> Iterator[Callable[[np.ndarray], None]]:
    """A function that appends frames uint8 `[h, w, 3]`, of one size, to an mp4 file.

    The file appears when the `with` block ends without an error.
    """
    _require(path)
    import av

    with staging.new_file(Path(path)) as temporary:
        container = av.open(str(temporary), "w", format="mp4")
        stream = container.add_stream("libx264", rate=fps)
        stream.pix_fmt = "yuv420p"

        def write(frame: np.ndarray) -> None:
            # The codec takes even sides only.
            even = frame[: len(frame) // 2 * 2, : frame.shape[1] // 2 * 2]
            if not even.size:
                raise ValueError(f"{path}: frames of {frame.shape[:2]} are too small")
            if not stream.codec_context.is_open:
                stream.height, stream.width = even.shape[:2]
            picture = av.VideoFrame.from_ndarray(np.ascontiguousarray(even), "rgb24")
            container.mux(stream.encode(picture))

        try:
            yield write
            if stream.codec_context.is_open:
                container.mux(stream.encode())
            container.close()
        except av.FFmpegError as error:
            raise OSError(f"{path} could not be written: {error.strerror}") from error
        finally:
            with contextlib.suppress(av.FFmpegError):
                container.close()


@contextlib.contextmanager
def _opened(path: str | os.PathLike):
    _require(path)
    import av

    if not Path(path).exists():
        hint = "; of frames, give their folder" if set(str(path)) & set("*?%") else ""
        raise FileNotFoundError(f"{path} does not exist{hint}")
    if not Path(path).is_file():
        raise ValueError(f"{path} is neither a file nor a folder of frames")
    # From 19 on PyAV replaces what is no UTF-8 in metadata by itself.
    old = int(av.__version__.partition(".")[0]) < 19
    options: dict[str, Any] = {"metadata_errors": "replace"} if old else {}
    try:
        container = av.open(str(path), **options)
    except av.FFmpegError as error:
        raise ValueError(f"{path} is no video: {error.strerror}") from error
    with container:
        if not container.streams.video:
            raise ValueError(f"{path} has no pictures in it")
        yield container, container.streams.video[0]


def _require(path: str | os.PathLike) -> None:
    if importlib.util.find_spec("av") is None:
        raise ValueError(f"{path}: videos need PyAV: {_REMEDY}")
