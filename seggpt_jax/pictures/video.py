"""Reads and writes videos, one frame at a time, with their times and sound (PyAV)."""

import contextlib
import glob
import importlib.util
import os
import re
from collections.abc import Callable, Collection, Iterable, Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from absl import logging
from PIL import Image

from seggpt_jax.config import counted, shorten
from seggpt_jax.data.decode import Picture, naming_errors
from seggpt_jax.data.files import hidden
from seggpt_jax.pictures import images
from seggpt_jax.pictures.listing import in_order, kinds, look_into
from seggpt_jax.runs import staging
from seggpt_jax.runs.paths import locate

RATE = Fraction(25)  # frames per second, of pictures that say none
_STACKS = ("TIFF", "WEBP")
_REMEDY = "pip install 'seggpt_jax[video]'"
_TICK = Fraction(1, 90_000)  # of times that are written: finer than any camera's
_TIMEOUT = 30.0  # seconds that a stream may be silent
_GAP = 1  # seconds of a whole video after its last frame began, or two frames
_STRAIGHT = (1, 0, 0, 1)  # of frames that are shown as they are stored
_CLOCK = re.compile(r"(\d+):(\d+):(\d+(?:\.\d+)?)")  # of Matroska's tags


class Frame(NamedTuple):
    """A frame of a video. image: uint8 `[h, w, 3]`. time: seconds since the start of
    the video, None where nothing tells it."""

    image: np.ndarray
    time: float | None


class VideoInfo(NamedTuple):
    """fps: frames per second, on average. frames: their number as far as it is known
    beforehand, else 0. counted: whether it is certain, and no estimate."""

    fps: Fraction
    frames: int
    counted: bool = False


class Damaged(ValueError):
    """A video whose first frames were read."""


def is_stream(where: str | os.PathLike) -> bool:
    """Whether this is an address, such as `rtsp://...`, and no file."""
    return "://" in os.fspath(where)


def _address(where: str | os.PathLike) -> str:
    """As FFmpeg takes it. It would read a relative path such as `a:b.mp4` as `b.mp4` by
    the protocol `a`."""
    return os.fspath(where) if is_stream(where) else os.path.abspath(where)


def is_pictures(where: str | os.PathLike) -> bool:
    """Whether these are pictures without times: a folder, a pattern, a stack."""
    return bool(pictures_of(where)) or _pages(where, "TIFF") > 0


def probe(where: str | os.PathLike, but: Collection[Path] = ()) -> VideoInfo:
    """What is known of a video, as of `read_frames`, before it is read. Raises
    ValueError or FileNotFoundError, naming it."""
    if files := frame_files(where, but):
        return VideoInfo(RATE, len(files), True)
    if pages := _pages(where):
        return VideoInfo(RATE, pages, True)
    with _opened(where) as (container, stream):
        fps = stream.average_rate or stream.guessed_rate or RATE
        count = stream.frames
        if not count and container.duration:
            count = round(container.duration / 1_000_000 * fps)
        return VideoInfo(Fraction(fps), int(count), bool(stream.frames))


def read_frames(
    where: str | os.PathLike, bits: int = 16, but: Collection[Path] = ()
) -> Iterator[Frame]:
    """The frames of a video, one at a time, upright.

    where: a video file, an animation or a stack of pictures in a TIFF; an address, such
    as `rtsp://...`; a folder of pictures, or a pattern such as `frames/*.jpg` or
    `frames/%05d.png`, in the order of the numbers in their names: 1, 2, 10. Pictures
    have no times. bits: of pictures, as of `images.read_image`. but: files that are no
    frames, such as a mask beside them. Raises ValueError, naming the file; `Damaged`
    where there were frames before.
    """
    if files := frame_files(where, but):
        yield from _pictures(files, bits)
        return
    if _pages(where):
        yield from _stack(where, bits)
        return
    import av

    with _opened(where) as (container, stream):
        stream.thread_type = "AUTO"
        start, count = _start(container), 0
        end, hurt = start, False
        try:
            for packet in container.demux(stream):
                hurt |= packet.is_corrupt
                for frame in packet.decode():
                    hurt |= frame.is_corrupt
                    time = None if frame.pts is None else frame.pts * frame.time_base
                    yield Frame(
                        _upright(frame),
                        None if time is None else float(time - start),
                    )
                    count += 1
                    if time is not None:  # the last one may be shown for long
                        end = max(end, time + (frame.duration or 0) * frame.time_base)
        except av.FFmpegError as error:
            if not count:
                raise ValueError(f"{where} is no video: {error.strerror}") from error
            raise Damaged(
                f"{where} is damaged after {counted(count, 'frame')}: {error.strerror}"
            ) from error
        if not count:
            raise ValueError(f"{where} has no frames")
        missing = _announced(container, stream) - (end - start)
        gap = max(_GAP, 2 / (stream.average_rate or RATE))
        if not is_stream(where) and (hurt or missing > gap):
            logging.warning(
                "%s: its frames end after %.1f s, before the end that it announces, or "
                "some are damaged: was it copied whole?", where, float(end - start),
            )  # fmt: skip


