"""The very episodes that HSNet draws, and with it the field, for FSS-1000, PASCAL-5i
and COCO-20i (github.com/juhongm999/hsnet, data/ and test.py), those that Matcher draws
for LVIS-92i (github.com/aim-uofa/Matcher, matcher/data/lvis.py), and INSID3 for
iSAID-5i and for sets without lists (github.com/visinf/INSID3, datasets/isaid.py,
isic.py, lung.py, suim.py)."""

import dataclasses
import functools
from typing import Any, NamedTuple

import numpy as np

from seggpt_jax import colors
from seggpt_jax.config import suggest
from seggpt_jax.data.augment import resize
from seggpt_jax.data.sample import require_names
from seggpt_jax.evaluators.common import Episode
from seggpt_jax.evaluators.episodes import Episodes, compose

# Whose episodes -> how they are drawn.
PROTOCOLS = {
    "fss1000": "records", "pascal5i": "records", "isaid5i": "records",
    "coco20i": "draw", "lvis92i": "classes", "insid3": "classes",
}  # fmt: skip


class Draw(NamedTuple):
    """Records of a source, and the class that all of them show."""

    label: int
    query: int
    prompts: tuple[int, ...]


@dataclasses.dataclass(eq=False)
class HsnetEpisodes(Episodes):
    """Episodes by one of `PROTOCOLS`, `count` of them; as `Episodes` in all else.

    HSNet seeds NumPy once with 0 and draws with replacement as it walks. So an episode
    depends on all episodes before it and on the number of shots. fss1000, pascal5i and
    isaid5i walk the records in order. coco20i draws a class and a query. lvis92i and
    insid3 walk the classes, 25 times in Matcher's 2300 episodes, and draw a query. The
    class is painted white. A class with too few images for an episode is left out (the
    whole sets have none); in lvis92i, whose folds are made by that number, it is
    refused.
    """

    source: Any  # a `NamedSource`; of lvis92i a data set with its layout
    protocol: str = ""
    count: int = 1

    def __post_init__(self) -> None:
        require_names(self.source)
        super().__post_init__()
        if self.protocol not in PROTOCOLS:
            raise ValueError(
                f"protocol is {self.protocol!r}{suggest(self.protocol, PROTOCOLS)}"
            )
        if self.max_classes > 1:
            raise ValueError("max_classes must be 1: the protocols ask for one class")
        if self.protocol == "lvis92i":
            self._check_folds()

    def _check_folds(self):
        """Folds of LVIS-92i are of the classes with enough images for the shots."""
        layout = getattr(getattr(self.source, "store", None), "layout", None)
        folds_of = getattr(layout, "shots", 0)
        few = self.source.class_names.keys() - set(self.drawables[""].classes)
        if folds_of != self.shots or few:
            raise ValueError(
                f"shots is {self.shots}: source {self.source.name!r} has folds for "
                f"shots={folds_of} and {len(few)} classes with too few images; open it "
                "with the same shots, whole"
            )

    @functools.cached_property
    def draws(self) -> list[Draw]:
        """All episodes, in order."""
        rng = np.random.RandomState(self.seed)  # its legacy draws are the protocol
        by_class = self.source.by_class
        members = {c: [int(i) for i in by_class[c]] for c in self.drawables[""].classes}
        if self.protocol == "fss1000":  # draws numbers: 2 comes before 10
            for label in members:
                members[label].sort(key=self._number)
        walk = sorted(
            (record, label) for label, records in members.items() for record in records
        )
        # In the owners' order, which labels do not keep where they move off 255.
        classes = [label for label in self.source.class_names if label in members]
        how = PROTOCOLS[self.protocol]
        found = []
        for number in range(self.count):
            if how == "classes":
                label = classes[number % len(classes)]
                query = _choose(rng, members[label])
            elif how == "draw":
                label = _choose(rng, [*members])
                query = _choose(rng, members[label])
            else:
                query, label = walk[number % len(walk)]
            prompts: list[int] = []
            while len(prompts) < self.shots:
                if (prompt := _choose(rng, members[label])) != query:
                    prompts.append(prompt)
            found.append(Draw(label, query, tuple(prompts)))
        return found

    def _number(self, record: int) -> int:
        return int(self.source.record_id(record).rpartition("/")[2])

    def draw(self, index: int) -> tuple[Episode, Episode | None]:
        """An episode, and the same query with prompts of other classes (not HSNet's),
        as of `Episodes.draw`.

        Raises: `BadRecord` of the source passes through.
        """
        label, *_ = draw = self.draws[index]
        records = draw.query, *draw.prompts
        samples = [resize(self.source[record], self.size) for record in records]
        white = colors.spread_palette(1)
        right = compose(self.source.name, records, samples, (label,), white)
        return right, self._wrong(right, np.random.default_rng([self.seed, index, 1]))


def _choose(rng: np.random.RandomState, values: list[int]) -> int:
    """As `np.random.choice(values, 1, replace=False)[0]`, which permutes them all."""
    return values[int(rng.choice(len(values), 1, replace=False)[0])]
