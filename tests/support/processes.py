"""Threads of this process that play the processes of one run."""

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import jax
import numpy as np
import pytest

from seggpt_jax.runs import hosts

T = TypeVar("T")


def play(count: int, work: Callable[[], T]) -> list[T]:
    """What `work()` gives in each of `count` threads, which take themselves for
    processes of one run. They meet wherever processes tell each other something."""
    own, told = threading.local(), [None] * count
    meeting = threading.Barrier(count, timeout=60)

    def everyones(value):
        told[own.number] = value
        meeting.wait()
        found = list(told)
        meeting.wait()
        return found

    def run(number: int) -> T:
        own.number = number
        return work()

    with pytest.MonkeyPatch.context() as patch, ThreadPoolExecutor(count) as pool:
        patch.setattr(jax, "process_count", lambda: count)
        patch.setattr(jax, "process_index", lambda: own.number)
        patch.setattr(hosts, "gather", lambda x: np.concatenate(everyones(x)))
        patch.setattr(hosts, "broadcast", lambda x: everyones(x)[0])
        return list(pool.map(run, range(count)))
