"""Video object segmentation: objects are shown in one frame and followed from there
(paper, section 3.4 and Figure S1), scored as DAVIS and YouTube-VOS score.
"""

import contextlib
import dataclasses
import functools
import io
import itertools
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any
from zipfile import ZIP_STORED, ZipFile

import jax
import numpy as np
from PIL import Image

from seggpt_jax import colors, images, tiles
from seggpt_jax.data.sample import IGNORE, INSTANCE, Sample
from seggpt_jax.evaluators import common
from seggpt_jax.evaluators.episodes import at_least
from seggpt_jax.metrics import VideoScores, contour_accuracy, region_similarity
from seggpt_jax.sheets import Row, contact_sheet
from seggpt_jax.staging import new_file

_HEADINGS = ("first frame", "its target", "query", "truth", "painting", "decoded")
_COPY = "copy"  # the baseline: the first mask, for ever
_GREY = 128  # what nobody annotated, in pictures
_AHEAD = 8  # frames decoded before they are asked for


@dataclasses.dataclass
class _Group:
    """Objects that begin in one frame, followed together: state per memory."""

    sample: Sample
    target: np.ndarray  # uint8 [h, w, 3], at the frame's size
    palette: np.ndarray  # black, then the objects' colours
    objects: tuple[int, ...]
    states: dict[int, Any]
    halves: dict[int, str]  # object -> "seen" or "unseen"


class Evaluator:
    """J, F and J&F of a source of videos (`source.videos`, a record per frame).

    make_track_fns(memory) -> `predict.TrackFns`.

    All objects of a video's first frame are followed in one pass. `run(params)` yields
    `<name>/K<k>/<score>` for every k of `memories`, previous frames that are remembered
    beside the first (8 in the paper), and `<name>/copy/<score>`, of the first masks
    copied to every frame. Scores are `j`, `f` and `jf`: means over objects of the means
    over their annotated frames but, with `skip_ends`, the first and the last, at the
    frames' own resolution. Where the source has classes, `seen` names those that count
    as seen, and there are `j_seen`, `j_unseen`, `f_...` and `g`.

    size: of the model's images. appear: objects may begin in later frames, where their
    masks first show (YouTube-VOS); they are followed from there by themselves, and win
    a pixel that they are surer of. videos: only the first so many; 0: all. export: a
    zip file to write, with the labels of every frame (with the longest memory) as PNGs
    with a palette, VIDEO/FRAME.png, as the servers of YouTube-VOS and MOSE want them.
    put: places host arrays on the devices. pictures: videos kept for `sheet`.

    Raises:
      ValueError: for a source without videos or without a mask in a first frame.
    """

    def __init__(
        self,
        make_track_fns: Callable[[int], Any],
        *,
        name: str,
        source: Any,
        size: tuple[int, int],
        memories: Sequence[int] = (8,),
        skip_ends: bool = True,
        appear: bool = False,
        seen: Sequence[str] = (),
        videos: int = 0,
        export: str = "",
        put: Callable[[Any], Any] = jax.device_put,
        pictures: int = 8,
        threads: int = 4,
    ):
        found = getattr(source, "videos", None)
        if not found:
            raise ValueError(f"source {source.name!r} has no videos")
        if not memories or len(set(memories)) != len(memories):
            raise ValueError(
                f"memories is {memories}, must list one or more, each once"
            )
        at_least(0, memories=min(memories), videos=videos)
        at_least(1, threads=threads)
        known = set(source.class_names.values())
        if unknown := set(seen) - known:
            raise ValueError(f"seen: the source has no class {sorted(unknown)}")
        self._fns = {memory: make_track_fns(memory) for memory in memories}
        self._videos = dict(itertools.islice(found.items(), videos or None))
        self._source, self._name, self._size = source, name, size
        self._skip_ends, self._appear, self._seen = skip_ends, appear, frozenset(seen)
        self._put, self._pictures, self._threads = put, pictures, threads
        self._export = export
        self._rows: list[Row] = []

    def run(self, params: Any) -> Iterator[tuple[str, float]]:
        """Evaluates; yields `(name, value)`. A value without any evidence is nan."""
        self._rows = []
        arms: tuple[int | str, ...] = (*self._fns, _COPY)
        scores = {arm: VideoScores() for arm in arms}
        with _archive(self._export) as archive:
            for video, frames in self._videos.items():
                self._run_video(params, video, frames, scores, archive)
        for arm, score in scores.items():
            place = arm if arm == _COPY else f"K{arm}"
            for key, value in score.compute().items():
                yield f"{self._name}/{place}/{key}", value

    def sheet(self, count: int) -> np.ndarray:
        """Contact sheet uint8 `[H, W, 3]` of the last run: the middle frame of the
        first `count` videos (at most `pictures`), with the longest memory."""
        if not self._rows:
            raise ValueError(f"evaluator {self._name!r} has no pictures: run it first")
        return contact_sheet(self._rows[:count], _HEADINGS)

    def _run_video(
        self, params, video: str, frames: range, scores, archive: ZipFile | None
    ) -> None:
        groups: list[_Group] = []
        samples = common.prefetch(
            self._source.__getitem__, frames, self._threads, _AHEAD
        )
        for number, sample in enumerate(samples):
            size = sample.image.shape[0], sample.image.shape[1]
            small = images.resize_image(sample.image, self._size)
            frame = self._put(colors.normalize(small)[None])
            painted = {
                memory: [self._step(params, memory, group, frame) for group in groups]
                for memory in self._fns
            }
            masks = {memory: _decode(p, groups, size) for memory, p in painted.items()}
            longest = max(self._fns)
            end = number in (0, len(frames) - 1)
            if (sample.segments != IGNORE).any() and not (end and self._skip_ends):
                for memory, pred in masks.items():
                    _score(scores[memory], video, groups, pred, sample)
                _score(scores[_COPY], video, groups, _copied(groups, size), sample)
            if number == len(frames) // 2 and groups:
                self._show(
                    video, groups[0], sample, painted[longest][0], masks[longest]
                )
            if not number or self._appear:
                self._begin(params, groups, frames[number], sample)
            if archive:
                labels = masks[longest].copy()
                for group in groups:
                    if group.sample is sample:  # what was given is the answer
                        given = np.isin(sample.segments, group.objects)
                        labels[given] = sample.segments[given]
                name = f"{self._source.record_id(frames[number])}.png"
                archive.writestr(name, _png(labels))
            if not groups and not self._appear:
                raise ValueError(
                    f"source {self._source.name!r}: the first frame of {video} shows "
                    f"no object"
                )

    def _begin(self, params, groups: list[_Group], record: int, sample: Sample) -> None:
        """Follows the objects of a frame that are not yet followed."""
        known = {number for group in groups for number in group.objects}
        objects = tuple(n for n in sample.classes if n not in known)
        if not objects:
            return
        black = np.zeros((1, 3), np.uint8)
        palette = np.concatenate([black, colors.spread_palette(len(objects))])
        target, _ = colors.paint(sample.segments, objects, palette[1:])
        placed = self._put(
            (
                colors.normalize(images.resize_image(sample.image, self._size))[
                    None, None
                ],
                colors.normalize(images.resize_target(target, self._size))[None, None],
                np.array([INSTANCE], np.int32),
            )
        )
        states = {m: fns.start(params, *placed) for m, fns in self._fns.items()}
        named = self._source.object_names(record) if self._seen else {}
        halves = {n: "seen" if named[n] in self._seen else "unseen" for n in named}
        groups.append(_Group(sample, target, palette, objects, states, halves))

    def _step(self, params, memory: int, group: _Group, frame: jax.Array) -> jax.Array:
        painting, group.states[memory] = self._fns[memory].step(
            params, group.states[memory], frame, self._put(group.palette)
        )
        return painting

    def _show(self, video, group: _Group, sample, painting, pred) -> None:
        if len(self._rows) == self._pictures:
            return

        def small(picture):
            return images.resize_target(picture, self._size)

        def painted(labels):
            return colors.paint(labels, group.objects, group.palette[1:])[0]

        truth = painted(sample.segments)
        truth[sample.segments == IGNORE] = _GREY
        cells = (
            small(group.sample.image), small(group.target), small(sample.image),
            small(truth), common.fetch(painting)[0], small(painted(pred)),
        )  # fmt: skip
        values = [
            region_similarity(pred == n, sample.segments == n) for n in group.objects
        ]
        self._rows.append(Row(cells, f"{video}   J {np.mean(values):.2f}"))


