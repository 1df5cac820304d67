"""Classes are numbered, named and coloured as their owners publish them, each of them.

The checksums were made from the owners' own files, not from the tables of the code:
sha256 of a line per class, `NUMBER NAME`, each with its line end.
"""

import hashlib

import pytest

from seggpt_jax.data.sources import (
    ade20k,
    cityscapes,
    coco20i,
    coco_stuff,
    isaid,
    lip,
    loveda,
    voc,
)

LISTS = {
    # github.com/CSAILVision/sceneparsing, objectInfo150.txt: the first of the names.
    ade20k: "dc54738afc0aa8b35877c2792ab8d2d00f8904e41f661c5b9e7af89f8fc7f359",
    # github.com/mcordts/cityscapesScripts, helpers/labels.py: evaluated ids below 34.
    cityscapes: "03931c0b8ecb721d5417e799eb7343f887d582348c90012484f65e97df23528e",
    # github.com/nightrome/cocostuff, labels.txt, without the eleven dropped names.
    coco_stuff: "b4ed137c5569e11573f0163e1839aa74bd9a6afdc46dfe42213b6842544358c0",
    # github.com/GoGoDuck912/Self-Correction-Human-Parsing, labels of "lip".
    lip: "0b1c4353d3395c30721ee1aaabd319bdd40aa9b65bcbe3bb5c2a560185260b5c",
    # github.com/Junjue-Wang/LoveDA, data/loveda.py: ids above the background's.
    loveda: "62d47586ed711038511a31a160d6c2c53b9b63ac7cc4569aec22dbd32e0a5f94",
}


def checksum(rows) -> str:
    return hashlib.sha256("".join(f"{row}\n" for row in rows).encode()).hexdigest()


@pytest.mark.parametrize("module", LISTS, ids=lambda m: m.__name__.split(".")[-1])
def test_names_are_the_owners(module):
    rows = [f"{label} {name}" for label, name in module.NAMES.items()]
    assert checksum(rows) == LISTS[module]


def test_colours_of_isaid_are_the_owners():
    """github.com/CAPTAIN-WHU/iSAID_Devkit, its helpers/labels.py, in lower case:
    `NUMBER NAME RED GREEN BLUE`."""
    rows = [
        f"{label} {name} {' '.join(map(str, color))}"
        for label, (name, color) in enumerate(isaid.COLORS.items(), 1)
    ]
    assert checksum(rows) == (
        "434db1774368e5b5e0e41590d2f024fdc82d3ae34982f1a72f087dc7ab4b4dda"
    )


def test_coco20i_has_the_things_of_coco_in_their_order():
    things = [name for label, name in coco_stuff.NAMES.items() if label <= 90]
    assert [*coco20i.NAMES.items()] == [*enumerate(things, 1)]


def test_classes_of_voc_are_in_the_order_of_the_alphabet():
    """host.robots.ox.ac.uk/pascal/VOC numbers them so."""
    names = [*voc.NAMES.values()]
    assert names == sorted(names) and [*voc.NAMES] == [*range(1, 21)]
