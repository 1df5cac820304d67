"""A video in work: its frames are segmented one by one, and may be corrected."""

import dataclasses
import functools
import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, cast

import numpy as np

from seggpt_jax import colors
from seggpt_jax.config import shorten
from seggpt_jax.data.decode import Picture
from seggpt_jax.inference.result import (
    Decoded,
    Job,
    Result,
    decode,
    in_range,
    make_job,
    make_result,
)
from seggpt_jax.pictures import images
from seggpt_jax.pictures.video import Frame
from seggpt_jax.predict import Engine, overlapped
from seggpt_jax.prompts.read import (
    Prompts,
    read_labels,
    read_new,
    read_prompts,
    say_vanished,
)

Finish = Callable[[], Result]  # waits for the device


class _Read(NamedTuple):
    """A frame that was read: its number from 0, its image uint8 `[h, w, 3]`, the same
    at the model's size, and its time in seconds, if known."""

    number: int
    image: np.ndarray
    job: Job
    time: float | None


@dataclasses.dataclass
class _Group:
    """Objects that began in one frame and are followed in one pass.

    labels, palette: 0 first. dropped: labels that are followed no longer. images,
    targets: the prompts that stay, normalised `[h, w, 3]`. numbers: the frames that
    they are, -1 for prompts that are no frame. memory: the state of tracking.
    """

    labels: np.ndarray
    palette: np.ndarray
    dropped: set[int] = dataclasses.field(default_factory=set)
    images: list[np.ndarray] = dataclasses.field(default_factory=list)
    targets: list[np.ndarray] = dataclasses.field(default_factory=list)
    numbers: list[int] = dataclasses.field(default_factory=list)
    memory: Any = None

    @property
    def live(self) -> np.ndarray:
        """Which of `labels` are followed, bool `[c]`; the background is not."""
        return ~np.isin(self.labels, [0, *self.dropped])


