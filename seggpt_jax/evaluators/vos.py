"""Video object segmentation: objects are shown in one frame and followed from there
(paper, "Context Ensemble" and Figure S1). Scores are those of DAVIS and YouTube-VOS.
"""

import dataclasses
import itertools
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple
from zipfile import ZIP_STORED, ZipFile

import jax
import numpy as np

from seggpt_jax import colors
from seggpt_jax.data.sample import IGNORE, INSTANCE, Sample, VideoSource
from seggpt_jax.evaluators import common
from seggpt_jax.evaluators.cases import Cases
from seggpt_jax.evaluators.episodes import at_least
from seggpt_jax.metrics import contour_accuracy, region_similarity, video_scores
from seggpt_jax.pictures import images, tiles
from seggpt_jax.pictures.sheets import Row
from seggpt_jax.runs.paths import AnyPath
from seggpt_jax.runs.staging import fetched, new_file

_MASKS = "masks"  # the folder of exported labels
_COPY = "copy"  # the baseline: the first mask, for ever
_AHEAD = 8  # frames decoded before they are asked for


@dataclasses.dataclass
class _Group:
    """Objects that begin in one frame and are followed together.

    target, palette: as the first prompt shows the objects. states: memory (a number of
    frames) -> the state of tracking.
    """

    sample: Sample
    target: np.ndarray  # uint8 [h, w, 3], at the frame's size
    palette: np.ndarray  # black, then the objects' colours
    objects: tuple[int, ...]
    states: dict[int, Any]
    halves: dict[int, str]  # object -> "seen" or "unseen"


class _Frame(NamedTuple):
    """A frame of a video: its record and sample, the groups that began before it, their
    paintings by memory, and the decoded object numbers int32 `[h, w]` by memory."""

    record: int
    sample: Sample
    groups: list[_Group]
    painted: dict[int, list[jax.Array]]
    masks: dict[int, np.ndarray]


