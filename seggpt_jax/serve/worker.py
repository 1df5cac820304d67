"""The one thread that uses the device: it encodes prompts, and segments queries."""

import dataclasses
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import Any

import numpy as np

from seggpt_jax.inference import Predictor, PromptSet, Result


@dataclasses.dataclass(frozen=True, eq=False)
class _Call:
    future: Future
    call: Callable[[], Any]


@dataclasses.dataclass(frozen=True, eq=False)
class _Query:
    future: Future
    image: np.ndarray
    prompts: PromptSet


class Worker:
    """Runs tasks in the order in which they came, but that queries of the same prompts
    go together: all that wait when the first of them begins.

    pace: seconds that a task took lately.
    """

    def __init__(self, predictor: Predictor):
        self._predictor = predictor
        self._waiting: deque[_Call | _Query] = deque()
        self._changed = threading.Condition()
        self._closed = False
        self.pace = 0.0
        self._thread = threading.Thread(target=self._run, name="seggpt device")
        self._thread.start()

    def call(self, call: Callable[[], Any]) -> Future:
        """Runs a function on the thread of the device."""
        return self._add(_Call(Future(), call))

    def segment(self, image: np.ndarray, prompts: PromptSet) -> Future[Result]:
        """Segments an image uint8 `[h, w, 3]`."""
        return self._add(_Query(Future(), image, prompts))

    def close(self) -> None:
        """Waits until all tasks are done."""
        with self._changed:
            self._closed = True
            self._changed.notify()
        self._thread.join()

    def _add(self, task: _Call | _Query) -> Future:
        with self._changed:
            if self._closed:
                raise RuntimeError("the server is being stopped")
            self._waiting.append(task)
            self._changed.notify()
        return task.future

    def _run(self) -> None:
        while tasks := self._take():
            began = time.monotonic()
            running = [x for x in tasks if x.future.set_running_or_notify_cancel()]
            try:
                self._do(running)
            except Exception as error:  # those who ask are told
                for task in running:
                    if not task.future.done():
                        task.future.set_exception(error)
            self.pace = (time.monotonic() - began) / len(tasks)

    def _take(self) -> Sequence[_Call | _Query]:
        """The next task, and the queries that go with it; none after the last."""
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._closed)
            if not self._waiting:
                return []
            first = self._waiting[0]
            together = [x for x in self._waiting if x is first or _alike(x, first)]
            self._waiting = deque(x for x in self._waiting if x not in together)
            return together

    def _do(self, tasks: Sequence[_Call | _Query]) -> None:
        for task in tasks:
            if isinstance(task, _Call):
                task.future.set_result(task.call())
        queries = [task for task in tasks if isinstance(task, _Query)]
        if queries:
            images = iter([query.image for query in queries])
            results = self._predictor(images, queries[0].prompts)
            for query, result in zip(queries, results, strict=True):
                query.future.set_result(result)


def _alike(one: _Call | _Query, other: _Call | _Query) -> bool:
    """Whether two are queries of the same prompts."""
    if isinstance(one, _Query) and isinstance(other, _Query):
        return one.prompts is other.prompts
    return False
