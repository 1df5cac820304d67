"""Classes that a config lists: name -> value in the masks."""

import dataclasses
import functools
from collections.abc import Mapping

import numpy as np

from seggpt_jax.data.decode import MAX_VALUE
from seggpt_jax.data.layout import Decoded, Layout, labels_of, looked_up_in, lookup
from seggpt_jax.data.sample import IGNORE


@dataclasses.dataclass(frozen=True)
class ById(Layout):
    """Base of layouts whose masks hold one id per pixel, with classes of one's own.

    ids: class name -> its value in the masks. 255, if it is not listed, is `IGNORE`;
    all other values are background.
    """

    ids: Mapping[str, int] = dataclasses.field(kw_only=True)

    def __post_init__(self):
        ids = list(self.ids.values())
        if not ids:
            raise ValueError("ids: needs a class or more, as {'road': 7}")
        for name, value in self.ids.items():
            if not (type(value) is int and 0 <= value <= MAX_VALUE):
                raise ValueError(
                    f"ids: {name} is {value!r}; must be a whole number of 0 to "
                    f"{MAX_VALUE}"
                )
            if ids.count(value) > 1:
                raise ValueError(f"ids: {value} is listed twice")

    @functools.cached_property
    def names(self) -> dict[int, str]:
        """Label -> name."""
        return {self._labels[value]: name for name, value in self.ids.items()}

    @functools.cached_property
    def table(self) -> np.ndarray:
        """Mask value -> label."""
        return lookup({IGNORE: IGNORE} | self._labels)

    @functools.cached_property
    def _labels(self) -> dict[int, int]:
        return labels_of(self.ids.values())

    def decode(self, mask: bytes, annotation: str) -> Decoded:
        return looked_up_in(mask, self._labels, self.table, "ids")
