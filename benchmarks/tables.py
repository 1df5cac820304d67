"""Writes the tables of docs/results.md from the files in benchmarks/results.

    python -m benchmarks.tables

A table that stands below `<!-- table: NAME -->` is made by the function of that name;
everything else on the page is left as it is. Numbers are cut, not rounded.
"""

import json
import re
from collections.abc import Iterable, Sequence
from decimal import ROUND_DOWN, Decimal
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs/results.md"
RESULTS = ROOT / "benchmarks/results"
# Sets without classes: the prompt is another view of the query.
VIEWS = ("grabcut-sample", "bsds500")
ARMS = ("", "wrong", "copy", "color")
_ARM_NAMES = ("prompted", *ARMS[1:])
_MARK = re.compile(r"(<!-- table: (\w+) -->\n)(?:\|.*\n)*")


def written(text: str) -> str:
    """The page with its tables made anew. Raises ValueError for an unknown table."""

    def make(match: re.Match[str]) -> str:
        mark, name = match.groups()
        if name not in TABLES:
            raise ValueError(f"table {name!r} is unknown; choices: {', '.join(TABLES)}")
        return mark + TABLES[name]()

    return _MARK.sub(make, text)


def shapes() -> str:
    """Drawn scenes of held-out categories, by task."""
    scores = _scores("shapes")
    tasks = ("", "object", "colour", "texture", "shape", "instance", "part")

    def row(task: str) -> Iterable[str]:
        where = "/".join(filter(None, ("heldout/shapes/1shot", task)))
        yield task or "**all**"
        for arm in ARMS:
            yield percent(scores["scores"][_key(where, arm)]["value"])

    return _table(("task", *_ARM_NAMES), map(row, tasks))


def mini() -> str:
    """The held-out splits of real pictures, best first."""
    found = _scores("mini")
    scores, gaps = found["scores"], found["differences"]
    ends = "/1shot/miou"
    sources = [name for name in _one_shot(scores) if name != "heldout/mean"]
    sources.sort(key=lambda name: -scores[name + ends]["value"])

    def row(name: str, text: str) -> Iterable[str]:
        yield text
        yield _spread_of(scores[f"{name}{ends}"])
        for arm in ARMS[1:]:
            entry = scores.get(_key(f"{name}/1shot", arm))
            yield percent(entry["value"]) if entry else "-"
        yield _spread_of(gaps[f"{name}{ends} - wrong"])

    def mean_without_views() -> Iterable[str]:
        own = [name for name in sources if name.split("/")[-1] not in VIEWS]
        means = [
            sum(scores[_key(f"{name}/1shot", arm)]["value"] for name in own) / len(own)
            for arm in ARMS
        ]
        yield "**mean without *views***"
        yield from map(percent, (*means, means[0] - means[1]))

    def text_of(name: str) -> str:
        split, place = name.split("/")[1:]
        return f"{place} ({split}){', views' if place in VIEWS else ''}"

    head = ("set (split)", *_ARM_NAMES, "prompted - wrong")
    return _table(head, (
        row("heldout/mean", f"**mean of the {len(sources)}**"), mean_without_views(),
        *(row(name, text_of(name)) for name in sources),
    ))  # fmt: skip


def prompts() -> str:
    """Other images of its training sets by one prompt and by more; what was held out of
    the training."""
    images = "those with images enough for 8 prompts"
    held_out = _one_shot(_scores("mini/unseen_domains")["scores"])
    domains = [name.split("/")[1] for name in held_out if not name.endswith("/mean")]
    rows: Sequence[tuple[str, int, str, str]] = (
        ("34 splits of sets it was trained on", 1, "seen", "mean"),
        (images, 1, "feature", "mean"),
        *((f"{way} ensemble", count, way, "mean")
          for way in ("feature", "spatial") for count in (4, 8)),
        ("**unseen domains**", 1, "unseen_domains", "mean"),
        *((name, 1, "unseen_domains", name) for name in domains),
        ("**unseen classes** `fray`, `uneven` of tiles", 1, "unseen_classes",
         "magnetic-tile-defect"),
        ("the folds, which it was trained on", 1, "folds", "mean"),
    )  # fmt: skip

    def row(text: str, count: int, group: str, source: str) -> Iterable[Any]:
        found, where = _scores(f"mini/{group}"), f"{group}/{source}/{count}shot"
        yield from (text, count)
        yield from (percent(found["scores"][_key(where, x)]["value"]) for x in ARMS)
        gaps = found["differences"]
        yield from (_spread_of(gaps[f"{where}/miou - {arm}"]) for arm in ARMS[1:])

    head = ("episodes", "prompts", *_ARM_NAMES, *(f"- {arm}" for arm in ARMS[1:]))
    return _table(head, (row(*line) for line in rows))


