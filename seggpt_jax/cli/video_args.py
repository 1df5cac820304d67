"""The input of `seggpt video`, and the masks of its frames."""

import argparse
import os
from collections.abc import Collection, Iterable, Iterator, Sequence
from fractions import Fraction
from pathlib import Path, PurePosixPath
from typing import NamedTuple
from urllib.parse import urlsplit

from seggpt_jax.pictures import camera, images, video
from seggpt_jax.pictures.video import Frame
from seggpt_jax.prompts.read import check_aspect, check_prompts
from seggpt_jax.results.earlier import results_in
from seggpt_jax.runs.paths import AnyPath

_INPUT = (
    "video file, address of a stream, folder of frames, or quoted pattern such as "
    "'frames/*.jpg' or 'frames/%%05d.jpg'"
)
_CAMERA = "a camera, 0 is the first; it ends with Ctrl-C"
_FPS = f"of frames in a folder or pattern (default: {video.RATE})"
_AT = "the right labels of a frame, from 0; they stay a prompt (repeatable)"
_ADD = "new objects, followed from a frame on (repeatable)"
_WHOLE = ("http", "https", "file")  # addresses of videos that can wait


class Source(NamedTuple):
    """A video to be read. where: as `video.read_frames` takes it; None of a camera.
    name: of its files of results. live: frames that are missed are gone. but: pictures
    of its folder that are no frames."""

    where: str | None
    camera: int
    name: str
    info: video.VideoInfo
    live: bool
    but: tuple[Path, ...] = ()

    @property
    def sound(self) -> str | None:
        """The file with its sound, if any."""
        return self.where if self.where and Path(self.where).is_file() else None

    @property
    def identity(self) -> str:
        """What the stored settings call it."""
        if self.where is None:
            return f"camera {self.camera}"
        stream = video.is_stream(self.where)
        return self.where if stream else os.path.realpath(self.where)

    @property
    def size(self) -> int:
        """Bytes of its file or its pictures, which tell whether it has changed; 0 where
        there are none."""
        if self.where is None or video.is_stream(self.where):
            return 0
        files = video.frame_files(self.where, self.but) or [Path(self.where)]
        return sum(path.stat().st_size for path in files)

    def check_frames(self, numbers: Collection[int]) -> None:
        """Raises ValueError for masks of frames beyond the end, where it is known."""
        if self.info.counted and numbers and max(numbers) >= self.info.frames:
            raise ValueError(
                f"no frame {max(numbers)} for a mask: the video has frames 0 to "
                f"{self.info.frames - 1}"
            )

    def check_masks(
        self, first: str | None, others: Sequence[str], kind: str, bits: int
    ) -> None:
        """Raises ValueError, or FileNotFoundError, for masks that are none of the
        frames: that of the first frame, if any, and of others. A live video is not
        read: its first frame is a later one."""
        if first:
            images.read_mask(first)
        if self.live or not (first or others):
            return
        for frame in self.read(bits):
            if first:
                check_prompts([frame.image], [first], kind)
            for mask in others:  # all frames have one size
                values = images.read_mask(mask).values
                check_aspect(values, frame.image.shape[:2], mask)
            break

    def check_new(self, places: Iterable[AnyPath]) -> None:
        """Raises ValueError for results that are there already, of a live video: no
        one knows whether they are of this one."""
        for path in places:
            if self.live and path.exists():
                raise ValueError(f"{path} exists: choose another --out")

    def read(self, bits: int) -> Iterator[Frame]:
        """Its frames; of a live one the newest, whenever one is asked for. bits: as of
        `video.read_frames`."""
        if self.where is None:
            return camera.newest(camera.read_camera(self.camera))
        frames = video.read_frames(self.where, bits, self.but)
        return camera.newest(frames) if self.live else frames


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("video", nargs="?", metavar="VIDEO", help=_INPUT)
    parser.add_argument("--camera", type=int, metavar="NUMBER", help=_CAMERA)
    parser.add_argument("--fps", type=Fraction, metavar="RATE", help=_FPS)
    for option, text in (("--at", _AT), ("--add", _ADD)):
        parser.add_argument(
            option, action="append", default=[], metavar="FRAME:MASK", help=text
        )


def read_source(args, masks: Iterable[str] = ()) -> Source:
    """The video that the arguments name. masks: files that are no frames of it. Raises
    ValueError or FileNotFoundError."""
    if (args.video is None) == (args.camera is None):
        raise ValueError("give a VIDEO, or --camera, and not both")
    where, rate = args.video, args.fps
    but: tuple[Path, ...] = ()
    if rate is not None and rate <= 0:
        raise ValueError(f"--fps {rate}: more than 0 is wanted")
    if where is None:
        info, name, live = video.VideoInfo(video.RATE, 0), f"camera{args.camera}", True
    else:
        but = _no_frames(where, masks)
        info, name, live = video.probe(where, but), _stem(where), _is_live(where)
    if rate and (where is None or not video.is_pictures(where)):
        raise ValueError(f"--fps {rate} is for pictures; a video has its own times")
    if live and (args.at or args.add):
        raise ValueError("--at and --add: frames of a live video have no fixed numbers")
    info = info._replace(fps=rate or info.fps)
    return Source(where, args.camera or 0, name, info, live, but)


def read_masks(option: str, values: Sequence[str]) -> dict[int, str]:
    """`37:mask.png`, ... -> number of the frame -> mask."""
    found: dict[int, str] = {}
    for value in values:
        number, _, mask = value.partition(":")
        if not number.isdecimal() or not mask:
            raise ValueError(
                f"{option} {value}: FRAME:MASK is wanted, such as 37:m.png"
            )
        if int(number) in found:
            raise ValueError(f"{option} {value}: frame {number} has a mask already")
        if not Path(mask).is_file():
            raise FileNotFoundError(f"{option} {value}: {mask} does not exist")
        images.read_mask(mask)  # before hours of work
        found[int(number)] = mask
    return found


def _no_frames(where: str, masks: Iterable[str]) -> tuple[Path, ...]:
    """Masks, and results of earlier runs, among the pictures of a folder or pattern."""
    pictures = video.pictures_of(where)
    results = {p for folder in {p.parent for p in pictures} for p in results_in(folder)}
    made = {path.resolve() for path in [*results, *map(Path, masks)]}
    return tuple(path for path in pictures if path.resolve() in made)


def _stem(where: str) -> str:
    if video.is_stream(where):
        return PurePosixPath(urlsplit(where).path).stem or "stream"
    path = Path(where)
    if not path.is_dir() and video.is_pictures(where):
        path = path.parent
    return path.resolve().name if path.is_dir() else path.stem


def _is_live(where: str) -> bool:
    return video.is_stream(where) and urlsplit(where).scheme not in _WHOLE
