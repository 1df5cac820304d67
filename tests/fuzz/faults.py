"""Inputs whose processes die or stand still: what `run` must catch."""

import os
import signal
import time
from pathlib import Path

import numpy as np


def start(home: Path) -> list[int]:
    return []


def attempt(rng: np.random.Generator, folder: Path, started: list[int]) -> None:
    number = int((folder.parent / "number").read_text())
    if number == 1:
        os.kill(os.getpid(), signal.SIGSEGV)
    if number == 2:
        time.sleep(99)