def _upright(frame: Any) -> np.ndarray:
    """The pixels uint8 `[h, w, 3]`, turned and mirrored as players show them. What is
    transparent is white, as in images."""
    if any(part.is_alpha for part in frame.format.components):
        image = images.read_rgb(frame.to_ndarray(format="rgba"))
    else:
        image = frame.to_ndarray(format="rgb24")
    a, b, c, d = matrix = _matrix(frame)
    if _lies(matrix):
        image, a, d = image.swapaxes(0, 1), c, b
    return image[:: -1 if d < 0 else 1, :: -1 if a < 0 else 1]


def _matrix(frame: Any) -> tuple[int, int, int, int]:
    """a, b, c, d: a stored pixel (x, y) is shown at (a x + c y, b x + d y)."""
    found = frame.side_data.get("DISPLAYMATRIX")
    if found is None:
        return _STRAIGHT
    a, b, _, c, d, *_ = np.frombuffer(bytes(found), np.int32).tolist()
    return a, b, c, d


def _lies(matrix: tuple[int, int, int, int]) -> bool:
    """Whether stored rows are shown as columns."""
    a, b, c, d = matrix
    return abs(b) + abs(c) > abs(a) + abs(d)


def _announced(container: Any, stream: Any) -> Fraction:
    """How long the frames of a video are, in seconds, as its head says; 0 where it does
    not say. Some forms tell only of all streams together: sound may be longer."""
    if stream.duration:
        return stream.duration * stream.time_base
    if found := _CLOCK.fullmatch(stream.metadata.get("DURATION", "")):
        hours, minutes, seconds = map(Fraction, found.groups())
        return 3600 * hours + 60 * minutes + seconds
    alone = len(container.streams) == 1
    return Fraction(container.duration or 0, 1_000_000) if alone else Fraction(0)


def _pictures(files: Iterable[Path], bits: int) -> Iterator[Frame]:
    named = ((file, str(file), None) for file in files)
    yield from _of_one_size(named, bits)


def _stack(path: str | os.PathLike, bits: int) -> Iterator[Frame]:
    """The pages of a picture file. Those of an animation say how long each is shown."""
    with Image.open(Path(path)) as image:

        def pages() -> Iterator[tuple[Picture, str, float | None]]:
            elapsed = 0  # milliseconds
            for number in range(getattr(image, "n_frames", 1)):
                image.seek(number)
                image.load()
                shown = image.info.get("duration")
                time = None if shown is None else elapsed / 1000
                yield image, f"{path}, page {number}", time
                elapsed += shown or 0

        yield from _of_one_size(pages(), bits)


def _of_one_size(
    pictures: Iterable[tuple[Picture, str, float | None]], bits: int
) -> Iterator[Frame]:
    """Pictures with their names and times as frames; each remark is logged once."""
    said: set[str] = set()
    size: tuple[int, ...] = ()
    for picture, name, time in pictures:
        shown = images.read_image(picture, name, bits)
        for remark in shown.remarks:
            if remark.what not in said:
                logging.warning("%s: %s (%s)", remark.what, name, remark.detail)
        said |= {remark.what for remark in shown.remarks}
        h, w = shown.pixels.shape[:2]
        size = size or (h, w)
        if size != (h, w):
            raise ValueError(
                f"{name} is {w} x {h}, but the first frame is {size[1]} x {size[0]}"
            )
        yield Frame(shown.pixels, time)


