"""Memory in huge pages, for programs on a CPU (docs/speed.md). It imports next to
nothing, since the program starts again."""

import os
import sys
from pathlib import Path

_ENABLED = Path("/sys/kernel/mm/transparent_hugepage/enabled")
_TUNABLES = "GLIBC_TUNABLES"
_HUGE = "glibc.malloc.hugetlb"


def take() -> None:
    """Starts this program anew with its memory in huge pages, where Linux gives them
    only to programs that ask. Ubuntu does so.

    On a CPU, XLA takes memory anew for each run of a compiled program, and every page
    of it costs a fault: one for 2 MiB then, and not one for 4 KiB. glibc reads the
    setting at the start of a process alone. So a program calls this before all else,
    and a library never does.
    """
    given = os.environ.get(_TUNABLES, "")
    try:
        ask = sys.platform == "linux" and "[madvise]" in _ENABLED.read_text()
    except OSError:  # a kernel without huge pages
        return
    if ask and _HUGE not in given:
        os.environ[_TUNABLES] = ":".join(filter(None, (given, f"{_HUGE}=1")))
        os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])
