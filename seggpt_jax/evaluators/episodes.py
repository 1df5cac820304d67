"""Episodes drawn from a source: a query, its prompts, and prompts that mislead."""

import dataclasses
import functools
import math
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
from absl import logging

from seggpt_jax import colors
from seggpt_jax.config import shorten
from seggpt_jax.data.augment import resize
from seggpt_jax.data.sample import BACKGROUND, IGNORE, Sample, Source, families
from seggpt_jax.evaluators.common import Episode

_DRAWS = 20  # classes, or images, tried before an episode is given up
_LOOKS = 50  # images of one class decoded in search of fitting ones
_CROP = 3 / 4  # of each side, in further views of one image


@dataclasses.dataclass(frozen=True)
class _Drawable:
    """A pool of related views: images that share one of `classes`, or, without classes,
    views of one image among `records`. No view is of an image that shows a `forbidden`
    label, and no two are of the same image.

    repeat: where a class has too few such images, show these images again.
    """

    source: Source
    classes: tuple[int, ...]
    records: np.ndarray
    forbidden: tuple[int, ...] = ()
    repeat: bool = False

    def __len__(self) -> int:
        return len(self.classes) or image_count(self.source, self.records)

    def draw(
        self, rng: np.random.Generator, count: int, size: tuple[int, int], pixels: int
    ) -> tuple[list[int], list[Sample], int | None] | None:
        """`count` records, their samples at `size`, and the class that every sample
        shows on at least `pixels` pixels (None for views of one image). None where the
        drawn class has too few such images.

        The first views do not depend on `count`: more shots only add prompts.
        """
        if not self.classes:
            record = int(self.records[rng.integers(len(self.records))])
            views = _views(self.source[record], rng.spawn(1)[0])
            samples = [resize(next(views), size) for _ in range(count)]
            return [record] * count, samples, None
        label = self.classes[rng.integers(len(self.classes))]
        by_class = self.source.by_class
        candidates = np.asarray(by_class[label], np.int64)
        for other in by_class.keys() & set(self.forbidden):
            candidates = without(self.source, candidates, by_class[other])
        records: list[int] = []
        samples = []
        for record in rng.permutation(candidates)[:_LOOKS].tolist():
            if not len(without(self.source, [record], records)):
                continue
            sample = self.source[record]
            # by_class need not list every class of a record.
            if set(self.forbidden).intersection(sample.beside):
                continue
            if self.forbidden and np.isin(sample.segments, self.forbidden).any():
                continue
            sample = resize(sample, size)
            if np.sum(sample.segments == label) >= pixels:
                records.append(record)
                samples.append(sample)
            if len(samples) == count:
                return records, samples, label
        if not (records and self.repeat):
            return None
        again = [i % len(records) for i in range(count)]
        return [records[i] for i in again], [samples[i] for i in again], label


def origins(source: Source, records: Sequence[int] | np.ndarray) -> np.ndarray:
    """The numbers of the images that records are of: their own, where no two are of the
    same image."""
    numbers = getattr(source, "origins", None)
    indices = np.asarray(records, np.int64)
    return indices if numbers is None else numbers[indices]


def image_count(source: Source, records: Sequence[int] | np.ndarray) -> int:
    """How many images records are of."""
    return len(np.unique(origins(source, records)))


def without(
    source: Source,
    records: Sequence[int] | np.ndarray,
    others: Sequence[int] | np.ndarray,
) -> np.ndarray:
    """The records that are of no image that the others are of."""
    apart = ~np.isin(origins(source, records), origins(source, others))
    return np.asarray(records, np.int64)[apart]


def _views(sample: Sample, rng: np.random.Generator) -> Iterator[Sample]:
    """Views of one image: a mirrored crop (the query), the whole, then further crops.

    Mirrored and enlarged, the query cannot be answered by copying the prompt's mask.
    """
    yield _crop(sample, rng, mirror=True)
    yield sample
    while True:
        yield _crop(sample, rng, mirror=False)