def _pages(where: str | os.PathLike, *formats: str) -> int:
    """How many pages a picture file has that FFmpeg does not read, or not always; 0 for
    other files, and for one page."""
    path = Path(where)
    kind = Image.registered_extensions().get(path.suffix.lower())
    if is_stream(where) or kind not in (formats or _STACKS) or not path.is_file():
        return 0
    with naming_errors(str(path), "replace it"), Image.open(path) as image:
        pages = getattr(image, "n_frames", 1)
    return pages if pages > 1 else 0


def frame_files(where: str | os.PathLike, but: Collection[Path] = ()) -> list[Path]:
    """The pictures of a folder or a pattern, in their order, without those of `but`;
    none of a video. Raises ValueError where no picture is left."""
    listed = pictures_of(where)
    left_out = {path.resolve() for path in but}
    kept = [path for path in listed if path.resolve() not in left_out]
    if listed and not kept:
        raise ValueError(
            f"{where} has no frame: {shorten(listed, 3)}: all are masks or results of "
            "earlier runs"
        )
    return in_order(kept)


def pictures_of(where: str | os.PathLike) -> list[Path]:
    """The pictures of a folder or a pattern, in any order; none of a video."""
    text, path = os.fspath(where), Path(where)
    if is_stream(text) or path.is_file():
        return []
    if path.is_dir():
        inside = look_into(path)
        if not inside.pictures:
            there = kinds(inside.others) or "nothing"
            raise ValueError(f"{where} has no picture to be a frame; it has {there}")
        return inside.pictures
    if re.search("%0?[0-9]*d", path.name):
        parts = re.split("%0?[0-9]*d", path.name, maxsplit=1)
        name = re.compile("[0-9]+".join(map(re.escape, parts)))
        beside = path.parent.iterdir() if path.parent.is_dir() else ()
        found = [p for p in beside if name.fullmatch(p.name)]
    elif set(text) & set("*?["):
        found = [Path(name) for name in glob.glob(text)]
    else:
        return []
    found = [p for p in found if p.is_file() and not hidden(Path(p.name))]
    if not found:
        raise ValueError(f"{where} matches no file")
    return found


