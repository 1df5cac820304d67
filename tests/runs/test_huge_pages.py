"""Memory in huge pages: asked for once, where the system waits to be asked."""

import subprocess
import sys

import pytest

from seggpt_jax import cli
from seggpt_jax.runs import huge_pages

ASK, ALWAYS, NEVER = (
    "always [madvise] never", "[always] madvise never", "always madvise [never]",
)  # fmt: skip
SHOW = """
import os, pathlib, sys
from seggpt_jax.runs import huge_pages
huge_pages._ENABLED = pathlib.Path(sys.argv[1])
huge_pages.take()
print(os.getpid(), os.environ["GLIBC_TUNABLES"], *sys.argv[2:])
"""


@pytest.mark.skipif(sys.platform != "linux", reason="glibc's setting")
def test_a_program_starts_anew_once_as_it_was_called(tmp_path, monkeypatch):
    enabled = tmp_path / "enabled"
    enabled.write_text(ASK)
    monkeypatch.setenv("GLIBC_TUNABLES", "glibc.malloc.perturb=0")
    words = [sys.executable, "-c", SHOW, str(enabled), "a b", "", "--c=*"]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as child:
        said = child.communicate(timeout=60)[0].strip()
    asked = "glibc.malloc.perturb=0:glibc.malloc.hugetlb=1"
    assert said == f"{child.pid} {asked} a b  --c=*"


@pytest.mark.parametrize(
    "enabled, given, platform",
    [
        (ASK, "glibc.malloc.hugetlb=0", "linux"),  # the user's choice
        (ALWAYS, "", "linux"),
        (NEVER, "", "linux"),
        (None, "", "linux"),
        (ASK, "", "darwin"),
    ],
)
def test_nothing_starts_anew_for_nothing(
    tmp_path, monkeypatch, enabled, given, platform
):
    path = tmp_path / "enabled"
    if enabled:
        path.write_text(enabled)
    monkeypatch.setattr(huge_pages, "_ENABLED", path)
    monkeypatch.setattr(huge_pages.os, "execv", lambda *given: 1 / 0)
    monkeypatch.setattr(huge_pages.sys, "platform", platform)
    monkeypatch.setenv("GLIBC_TUNABLES", given)
    huge_pages.take()


def test_only_a_process_of_its_own_starts_anew(monkeypatch, capsys):
    asked = []
    monkeypatch.setattr(huge_pages, "take", lambda: asked.append(1))
    monkeypatch.setattr(sys, "argv", ["seggpt", "--help"])
    for words, wanted in ((["--help"], []), (None, [1])):
        with pytest.raises(SystemExit):
            cli.main(words)
        assert asked == wanted