def retinas() -> str:
    """Dice of vessels in tiles."""
    texts = {"drive": "DRIVE (20 images)", "chase-db1": "CHASE_DB1 (8 images)"}

    def row(name: str, text: str) -> Iterable[str]:
        scores = _scores(f"mini/{name}")["scores"]
        yield text
        for count in (1, 4, 8):
            yield _spread_of(scores[f"{name}/{name}/N{count}/dice"])

    return _table(("set", "1 prompt", "4", "8"), (row(*x) for x in texts.items()))


def videos() -> str:
    """J, F and their mean, by the number of frames in memory."""
    scores, where = _scores("mini/davis16")["scores"], "davis16/davis16"
    texts = {"K0": "first mask as only prompt (K = 0)", "K4": "K = 4", "K8": "K = 8",
             "copy": "first mask copied"}  # fmt: skip
    return _table(("", "J", "F", "J&F"), (
        (text, _spread_of(scores[f"{where}/{name}/j"]),
         *(percent(scores[f"{where}/{name}/{x}"]["value"]) for x in ("f", "jf")))
        for name, text in texts.items()
    ))  # fmt: skip


def failures() -> str:
    """IoU by what is asked for. Of rows measured twice the later counts."""
    texts = {
        "area": ("area", " % of its image"),
        "width": ("widest place", " patches"),
        "scale": ("area", " times the prompt's"),
        "colour": ("colour", " from the prompt's"),
        "pieces": ("pieces", ""),
    }
    found = {(r["by"], r.get("least")): r for r in _rows("mini_failures")}

    def text_of(row: dict[str, Any]) -> str:
        if row["by"] == "all":
            return "**all**"
        what, unit = texts[row["by"]]
        factor = 100 if row["by"] == "area" else 1
        least, below = (factor * (row[key] or 0) for key in ("least", "below"))
        if not below:
            return f"{what}: {least:g}{unit} or more"
        if row["by"] == "pieces":  # whole numbers: the bound itself is of the next row
            below -= 1
        if least == below:
            return f"{what}: {least:g}{unit}"
        span = f"{least:g} to {below:g}" if least else f"under {below:g}"
        return f"{what}: {span}{unit}"

    head = ("what is asked for", "episodes", "prompted", "wrong", "fails", "black",
            "dim")  # fmt: skip
    return _table(head, (
        (text_of(row), row["episodes"],
         *(percent(row[name]) if name in row else "-"
           for name in ("iou", "wrong", "failed", "black", "dim")))
        for row in found.values()
    ))  # fmt: skip


def scaling() -> str:
    """Score against operations, of every size and length."""
    rows = _rows("mini_scaling")
    sizes = ("small", "base", "large")
    rows.sort(key=lambda row: (sizes.index(row["change"]), row["steps"]))
    head = ("size", "steps", "operations", "right prompt", "wrong")
    return _table(head, (
        (row["change"], f"{row['steps']:,}", _power(row["flops"]),
         cut(row["mean"]["right"]), cut(row["mean"]["wrong"]))
        for row in rows
    ))  # fmt: skip


def search() -> str:
    """What chosen prompts gain, over all sets."""
    (row,) = _rows("search", set="all")
    head = ("prompts", "random", "`score`", "gain", "`similarity`", "gain")
    return _table(head, (
        (count, percent(row[f"random/{count}"]), *(
            text
            for way in ("score", "similarity")
            for text in (percent(row[f"{way}/{count}"]), _spread(
                row[f"{way}/{count}/gain"], row[f"{way}/{count}/gain/ci"]
            ))
        ))
        for count in (1, 4)
    ))  # fmt: skip


def inference() -> str:
    """Ours beside the port: the rows of both numbers of prompts in one run."""
    rows = _rows("inference", attention="auto")
    head = ("prompts", "ours, cached", "ours, whole", "port", "cached, times faster",
            "whole", "ours, peak", "port, peak")  # fmt: skip
    times = ("ours_cached_s", "ours_whole_s", "port_whole_s")
    return _table(head, (
        (row["prompts"], *(f"{cut(row[name], 2)} s" for name in times),
         cut(row["ratio_cached"], 2), cut(row["ratio_whole"], 2),
         *(f"{row[name]} MiB" for name in ("ours_peak_mib", "port_peak_mib")))
        for row in rows
    ))  # fmt: skip