@contextlib.contextmanager
def writer(
    path: str | os.PathLike, fps: Fraction, sound: str | os.PathLike | None = None
) -> Iterator[Callable[[Frame], None]]:
    """A function that appends frames of one size to an mp4 file.

    A frame is shown at its time. One without a time, or whose time is not after that of
    the frame before it, comes 1 / fps after that frame. sound: a video file whose sound
    goes into the new one, as it is where mp4 takes it, and else as AAC; the new one has
    the shape of its pixels, too. The file appears when the `with` block ends without an
    error.
    """
    _require(path)
    import av

    with contextlib.ExitStack() as stack:
        temporary = stack.enter_context(staging.new_file(locate(path)))
        container = av.open(_address(temporary), "w", format="mp4")
        stack.callback(_close, container)
        stream = container.add_stream("libx264", rate=fps)
        stream.pix_fmt, stream.codec_context.time_base = "yuv420p", _TICK
        packets = stack.enter_context(_sound(sound, container)) if sound else iter(())
        waiting = next(packets, None)
        pixel = _pixel(sound) if sound else Fraction(1)
        shape: tuple[int, ...] | None = None
        last: int | None = None
        count = 0

        def add_sound(until: float) -> None:
            nonlocal waiting
            while waiting and waiting.dts * waiting.time_base <= until:
                container.mux(waiting)
                waiting = next(packets, None)

        def write(frame: Frame) -> None:
            nonlocal shape, last, count
            image = frame.image
            shape = shape or image.shape
            if image.shape != shape:
                raise ValueError(
                    f"{path}: frame {count} is {image.shape[1]} x {image.shape[0]}, "
                    f"the first one {shape[1]} x {shape[0]}: an overlay has one size"
                )
            count += 1
            # The codec takes even sides only.
            even = image[: len(image) // 2 * 2, : image.shape[1] // 2 * 2]
            if not even.size:
                raise ValueError(f"{path}: frames of {shape[:2]} are too small")
            if last is None:
                stream.height, stream.width = even.shape[:2]
                stream.codec_context.sample_aspect_ratio = pixel
            picture = av.VideoFrame.from_ndarray(np.ascontiguousarray(even), "rgb24")
            at = None if frame.time is None else round(frame.time / _TICK)
            if last is not None and (at is None or at <= last):
                at = last + max(1, round(1 / fps / _TICK))
            last = at or 0
            picture.pts, picture.time_base = last, _TICK
            add_sound(float(last * _TICK))
            container.mux(stream.encode(picture))

        try:
            yield write
            if last is not None:
                container.mux(stream.encode())
                add_sound(float("inf"))
            container.close()
        except av.FFmpegError as error:
            raise OSError(f"{path} could not be written: {error.strerror}") from error


def _pixel(path: str | os.PathLike) -> Fraction:
    """The width of a pixel of a video, as it is shown, by its height."""
    with _opened(path) as (container, stream):
        found = stream.sample_aspect_ratio
        known = found and found.numerator  # 0 / 1 where the file does not say
        ratio = Fraction(known, found.denominator) if known else Fraction(1)
        matrix = next((_matrix(frame) for frame in container.decode(stream)), _STRAIGHT)
    return 1 / ratio if _lies(matrix) else ratio


def _close(container: Any) -> None:
    import av

    with contextlib.suppress(av.FFmpegError):
        container.close()


@contextlib.contextmanager
def _sound(path: str | os.PathLike, target: Any) -> Iterator[Iterator[Any]]:
    """The packets of a video file's sound, for a container that is written."""
    with _opened(path) as (source, _):
        streams = {}
        for own in source.streams.audio:
            kept = own.codec_context.name in target.supported_codecs
            if kept:
                new = target.add_stream_from_template(own)
            else:
                new = target.add_stream("aac", rate=own.codec_context.sample_rate)
            streams[own.index] = new, kept
        yield _packets(source, streams) if streams else iter(())


def _packets(source: Any, streams: dict[int, tuple[Any, bool]]) -> Iterator[Any]:
    """Copies sound, or decodes and encodes it anew. streams: index of a stream of the
    source -> the new stream, and whether it takes packets as they are."""
    import av

    start = _start(source)
    try:
        for packet in source.demux(*source.streams.audio):
            new, kept = streams[packet.stream.index]
            if not kept:
                for frame in packet.decode():
                    yield from new.encode(frame)
            elif packet.dts is not None:  # the last packet is empty
                ticks = round(start / packet.time_base)
                packet.pts, packet.dts = packet.pts - ticks, packet.dts - ticks
                packet.stream = new
                yield packet
    except av.FFmpegError as error:
        logging.warning("the sound of %s ends early: %s", source.name, error.strerror)
    for new, kept in streams.values():
        if not kept:
            yield from new.encode(None)


def _start(container: Any) -> Fraction:
    """When a container begins, in seconds: streams need not begin at 0."""
    return Fraction(container.start_time or 0, 1_000_000)


@contextlib.contextmanager
def _opened(where: str | os.PathLike):
    _require(where)
    import av

    if not is_stream(where) and not Path(where).exists():
        raise FileNotFoundError(f"{where} does not exist")
    if not is_stream(where) and not Path(where).is_file():
        raise ValueError(f"{where} is neither a file nor a folder of frames")
    if not is_stream(where) and _is_still(Path(where)):
        raise ValueError(
            f"{where} is a picture, not a video: `seggpt segment` takes pictures, and "
            "a folder or pattern of frames is a video"
        )
    # From 19 on PyAV replaces what is no UTF-8 in metadata by itself.
    old = int(av.__version__.partition(".")[0]) < 19
    options: dict[str, Any] = {"metadata_errors": "replace"} if old else {}
    try:
        container = av.open(_address(where), timeout=_TIMEOUT, **options)
    except (av.FFmpegError, av.OSError) as error:
        raise ValueError(f"{where} is no video: {error.strerror}") from error
    with container:
        stream = container.streams.best("video")  # never a cover beside a video
        if stream is None:
            raise ValueError(f"{where} has no pictures in it")
        if stream.disposition & av.stream.Disposition.attached_pic:
            raise ValueError(f"{where} is no video: it is sound with a cover")
        yield container, stream


def _is_still(path: Path) -> bool:
    """Whether a file is one picture; FFmpeg would make a video of a frame of it."""
    kind = Image.registered_extensions().get(path.suffix.lower())
    if kind not in Image.OPEN or kind == "MPEG":
        return False
    with naming_errors(str(path), "replace it"), Image.open(path) as image:
        return getattr(image, "n_frames", 1) == 1


def _require(where: str | os.PathLike) -> None:
    if importlib.util.find_spec("av") is None:
        raise ValueError(f"{where}: videos need PyAV: {_REMEDY}")
