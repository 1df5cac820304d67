"""Label Studio's projects: their accepted annotations, and the prompts made of them."""

import dataclasses
import datetime
import hashlib
import json
import logging
import re
import threading
import zlib
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from seggpt_jax.runs import staging
from seggpt_jax.serve.label_studio.interface import Interface
from seggpt_jax.serve.label_studio.regions import names_of

logger = logging.getLogger(__name__)

_KEPT = 200  # annotations of a project; older ones would hardly be prompts again
_KEY = re.compile(r"\d{1,15}(\.\d{1,15})?", re.ASCII)


def key_of(uid: str) -> str:
    """The key of a project: its number and the second of its birth. So two
    installations of Label Studio may share a server. It names a folder."""
    if not _KEY.fullmatch(uid):
        raise ValueError(f"project {uid[:40]!r} is no number, as in 7.1700000000")
    return uid


def key_of_event(project: Mapping[str, Any]) -> str:
    """The same key, of the project that an event holds."""
    try:
        born = datetime.datetime.fromisoformat(project["created_at"])
        return key_of(f"{int(project['id'])}.{int(born.timestamp())}")
    except (KeyError, TypeError, ValueError, OverflowError):
        raise ValueError("the event's project has no id and created_at") from None


@dataclasses.dataclass(frozen=True)
class Accepted:
    """An annotation that was submitted. task: its number. image: what the task's data
    say of the image. labels: names that it shows. content: its regions, compressed."""

    task: int
    image: str
    labels: frozenset[str]
    content: bytes

    @classmethod
    def of(cls, task: int, image: str, regions: list[Any]) -> "Accepted":
        text = json.dumps(regions, separators=(",", ":")).encode()
        return cls(task, image, frozenset(names_of(regions)), zlib.compress(text))

    @property
    def regions(self) -> list[Any]:
        return json.loads(zlib.decompress(self.content))

    def digest(self) -> bytes:
        return hashlib.sha256(self.image.encode() + b"\0" + self.content).digest()


class Project:
    """The annotations of a project by their numbers, the newest last."""

    def __init__(self) -> None:
        self.accepted: OrderedDict[int, Accepted] = OrderedDict()

    def choose(self, interface: Interface, count: int) -> dict[int, Accepted]:
        """The annotations that become prompts, at most `count`: the newest of every
        label, then the newest. Of a task only the newest counts."""
        newest, tasks = list[int](), set[int]()
        for number in reversed(self.accepted):
            one = self.accepted[number]
            if one.task not in tasks and one.labels & interface.labels.keys():
                newest.append(number)
                tasks.add(one.task)
        first, seen = list[int](), set[str]()
        for number in newest:
            if new := self.accepted[number].labels & interface.labels.keys() - seen:
                first.append(number)
                seen |= new
        chosen = dict.fromkeys([*first, *newest])
        return {number: self.accepted[number] for number in list(chosen)[:count]}


class Projects:
    """Projects by their keys. limit: how many are held, those of the oldest use are
    dropped first. folder: where annotations are kept for the next start, or None. All
    methods may be called from any thread."""

    def __init__(self, limit: int, folder: Path | None):
        self._limit, self._folder = limit, folder
        self._held: OrderedDict[str, Project] = OrderedDict()
        self._lock = threading.Lock()
        if folder is not None:
            folder.mkdir(parents=True, exist_ok=True)

    def choose(self, key: str, interface: Interface, count: int) -> dict[int, Accepted]:
        """As `Project.choose`."""
        with self._lock:
            return self._project(key).choose(interface, count)

    def accept(self, key: str, number: int, annotation: Accepted) -> None:
        """Adds an annotation, or takes it in place of an older state."""
        with self._lock:
            held = self._project(key).accepted
            if held.get(number) == annotation:
                return
            held[number] = annotation
            held.move_to_end(number)
            surplus = list(held)[:-_KEPT]
            if self._folder is not None:
                self._write(self._folder / key, number, annotation)
            self._remove(key, surplus)

    def forget(
        self, key: str, numbers: Iterable[int] = (), tasks: Iterable[int] = ()
    ) -> None:
        """Drops annotations, by their numbers or those of their tasks."""
        with self._lock:
            held, tasks = self._project(key).accepted, set(tasks)
            numbers = set(numbers) | {n for n, one in held.items() if one.task in tasks}
            self._remove(key, numbers & held.keys())

    def _remove(self, key: str, numbers: Iterable[int]) -> None:
        for number in numbers:
            del self._held[key].accepted[number]
            if self._folder is not None:
                self._file(self._folder / key, number).unlink(missing_ok=True)

    def _project(self, key: str) -> Project:
        if key not in self._held:
            self._held[key] = Project()
            if self._folder is not None:
                self._held[key].accepted.update(self._read(self._folder / key))
        self._held.move_to_end(key)
        while len(self._held) > self._limit:
            self._held.popitem(last=False)
        return self._held[key]

    @staticmethod
    def _file(folder: Path, number: int) -> Path:
        return folder / f"{number}.json"

    def _write(self, folder: Path, number: int, one: Accepted) -> None:
        folder.mkdir(exist_ok=True)
        row = {"task": one.task, "image": one.image, "result": one.regions}
        with staging.new_file(self._file(folder, number)) as file:
            file.write_text(json.dumps(row))

    def _read(self, folder: Path) -> Iterator[tuple[int, Accepted]]:
        """What `_write` wrote, the oldest first."""
        files = [x for x in folder.glob("*.json") if x.stem.isdecimal()]
        for path in sorted(files, key=lambda x: x.stat().st_mtime_ns)[-_KEPT:]:
            try:
                row = json.loads(path.read_text())
                one = Accepted.of(row["task"], row["image"], row["result"])
            except (OSError, ValueError, KeyError, TypeError) as error:
                logger.warning("%s is no annotation: %r", path, error)
                continue
            yield int(path.stem), one
