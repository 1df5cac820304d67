"""The wheel carries `configs/`; all else is in setup.cfg.

It goes to seggpt_jax/packaged/configs: a package called `configs` at the top level of
site-packages would be in everybody's way. `seggpt_jax.training.config_file` finds it.
"""

import shutil
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

HERE = Path(__file__).parent
CONFIGS = sorted(HERE.glob("configs/*.py"))


class BuildPy(build_py):
    """`build_py`, and the configs. An editable install uses those of the checkout."""

    def run(self):
        super().run()
        if not self.editable_mode:
            for source, target in zip(CONFIGS, self._targets(), strict=True):
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(source, target)

    def get_outputs(self, include_bytecode=True):
        return super().get_outputs(include_bytecode) + [*map(str, self._targets())]

    def _targets(self):
        folder = Path(self.build_lib) / "seggpt_jax/packaged/configs"
        return [folder / path.name for path in CONFIGS]


setup(cmdclass={"build_py": BuildPy})
