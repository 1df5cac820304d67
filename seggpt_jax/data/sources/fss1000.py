"""FSS-1000: 1,000 classes of 10 images of 224 x 224, for few-shot evaluation."""

import dataclasses
from collections.abc import Iterable, Iterator
from pathlib import Path

from seggpt_jax.data.layout import (
    Decoded,
    Entry,
    Layout,
    Listing,
    Skipped,
    folder_name,
    folders_in,
    need,
    nth_label,
    pair_up,
    read_lines,
    thresholded,
    top,
)
from seggpt_jax.data.sources.folders import by_name

HSNET = {"train": "trn"}  # how the lists of HSNet's repository are named


@dataclasses.dataclass(frozen=True)
class Fss1000(Layout):
    """`[fewshot_data/]CLASS/N.jpg` and `CLASS/N.png`, grey of 128 or more is the class.

    The split "all" is every class. train (520 classes), val and test (240 each) are in
    HSNet's `lists`, a class per line; `{split}` is trn, val or test. The owners'
    fss_test_set.txt serves for test too. Half a dozen masks have another size than
    their images, and are scaled to it.
    """

    scale_masks = True
    splits = ("train", "val", "test", "all")
    lists: str = "splits/{split}.txt"

    def records(self, root: Path, split: str) -> Listing:
        images = _classes(root)
        classes = folders_in(images)
        if split != "all":
            path = self._list(root, split)
            chosen = read_lines(path, "it lists the classes")
            classes = sorted({folder_name(path, name) for name in chosen})
        names = {nth_label(n): name for n, name in enumerate(classes)}
        return Listing(names, _entries(names, images, root, split != "all"))

    def watched(self, root: Path, split: str) -> Iterable[Path]:
        yield need(_classes(root), "a folder for each class")
        if split != "all":
            yield need(self._list(root, split), "it lists the classes, one per line")

    def _list(self, root: Path, split: str) -> Path:
        path = root / self.lists.format(split=HSNET.get(split, split))
        owners = root / "fss_test_set.txt"
        return owners if split == "test" and not path.exists() else path

    def decode(self, mask: bytes, annotation: str) -> Decoded:
        return thresholded(mask, int(annotation))


def _classes(root: Path) -> Path:
    """The folder of the classes. In the archive fewshot_data holds fewshot_data;
    Matcher calls it data."""
    return top(top(root, "fewshot_data", "data"), "fewshot_data")


def _entries(
    names: dict[int, str], images: Path, root: Path, listed: bool
) -> Iterator[Entry | Skipped]:
    """listed: the names are those of a list."""
    for label, name in names.items():
        folder = images / name
        found = by_name(folder, ".jpg"), by_name(folder, ".png")
        if not found[0].keys() & found[1].keys():
            why = f"has no image with a mask in {folder}" + ", but is listed" * listed
            yield Skipped(name, why, listed=listed)
            continue
        for entry in pair_up(*found, root):
            if isinstance(entry, Entry):
                entry = entry._replace(annotation=str(label))
            yield entry._replace(id=f"{name}/{entry.id}")