class Session:
    """Segments a video frame by frame, and takes corrections::

        session = predictor.video("labels-of-frame-0.png")
        for frame in frames:
            result = session.step(frame)
            if is_wrong(result):
                result = session.correct(right_labels(frame))

    Every frame is painted as the prompts that stay and the last frames show it (paper,
    "Context Ensemble"). `Predictor.video` makes a session. Wrong masks and labels are
    ValueErrors; the session then goes on as before.

    Args:
      engine, params: the model.
      read_image: reads an image; a second argument names it in errors.
      start: the segmentation of the first frame, or prompts that start the video.
      memory: number of last frames that serve as prompts too.
      kind: of the objects of frames, `category` or `instance`.
    """

    def __init__(
        self,
        engine: Engine,
        params: Any,
        read_image: Callable[[Picture, str], np.ndarray],
        start: Picture | Prompts,
        memory: int,
        kind: str,
    ):
        self._fns, self._keep = engine.track_fns(memory), engine.keep_fn(memory)
        self._size, self._params, self._image = engine.size, params, read_image
        self._start, self._kind = start, kind
        self._groups: list[_Group] = []
        self._colors = {0: colors.BLACK}  # of every label that was ever followed
        self._shown: tuple[_Read, Finish] | None = None
        if isinstance(start, Prompts):
            self._begin(start, -1)

    @property
    def labels(self) -> list[int]:
        """The labels that are followed; none before the first mask was read."""
        return self._legend()[0][1:].tolist()

    def step(self, frame: Picture | Frame) -> Result:
        """Segments the next frame. The first one has the segmentation that the session
        was made with, if any, as its result.

        Args:
          frame: as `images.read_image` takes it, or a `video.Frame`, which has a time.
        """
        number = self._shown[0].number + 1 if self._shown else 0
        return self._advance(self._read(number, frame))()

    def correct(self, mask: Picture) -> Result:
        """Takes the right segmentation of the last frame, which is its result now and
        stays a prompt. A second correction of a frame replaces the first.

        Args:
          mask: as `Predictor.set_prompts` takes it, in labels that are followed. A
            label that it does not show is not in the frame.
        """
        read, _ = self._last("correct")
        name = _correction(mask, read.number)
        labels, palette = self._legend()
        segments = read_labels(mask, labels, palette, read.job.size, name)
        _check_followed(name, segments, self.labels)
        for group in self._groups:
            self._show(group, read, segments, name)
        painting = [in_range(group.targets[-1]) for group in self._groups]
        return self._settle(read, _sure(segments, labels), painting)

    def add(self, mask: Picture) -> Result:
        """Follows more objects from the last frame on. Returns its result with them.

        Objects that are added together are followed in one pass, apart from the others.
        A pixel goes to the object with the largest share.

        Args:
          mask: labels that are not followed yet; or a binary mask of 0 and 255, or of
            bool, which gets the next free label.
        """
        read, finish = self._last("add")
        name = _addition(mask, read.number)
        segments = read_new(mask, max(self._colors) + 1, read.job.size, name)
        labels = np.unique(segments)
        _check_new(name, labels, self.labels)
        before = finish()
        group = _Group(labels, self._new_colors(labels))
        self._show(group, read, segments, name)
        self._groups.append(group)
        labels, _ = self._legend()
        new = segments > 0
        own = _sure(np.where(new, segments, before.segments), labels)

        def share(k: int) -> np.ndarray:
            old = before.shares.get(int(labels[k]), np.float32(0))
            return np.where(new, own.share(k), old)

        confidence = np.where(new, np.float32(1), before.confidence)
        paintings = [*self._paintings(before), in_range(group.targets[0])]
        return self._settle(read, Decoded(own.found, confidence, share), paintings)

    def drop(self, label: int) -> None:
        """Follows a label no longer: from the next frame on it is background."""
        if label not in self.labels:
            raise ValueError(
                f"label {label} is not followed; followed are {shorten(self.labels)}"
            )
        if len(self.labels) == 1:
            raise ValueError(
                f"label {label} is the last one: a video follows at least one label"
            )
        for group in self._groups:
            group.dropped.add(label)
        self._groups = [group for group in self._groups if group.live.any()]
        if self._shown is None:
            return
        read, finish = self._shown
        before, (labels, _) = finish(), self._legend()
        found = np.where(before.segments == label, 0, before.segments)

        def share(k: int) -> np.ndarray:
            own = before.shares[int(labels[k])]
            return own if k else own + before.shares[label]

        decoded = Decoded(np.searchsorted(labels, found), before.confidence, share)
        self._settle(read, decoded, self._paintings(before))

    def follow(
        self,
        frames: Iterable[Picture | Frame],
        corrections: Mapping[int, Picture],
        additions: Mapping[int, Picture],
        ahead: int,
    ) -> Iterator[Result]:
        """The results of a whole video, as `Predictor.track` describes them. The first
        frame is read at once, so that a wrong mask is an error here."""
        for number in {*corrections, *additions}:
            if number < 0:
                raise ValueError(f"there is no frame {number}: the first one is 0")

        def advance(read: _Read) -> Finish:
            finish = self._advance(read)
            for masks, take in ((corrections, self.correct), (additions, self.add)):
                if read.number in masks:
                    finish = _known(take(masks[read.number]))
            return finish

        reading = itertools.starmap(self._read, enumerate(frames))
        first = next(reading, None)
        if first is None:
            raise ValueError("the video has no frames")
        begun = advance(first)
        self._check_later(corrections, additions)
        others = overlapped(reading, advance) if ahead else map(advance, reading)
        last = max([0, *corrections, *additions])
        return _results(itertools.chain([begun], others), last)

    def _check_later(
        self, corrections: Mapping[int, Picture], additions: Mapping[int, Picture]
    ) -> None:
        """Raises what `correct` and `add` would raise, long after, for the labels of
        masks of later frames. Paintings, whose colours mean nothing yet, are passed."""
        labels, palette = self._legend()
        followed, free = self.labels, max(self._colors) + 1
        for number in sorted({*corrections, *additions} - {0}):
            if number in corrections:
                mask = corrections[number]
                name = _correction(mask, number)
                values = images.read_mask(mask, name).values
                if values.ndim == 2:
                    size = values.shape
                    read = read_labels(mask, labels, palette, size, name, log=False)
                    _check_followed(name, read, followed)
            if number in additions:
                mask = additions[number]
                name = _addition(mask, number)
                h, w = images.read_mask(mask, name).values.shape[:2]
                read = read_new(mask, free, (h, w), name, log=False)
                new = np.unique(read[read > 0])
                _check_new(name, new, followed)
                followed = sorted({*followed, *new.tolist()})
                free = max(free, max(followed) + 1)

    def _read(self, number: int, frame: Picture | Frame) -> _Read:
        picture, time = frame if isinstance(frame, Frame) else (frame, None)
        image = self._image(picture, f"frame {number}")
        return _Read(number, image, make_job(image, self._size), time)

    def _advance(self, read: _Read) -> Finish:
        """Starts the device on a frame."""
        if not self._groups:
            return _known(self._open(read))
        labels, palette = self._legend()
        painted = []
        for group in self._groups:
            # Among all labels that are followed; 0 for those that are dropped.
            places = np.where(group.live, np.searchsorted(labels, group.labels), 0)
            painting, group.memory = self._fns.step(
                self._params, group.memory, read.job.queries, group.palette
            )
            painted.append((painting, group.palette, places))
        finish = functools.cache(lambda: _finish(read, painted, labels, palette))
        self._shown = read, finish
        return finish

    def _open(self, read: _Read) -> Result:
        """Begins with the first frame, whose mask is its result."""
        mask = cast(Picture, self._start)
        prompts = read_prompts([read.image], [mask], self._kind, self._size)
        segments = read_labels(
            mask, prompts.labels, prompts.palette, read.job.size,
            images.name_of(mask, "prompt target 1"), log=False,  # `read_prompts` did
        )  # fmt: skip
        self._begin(prompts, read.number)
        painting = [in_range(prompts.targets[0, 0])]
        return self._settle(read, _sure(segments, prompts.labels), painting)

    def _begin(self, prompts: Prompts, number: int) -> None:
        """Begins the first group."""
        self._tokens = prompts.kind
        self._colors |= prompts.colors_by_label()
        group = _Group(prompts.labels, prompts.palette)
        group.images, group.targets = [*prompts.images[0]], [*prompts.targets[0]]
        group.numbers = [number] * len(group.images)
        self._remember(group)
        self._groups.append(group)

    def _show(
        self, group: _Group, read: _Read, segments: np.ndarray, name: str
    ) -> None:
        """Makes a frame with its labels a prompt of a group that stays. name: of the
        labels, for the log."""
        painted, _ = colors.paint(segments, group.labels[1:], group.palette[1:])
        small = images.resize_target(painted, self._size)
        own = np.isin(group.labels, segments) & (group.labels > 0)
        say_vanished(group.labels[own], group.palette[own], small, name)
        target = colors.normalize(small)
        if group.numbers[-1:] == [read.number]:  # its second correction
            for values in (group.images, group.targets, group.numbers):
                values.pop()
        group.images.append(read.job.queries[0])
        group.targets.append(target)
        group.numbers.append(read.number)
        self._remember(group)

    def _remember(self, group: _Group) -> None:
        prompts = np.stack(group.images)[None], np.stack(group.targets)[None]
        given = self._params, *prompts, self._tokens
        if group.memory is None:
            group.memory = self._fns.start(*given)
        else:
            group.memory = self._keep(group.memory, *given)

    def _settle(
        self, read: _Read, decoded: Decoded, paintings: Sequence[np.ndarray]
    ) -> Result:
        """Makes this the result of a frame. paintings: of each group, `[h, w, 3]`."""
        result = _result(read, decoded, *self._legend(), paintings)
        self._shown = read, _known(result)
        return result

    def _paintings(self, result: Result) -> list[np.ndarray]:
        return [*result.painting.reshape(-1, *self._size, 3)]

    def _last(self, call: str) -> tuple[_Read, Finish]:
        if self._shown is None:
            raise ValueError(f"no frame yet: call step before {call}")
        return self._shown

    def _legend(self) -> tuple[np.ndarray, np.ndarray]:
        """The labels that are followed, int32 `[c]`, 0 first, and their colours uint8
        `[c, 3]`."""
        followed = [group.labels[group.live] for group in self._groups]
        labels = np.sort(np.concatenate([[0], *followed])).astype(np.int32)
        palette = [self._colors[label] for label in labels.tolist()]
        return labels, np.array(palette, np.uint8)

    def _new_colors(self, labels: np.ndarray) -> np.ndarray:
        """Colours of labels, 0 first: as they were, or far from all others."""
        new = [label for label in labels.tolist() if label not in self._colors]
        taken = tuple(self._colors.values())
        rows = colors.spread_palette(len(new), taken).tolist()
        self._colors |= {k: (r, g, b) for k, (r, g, b) in zip(new, rows, strict=True)}
        return np.array([self._colors[k] for k in labels.tolist()], np.uint8)


