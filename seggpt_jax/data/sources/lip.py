"""LIP, single persons in 19 parts."""

import dataclasses
from collections.abc import Iterable
from pathlib import Path

from seggpt_jax.data.files import hidden
from seggpt_jax.data.layout import lookup, names_of
from seggpt_jax.data.sources.folders import Folders

NAMES = names_of(
    "hat, hair, glove, sunglasses, upper-clothes, dress, coat, socks, pants, "
    "jumpsuits, scarf, skirt, face, left-arm, right-arm, left-leg, right-leg, "
    "left-shoe, right-shoe"
)


@dataclasses.dataclass(frozen=True)
class Lip(Folders):
    """`{train,val}_images/ID.jpg` and `{train,val}_segmentations/ID.png`, at any depth
    below the root: the owners' archives nest in various ways.

    Values 1..19; 0 is background. Left and right are the person's own.
    """

    names = NAMES
    table = lookup({i: i for i in NAMES})

    def places(self, root: Path, split: str) -> Iterable[tuple[Path, Path]]:
        def find(name: str) -> Path:
            found = (p for p in root.rglob(name) if not hidden(p.relative_to(root)))
            return min(found, default=root / name)

        yield find(f"{split}_images"), find(f"{split}_segmentations")
