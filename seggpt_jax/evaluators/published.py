"""Published scores of SegGPT, by the scores of our rows that they stand beside."""

from collections.abc import Mapping
from typing import Any, NamedTuple


class Published(NamedTuple):
    """value: a share of 1. where: the table that it is of, and its conditions."""

    value: float
    where: str


_MAIN, _ABLATION = "paper, main table", "paper, ablation of ensembles"
_FEW = "paper, main table, few-shot: it gives neither number nor ensemble"
_MATCHER, _REBASE = "Matcher's measurement", "as listed by REBASE"
# Row -> score without row and source -> percent, where. A score of a certain ensemble
# ends in its name.
_FIGURES: dict[str, dict[str, tuple[float, str]]] = {
    "fss1000": {
        "1shot/miou": (85.6, _MAIN),
        "1shot/fbiou": (90.8, _ABLATION),
        "4shot/miou spatial": (89.3, _ABLATION + ", and few-shot of the main table"),
        "4shot/fbiou spatial": (93.5, _ABLATION),
        "4shot/miou feature": (87.8, _ABLATION),
        "4shot/fbiou feature": (92.4, _ABLATION),
        "8shot/miou feature": (89.8, _ABLATION),
        "8shot/fbiou feature": (93.8, _ABLATION),
    },
    "pascal5i": {"1shot/miou": (83.2, _MAIN), "5shot/miou": (89.8, _FEW)},
    "coco20i": {"1shot/miou": (56.1, _MAIN), "5shot/miou": (67.9, _FEW)},
    "lvis92i": {"1shot/miou": (18.6, _MATCHER), "5shot/miou": (25.4, _MATCHER)},
    "isic": {"1shot/miou": (37.5, _REBASE)},
    "chest_xray": {"1shot/miou": (87.5, _REBASE)},
    "pascal_part": {"1shot/miou": (35.8, _REBASE)},
    "paco_part": {"1shot/miou": (13.5, _REBASE)},
    "davis16": {
        f"K8/{key}": (value, "as listed by SINE and DiffewS; frames not stated")
        for key, value in (("jf", 83.7), ("j", 83.6), ("f", 83.8))
    },
    "davis17": {},
    "ade20k_examples": {},
    "ade20k_tuned": {
        key: (value, "paper, in-context tuning")
        for key, value in (("miou", 39.6), ("macc", 50.7))
    },
    "coco_panoptic_tuned": {"pq": (34.4, "paper, in-context tuning")},
    "polyp": {
        f"N{count}/{key}": (76.3, "Table S2: neither examples nor kind of mean stated")
        for count in (1, 8)
        for key in ("miou", "image_iou")
    },
    "ytvos18": {"K8/g": (74.7, _MAIN)},
    "mose": {"K8/jf": (45.1, _MAIN)},
}
for _frames, *_values in (
    (1, 70.0, 66.4, 73.7),
    (4, 74.7, 71.6, 77.7),
    (8, 75.6, 72.5, 78.6),
    (12, 74.8, 71.6, 77.9),
    (16, 74.6, 71.4, 77.8),
):
    for _key, _value in zip(("jf", "j", "f"), _values, strict=True):
        for _memory, _which in (
            (_frames, "if beside the first"),
            (_frames - 1, "if the first is one of them"),
        ):
            _FIGURES["davis17"][f"K{_memory}/{_key}"] = (
                _value,
                f"paper, ablation of frames: {_frames}, {_which}",
            )
for _count, _miou, _macc in (
    (1, 18.8, 27.4),
    (2, 25.0, 34.4),
    (4, 28.3, 37.7),
    (8, 30.1, 38.9),
    (16, 31.9, 40.4),
    (32, 33.0, 42.0),
):
    _FIGURES["ade20k_examples"] |= {
        f"N{_count}/miou": (_miou, "Table S1"),
        f"N{_count}/macc": (_macc, "Table S1"),
    }


def published(row: str, score: str, settings: Mapping[str, Any]) -> Published | None:
    """The published figure beside a score of a row of configs/eval.py, or None.

    score: without the row and the source, as `1shot/miou`. settings: of the row.
    """
    figures = _FIGURES.get(row, {})
    found = figures.get(score) or figures.get(f"{score} {settings.get('ensemble')}")
    return Published(found[0] / 100, found[1]) if found else None