def _correction(mask: Picture, number: int) -> str:
    return images.name_of(mask, f"correction of frame {number}")


def _addition(mask: Picture, number: int) -> str:
    return images.name_of(mask, f"new objects of frame {number}")


def _check_followed(name: str, segments: np.ndarray, followed: Sequence[int]) -> None:
    if unknown := np.setdiff1d(segments, [0, *followed]).tolist():
        raise ValueError(
            f"{name}: label {unknown[0]} is not followed; followed are "
            f"{shorten(followed)}, and `add` is for new objects"
        )


def _check_new(name: str, labels: np.ndarray, followed: Sequence[int]) -> None:
    if known := np.intersect1d(labels, followed).tolist():
        raise ValueError(
            f"{name}: label {known[0]} is followed already; new objects have other "
            "labels, or a mask of 0 and 255, which gets the next free one"
        )


def _known(result: Result) -> Finish:
    return lambda: result


def _results(finishes: Iterable[Finish], last: int) -> Iterator[Result]:
    """Waits for results. last: the last frame that has a mask."""
    count = 0
    for finish in finishes:
        yield finish()
        count += 1
    if last >= count:
        raise ValueError(
            f"there is no frame {last} for a mask: the video has frames 0 to "
            f"{count - 1}"
        )


def _sure(segments: np.ndarray, labels: np.ndarray) -> Decoded:
    """Labels int32 `[h, w]` that a user gave."""
    found = np.searchsorted(labels, segments)
    ones = np.ones(segments.shape, np.float32)
    return Decoded(found, ones, lambda k: (found == k).astype(np.float32))