def _crop(sample: Sample, rng: np.random.Generator, mirror: bool) -> Sample:
    height, width = sample.segments.shape
    h, w = max(1, round(height * _CROP)), max(1, round(width * _CROP))
    y, x = rng.integers(height - h + 1), rng.integers(width - w + 1)
    window = (slice(y, y + h), slice(x, x + w))
    flip = (slice(None), slice(None, None, -1 if mirror else 1))
    return dataclasses.replace(
        sample,
        image=np.ascontiguousarray(sample.image[window][flip]),
        segments=np.ascontiguousarray(sample.segments[window][flip]),
    )


@dataclasses.dataclass(kw_only=True, eq=False)
class Drawing:
    """Settings of how episodes are drawn.

    max_classes: each episode asks for 1..max_classes classes. All of them are visible
    in the query and in the first prompt. Each has a random colour (a single class too),
    `min_distance` (L1) from the other colours and from black. min_pixels: a class with
    a smaller area, at the model's size, is not asked for. tasks: the source's tasks to
    draw, default all.
    """

    seed: int = 0
    max_classes: int = 1
    min_pixels: int = 16
    min_distance: float = 150.0
    tasks: Sequence[str] | None = None


@dataclasses.dataclass(eq=False)
class Episodes(Drawing):
    """Draws episodes from a source: episode i is a function of (seed, i) alone.

    A class is drawn uniformly from the classes with more than `shots` images, then a
    query and prompts that show this class, all different images. In a source with
    `families` (task -> class ids) episode i is of task i modulo the number of tasks.
    Labels may mean nothing across images: in a source with `same_image_only`, or in a
    task without classes, whose records `indices_of(task)` gives. Then the prompts are
    views of the query's image.

    shots: prompts per episode. wrong_sources: they give the wrong prompts, in random
    order, where the source itself has none.
    """

    source: Source
    size: tuple[int, int]
    shots: int = 1
    wrong_sources: Sequence[Source] = ()
    without_wrong: str = dataclasses.field(init=False, default="")

    def __post_init__(self) -> None:
        at_least(1, size=min(self.size), shots=self.shots)
        at_least(1, max_classes=self.max_classes, min_pixels=self.min_pixels)
        at_least(0, seed=self.seed, min_distance=self.min_distance)
        if not len(self.source):
            raise ValueError(f"source {self.source.name!r} is empty")
        self.without_wrong = self._why_no_wrong()
        if self.without_wrong:
            logging.warning("scored without wrong prompts: %s", self.without_wrong)

    def _why_no_wrong(self) -> str:
        """Why wrong prompts cannot be drawn for every episode; "" where they can."""
        if self.wrong_sources:
            return ""
        for task, drawable in self.drawables.items():
            asked = self.max_classes if drawable.classes else 1
            if len(drawable) <= asked:
                what = "class" if drawable.classes else "image"
                return f"{self.describe(task)} has no other {what}"
            members = {c: self.source.by_class[c] for c in drawable.classes}
            counts = {c: image_count(self.source, own) for c, own in members.items()}
            for label, own in members.items():
                if counts[label] < max(counts.values()):
                    continue  # some image of the class with the most is without it
                others = (members[c] for c in members if c != label)
                if not any(len(without(self.source, other, own)) for other in others):
                    return (
                        f"{self.describe(task)} shows {self.class_name(label)!r} in "
                        "every image"
                    )
        return ""

    @functools.cached_property
    def drawables(self) -> Mapping[str, _Drawable]:
        """Task -> its classes or records. One task, "", for sources without tasks."""
        source = self.source
        if source.same_image_only:
            found: Mapping[str, Sequence[int]] = {"": ()}
        elif source.by_class:
            found = {task: sorted(ids) for task, ids in families(source).items()}
        else:
            raise ValueError(f"source {source.name!r} has no classes")
        unknown = set(self.tasks or ()) - set(found)
        if unknown:
            raise ValueError(
                f"tasks has {sorted(unknown)}, source {source.name!r} has "
                f"{sorted(found)}"
            )
        return {task: self._drawable(task, found[task]) for task in self.tasks or found}

    def draw(self, index: int) -> tuple[Episode, Episode | None]:
        """An episode, and the same query with wrong prompts. Wrong prompts show none of
        the asked classes anywhere. They show other classes of the source (of the same
        task), painted in the asked colours. Where such images are few, they repeat.
        None of a source that has no such images (`without_wrong` says why).

        Raises ValueError, with source and classes, when there is no such episode;
        `BadRecord` of the source passes through.
        """
        task = list(self.drawables)[index % len(self.drawables)]
        rng = np.random.default_rng([self.seed, index])
        found = self._search(rng, self.drawables[task], self.shots + 1)
        if found is None:
            names = [self.class_name(c) for c in self.drawables[task].classes]
            raise ValueError(
                f"{self.describe(task)} gives no episode {index} in {_DRAWS} draws: "
                f"too few images show a class of {shorten(names, 5)} on "
                f"min_pixels={self.min_pixels} pixels at size {list(self.size)}"
            )
        records, samples, labels = found
        palette = colors.random_palette(rng, len(labels), self.min_distance)
        right = compose(self.source.name, records, samples, labels, palette, task)
        return right, self._wrong(right, np.random.default_rng([self.seed, index, 1]))

    def _wrong(self, right: Episode, rng: np.random.Generator) -> Episode | None:
        if self.without_wrong:
            return None
        for drawable, tries in self._wrong_drawables(right, rng):
            number = len(right.class_ids)
            found = self._search(rng, drawable, self.shots, number, tries)
            if found is not None:
                records, prompts, labels = found
                return dataclasses.replace(
                    right,
                    images=np.stack([s.image for s in prompts]),
                    targets=_targets(prompts, labels, right.palette[1:]),
                    records=(right.records[0], *records),
                )
        names = [self.class_name(c) for c in right.class_ids]
        raise ValueError(
            f"{self.describe(right.task)} has no wrong prompts where {names} is asked "
            "for: no image of another class is without it, or shows that on "
            f"min_pixels={self.min_pixels} pixels; name a source of other classes "
            "beside it in `sources`"
        )

    def _wrong_drawables(
        self, right: Episode, rng: np.random.Generator
    ) -> Iterator[tuple[_Drawable, int]]:
        """What to draw wrong prompts from, and how often to try each."""
        own, asked = self.drawables[right.task], right.class_ids
        if own.classes:
            rest = tuple(c for c in own.classes if c not in asked)
            if rest:
                drawable = dataclasses.replace(
                    own, classes=rest, forbidden=asked, repeat=True
                )
                yield drawable, _DRAWS
        elif len(own) > 1:
            others = without(self.source, own.records, right.records[:1])
            yield dataclasses.replace(own, records=others), _DRAWS
        names = {self.class_name(c).casefold() for c in asked if own.classes}
        for i in rng.permutation(len(self.wrong_sources)).tolist():
            tries = math.ceil(_DRAWS / len(self.wrong_sources))
            for drawable in self._foreign_drawable(self.wrong_sources[i], names):
                yield drawable, tries

    def _foreign_drawable(self, source: Source, names: set[str]) -> Iterator[_Drawable]:
        """The classes of another source, without those of the same names: two data sets
        may well have a class in common."""
        if source.same_image_only:
            yield _Drawable(source, (), np.arange(len(source)))
            return
        same = [c for c, n in source.class_names.items() if n.casefold() in names]
        classes = tuple(
            c for c, r in source.by_class.items() if c not in same and len(r)
        )
        if classes:
            none = np.zeros(0, np.int64)
            yield _Drawable(source, classes, none, tuple(same), repeat=True)

    def _search(
        self,
        rng: np.random.Generator,
        drawable: _Drawable,
        count: int,
        classes: int | None = None,
        tries: int = _DRAWS,
    ) -> tuple[list[int], list[Sample], tuple[int, ...]] | None:
        """Records, related samples, and the labels to paint in the samples.

        The first sample shows all these labels: `classes` labels, if there are as many.
        Without `classes` their number is random and the first sample is a query; then
        the second sample shows all labels too.
        """
        for _ in range(tries):
            views = drawable.draw(rng, count, self.size, self.min_pixels)
            if views is None:
                continue
            records, samples, first = views
            seen_in = samples[:2] if classes is None else samples[:1]
            shown = set.intersection(*[self._visible(s) for s in seen_in])
            if drawable.classes:
                shown &= set(drawable.classes)
            if not shown:
                continue
            rest = rng.permutation(sorted(shown - {first})).tolist()
            labels = rest if first is None else [first, *rest]
            number = classes or int(rng.integers(1, self.max_classes + 1))
            return records, samples, tuple(int(c) for c in labels[:number])
        return None

    def _visible(self, sample: Sample) -> set[int]:
        labels, areas = np.unique(sample.segments, return_counts=True)
        shown = set(labels[areas >= self.min_pixels].tolist())
        return shown - {BACKGROUND, IGNORE}

    def _drawable(self, task: str, labels: Sequence[int]) -> _Drawable:
        source, count = self.source, self.shots + 1
        if not labels:
            indices_of = getattr(source, "indices_of", lambda _: np.arange(len(source)))
            records = np.asarray(indices_of(task), np.int64)
            if not len(records):
                raise ValueError(f"{self.describe(task)} has no records")
            return _Drawable(source, (), records)
        counts = {c: image_count(source, source.by_class.get(c, ())) for c in labels}
        classes = tuple(c for c in labels if counts[c] >= count)
        if not classes:
            most = max(labels, key=lambda c: counts[c])
            raise ValueError(
                f"{self.describe(task)} has no class with the {count} images that an "
                f"episode with shots={self.shots} needs; the most has "
                f"{self.class_name(most)!r}, {counts[most]}: hold out more images, "
                "or leave this score out, as configs/finetune.py:val= does"
            )
        if len(classes) < len(labels):
            few = [self.class_name(c) for c in labels if c not in classes]
            logging.info(
                "%s: %d of %d classes have fewer than %d images and give no episodes: "
                "%s", self.describe(task), len(few), len(labels), count, shorten(few, 5)
            )  # fmt: skip
        return _Drawable(source, classes, np.zeros(0, np.int64))

    def class_name(self, label: int) -> str:
        return self.source.class_names.get(label, f"instance {label}")

    def describe(self, task: str) -> str:
        return f"source {self.source.name!r}" + (f", task {task!r}," if task else "")


