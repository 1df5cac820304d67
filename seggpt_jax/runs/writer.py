"""The records of a run: metrics, pictures, progress and timings."""

import contextlib
import functools
import json
import math
import os
import sys
import time
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from PIL import Image
from tqdm import tqdm

from seggpt_jax.runs import log
from seggpt_jax.runs.paths import AnyPath, locate
from seggpt_jax.runs.staging import Growing, new_file

METRICS = "metrics.jsonl"
PICTURES = "pictures"  # the folder of a workdir
_PICTURE_SIDE = 512  # longest side in TensorBoard; the PNG keeps every pixel


class Writer:
    """Writes `metrics.jsonl`, `pictures/<step>/<name>.png` and TensorBoard events.

    start: the step that training resumes from. Lines of later steps are removed, so
    that the file tells one history. 0 (from scratch) removes all lines, None removes
    none. active: false on all processes but the first; then every call does nothing.
    In a bucket lines and events are stored now and then, and all of them by `store`.
    """

    def __init__(
        self,
        workdir: str | os.PathLike,
        active: bool = True,
        start: int | None = None,
    ):
        self._active = active
        if not active:
            return
        self._workdir = locate(workdir)
        self._workdir.mkdir(parents=True, exist_ok=True)
        self._growing = Growing(self._workdir, (METRICS,))
        metrics = self._growing.here / METRICS
        self._start = start
        self._purge = None if start is None else start + 1 if start else 0
        if self._purge is not None:
            _drop_lines_from(metrics, self._purge)
        self._metrics = metrics.open("a", encoding="utf-8")

    @functools.cached_property
    def _board(self):
        """Made for the first value: tensorboardX imports PyTorch where it is installed,
        and the first step need not wait for it."""
        from tensorboardX import SummaryWriter

        # TensorBoard hides steps >= purge_step of earlier event files. The suffix
        # keeps a resume within the same second off the file it continues.
        return SummaryWriter(
            str(self._growing.here / "tensorboard"), purge_step=self._purge,
            flush_secs=30, filename_suffix=f".{self._start or 0}.{os.getpid()}",
        )  # fmt: skip

    def scalars(self, step: int, values: Mapping[str, Any]) -> None:
        """Appends one line `{"step", "time", **values}`; time is seconds since 1970.

        Values are numbers. JSON has no NaN or infinity: they become the strings "nan",
        "inf" and "-inf", which `float()` reads back.
        """
        if not self._active:
            return
        numbers = {name: float(value) for name, value in values.items()}
        line: dict[str, Any] = {"step": step, "time": round(time.time(), 3)}
        line |= {n: x if math.isfinite(x) else str(x) for n, x in numbers.items()}
        self._metrics.write(json.dumps(line, allow_nan=False) + "\n")
        self._metrics.flush()
        for name, number in numbers.items():
            self._board.add_scalar(name, number, step)
        if self._growing.due:
            self._board.flush()
            self._growing.renew()

    def images(self, step: int, name: str, image: np.ndarray) -> None:
        """Writes one picture, uint8 `[h, w, 3]` or `[h, w]`; slashes make folders."""
        if not self._active:
            return
        if image.dtype != np.uint8:
            raise ValueError(f"picture {name!r} is {image.dtype}, but must be uint8")
        picture = Image.fromarray(image)
        path = pictures_of(self._workdir, step) / f"{name}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        with new_file(path) as new:
            picture.save(new, "PNG")
        picture.thumbnail((_PICTURE_SIDE, _PICTURE_SIDE))
        small = np.asarray(picture.convert("RGB"))
        self._board.add_image(name, small, step, dataformats="HWC")

    def store(self) -> None:
        """Returns when all that was written can be read in the workdir."""
        if self._active:
            if "_board" in vars(self):
                self._board.flush()
            self._growing.store()

    def close(self) -> None:
        if self._active:
            self._metrics.close()
            if "_board" in vars(self):
                self._board.close()
            self._growing.close()

    def __enter__(self) -> "Writer":
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()


def pictures_of(workdir: AnyPath, step: int) -> AnyPath:
    """The folder of the pictures of a step."""
    return workdir / PICTURES / f"{step:07d}"


def _drop_lines_from(path: AnyPath, step: int) -> None:
    """Removes lines of `step` and later, and a last line that a kill cut short."""
    if not path.exists():
        return
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    kept = "".join(line for line in lines if _is_before(step, line))
    with new_file(path) as new:  # a kill here leaves the old history or the new one
        new.write_text(kept, encoding="utf-8")


