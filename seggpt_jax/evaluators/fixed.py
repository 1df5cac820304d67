"""Prompts that are the same for all images, and encoded once: tuned ones, or one
training image."""

import dataclasses
import functools
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

import numpy as np

from seggpt_jax import colors
from seggpt_jax.data.augment import resize
from seggpt_jax.data.sample import Sample, Source, require_names
from seggpt_jax.evaluators import common
from seggpt_jax.evaluators.episodes import at_least
from seggpt_jax.pictures.images import resize_target
from seggpt_jax.prompts.file import load_prompts
from seggpt_jax.prompts.read import Prompts

T = TypeVar("T")


@dataclasses.dataclass(kw_only=True, eq=False)
class Evaluator(common.Evaluator):
    """The common part of evaluators that score a whole source by fixed prompts.

    source: the scored images, at their own resolution; an image is a case. Images are
    squashed to the model's size. images: score only the first so many; 0: all. prompts,
    example: without a tuned prompt the record `example` of the source `prompts` is the
    prompt; both sources have the same classes. ensemble: of a tuned prompt's images.
    threads: they decode images.

    Raises:
      ValueError: for a source whose records have no names.
    """

    needs = ("prompts",)

    source: Source
    batch_size: int
    prompts: Callable[[], Any] | None = None
    example: str = ""
    ensemble: str = "feature"
    images: int = 0
    threads: int = 4

    def __post_init__(self) -> None:
        super().__post_init__()
        at_least(1, batch_size=self.batch_size, threads=self.threads)
        at_least(0, images=self.images)
        self.record_id = require_names(self.source).record_id
        self.count = min(self.images or len(self.source), len(self.source))
        self.labels = [*self.source.class_names]
        self._fns = self.engine.prompt_fns(self.ensemble)

    @property
    def data(self) -> list[str]:
        shown = self.prompts() if self.prompts and self.example else None
        return common.digests(self.source, shown)

    def load(self, setting: str, named: bool = True) -> Prompts:
        """The tuned prompt of the file that a setting names. `named`: a prompt of other
        classes than the source's is refused."""
        content = load_prompts(getattr(self, setting), self.engine.size)
        if named and content.names != dict(self.source.class_names):
            raise ValueError(
                f"{setting}: {content.names} are its classes, and not those of source "
                f"{self.source.name!r}"
            )
        return content.prompts

    def read_example(self, tuned: str, read: Callable[[Any, int], T]) -> T:
        """What `read(source, number)` gives for the record `example` of the source
        `prompts`.

        Raises ValueError where neither an example nor the `tuned` prompts (in words)
        are given, where there is no such record, or where the classes differ.
        """
        if self.files or not (self.example and self.prompts):
            raise ValueError(
                f"{tuned}, or an example and the prompts it is of, must be given"
            )
        prompts = require_names(self.prompts())
        common.check_classes(self.source, prompts)
        for index in range(len(prompts)):
            if prompts.record_id(index) == self.example:
                read_it = functools.partial(read, prompts)
                return next(common.prefetch(read_it, [index], threads=1, ahead=1))
        raise ValueError(
            f"example is {self.example!r}: source {prompts.name!r} has no such record"
        )

    def paint(
        self,
        params: Any,
        prompts: Sequence[Prompts],
        numbers: Sequence[int],
        read: Callable[[int], tuple[np.ndarray, T]],
    ) -> Iterator[tuple[list[T], list[np.ndarray]]]:
        """Batches of n images: the items that `read` returned with the images, and
        the paintings float32 `[n, h, w, 3]` by each of the prompts.

        read(number) -> an image uint8 `[h, w, 3]` at the model's size, and an item.
        """
        encode, predict = self._fns

        if not numbers:
            return
        shown = [(p.images, p.targets, p.kind) for p in prompts]
        placed = self.engine.put_everywhere(shown)
        encoded = [encode(params, *arrays) for arrays in placed]

        def start(batch):
            images, items = zip(*batch, strict=True)
            rows = np.stack(common.filled(images, self.batch_size))
            queries = self.engine.put(colors.normalize(rows))
            return list(items), [predict(params, e, queries) for e in encoded]

        reading = common.prefetch(read, numbers, self.threads, 2 * self.batch_size)
        started = map(start, common.batched(reading, self.batch_size))
        for items, painted in common.behind(started):
            yield items, [self.engine.fetch(part)[: len(items)] for part in painted]

    def small(self, cell: np.ndarray) -> np.ndarray:
        """A picture at the model's size."""
        return resize_target(cell, self.engine.size)


def by_example(
    sample: Sample,
    size: tuple[int, int],
    kind: int,
    labels: Sequence[int],
    palette: np.ndarray,
    paint: Callable[[np.ndarray], np.ndarray],
) -> Prompts:
    """A sample as the prompt, at the model's size.

    labels, palette: what the colours uint8 `[c, 3]` mean, without the background.
    paint: label map -> target uint8 `[h, w, 3]`.
    """
    sample = resize(sample, size)
    return Prompts(
        colors.normalize(sample.image)[None, None],
        colors.normalize(paint(sample.segments))[None, None],
        np.array([kind], np.int32),
        np.array([0, *labels], np.int32),
        colors.with_black(palette),
    )
