"""The page of evaluations: what was scored in workdirs, beside what was published."""

import base64
import dataclasses
import html
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from seggpt_jax.config import shorten
from seggpt_jax.evaluators.published import Published, published
from seggpt_jax.evaluators.report import ARMS, LEFT_OUT, RESULTS
from seggpt_jax.runs.paths import AnyPath
from seggpt_jax.runs.writer import pictures_of

_ALL = ("miou", "fbiou", "macc", "dice", "image_iou", "j", "f", "jf", "g", "pq", "sq",
        "rq")  # fmt: skip
_FIRST = ("miou", "jf", "pq")  # of one source beside others
_WORDS = {"wrong": "wrong prompt", "copy": "copied mask", "color": "nearest colours"}
_STYLE = """
:root { color-scheme: light dark; font: 16px/1.5 system-ui, sans-serif }
body { max-width: 70rem; margin: 2rem auto; padding: 0 1rem }
div { overflow-x: auto }
table { border-collapse: collapse }
th, td { padding: .25rem .75rem; text-align: left; border-bottom: 1px solid #8886 }
td.number { text-align: right; font-variant-numeric: tabular-nums }
img { max-width: 100%; height: auto }
"""


@dataclasses.dataclass(frozen=True)
class Score:
    """A score of a row, as a share of 1. key: without row and source. arms: the score
    of every other arm. value, low, high: None where there is no truth."""

    source: str
    key: str
    value: float | None
    low: float | None
    high: float | None
    arms: Mapping[str, float | None]
    beside: Published | None


@dataclasses.dataclass(frozen=True)
class Scored:
    """A row that a workdir has results of. about: its JSON without the scores."""

    row: str
    workdir: AnyPath
    about: Mapping[str, Any]
    scores: Sequence[Score]
    pictures: Sequence[AnyPath]


@dataclasses.dataclass(frozen=True)
class Page:
    """left_out: (row, workdir, reason) of rows that a config asked for."""

    rows: Sequence[Scored]
    left_out: Sequence[tuple[str, AnyPath, str]]


def read(workdirs: Iterable[AnyPath]) -> Page:
    """Reads the results of evaluations. Raises ValueError where no workdir has any, and
    for a file of results that is none."""
    rows: list[Scored] = []
    left_out: list[tuple[str, AnyPath, str]] = []
    workdirs = list(workdirs)
    for workdir in workdirs:
        found = [_read(workdir, path) for path in sorted(_results(workdir))]
        left_out += [
            (row, workdir, reason)
            for row, reason in _left_out(workdir).items()
            if row not in {one.row for one in found}
        ]
        rows += found
    if not rows:
        raise ValueError(
            f"no results of evaluations in {shorten(workdirs, 5)}: give workdirs of "
            "config.mode=evaluate (docs/evaluate.md)"
        )
    return Page(rows, left_out)


def _results(workdir: AnyPath) -> Iterator[AnyPath]:
    for path in (workdir / RESULTS).glob("*.json"):
        if path.name != LEFT_OUT:
            yield path


def _left_out(workdir: AnyPath) -> dict[str, str]:
    path = workdir / RESULTS / LEFT_OUT
    return json.loads(path.read_text()) if path.exists() else {}


def _read(workdir: AnyPath, path: AnyPath) -> Scored:
    try:
        content = json.loads(path.read_text())
        row, found = content["group"], content.pop("scores")
        settings = content["settings"]
        scores = list(_scores(row, found, settings))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{path}: no results of an evaluation ({error!r})") from error
    folder = pictures_of(workdir, content.get("step", 0))
    pictures: list[AnyPath] = [*folder.glob(f"{row}-*.png")]
    return Scored(row, workdir, content, scores, sorted(pictures))


def _scores(row: str, found: Mapping[str, Any], settings) -> Iterator[Score]:
    """The scores to show: all of a row's mean, or of its only source; the first of each
    of several sources. Not those of seeds and tasks."""
    sources = {name.split("/")[1] for name in found}
    for name, entry in found.items():
        _, source, *rest = name.split("/")
        if not rest:  # of a row without sources
            source, rest = "", [source]
        whole = source in ("", "mean") or len(sources) == 1
        if len(rest) > 2 or rest[-1] not in (_ALL if whole else _FIRST):
            continue
        if rest[0] in ARMS:
            continue
        key, stem = "/".join(rest), name.rpartition("/")[0]
        others = {arm: found.get(f"{stem}/{arm}/{rest[-1]}") for arm in ARMS}
        yield Score(
            source, key, entry["value"], entry.get("low"), entry.get("high"),
            {arm: other["value"] for arm, other in others.items() if other},
            published(row, key, settings) if whole else None,
        )  # fmt: skip


def write(page: Page, folder: Path) -> None:
    """Writes index.html (complete in itself), report.md with its pictures, and
    report.json into an empty folder."""
    (folder / "pictures").mkdir(parents=True)
    for name, source in _pictures(page).items():
        (folder / "pictures" / name).write_bytes(source.read_bytes())
    (folder / "report.json").write_text(json.dumps(as_json(page), indent=2) + "\n")
    (folder / "report.md").write_text(as_markdown(page))
    (folder / "index.html").write_text(as_html(page))


def _pictures(page: Page) -> dict[str, AnyPath]:
    """Name in the report -> file."""
    return {
        f"{number}-{path.name}": path
        for number, row in enumerate(page.rows)
        for path in row.pictures
    }