def _finish(
    read: _Read,
    painted: Sequence[tuple[Any, np.ndarray, np.ndarray]],
    labels: np.ndarray,
    palette: np.ndarray,
) -> Result:
    """The result of a frame. painted: of each group the painting `[1, h, w, 3]`, its
    palette, and the places of its colours among the labels."""
    paintings = [in_range(np.asarray(painting)) for painting, _, _ in painted]
    groups = [
        (decode(read.job, painting, own), places)
        for painting, (_, own, places) in zip(paintings, painted, strict=True)
    ]
    each = [painting[0] for painting in paintings]
    return _result(read, _join(groups), labels, palette, each)


def _result(
    read: _Read,
    decoded: Decoded,
    labels: np.ndarray,
    palette: np.ndarray,
    paintings: Sequence[np.ndarray],
) -> Result:
    painting = paintings[0] if len(paintings) == 1 else np.stack(paintings)
    return make_result(decoded, labels, palette, painting, read.time)


def _join(groups: Sequence[tuple[Decoded, np.ndarray]]) -> Decoded:
    """Groups that were painted apart, each with the places of its colours among all
    labels, 0 for the background and for what is followed no longer."""
    if len(groups) == 1 and np.count_nonzero(groups[0][1] == 0) == 1:
        return groups[0][0]  # all that was painted
    claims = [(places[own.found], own.confidence) for own, places in groups]
    found, confidence = colors.strongest(claims)
    # The shares of a group sum to 1. Those of all groups are made to: first the
    # background's, more than any label's where it was found, and else less.
    black = [own.share(0) for own, _ in groups]
    away = [
        np.sum([own.share(int(k)) for k in np.flatnonzero(places == 0)], axis=0)
        for own, places in groups
    ]
    none = np.where(found == 0, np.max(away, 0), np.min(black, 0))
    total = none + np.sum([1 - each for each in away], axis=0)
    owner = {
        int(place): (own, color)
        for own, places in groups
        for color, place in enumerate(places)
        if place
    }

    def share(k: int) -> np.ndarray:
        own, color = owner[k] if k else (None, 0)
        return (own.share(color) if own else none) / total

    return Decoded(found, np.where(found == 0, none, confidence) / total, share)
