"""Results of an evaluation, kept case by case, so that a stopped evaluation goes on."""

import json
import time
from collections.abc import Mapping
from typing import Any, TextIO

from absl import logging

from seggpt_jax.runs import hosts
from seggpt_jax.runs.paths import AnyPath
from seggpt_jax.runs.staging import Growing, new_file, remove
from seggpt_jax.runs.writer import Progress

_FILE = "cases.jsonl"


class Cases:
    """Records of finished cases, by number.

    A record is plain data for JSON. With a `folder` every record is a line of its file
    `cases.jsonl`. The first line says what the records are `about`; a folder with
    another first line is emptied. Without a folder records are kept in memory only.
    show: a name to report progress under; "": in silence. brief: as of
    `writer.Progress`. active: as of `writer.Writer`.
    """

    def __init__(
        self,
        folder: AnyPath | None = None,
        about: Mapping[str, Any] | None = None,
        *,
        show: str = "",
        brief: bool = False,
        active: bool = True,
    ):
        self.folder, self._show, self.active = folder, show, active
        self._brief = brief
        self._records: dict[int, Any] = {}
        self._file: TextIO | None = None
        self._growing: Growing | None = None
        self._progress: Progress | None = None
        if folder is None:
            return
        own, records = hosts.on_first(
            lambda: self._read(folder / _FILE, dict(about or {}))
        )
        self._records = {record.pop("case"): record for record in records}
        if active:
            if not own:
                remove(folder)
            folder.mkdir(parents=True, exist_ok=True)
            self._growing = Growing(folder)
            cases = self._growing.here / _FILE
            lines: list[dict[str, Any]] = [{"about": dict(about or {})}]
            lines += [{"case": n, **r} for n, r in self._records.items()]
            with new_file(cases) as part:
                part.write_text("".join(json.dumps(line) + "\n" for line in lines))
            self._file = cases.open("a")

    def _read(self, path: AnyPath, about: Mapping[str, Any]) -> tuple[bool, list[Any]]:
        """Whether the folder is of the same, and then its records."""
        records: list[Any] = []
        if not path.exists():
            return False, records
        for number, text in enumerate(path.read_text().splitlines(keepends=True)):
            if not text.endswith("}\n"):  # cut by a kill
                break
            line = json.loads(text)
            if number == 0 and line.get("about") != json.loads(json.dumps(about)):
                logging.info(
                    "%s is of other weights, settings or data: starts anew", path
                )
                return False, records
            if number:
                records.append(line)
        return True, records

    def left(self, count: int) -> list[int]:
        """The numbers below `count` without a record, in order."""
        left = [n for n in range(count) if n not in self._records]
        if self._show:
            self._progress = Progress(
                count, count - len(left), active=self.active, unit="case",
                name=self._show, brief=self._brief,
            )  # fmt: skip
        self._began = time.monotonic()
        return left

    def add(self, number: int, record: Mapping[str, Any]) -> None:
        """Keeps the record of a case. `seconds` since the last one go with it."""
        now = time.monotonic()
        line = {**record, "seconds": round(now - self._began, 4)}
        self._began = now
        self._records[number] = line
        if self._file:
            self._file.write(json.dumps({"case": number, **line}) + "\n")
            self._file.flush()
        if self._growing:
            self._growing.renew()
        if self._progress:
            self._progress.update(len(self._records))

    def records(self, count: int) -> list[Any]:
        """The records of cases 0..count - 1, in order."""
        return [self._records[number] for number in range(count)]

    @property
    def seconds(self) -> float:
        """What all cases took together, also in runs that were stopped."""
        return float(sum(record["seconds"] for record in self._records.values()))

    def close(self) -> None:
        if self._file:
            self._file.close()
        if self._growing:
            self._growing.close()
        if self._progress:
            self._progress.close()

    def __enter__(self) -> "Cases":
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()
