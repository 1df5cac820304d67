"""Clips with times and sound of their own, written and read by PyAV alone."""

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

_TICK = Fraction(1, 1000)
_RATE = 16_000


def write_clip(
    path: str | Path,
    frames: Sequence[np.ndarray],
    times: Sequence[float] = (),
    sound: str = "",
    codec: str = "libx264",
    tick: Fraction = _TICK,
) -> None:
    """Writes frames uint8 `[h, w, 3]` at their times in seconds, 5 a second if none are
    given, and two seconds of a tone, coded as `sound` says."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=5)
        stream.height, stream.width = frames[0].shape[:2]
        stream.pix_fmt, stream.codec_context.time_base = "yuv420p", tick
        voice = container.add_stream(sound, rate=_RATE) if sound else None
        for number, frame in enumerate(frames):
            time = Fraction(times[number]) if times else Fraction(number, 5)
            picture = av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), "rgb24")
            picture.pts, picture.time_base = round(time / tick), tick
            container.mux(stream.encode(picture))
        container.mux(stream.encode())
        if voice:
            for start in range(0, 2 * _RATE, 1000):
                wave = np.sin(np.arange(start, start + 1000) / 20) * 8000
                tone = av.AudioFrame.from_ndarray(
                    wave.astype(np.int16)[None], format="s16", layout="mono"
                )
                tone.sample_rate = _RATE
                tone.pts, tone.time_base = start, Fraction(1, _RATE)
                container.mux(voice.encode(tone))
            container.mux(voice.encode())


def read_times(path: str | Path) -> list[float]:
    """The times of the frames of a video file, in seconds."""
    with av.open(str(path)) as container:
        return [float(f.pts * f.time_base) for f in container.decode(video=0)]


def read_sound(path: str | Path) -> list[tuple[float, bytes]]:
    """The packets of a video file's sound: time in seconds, and content."""
    with av.open(str(path)) as container:
        packets = container.demux(audio=0) if container.streams.audio else ()
        return [
            (round(float(packet.pts * packet.time_base), 3), bytes(packet))
            for packet in packets
            if packet.size
        ]