def attention() -> str:
    """Milliseconds of the definition and of the way of CPUs."""
    names = {"l16": "ViT-L at 448", "ti16": "`ti16` at 448",
             "shapes": "`configs/shapes.py`, 8 pairs"}  # fmt: skip
    head = ("shape", "forward, `xla`", "`heads`", "forward and backward, `xla`",
            "`heads`")  # fmt: skip
    found = {
        (r["shape"], r["pass"], r["impl"]): r.get("ms") for r in _rows("attention")
    }
    ways = [(half, impl) for half in ("forward", "both") for impl in ("xla", "heads")]
    return _table(head, (
        (text, *(cut(found[shape, *way]) for way in ways))
        for shape, text in names.items()
    ))  # fmt: skip


def pipeline() -> str:
    """Pairs per second of a core's time, from the owners' files and prepared."""
    by_form: dict[str, dict[Any, float]] = {"raw": {}, "prepared": {}}
    for row in _rows("pipeline"):
        if "pairs_per_s_per_core" in row:
            key = row["source"], row["threads"]
            by_form[row["form"]][key] = row["pairs_per_s_per_core"]
    jpeg = ("coco_instance", "coco_panoptic", "coco_stuff", "paco", "ade20k", "lip",
            "voc", "chase_db1", "hrf")  # fmt: skip
    kinds = {
        "TIFF and PPM: DRIVE, STARE": [("drive", 1), ("stare", 1)],
        "PNG: Cityscapes, LoveDA": [("cityscapes", 1), ("loveda", 1)],
        "PNG tiles: iSAID": [("isaid", 1)],
        "the paper's mixture, 1 thread": [("mixture", 1)],
        "2 threads": [("mixture", 2)],
    }
    forms = by_form.values()
    spans = [[form[name, 1] for name in jpeg] for form in forms]
    rows = [("JPEG sets", *(f"{cut(min(x))} to {cut(max(x))}" for x in spans))]
    rows += [
        (text, *(", ".join(cut(form[key]) for key in keys) for form in forms))
        for text, keys in kinds.items()
    ]
    return _table(("pairs/s per core", "owners' files", "prepared"), rows)


TABLES = {
    table.__name__: table
    for table in (shapes, mini, failures, prompts, retinas, videos, scaling, search,
                  inference, attention, pipeline)
}  # fmt: skip


def cut(value: float | Decimal, places: int = 1) -> str:
    """A number with so many places, the others cut off."""
    step = Decimal(1).scaleb(-places)
    return str(Decimal(str(value)).quantize(step, ROUND_DOWN))


def percent(share: float) -> str:
    """A share of 1 in percent."""
    return cut(Decimal(str(share)).scaleb(2))


def _spread(value: float, interval: Sequence[float]) -> str:
    low, high = map(percent, interval)
    return f"{percent(value)} [{low}, {high}]"


def _spread_of(entry: dict[str, float]) -> str:
    """A score of a file of results."""
    return _spread(entry["value"], (entry["low"], entry["high"]))


def _one_shot(scores: dict[str, Any]) -> list[str]:
    """GROUP/SOURCE of all one-shot scores, and GROUP/mean, in the file's order."""
    ends = "/1shot/miou"
    return [name.removesuffix(ends) for name in scores if name.endswith(ends)]


def _key(where: str, arm: str) -> str:
    return "/".join(filter(None, (where, arm, "miou")))


def _scores(name: str) -> dict[str, Any]:
    """The results of an evaluation, as `config.mode=evaluate` writes them."""
    return json.loads((RESULTS / f"{name}.json").read_text())


def _power(value: float) -> str:
    """As 4.8e12."""
    power = Decimal(str(value)).adjusted()
    return f"{cut(Decimal(str(value)).scaleb(-power))}e{power}"


def _rows(name: str, **only: Any) -> list[dict[str, Any]]:
    """The rows of a file of results that have these values."""
    lines = (RESULTS / f"{name}.jsonl").read_text().splitlines()
    rows = [json.loads(line) for line in lines]
    return [row for row in rows if all(row.get(k) == v for k, v in only.items())]


def _table(head: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    first, *others = [f"| {' | '.join(map(str, line))} |\n" for line in (head, *rows)]
    return "".join((first, "|---" * len(head) + "|\n", *others))


if __name__ == "__main__":
    PAGE.write_text(written(PAGE.read_text()))