def compose(
    source: str,
    records: Sequence[int],
    samples: Sequence[Sample],
    labels: tuple[int, ...],
    palette: np.ndarray,
    task: str = "",
) -> Episode:
    """An episode of records of a source (a name) and their samples, all of one size:
    the first is the query, the others its prompts. palette: a colour per label."""
    query, *prompts = samples
    return Episode(
        images=np.stack([s.image for s in prompts]),
        targets=_targets(prompts, labels, palette),
        query=query.image,
        truth=_indices(query.segments, labels),
        ignore=query.segments == IGNORE,
        palette=colors.with_black(palette),
        kind=query.kind,
        class_ids=labels,
        source=source,
        records=tuple(records),
        task=task,
    )


def _targets(
    prompts: Sequence[Sample], labels: Sequence[int], palette: np.ndarray
) -> np.ndarray:
    # Wrong prompts may show fewer classes than there are colours.
    palette = palette[: len(labels)]
    return np.stack([colors.paint(s.segments, labels, palette)[0] for s in prompts])


def _indices(segments: np.ndarray, labels: Sequence[int]) -> np.ndarray:
    """Label map -> int32 `[h, w]`, 0 or 1 + the position of the label in `labels`."""
    truth = np.zeros(segments.shape, np.int32)
    for index, label in enumerate(labels, start=1):
        truth[segments == label] = index
    return truth


def at_least(minimum: int, **settings: int | float) -> None:
    for name, value in settings.items():
        if value < minimum:
            raise ValueError(f"{name} is {value}, must be at least {minimum}")
