"""YouTube-VOS 2018: several objects per video, that may appear in its midst."""

import dataclasses
from collections.abc import Iterable
from pathlib import Path

from seggpt_jax.data.layout import Listing, folder_name, need
from seggpt_jax.data.sample import INSTANCE
from seggpt_jax.data.sources.coco_file import read_json, show, text_of
from seggpt_jax.data.sources.videos import Videos, frames


@dataclasses.dataclass(frozen=True)
class YoutubeVos(Videos):
    """`{train,valid}/{JPEGImages,Annotations}/VIDEO/NNNNN.{jpg,png}` and
    `{train,valid}/meta.json`, which names the category of each object and its frames.

    In valid only the frame where an object appears has its mask. frames: the folder of
    the frames; `{split}_all_frames/JPEGImages` has all of them, not every fifth.
    """

    splits = ("train", "valid")
    starts_only = ("valid",)
    kind = INSTANCE
    frames: str = "{split}/JPEGImages"

    def records(self, root: Path, split: str) -> Listing:
        images, masks, path = self.watched(root, split)
        notes = _read(path)
        videos = {
            video: {number: item.get("category", "object") for number, item in objects}
            for video, objects in notes.items()
        }
        listed = {video: _listed(path, video, notes[video]) for video in notes}
        kinds = sorted(
            {kind for objects in videos.values() for kind in objects.values()}
        )
        labels = {name: label for label, name in enumerate(kinds, 1)}
        classes = {
            video: {number: labels[kind] for number, kind in objects.items()}
            for video, objects in videos.items()
        }
        names = {label: name for name, label in labels.items()}
        fifth = "all_frames" not in self.frames  # else one in five has a mask
        annotated = fifth and split not in self.starts_only
        found = frames(images, masks, listed, root, classes, annotated=annotated)
        return Listing(names, found)

    def watched(self, root: Path, split: str) -> Iterable[Path]:
        yield need(root / self.frames.format(split=split), "a folder for each video")
        yield need(root / split / "Annotations", "a folder for each video")
        yield need(root / split / "meta.json", "the categories of the objects")


Objects = list[tuple[str, dict]]  # number and note of each


def _read(path: Path) -> dict[str, Objects]:
    """The objects of each video, checked but for their frames."""
    data = read_json(path)
    videos = data.get("videos") if isinstance(data, dict) else None
    if not isinstance(videos, dict):
        raise ValueError(f"{path}: not YouTube-VOS's format: it has no table of videos")
    found: dict[str, Objects] = {}
    for video, note in sorted(videos.items()):
        objects = note.get("objects") if isinstance(note, dict) else None
        if text_of(video) is None or not isinstance(objects, dict):
            raise ValueError(f"{path}: video {video!r} has no table of objects")
        for number, item in objects.items():
            if not number.isdecimal():
                raise ValueError(
                    f"{path}: object {number!r} of video {video!r} must be a number"
                )
            if not isinstance(item, dict):
                raise ValueError(
                    f"{path}: object {number} of video {video!r} has "
                    f"{show(item, 'category')}: a category and frames are wanted"
                )
            if "category" in item and text_of(item["category"]) is None:
                raise ValueError(
                    f"{path}: object {number} of video {video!r} has "
                    f"{show(item, 'category')}, and text is wanted"
                )
        found[folder_name(path, video)] = list(objects.items())
    return found


def _listed(path: Path, video: str, objects: Objects) -> dict[str, bool]:
    """The frames of a video that show one of its objects -> whether one begins there,
    so that there must be a mask."""
    found: dict[str, bool] = {}
    for number, item in objects:
        frames = item.get("frames", [])
        if not isinstance(frames, list) or None in map(text_of, frames):
            raise ValueError(
                f"{path}: object {number} of video {video!r} has "
                f"{show(item, 'frames')}, and a list of names is wanted"
            )
        for place, frame in enumerate(frames):
            found[frame] = found.get(frame, False) or place == 0
    return found