def as_json(page: Page) -> dict[str, Any]:
    """The page as plain data."""
    return {
        "rows": [
            {
                "row": row.row,
                "workdir": str(row.workdir),
                "scores": [dataclasses.asdict(score) for score in row.scores],
                "about": dict(row.about),
            }
            for row in page.rows
        ],
        "left_out": [
            {"row": row, "workdir": str(workdir), "reason": reason}
            for row, workdir, reason in page.left_out
        ],
    }


# A page is a list of parts: ("h1" or "h2" or "p", text), ("table", headings, rows),
# ("picture", name). Both forms are made of the same parts.
_Part = tuple[Any, ...]


def _parts(page: Page) -> Iterator[_Part]:
    yield "h1", "Evaluations"
    yield "p", "Scores in percent, with 95 % intervals. Published figures are SegGPT's."
    yield "table", ("row", "score", "here", "published", "workdir"), [
        (row.row, _label(score), _spread(score), _percent(score.beside), row.workdir)
        for row in page.rows
        for score in _headline(row)
    ]  # fmt: skip
    pictures = {path: name for name, path in _pictures(page).items()}
    for row in page.rows:
        yield "h2", f"{row.row} in {row.workdir}"
        if row.about.get("about"):
            yield "p", row.about["about"]
        yield "p", _made(row.about)
        yield _table(row.scores)
        for path in row.pictures:
            yield "picture", pictures[path]
    if page.left_out:
        yield "h2", "Left out"
        yield "table", ("row", "reason", "workdir"), [
            (row, reason, workdir) for row, workdir, reason in page.left_out
        ]  # fmt: skip


def _headline(row: Scored) -> list[Score]:
    """The scores with a published figure, or the one to show first: the mean's, where
    there are several sources."""
    main = [score for score in row.scores if score.key.split("/")[-1] in _FIRST]
    main.sort(key=lambda score: score.source != "mean")
    return [score for score in row.scores if score.beside] or main[:1]


def _table(scores: Sequence[Score]) -> _Part:
    arms = [arm for arm in ARMS if any(arm in score.arms for score in scores)]
    headings = ["score", "here", *(_WORDS[arm] for arm in arms), "published", "where"]
    rows = [
        (
            _label(score), _spread(score),
            *(_number(score.arms.get(arm)) for arm in arms),
            _percent(score.beside), score.beside.where if score.beside else "",
        )
        for score in scores
    ]  # fmt: skip
    return "table", headings, rows


def _made(about: Mapping[str, Any]) -> str:
    """What a row was measured with, in a sentence."""
    hardware = about.get("hardware", {})
    return (
        f"Weights {about.get('checkpoint', '?')}, step {about.get('step', '?')} "
        f"(sha256 {str(about.get('weights_sha256', '?'))[:12]}). {about.get('date')}, "
        f"commit {str(about.get('commit', '?'))[:12]}, {about.get('seconds', '?')} s "
        f"on {hardware.get('devices', '?')}."
    )


def _label(score: Score) -> str:
    return f"{score.source} {score.key}".strip()


def _number(value: float | None) -> str:
    return "" if value is None else f"{100 * value:.1f}"


def _percent(figure: Published | None) -> str:
    return _number(figure.value if figure else None)


def _spread(score: Score) -> str:
    if score.value is None:
        return "scored by a server"
    if score.low is None or score.high is None:
        return _number(score.value)
    return f"{_number(score.value)} [{_number(score.low)}, {_number(score.high)}]"


def as_markdown(page: Page) -> str:
    """The page, with pictures in the folder `pictures` beside it."""
    lines = []
    for kind, *content in _parts(page):
        if kind == "table":
            headings, rows = content
            lines.append(_bar(headings) + "\n" + _bar("---" for _ in headings))
            lines[-1] += "".join("\n" + _bar(row) for row in rows)
        elif kind == "picture":
            lines.append(f"![{content[0]}](pictures/{content[0]})")
        else:
            marks = {"h1": "# ", "h2": "## "}
            lines.append(marks.get(kind, "") + content[0])
    return "\n\n".join(lines) + "\n"


def _bar(cells: Iterable[Any]) -> str:
    texts = [" ".join(str(cell).replace("|", "\\|").split()) for cell in cells]
    return "| " + " | ".join(texts) + " |"


def as_html(page: Page) -> str:
    """The page in one file, pictures in it."""
    files, body = _pictures(page), []
    for kind, *content in _parts(page):
        if kind == "table":
            headings, rows = content
            head = "".join(f"<th>{html.escape(text)}</th>" for text in headings)
            lines = ["".join(map(_cell, row)) for row in rows]
            inner = "".join(f"<tr>{line}</tr>\n" for line in lines)
            body.append(f"<div><table><tr>{head}</tr>\n{inner}</table></div>")
        elif kind == "picture":
            data = base64.b64encode(files[content[0]].read_bytes()).decode()
            alt = html.escape(content[0], quote=True)
            body.append(f'<img alt="{alt}" src="data:image/png;base64,{data}">')
        else:
            body.append(f"<{kind}>{html.escape(content[0])}</{kind}>")
    return (
        '<!doctype html>\n<html lang="en">\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width">\n'
        f"<title>Evaluations</title>\n<style>{_STYLE}</style>\n"
        + "\n".join(body)
        + "\n</html>\n"
    )


def _cell(value: Any) -> str:
    text = str(value)
    number = text[:1].isdigit() and text[-1:] in "0123456789]"
    return f"<td{' class=number' if number else ''}>{html.escape(text)}</td>"
