"""The very episodes that HSNet draws, and with it the field, for FSS-1000, PASCAL-5i
and COCO-20i (github.com/juhongm999/hsnet, data/ and test.py), those that Matcher draws
for LVIS-92i (github.com/aim-uofa/Matcher, matcher/data/lvis.py), and INSID3 for
iSAID-5i, for sets without lists, for parts of objects and for PerMIS
(github.com/visinf/INSID3, datasets/isaid.py, isic.py, lung.py, suim.py, pascal_part.py,
paco_part.py, permis.py)."""

import dataclasses
import functools
import itertools
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from seggpt_jax import colors
from seggpt_jax.config import counted, suggest
from seggpt_jax.data.augment import resize
from seggpt_jax.data.sample import require_names
from seggpt_jax.evaluators.common import Episode
from seggpt_jax.evaluators.episodes import Episodes, compose

# Whose episodes -> how they are drawn.
PROTOCOLS = {
    "fss1000": "records", "pascal5i": "records", "isaid5i": "records",
    "coco20i": "draw", "lvis92i": "classes", "insid3": "classes",
    "pascal_part": "part classes", "paco_part": "drawn parts", "permis": "objects",
}  # fmt: skip
_OBJECTS = ("pascal_part", "paco_part", "permis")  # of the types of these names


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
    insid3 walk the classes, 25 times in Matcher's 2300 episodes, and draw a query.
    pascal_part walks the classes and paco_part draws one; both draw an image, and then
    one of its objects. permis has no draws: the first frame of an object is the prompt
    of its two others. The class is painted white. A class with too few images for an
    episode is left out (the whole sets have none); in lvis92i and paco_part, whose
    folds are made by that number, it is refused.
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
        if self.protocol in _OBJECTS and not _count_of(self.source):
            raise ValueError(
                f"protocol {self.protocol!r}: source {self.source.name!r} is not of "
                "that type"
            )
        if self.protocol == "permis" and self.shots > 1:
            raise ValueError(f"shots is {self.shots}: permis has one prompt")
        if self.protocol in ("lvis92i", "paco_part"):
            self._check_folds()

    def _check_folds(self):
        """The folds are of the classes with enough images for the shots."""
        layout = getattr(getattr(self.source, "store", None), "layout", None)
        folds_of = getattr(layout, "shots", 0)
        few = self.source.class_names.keys() - set(self.drawables[""].classes)
        if folds_of != self.shots or few:
            raise ValueError(
                f"shots is {self.shots}: source {self.source.name!r} has folds for "
                f"shots={folds_of} and "
                f"{counted(len(few), 'class', 'classes')} with too few images; open it "
                "with the same shots, whole"
            )

    @functools.cached_property
    def draws(self) -> list[Draw]:
        """All episodes, in order."""
        rng = np.random.RandomState(self.seed)  # its legacy draws are the protocol
        if self.protocol == "permis":
            return self._pair_frames()
        if self.protocol in _OBJECTS:
            return self._draw_parts(rng)
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

    def _draw_parts(self, rng: np.random.RandomState) -> list[Draw]:
        """Episodes of the images that the listing's facts have (`sources.parts`)."""
        listed = self.source.store.catalog.facts["pools"]
        numbers = {self.source.record_id(i): i for i in range(len(self.source))}
        pools = {
            label: [
                _Listed(image, [numbers.get(record) for record in records])
                for image, records in listed[str(label)]
            ]
            for label in self.drawables[""].classes
        }
        labels, found = [*pools], []
        for number in range(self.count):
            if self.protocol == "pascal_part":
                label = labels[number % len(labels)]
                found.append(self._draw_walked(rng, label, pools[label]))
            else:
                found.append(self._draw_drawn(rng, pools))
        return found

    def _draw_walked(
        self, rng: np.random.RandomState, label: int, pool: list["_Listed"]
    ) -> Draw:
        """Views of different images. An image is drawn anew where the drawn object has
        not the part."""
        images: list[str] = []
        records: list[int] = []
        while len(records) <= self.shots:
            image, own = _choose(rng, pool)
            if image in images or not own:
                continue
            if (record := _choose(rng, own)) is not None:
                images.append(image)
                records.append(record)
        return Draw(label, records[0], tuple(records[1:]))

    def _draw_drawn(
        self, rng: np.random.RandomState, pools: Mapping[int, list["_Listed"]]
    ) -> Draw:
        """A class, and views of it. Prompts may be of one image, which is not the
        query's. All is drawn anew where a view has no pixel."""
        while True:
            pool = pools[label := _choose(rng, [*pools])]
            query, own = _choose(rng, pool)
            records = [_choose(rng, own)]
            while len(records) <= self.shots:
                image, own = _choose(rng, pool)
                if image != query:
                    records.append(_choose(rng, own))
            if None not in records:
                return Draw(label, records[0], tuple(records[1:]))

    def _pair_frames(self) -> list[Draw]:
        frames: dict[str, list[int]] = {}
        for record in range(len(self.source)):
            folder = self.source.record_id(record).rpartition("/")[0]
            frames.setdefault(folder, []).append(record)
        pairs = [(own[0], query) for own in frames.values() for query in own[1:]]
        walk = itertools.cycle(Draw(1, query, (prompt,)) for prompt, query in pairs)
        return list(itertools.islice(walk, self.count))

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


class _Listed(NamedTuple):
    """An image of a class, and the records of its objects; None for one without."""

    image: str
    records: list[int | None]


def episodes_of(protocol: str, source: Any) -> int:
    """How many episodes a protocol asks for of a source: as many as it has records,
    where the protocol does not tell."""
    return (protocol in _OBJECTS and _count_of(source)) or len(source)


def _count_of(source: Any) -> int:
    """The number of episodes that the facts of a source's listing have, or 0."""
    catalog = getattr(getattr(source, "store", None), "catalog", None)
    return catalog.facts.get("episodes", 0) if catalog else 0


def _choose(rng: np.random.RandomState, values: Sequence[Any]) -> Any:
    """As `np.random.choice(values, 1, replace=False)[0]`, which permutes them all."""
    return values[int(rng.choice(len(values), 1, replace=False)[0])]
