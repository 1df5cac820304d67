"""Videos as folders of frames and of palette masks: DAVIS, YouTube-VOS and MOSE."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path

from seggpt_jax.data.augment import visible
from seggpt_jax.data.layout import (
    Decoded,
    Entry,
    Flaw,
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
    videos: Mapping[str, Mapping[str, bool]],
    root: Path,
    classes: Mapping[str, Mapping[str, int]] | None = None,
    complete: bool = False,
    annotated: bool = False,
) -> Iterator[Entry | Skipped | Flaw]:
    """The frames of videos: those that are there, and those that a list names.

    videos: video -> frame that the list names -> whether it must have a mask. A video
    or a frame that is listed and not there is skipped by name. classes: video -> object
    -> label of its class.

    complete: all frames must have masks. A frame without a mask, or a mask without a
    frame, is an error when it is read: without it a score would change. annotated: as
    a rule all frames have masks, and one without is named.
    """
    for video, listed in videos.items():
        note = json.dumps(classes[video]) if classes and video in classes else ""
        shown, masked = _names(images / video, ".jpg"), _names(masks / video, ".png")
        if not (shown and masked):
            what, folder = ("mask", masks) if shown else ("image", images)
            yield Skipped(video, f"has no {what} in {folder / video}", listed=True)
            continue
        for name in sorted({*shown, *masked, *listed}):
            image, mask = images / video / f"{name}.jpg", masks / video / f"{name}.png"
            entry = Entry(
                f"{video}/{name}", relative(image, root), relative(mask, root), note
            )
            if complete or name in shown and name in masked:
                yield entry
            elif name in shown and not listed.get(name):
                if annotated:
                    why = f"has no mask in {masks / video}: all of it is ignored"
                    yield Flaw(entry.id, why, fault=False)
                yield entry._replace(mask="", classes=())
            else:
                lost = mask if name in shown else image
                why = f"has a mask, but {lost} is missing"
                if name in listed:
                    why = f"is listed, but {lost} is missing"
                yield Skipped(entry.id, why, listed=True)


def _names(folder: Path, suffix: str) -> set[str]:
    """The names of the files with this suffix, without it."""
    return {path.stem for path in folder.glob(f"[!.]*{suffix}")}
