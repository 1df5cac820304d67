"""YouTube-VOS 2018: several objects per video, that may appear in its midst."""

import dataclasses
from collections.abc import Iterable
from pathlib import Path

from seggpt_jax.data.layout import Listing, need
from seggpt_jax.data.sample import INSTANCE
from seggpt_jax.data.sources.coco_file import read_json
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
        try:
            notes = {
                video: note["objects"]
                for video, note in sorted(read_json(path)["videos"].items())
            }
            videos = {
                video: {
                    number: str(item.get("category", "object"))
                    for number, item in objects.items()
                }
                for video, objects in notes.items()
            }
            listed = {video: _listed(objects) for video, objects in notes.items()}
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"{path}: not YouTube-VOS's format: {error!r}") from error
        kinds = sorted(
            {kind for objects in videos.values() for kind in objects.values()}
        )
        labels = {name: label for label, name in enumerate(kinds, 1)}
        classes = {
            video: {number: labels[kind] for number, kind in objects.items()}
            for video, objects in videos.items()
        }
        names = {label: name for name, label in labels.items()}
        return Listing(names, frames(images, masks, listed, root, classes))

    def watched(self, root: Path, split: str) -> Iterable[Path]:
        yield need(root / self.frames.format(split=split), "a folder for each video")
        yield need(root / split / "Annotations", "a folder for each video")
        yield need(root / split / "meta.json", "the categories of the objects")


def _listed(objects: dict) -> dict[str, bool]:
    """The frames of a video that show one of its objects -> whether one begins there,
    so that there must be a mask."""
    found: dict[str, bool] = {}
    for item in objects.values():
        for place, frame in enumerate(item.get("frames", ())):
            found[str(frame)] = found.get(str(frame), False) or place == 0
    return found