@contextlib.contextmanager
def _archive(path: str) -> Iterator[ZipFile | None]:
    """The zip file to write, which is there when it is whole; None without a path."""
    if not path:
        yield None
        return
    with new_file(Path(path)) as part, ZipFile(part, "w", ZIP_STORED) as archive:
        yield archive


@functools.cache
def _palette() -> bytes:
    black = np.zeros((1, 3), np.uint8)
    return np.concatenate([black, colors.spread_palette(255)]).tobytes()


def _png(labels: np.ndarray) -> bytes:
    """Labels 0..255 as a PNG whose palette has far colours for near numbers."""
    if labels.max() > 255:
        raise ValueError(f"object {labels.max()} does not fit into 8 bits")
    picture = Image.fromarray(labels.astype(np.uint8))
    picture.putpalette(_palette())
    file = io.BytesIO()
    picture.save(file, "PNG")
    return file.getvalue()


def _decode(
    paintings: Sequence[jax.Array], groups: Sequence[_Group], size: tuple[int, int]
) -> np.ndarray:
    """Object numbers int32 `[h, w]` at the frame's size, 0 for none."""
    best, pred = np.zeros(size, np.float32), np.zeros(size, np.int32)
    for painting, group in zip(paintings, groups, strict=True):
        whole = np.clip(common.fetch(painting)[0], 0, 255)
        shares = colors.Memberships(whole, group.palette)
        index, share = tiles.blend([shares], [tiles.Box(0, 0, *size)], size)
        wins = (index > 0) & (share > best)
        pred = np.where(wins, np.array([0, *group.objects], np.int32)[index], pred)
        best = np.where(wins, share, best)
    return pred


def _copied(groups: Sequence[_Group], size: tuple[int, int]) -> np.ndarray:
    """Every object where it was first shown."""
    pred = np.zeros(size, np.int32)
    for group in groups:
        for number in group.objects:
            pred[group.sample.segments == number] = number
    return pred


def _score(
    score: VideoScores, video: str, groups: Sequence[_Group], pred, sample: Sample
) -> None:
    ignore = sample.segments == IGNORE
    for group in groups:
        for number in group.objects:
            pair = pred == number, sample.segments == number, ignore
            j, f = region_similarity(*pair), contour_accuracy(*pair)
            score.update(video, number, j, f, group.halves.get(number, ""))
