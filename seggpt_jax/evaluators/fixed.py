"""Prompts that are the same for all images: encoded once, whatever they are made of."""

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import numpy as np

from seggpt_jax import colors
from seggpt_jax.data.augment import resize
from seggpt_jax.data.sample import Sample
from seggpt_jax.evaluators import common
from seggpt_jax.prompts import Prompts


@dataclasses.dataclass(frozen=True)
class Painter:
    """Paints images by fixed prompts.

    predict_fns: `predict.PredictFns`. put: places host arrays on the devices, a batch
    shared out between them; put_everywhere: whole, on each.
    """

    predict_fns: Any
    batch_size: int
    put: Callable[[Any], Any]
    put_everywhere: Callable[[Any], Any]

    def paint(
        self,
        params: Any,
        prompts: Sequence[Prompts],
        reading: Iterable[tuple[np.ndarray, Any]],
    ) -> Iterator[tuple[list[Any], list[np.ndarray]]]:
        """Batches of what came with the images, and their paintings float32
        `[n, h, w, 3]` by each of the prompts.

        reading: images uint8 `[h, w, 3]` at the model's size, each with anything.
        """
        encode, predict = self.predict_fns
        encoded: list[Any] = []
        waiting: list[tuple[list, list]] = []
        for batch in common.batched(reading, self.batch_size):
            encoded = encoded or [
                encode(params, *self.put_everywhere((p.images, p.targets, p.kind)))
                for p in prompts
            ]
            images, items = zip(*batch, strict=True)
            spare = [images[-1]] * (self.batch_size - len(images))
            placed = self.put(colors.normalize(np.stack([*images, *spare])))
            waiting.append((list(items), [predict(params, e, placed) for e in encoded]))
            if len(waiting) > 1:  # The devices work on the newest batch meanwhile.
                yield self._fetch(*waiting.pop(0))
        for last in waiting:
            yield self._fetch(*last)

    def _fetch(self, items: list, painted: list) -> tuple[list[Any], list[np.ndarray]]:
        return items, [common.fetch(part)[: len(items)] for part in painted]


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
        np.concatenate([np.array([colors.BLACK], np.uint8), palette]),
    )


def find_record(source: Any, name: str) -> int:
    """The index of a record. ValueError where the source has none of that name."""
    for index in range(len(source)):
        if source.record_id(index) == name:
            return index
    raise ValueError(f"example is {name!r}: source {source.name!r} has no such record")
