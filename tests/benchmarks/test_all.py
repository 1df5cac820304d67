"""Every benchmark is in `benchmarks.all` and in the table; what fails is told."""

import re
from pathlib import Path

import pytest

from benchmarks import all as every

FOLDER = Path(every.__file__).parent


def test_every_benchmark_is_run_and_in_the_table():
    modules = {
        path.stem
        for path in FOLDER.glob("*.py")
        if "\nif __name__ ==" in path.read_text() and path.stem != "all"
    }
    assert set(every.BENCHMARKS) == modules
    table = (FOLDER / "README.md").read_text()
    rows = re.findall(r"^\| `(\w+)` \|.*?\| `(\w+)", table, re.MULTILINE)
    assert rows == [(name, name) for name in sorted(modules)]


def test_the_smallest_form_runs(capsys):
    assert list(every.run_all(["cost"])) == []
    assert capsys.readouterr().out.startswith("cost: runs, ")


@pytest.mark.parametrize(
    "quick", [every.Quick("--no-such"), every.Quick("", ("no_x",))]
)
def test_what_fails_is_told_and_what_lacks_a_package_is_skipped(
    quick, monkeypatch, capsys
):
    monkeypatch.setitem(every.BENCHMARKS, "cost", quick)
    failed = list(every.run_all(["cost"]))
    printed = capsys.readouterr().out
    if quick.needs:
        assert failed == [] and printed == "cost: skipped, needs no_x\n"
    else:
        assert failed == ["cost"] and "unrecognized arguments: --no-such" in printed


def test_without_quick_or_with_an_unknown_name_it_is_refused(monkeypatch, capsys):
    for given, error in (([], "--quick"), (["--quick", "costs"], "unknown benchmarks")):
        monkeypatch.setattr("sys.argv", ["all", *given])
        with pytest.raises(SystemExit):
            every.main()
        assert error in capsys.readouterr().err
