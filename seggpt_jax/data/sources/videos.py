"""Videos as folders of frames and of palette masks: DAVIS, YouTube-VOS and MOSE."""

import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

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
# The value of an object in the masks of a video is its label; 255 is void.
TABLE = lookup({i: i for i in range(1, IGNORE + 1)})


class Videos(Layout):
    """Base: a record is a frame, its id VIDEO/FRAME. All pixels of a frame without a
    mask are `IGNORE`. The labels of objects mean nothing across videos."""

    video = True

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
    """The frames of videos. classes: video -> object -> label of its class.

    complete: all frames must have masks. A frame without a mask, or a mask without a
    frame, is an error when it is read: without it a score would change.
    """
    for video in videos:
        if complete:
            yield from _complete(images / video, masks / video, root)
            continue
        note = json.dumps(classes[video]) if classes and video in classes else ""
        folder = masks / video
        there = {path.stem: path for path in folder.glob("[!.]*.png")}
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
