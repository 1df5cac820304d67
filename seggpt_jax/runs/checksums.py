"""Checksums of a folder, in `SHA256SUMS`, which `sha256sum -c` reads too."""

import hashlib
import re
from collections.abc import Collection

from seggpt_jax.runs import staging
from seggpt_jax.runs.paths import AnyPath

SUMS = "SHA256SUMS"


def files(folder: AnyPath) -> list[str]:
    """Names of all files below `folder`, relative to it, except the sums."""
    return [name for name in staging.files(folder) if name.split("/")[-1] != SUMS]


def sha256(path: AnyPath) -> str:
    """The sha256 of a file's bytes, in hexadecimal."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(1 << 22):
            digest.update(chunk)
    return digest.hexdigest()


def write(folder: AnyPath, but: Collection[str] = ()) -> None:
    """Writes the sums of all files below a folder, without the files in `but`."""
    names = [name for name in files(folder) if name not in but]
    lines = [f"{sha256(folder / name)}  {name}" for name in names]
    # The last line, a comment for sha256sum, tells a torn list from a whole one.
    (folder / SUMS).write_text("\n".join([*lines, f"# {len(lines)} files\n"]))


def fault(folder: AnyPath, required: Collection[str]) -> str | None:
    """The first fault of a folder that has sums, as file and reason; None if intact.

    required: files that the sums must list.
    """
    try:
        text = (folder / SUMS).read_text()
    except FileNotFoundError:
        return f"{SUMS} is missing"
    except (OSError, UnicodeDecodeError) as error:
        return f"{SUMS} cannot be read ({error})"
    sums = {n: s for s, n in re.findall(r"^([0-9a-f]{64})  (.+)$", text, re.MULTILINE)}
    if not sums or not text.endswith(f"\n# {len(sums)} files\n"):
        return f"{SUMS} is torn or edited"
    if unlisted := sorted(set(required) - sums.keys()):
        return f"{unlisted[0]} is not listed in {SUMS}"
    for name, expected in sums.items():
        path = folder / name
        if not path.exists():
            return f"{name} is missing"
        try:
            if sha256(path) != expected:
                return f"{name} differs from its sha256 in {SUMS}"
        except OSError as error:
            return f"{name} cannot be read ({error.strerror or error})"
    return None