@dataclasses.dataclass(kw_only=True, eq=False)
class Evaluator(common.Evaluator):
    """J, F and J&F of a source of videos (`source.videos`, a record per frame), each a
    case.

    All objects of a video's first frame are followed in one pass. `run(params)` yields
    `<name>/K<k>/<score>` for every k of `memories`: the number of previous frames that
    are remembered beside the first (8 in the paper). It also yields
    `<name>/copy/<score>`: the first masks copied to every frame. Scores are `j`, `f`
    and `jf`: means over objects of the mean over each object's annotated frames, at the
    frames' own resolution. With `skip_ends` the first and the last frame do not count.
    Where the source has classes, `seen` names the classes that count as seen, and there
    are `j_seen`, `j_unseen`, `f_...` and `g`.

    appear: objects may begin in later frames, where their masks first show
    (YouTube-VOS). Such objects are a group of their own. Of two groups that claim a
    pixel, the group with the larger share takes it. Where a source's masks show only
    the objects that begin in their frame (`source.starts_only`), a frame scores no
    object that its mask does not show. videos: only the first so many; 0: all. export:
    a zip file in the folder of the cases, with the labels of every frame (of the
    longest memory) as PNGs with a palette: VIDEO/FRAME.png, in the folder
    `export_folder` of the zip file.

    Raises:
      ValueError: for a source without videos or without a mask in a first frame.
    """

    headings = ("first frame", "its target", "query", "truth", "painting", "decoded")

    source: Any
    memories: Sequence[int] = (8,)
    skip_ends: bool = True
    appear: bool = False
    seen: Sequence[str] = ()
    videos: int = 0
    export: str = ""
    export_folder: str = ""
    threads: int = 4

    def __post_init__(self) -> None:
        super().__post_init__()
        source, memories = self.source, self.memories
        if not (isinstance(source, VideoSource) and source.videos):
            raise ValueError(f"source {source.name!r} has no videos")
        if not memories or len(set(memories)) != len(memories):
            raise ValueError(
                f"memories is {memories}, must list one or more, each once"
            )
        at_least(0, memories=min(memories), videos=self.videos)
        at_least(1, threads=self.threads)
        known = set(source.class_names.values())
        if unknown := set(self.seen) - known:
            raise ValueError(f"seen: the source has no class {sorted(unknown)}")
        self._fns = {memory: self.engine.track_fns(memory) for memory in memories}
        self._videos = dict(
            itertools.islice(source.videos.items(), self.videos or None)
        )
        self.count = len(self._videos)
        self._arms = (*(f"K{memory}" for memory in memories), _COPY)

    def collect(self, params: Any, numbers: Sequence[int], cases: Cases) -> None:
        """ValueError where `export` has no folder to write to."""
        if self.export and cases.folder is None:
            raise ValueError(f"export {self.export}: there is no folder to write to")
        videos = list(self._videos)
        folder = cases.folder if cases.active and self.export else None
        for number in numbers:
            cases.add(number, self._run_video(params, videos[number], folder))
        if folder:
            _pack(folder / _MASKS, folder / self.export, self.export_folder)

    def scores(self, weights: np.ndarray) -> dict[str, np.ndarray]:
        objects = [
            (place, one)
            for place, record in enumerate(self.records)
            for one in record["objects"]
        ]
        own = weights[:, [place for place, _ in objects]]
        found: dict[str, np.ndarray] = {}
        for arm in self._arms:
            values = np.array([one[arm] for _, one in objects]).reshape(-1, 2)
            scores = video_scores(values, [one["group"] for _, one in objects], own)
            found |= self.named(scores, arm)
        return found

    def ranked(self) -> list[int]:
        """By J&F with the longest memory."""
        arm = f"K{max(self._fns)}"
        videos = [[one[arm] for one in record["objects"]] for record in self.records]
        return common.best_first(np.mean(each) if each else None for each in videos)

    def rows(self, params: Any, numbers: Sequence[int]) -> list[Row]:
        """Of each video the middle frame, or the first later frame with an object to
        follow; with the longest memory."""
        rows = []
        for number in numbers:
            video, frames = list(self._videos.items())[number]
            for frame in self._follow(params, frames):
                if frame.record >= frames[len(frames) // 2] and frame.groups:
                    rows.append(self._row(video, frame))
                    break
        return rows

    def _run_video(self, params, video: str, folder: AnyPath | None) -> dict[str, Any]:
        """A record of a video: its objects, and J and F of each by every arm."""
        frames, longest = self._videos[video], max(self._fns)
        ends = (frames[0], frames[-1]) if self.skip_ends else ()
        values: dict[int, dict[str, list[tuple[float, float]]]] = {}
        halves: dict[int, str] = {}
        for frame in self._follow(params, frames):
            sample, size = frame.sample, frame.sample.segments.shape
            if (scored := self._scored(frame)) and frame.record not in ends:
                masks = {f"K{memory}": mask for memory, mask in frame.masks.items()}
                masks[_COPY] = _copied(frame.groups, size)
                _score(values, scored, masks, sample)
            for group in frame.groups:
                halves |= {n: group.halves.get(n, "") for n in group.objects}
            if folder:
                labels = frame.masks[longest].copy()
                given = np.isin(sample.segments, self._begun(frame))
                labels[given] = sample.segments[given]  # a given mask is its own answer
                name = f"{self.source.record_id(frame.record)}.png"
                _save(labels, folder / _MASKS / name)
        return {"video": video, "objects": [
            {"object": n, "group": halves[n],
             **{arm: np.mean(pairs, axis=0).tolist() for arm, pairs in arms.items()}}
            for n, arms in values.items()
        ]}  # fmt: skip

    def _scored(self, frame: _Frame) -> list[int]:
        """The objects that are followed here and whose truth the frame has."""
        if (frame.sample.segments == IGNORE).all():
            return []
        known = [number for group in frame.groups for number in group.objects]
        if getattr(self.source, "starts_only", False):
            return [number for number in known if number in frame.sample.classes]
        return known

    def _begun(self, frame: _Frame) -> list[int]:
        """The objects that begin in this frame: their masks are given here."""
        if frame.groups and not self.appear:
            return []
        known = {n for group in frame.groups for n in group.objects}
        return [n for n in frame.sample.classes if n not in known]

    def _follow(self, params, frames: range) -> Iterator[_Frame]:
        groups: list[_Group] = []
        samples = common.prefetch(self.source.__getitem__, frames, self.threads, _AHEAD)
        for record, sample in zip(frames, samples, strict=True):
            small = images.resize_image(sample.image, self.engine.size)
            shown = self.engine.put_everywhere(colors.normalize(small)[None])
            painted = {
                memory: [self._step(params, memory, group, shown) for group in groups]
                for memory in self._fns
            }
            size = sample.segments.shape[0], sample.segments.shape[1]
            masks = {
                memory: self._decode(paintings, groups, size)
                for memory, paintings in painted.items()
            }
            frame = _Frame(record, sample, list(groups), painted, masks)
            yield frame
            if begun := self._begun(frame):
                groups.append(self._begin(params, record, sample, tuple(begun)))
            if not groups and not self.appear:
                video = self.source.record_id(record).rpartition("/")[0]
                raise ValueError(
                    f"source {self.source.name!r}: the first frame of {video} shows "
                    "no object"
                )

    def _begin(
        self, params, record: int, sample: Sample, objects: tuple[int, ...]
    ) -> _Group:
        """Shows a frame with its objects to the model: the first prompt of a group."""
        palette = colors.with_black(colors.spread_palette(len(objects)))
        target, _ = colors.paint(sample.segments, objects, palette[1:])
        # Objects are instances, and the model has an embedding that says so.
        small = (
            images.resize_image(sample.image, self.engine.size),
            images.resize_target(target, self.engine.size),
        )
        shown = [colors.normalize(picture)[None, None] for picture in small]
        kind = np.array([INSTANCE], np.int32)
        placed = self.engine.put_everywhere((*shown, kind))
        states = {m: fns.start(params, *placed) for m, fns in self._fns.items()}
        named = self.source.object_names(record) if self.seen else {}
        halves = {n: "seen" if named[n] in self.seen else "unseen" for n in named}
        return _Group(sample, target, palette, objects, states, halves)

    def _step(self, params, memory: int, group: _Group, frame: jax.Array) -> jax.Array:
        palette = self.engine.put_everywhere(group.palette)
        painting, group.states[memory] = self._fns[memory].step(
            params, group.states[memory], frame, palette
        )
        return painting

    def _decode(
        self,
        paintings: Sequence[jax.Array],
        groups: Sequence[_Group],
        size: tuple[int, int],
    ) -> np.ndarray:
        """Object numbers int32 `[h, w]` at the frame's size, 0 for none.

        Groups are painted apart, so that each has a palette of its own. A pixel goes to
        the object with the largest share of its colour there.
        """
        claims = [(np.zeros(size, np.int32), np.zeros(size, np.float32))]
        for painting, group in zip(paintings, groups, strict=True):
            whole = np.clip(self.engine.fetch(painting)[0], 0, 255)
            shares = colors.Memberships(whole, group.palette)
            index, share = tiles.blend([shares], [tiles.Box(0, 0, *size)], size)
            claims.append((np.array([0, *group.objects], np.int32)[index], share))
        return colors.strongest(claims)[0]

    def _row(self, video: str, frame: _Frame) -> Row:
        group, sample, longest = frame.groups[0], frame.sample, max(self._fns)
        painting, pred = frame.painted[longest][0], frame.masks[longest]

        def small(picture):
            return images.resize_target(picture, self.engine.size)

        def painted(labels):
            return colors.paint(labels, group.objects, group.palette[1:])[0]

        truth = painted(sample.segments)
        truth[sample.segments == IGNORE] = common.GREY
        cells = (
            small(group.sample.image), small(group.target), small(sample.image),
            small(truth), self.engine.fetch(painting)[0], small(painted(pred)),
        )  # fmt: skip
        scored = self._scored(frame)
        values = [
            region_similarity(pred == n, sample.segments == n)
            for n in group.objects
            if n in scored
        ]
        score = f"J {np.mean(values):.2f} in this frame" if values else "not annotated"
        return Row(cells, f"{video}   {score}")


def _pack(folder: AnyPath, path: AnyPath, within: str) -> None:
    """Puts all PNGs of a folder into the folder `within` of a zip file, which appears
    when it is whole."""
    with (
        fetched(folder) as here,
        new_file(path) as part,
        ZipFile(part, "w", ZIP_STORED) as archive,
    ):
        for file in sorted(here.rglob("*.png")):
            archive.write(file, within / file.relative_to(here))


def _save(labels: np.ndarray, path: AnyPath) -> None:
    """Writes labels 0..255 as a PNG; near labels have colours far apart."""
    if labels.max() > 255:
        raise ValueError(f"object {labels.max()} does not fit into 8 bits")
    far_apart = colors.with_black(colors.spread_palette(255)).tolist()
    palette = dict(enumerate(map(tuple, far_apart)))
    path.parent.mkdir(parents=True, exist_ok=True)
    with new_file(path) as part:
        images.save_labels(part, labels, palette)


def _copied(groups: Sequence[_Group], size: tuple[int, ...]) -> np.ndarray:
    """Every object where it was first shown."""
    pred = np.zeros(size, np.int32)
    for group in groups:
        for number in group.objects:
            pred[group.sample.segments == number] = number
    return pred


def _score(values, objects: Sequence[int], masks, sample: Sample) -> None:
    """Adds J and F of objects of a frame: object -> arm -> pairs."""
    ignore = sample.segments == IGNORE
    for number in objects:
        for arm, pred in masks.items():
            pair = pred == number, sample.segments == number, ignore
            found = region_similarity(*pair), contour_accuracy(*pair)
            values.setdefault(number, {}).setdefault(arm, []).append(found)
