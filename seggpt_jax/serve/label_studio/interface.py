"""A project's labelling interface: which image its tasks have, and which labels."""

import dataclasses
import functools
import itertools
from collections.abc import Mapping
from typing import Any
from xml.etree import ElementTree

from seggpt_jax.data.sample import IGNORE

# The forms of a label's regions, and the tag of each; what is given first if a label
# has several.
CONTROLS = {
    "brushlabels": "BrushLabels",
    "polygonlabels": "PolygonLabels",
    "rectanglelabels": "RectangleLabels",
}
_LONG = 1_000_000
_UNDEFINED = "$undefined$"  # the only value of a task that was imported without a name


@dataclasses.dataclass(frozen=True)
class Control:
    """A tag with labels. form: a key of CONTROLS. name: `from_name` of its regions."""

    form: str
    name: str
    labels: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class Interface:
    """image: name of the tag of the image, `to_name` of regions. key: of the image in
    the data of a task. controls: the tags that results can be given in."""

    image: str
    key: str
    controls: tuple[Control, ...]

    @functools.cached_property
    def labels(self) -> dict[str, int]:
        """Name -> label, 1, 2, ... in the order of the interface, without 255."""
        names = dict.fromkeys(x for control in self.controls for x in control.labels)
        numbers = (number for number in itertools.count(1) if number != IGNORE)
        return dict(zip(names, numbers, strict=False))

    @functools.cached_property
    def answers(self) -> dict[int, Control]:
        """Label -> the tag that its regions are given in."""
        order = list(CONTROLS)
        best: dict[int, Control] = {}
        for control in sorted(self.controls, key=lambda x: order.index(x.form)):
            for name in control.labels:
                best.setdefault(self.labels[name], control)
        return best

    def image_of(self, data: Any) -> str:
        """What the data of a task say of its image. Raises ValueError."""
        if isinstance(data, Mapping):
            value = data.get(self.key, data.get(_UNDEFINED))
            if isinstance(value, str) and value:
                return value
        raise ValueError(f"the task has no image: its data have no text {self.key!r}")


@functools.lru_cache(maxsize=32)
def read_interface(text: str) -> Interface:
    """Reads a `label_config`. Raises ValueError that says what a project needs."""
    if len(text) > _LONG:
        raise ValueError(f"the labelling interface is longer than {_LONG} letters")
    if "<!DOCTYPE" in text or "<!ENTITY" in text:
        raise ValueError("the labelling interface has a document type, and needs none")
    try:
        root = ElementTree.fromstring(text)
    except (ElementTree.ParseError, ValueError) as error:
        raise ValueError(f"the labelling interface is no XML: {error}") from None
    images = [tag for tag in root.iter() if tag.tag.lower() == "image"]
    if len(images) != 1 or not images[0].get("value", "").startswith("$"):
        raise ValueError(
            'the labelling interface needs one image, as in <Image name="image" '
            'value="$image"/>'
        )
    name = images[0].get("name", "")
    controls = []
    for tag in root.iter():
        form = tag.tag.lower()
        if form in CONTROLS and tag.get("toName") == name:
            labels = (x.get("value", "") for x in tag.iter() if x.tag == "Label")
            names = tuple(label for label in labels if label)
            controls.append(Control(form, tag.get("name", ""), names))
    interface = Interface(name, images[0].get("value", "")[1:], tuple(controls))
    if not interface.labels:
        *tags, last = CONTROLS.values()
        raise ValueError(
            f"the labelling interface needs labels in {', '.join(tags)} or {last} of "
            "its image"
        )
    return interface
