"""Videos as folders of frames and of palette masks: DAVIS, YouTube-VOS and MOSE."""

import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import ClassVar

from seggpt_jax.data.augment import visible
from seggpt_jax.data.layout import (
    Decoded,
    Entry,
    Layout,
    Skipped,
    looked_up,
    lookup,
    relative,
)
from seggpt_jax.data.sample import IGNORE

OBJECT = {1: "object"}
# Values of masks are the objects of a video; 255 is void.
TABLE = lookup({i: i for i in range(1, IGNORE + 1)})


class Videos(Layout):
    """Base: a record is a frame, its id VIDEO/FRAME. Frames without a mask belong to
    the video and show nothing. The labels of objects mean nothing across videos."""

    video: ClassVar[bool] = True

    @property
    def same_image_only(self) -> bool:
        return True

    def decode(self, mask: bytes, annotation: str) -> Decoded | None:
        if not mask:
            return None
        segments = looked_up(mask, TABLE).segments
        classes = json.loads(annotation) if annotation else {}
        owners = {label: classes.get(str(label), 1) for label in visible(segments)}
        return Decoded(segments, owners)


def frames(
    images: Path,
    masks: Path,
    videos: Iterable[str],
    root: Path,
    classes: Mapping[str, Mapping[str, int]] | None = None,
    complete: bool = False,
) -> Iterator[Entry | Skipped]:
    """The frames of videos. classes: video -> object -> label of its class. complete:
    every frame has a mask, so that one without it, or a mask without its frame, is an
    error when it is read: a score without it would be another."""
    for video in videos:
        if complete:
            yield from _complete(images / video, masks / video, root)
            continue
        note = json.dumps(classes[video]) if classes and video in classes else ""
        folder = masks / video
        there = (
            {path.stem: path for path in folder.glob("[!.]*.png")}
            if folder.is_dir()
            else {}
        )
        if not there:
            yield Skipped(video, f"has no mask in {folder}")
            continue
        for image in sorted((images / video).glob("[!.]*.jpg")):
            mask = there.pop(image.stem, None)
            yield Entry(
                f"{video}/{image.stem}",
                relative(image, root),
                "" if mask is None else relative(mask, root),
                note,
                () if mask is None else None,
            )
        for name in there:
            yield Skipped(f"{video}/{name}", f"has no image in {images / video}")


def _complete(images: Path, masks: Path, root: Path) -> Iterator[Entry]:
    names = {path.stem for path in images.glob("[!.]*.jpg")}
    for name in sorted(names | {path.stem for path in masks.glob("[!.]*.png")}):
        image, mask = images / f"{name}.jpg", masks / f"{name}.png"
        paths = relative(image, root), relative(mask, root)
        yield Entry(f"{images.name}/{name}", *paths)
