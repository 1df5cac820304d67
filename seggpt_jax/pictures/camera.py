"""Frames of a camera as they come (OpenCV), none of them late."""

import threading
import time
from collections import deque
from collections.abc import Iterable, Iterator

from seggpt_jax.pictures.video import Frame

_PATIENCE = 5.0  # seconds that a camera has to give its last frame
_REMEDY = "pip install 'seggpt_jax[camera]'"


def read_camera(number: int) -> Iterator[Frame]:
    """The frames of a camera, the first is number 0. Times count from the first frame.
    Raises ValueError where there is no such camera."""
    try:
        import cv2
    except ImportError:
        raise ValueError(f"camera {number}: cameras need OpenCV: {_REMEDY}") from None
    capture = cv2.VideoCapture(number)
    try:
        if not capture.isOpened():
            raise ValueError(f"camera {number} cannot be opened: is there one?")
        start = None
        while True:
            there, image = capture.read()
            now = time.monotonic()
            if not there:
                break
            start = now if start is None else start
            yield Frame(image[..., ::-1], now - start)  # OpenCV's are BGR
        if start is None:
            raise ValueError(f"camera {number} gives no frames")
    finally:
        capture.release()


def newest(frames: Iterable[Frame]) -> Iterator[Frame]:
    """Gives the newest frame whenever one is asked for, and each one once. Frames that
    come while the caller is busy are left out."""
    latest: deque[Frame] = deque(maxlen=1)
    came, ended, faults = threading.Condition(), threading.Event(), []

    def read() -> None:
        try:
            for frame in frames:
                with came:
                    latest.append(frame)
                    came.notify()
                if ended.is_set():
                    break
        except Exception as error:
            faults.append(error)
        ended.set()
        with came:
            came.notify()

    thread = threading.Thread(target=read, daemon=True)
    thread.start()
    try:
        while True:
            with came:
                came.wait_for(lambda: latest or ended.is_set())
                if not latest:
                    break
                frame = latest.pop()
            yield frame
    finally:
        ended.set()
        thread.join(_PATIENCE)
    if faults:
        raise faults[0]
