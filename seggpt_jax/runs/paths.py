"""Where a path option may point to: this machine, and for some options a bucket.

`Path` takes `gs://bucket/x` for a folder `gs:` of this machine. So every command holds
its options against this table, before it creates anything, and `locate` opens the path.
"""

import importlib.util
import os
import re
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from seggpt_jax.runs.buckets import PACKAGE, SCHEME, BucketPath

AnyPath = Path | BucketPath


class Place(NamedTuple):
    """What an option takes. wanted: in words. schemes: of `scheme://` that work too,
    where the text has the ending `ends`."""

    wanted: str
    schemes: tuple[str, ...] = ()
    ends: str = ""


_HERE = "a path on this machine"
LOCAL = Place(_HERE)
BUCKET = Place(f"{_HERE}, or in a bucket, gs://BUCKET/...", ("gs",))
PROMPT = Place(
    f"{_HERE}, or a tuned prompt in a bucket, gs://BUCKET/....safetensors",
    ("gs",),
    ".safetensors",
)
MODEL = Place(
    f"{_HERE}, or in a bucket, the name of a bundled model, or OWNER/NAME of the hub",
    ("gs",),
)
STREAM = Place(
    f"{_HERE}, or the address of a video (https://, rtsp://, ...)",
    ("file", "http", "https", "rtmp", "rtmps", "rtp", "rtsp", "srt", "tcp", "udp"),
)

# `gs:/x` is what Path makes of `gs://x`; of other words `masks:/x` may be IMAGE:MASK.
_REMOTE = re.compile(
    r"(?:^\s*|[:=])(?:([a-z][a-z0-9+-]+)://"
    r"|(?:gs|gcs|s3a?|https?|ftp|file|hdfs|abfss?|az|hf):/)",
    re.IGNORECASE,
)
_CACHE = "XDG_CACHE_HOME"


def check(option: str, value: str | os.PathLike, place: Place = LOCAL) -> None:
    """Raises ValueError for a `scheme://` that an option does not take.

    value: a path, or one after `IMAGE:` or `name=`. `gs:/x` is refused too.
    """
    text = os.fspath(value)
    if not (found := _REMOTE.search(text)):
        return
    scheme, rest = found[1], text[found.end() :]
    whole = found.start(1) == 0 and rest.lstrip("/")
    if scheme == "gs":  # not IMAGE:MASK
        whole = whole and not _REMOTE.search(rest) and text.endswith(place.ends)
    nameless = rest.startswith("/") and scheme != "file"
    if not whole or nameless or scheme not in place.schemes:
        raise ValueError(f"{option} {text}: must be {place.wanted}")
    if scheme == "gs" and importlib.util.find_spec(PACKAGE) is None:
        raise ValueError(
            f"{option} {text}: buckets need {PACKAGE}: pip install 'seggpt_jax[gcs]'"
        )


def locate(value: str | os.PathLike) -> AnyPath:
    """The path on this machine, or in a bucket. It has been checked."""
    text = os.fspath(value)
    return BucketPath(text) if text.startswith(SCHEME) else Path(text)


def check_all(
    options: Mapping[str, Any],
    places: Mapping[str, Place] | None = None,
    free: Collection[str] = (),
    prefix: str = "",
) -> None:
    """Holds the texts and paths among options, or among settings inside settings,
    against their places. Raises what `check` does.

    places: by name, of options that are not `LOCAL`. free: last names of those that are
    no paths and may look like one.
    """
    for name, value in options.items():
        if name in free:
            continue
        place = (places or {}).get(name, LOCAL)
        for one in value if isinstance(value, (list, tuple)) else [value]:
            if isinstance(one, Mapping):
                check_all(one, places, free, f"{prefix}{name}.")
            elif isinstance(one, (str, os.PathLike)):
                check(f"{prefix}{name}", one, place)


def user_cache() -> Path:
    """The folder of the user's caches. Raises what `check` does."""
    given = os.environ.get(_CACHE) or "~/.cache"
    check(_CACHE, given)
    return Path(given).expanduser()
