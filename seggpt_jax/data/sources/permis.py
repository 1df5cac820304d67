"""PerMIS: objects of videos in three frames each, for personalized segmentation."""

import dataclasses
import io
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
from PIL import Image

from seggpt_jax.data.layout import (
    Decoded,
    Entry,
    Layout,
    Listing,
    Skipped,
    folders_in,
    need,
    pictures,
    relative,
    thresholded,
    top,
)
from seggpt_jax.data.sample import INSTANCE, BadRecord
from seggpt_jax.data.sources.pickles import Foreign, load_plain

FRAMES = 3
MASKS = "masks.npz.npy"


@dataclasses.dataclass(frozen=True)
class Permis(Layout):
    """`[PerMIRS/]NUMBER/{0,1,2}.jpg` and `NUMBER/masks.npz.npy`, as PerMIRS/
    permirs_gen_dataset.py of github.com/dvirsamuel/PDM makes them of BURST.

    A record is a frame, NUMBER/FRAME, whose one label is the object of the folder. The
    file of masks is a list of three dicts with one mask each; it is read as plain data.
    Two of the frames are queries: the facts of the listing have their number.
    """

    splits = ("all",)
    kind = INSTANCE
    readers = 4  # of files with three masks of whole frames

    @property
    def same_image_only(self) -> bool:
        return True

    def records(self, root: Path, split: str) -> Listing:
        (base,) = self.watched(root, split)
        folders = sorted(folders_in(base), key=_order)

        def entries() -> Iterator[Entry | Skipped]:
            for folder in folders:
                frames = {path.stem: path for path in pictures(base / folder)}
                masks = base / folder / MASKS
                for number in range(FRAMES):
                    record, path = f"{folder}/{number}", frames.get(str(number))
                    if path is None or not masks.is_file():
                        why = f"has no {MASKS}" if path else "has no image"
                        yield Skipped(record, why, listed=True)
                    else:
                        image, mask = relative(path, root), relative(masks, root)
                        yield Entry(record, image, mask, str(number))

        facts = {"episodes": (FRAMES - 1) * len(folders)}
        return Listing({1: "object"}, entries(), facts)

    def watched(self, root: Path, split: str) -> Iterable[Path]:
        yield need(top(root, "PerMIRS"), "the folders of PerMIS")

    def origin(self, name: str) -> str:
        return name.rpartition("/")[0]

    def read_mask(self, root: Path, entry: Entry) -> bytes:
        mask = read_masks(root / entry.mask)[int(entry.annotation)]
        file = io.BytesIO()
        Image.fromarray(mask * np.uint8(255)).save(file, "PNG", compress_level=1)
        return file.getvalue()

    def decode(self, mask: bytes, annotation: str) -> Decoded:
        return thresholded(mask)


def read_masks(path: Path) -> list[np.ndarray]:
    """The masks of a folder's frames, bool `[h, w]`. Raises BadRecord for anything but
    plain data."""
    try:
        with path.open("rb") as file:
            version = np.lib.format.read_magic(file)
            read = {
                (1, 0): np.lib.format.read_array_header_1_0,
                (2, 0): np.lib.format.read_array_header_2_0,
            }[version]
            shape, _, kind = read(file)
            if not kind.hasobject or shape != (FRAMES,):
                raise BadRecord(f"holds {kind} {shape}, not a dict for each frame")
            masks = [np.asarray([*one.values()][0]) for one in load_plain(file)]
    except (BadRecord, OSError):
        raise
    except Exception as error:  # the bytes of a pickle may raise any error
        why = str(error) if isinstance(error, Foreign) else "is damaged"
        raise BadRecord(f"{why}; make it anew") from error
    for mask in masks:
        if mask.ndim != 2 or mask.dtype.kind not in "bui":
            wanted = "bool [h, w] is wanted"
            raise BadRecord(f"has a mask {mask.dtype} {mask.shape}; {wanted}")
    return [mask > 0 for mask in masks]


def _order(name: str) -> tuple[int, str]:
    """Numbers in their order."""
    return int(name) if name.isdecimal() else -1, name