def _is_before(step: int, line: str) -> bool:
    try:
        return line.endswith("\n") and json.loads(line)["step"] < step
    except (ValueError, KeyError, TypeError):
        return False


def history(workdir: str | os.PathLike, name: str) -> list[tuple[float, int]]:
    """Every value, except NaN, that `Writer` wrote under a name, with its step."""
    metrics = locate(workdir) / METRICS
    if not metrics.exists():
        return []
    lines = [json.loads(t) for t in metrics.read_text().splitlines() if t[-1:] == "}"]
    values = [(float(line[name]), line["step"]) for line in lines if name in line]
    return [(value, step) for value, step in values if not math.isnan(value)]


class Clock:
    """Measures steps, images and the share of time spent waiting for data."""

    def __init__(self, images_per_step: int):
        self._images_per_step = images_per_step
        self._reset()

    def _reset(self) -> None:
        self._since = time.perf_counter()
        self._steps = 0
        self._waited = 0.0

    @contextlib.contextmanager
    def waiting(self) -> Iterator[None]:
        """Times the wait for one step's batch: `with clock.waiting(): next(data)`."""
        start = time.perf_counter()
        yield
        self._waited += time.perf_counter() - start
        self._steps += 1

    def read(self) -> dict[str, float]:
        """Rates since the last read (or the start), and starts over.

        steps_per_s, images_per_s; data_wait: share of the time in `waiting`, 0..1.
        """
        seconds = max(time.perf_counter() - self._since, 1e-9)
        rate = self._steps / seconds
        rates = {
            "steps_per_s": rate,
            "images_per_s": rate * self._images_per_step,
            "data_wait": self._waited / seconds,
        }
        self._reset()
        return rates


class Progress:
    """A bar on a terminal; elsewhere one plain line every `every_s` seconds.

    total_steps, start: the last step, and the step resumed from. active: as in
    `Writer`. unit: the word for a step. name: stands before the numbers. brief: the
    bar goes when it is full, and plain lines come only after `every_s` seconds.
    """

    def __init__(
        self,
        total_steps: int,
        start: int = 0,
        active: bool = True,
        every_s: float = 30.0,
        unit: str = "step",
        name: str = "",
        brief: bool = False,
    ):
        self._total, self._start, self._step = total_steps, start, start
        self._values: dict[str, Any] = {}
        self._unit, self._name, self._brief = unit, name, brief
        active = active and log.progress()
        self._plain, self._every_s = active and not log.bars(), every_s
        self._printed = time.monotonic()
        self._began: float | None = None
        self._bar = tqdm(
            total=total_steps, initial=start, disable=not (active and log.bars()),
            mininterval=0.5, dynamic_ncols=True, unit=unit, desc=name,
            leave=not brief,
        )  # fmt: skip

    def update(self, step: int, values: Mapping[str, Any] | None = None) -> None:
        """Moves on to `step`; cheap enough for every step.

        values: `loss` and the rates of `Clock.read`; each is shown until the next.
        """
        self._values |= values or {}
        if self._began is None:  # the first step compiled: its time says nothing
            self._began, self._start = time.monotonic(), step
            self._bar.unpause()
            self._bar.initial = step
        self._bar.set_postfix_str(self._described(), refresh=False)
        self._bar.update(step - self._step)
        self._step = step
        due = time.monotonic() - self._printed >= self._every_s
        last = step == self._total and not self._brief
        if self._plain and (due or last):
            self._printed = time.monotonic()
            print(self._line(), file=sys.stderr, flush=True)

    def close(self) -> None:
        self._bar.close()

    def __enter__(self) -> "Progress":
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def _described(self) -> str:
        formats = {
            "loss": "loss {:.4g}",
            "images_per_s": "{:.3g} images/s",
            "data_wait": "data wait {:.0%}",
        }
        known = [(f, self._values[n]) for n, f in formats.items() if n in self._values]
        return ", ".join(text.format(value) for text, value in known)

    def _line(self) -> str:
        since = time.monotonic() - (self._began or 0)
        average = (self._step - self._start) / (since + 1e-9)
        rate = self._values.get("steps_per_s") or average
        left = (self._total - self._step) / rate if rate else math.inf
        eta = tqdm.format_interval(left) if math.isfinite(left) else "?"
        done = f"{self._unit} {self._step}/{self._total}"
        speed = f"{rate:.3g} {self._unit}s/s" if rate else ""
        parts = [done, speed, f"ETA {eta}", self._described()]
        return f"{self._name}: " * bool(self._name) + ", ".join(filter(None, parts))
