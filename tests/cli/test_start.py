"""What the command imports before it works: packages that take seconds wait."""

import subprocess
import sys

import pytest

SLOW = ("jax", "flax", "scipy", "numpy", "orbax", "PIL", "tensorflow_datasets")
HELP = """
import sys
from seggpt_jax.cli import main
try:
    main(sys.argv[1:])
except SystemExit:
    pass
print(*sorted(sys.modules), file=sys.stderr)
"""


@pytest.mark.parametrize("words", [["--help"], ["--version"], ["segmnet"]])
def test_help_imports_no_slow_package(words):
    done = subprocess.run([sys.executable, "-c", HELP, *words], capture_output=True)
    imported = done.stderr.decode().splitlines()[-1].split()
    assert "argparse" in imported
    assert not {*SLOW} & {*imported}
    if words == ["--help"]:
        assert b"segment" in done.stdout and b"doctor" in done.stdout
