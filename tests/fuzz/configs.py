"""Configs with wrong settings: as objects, as files, and on the command line.

A config is run by `main` up to the first step: its data is opened, a pair is drawn, and
the state is made in the abstract. So a value that is accepted works.
"""

import contextlib
import io
import os
import sys
from pathlib import Path
from typing import Any

import jax
import numpy as np
from absl import flags

from seggpt_jax import main, train
from seggpt_jax.config import plain
from seggpt_jax.runs import hosts
from tests import tiny
from tests.fuzz import nasty
from tests.fuzz.outcomes import Refused, Wrong, check_message, refusing
from tests.support import folders

_REPOSITORY = Path(__file__).parents[2]


class Began(Exception):
    """A run came to its first step."""


class Still(train.Loop):
    """A loop that stops before its first step."""

    def prepare(self, checkpoints):
        pair = self.dataset[0]
        if not all(np.isfinite(x).all() for x in pair.values() if x.dtype.kind == "f"):
            raise Wrong("a pair has values that are not finite")
        _ = self.abstract
        raise Began


def start(home: Path) -> tuple[Path, list[str]]:
    """A folder with data, and the names of all settings, sections too."""
    folders.write(home / "pets")
    sys.path.insert(0, str(_REPOSITORY))
    os.environ["JAX_PLATFORMS"] = "cpu"
    train.Loop = Still
    main.cut_cpu = lambda count: None  # the devices of this process are there
    hosts.leave = lambda status: None
    main.cache_compiled = lambda: ""
    main.hosts.join = lambda *_: None
    jax.devices()
    known = _with_data(plain(tiny.get_config("evals")), home)
    return home, list(_names(known))


def _with_data(settings: dict[str, Any], home: Path) -> dict[str, Any]:
    """Settings with a source of files and all its settings."""
    pets = {
        "type": "indexed", "folder": "pets", "split": "train", "weight": 1.0,
        "classes": ("dog", "cat"), "exclude_classes": ("owl",), "kind": "category",
        "same_image_only": False, "strict": False, "check_files": True, "bits": 16,
        "view": {"crop_scale": (1.0, 1.0)},
    }  # fmt: skip
    return settings | {
        "data_dir": str(home), "sources": settings["sources"] | {"pets": pets}
    }  # fmt: skip


def _names(settings: Any, where: str = ""):
    for name, value in settings.items():
        yield where + name
        if isinstance(value, dict):
            yield from _names(value, f"{where}{name}.")


def attempt(rng: np.random.Generator, folder: Path, started: Any) -> None:
    form = (_object, _object, _object, _file, _line, _line)[rng.integers(6)]
    home, names = started
    if form is _object:
        return _object(rng, folder, names, home)
    return form(rng, folder, names)


def _object(rng, folder: Path, names: list[str], home: Path) -> None:
    """A config with one or two settings replaced, removed or added."""
    settings = plain(tiny.get_config("evals" if rng.random() < 0.3 else None))
    if rng.random() < 0.5:
        settings = _with_data(settings, home)
    told = []
    for _ in range(rng.integers(1, 3)):
        told.append(_change(rng, settings, names))
    where = {part for name in told for part in name.split(".")} | set(told)
    places = where | {name.split(".")[0] for name in told}
    with refusing(*places, errors=(ValueError, OSError)):
        _run(settings, folder)


def _run(settings: Any, folder: Path) -> None:
    with contextlib.suppress(Began):
        main.run(settings, str(folder / "run"))
        raise Wrong("a run ended without a step")


def _change(rng, settings: dict[str, Any], names: list[str]) -> str:
    """Changes one setting; returns its name."""
    name = names[rng.integers(len(names))]
    *sections, last = name.split(".")
    here = settings
    for section in sections:
        here = here.get(section)
        if not isinstance(here, dict):
            return name
    way = rng.random()
    if way < 0.1:
        here.pop(last, None)
    elif way < 0.2:
        misspelt = str(rng.choice([last[:-1], last + "s", last.upper(), f"_{last}"]))
        here[misspelt] = here.pop(last, 1)
        return f"{misspelt}.{name}"
    elif way < 0.6 and isinstance(here.get(last), (int, float)):
        here[last] = nasty.number(rng)
    else:
        here[last] = nasty.value(rng)
    return name


def _file(rng, folder: Path, names: list[str]) -> None:
    """Config files that are no configs."""
    head = "from tests import tiny\ndef get_config(argument=None):\n"
    texts = [
        "", "x = 1\n", "def get_config(:\n", "import none_of_that\n",
        "get_config = 3\n",
        "def get_config(argument=None): return None\n",
        "def get_config(argument=None): return 3\n",
        "def get_config(argument=None): return []\n",
        "def get_config(argument=None): return {'mode': 'train'}\n",
        "def get_config(): return {}\n", "def get_config(a, b): return {}\n",
        "def get_config(argument=None): raise ValueError('my own words')\n",
        "def get_config(argument=None): return {}['missing']\n",
        f"{head}    c = tiny.get_config()\n    c.optim.lr = 3\n    return c\n",
        f"{head}    c = tiny.get_config()\n    c.stages = 3\n    return c\n",
        f"{head}    c = tiny.get_config()\n    c.optim.clip = 'x'\n    return c\n",
        f"{head}    c = tiny.get_config(argument)\n    c.moed = 't'\n    return c\n",
        f"{head}    c = tiny.get_config()\n    del c.stages\n    return c\n",
        f"{head}    c = tiny.get_config()\n    c.model.size = c.get_ref('best')\n"
        "    return c\n",
        "\0", "é = 'ü'\n",
        "def get_config(argument=None):\n\treturn 1\n        return 2\n",
    ]  # fmt: skip
    text = texts[rng.integers(len(texts))]
    path = folder / str(rng.choice(["my_config.py", "c.txt", "my config.py", "é.py"]))
    if rng.random() < 0.05:
        path.mkdir()
    elif rng.random() < 0.95:
        path.write_bytes(text.encode())
    argument = str(rng.choice(["", "", ":steps=6", ":x", ":steps=x"]))
    _call(folder, [f"--config={path}{argument}"], [])


def _line(rng, folder: Path, names: list[str]) -> None:
    """Settings on the command line, and the other flags of `main`."""
    config = f"{_REPOSITORY / 'tests/tiny.py'}"
    if rng.random() < 0.3:
        words = ["steps=6", "steps", "steps=", "steps=x", "steps=-1", "steps=0",
                 "first=99",
                 "evals", "evals=3", "batch=0", "lr=nan", "lr=-1", "x", "=", ",,", "é",
                 "steps=6,steps=7", "steps=9999999999999999999999"]  # fmt: skip
        config += f":{words[rng.integers(len(words))]}"
    argv = [f"--config={config}"]
    told = ["--config", "config argument", "setting", "stages"]
    for _ in range(rng.integers(0, 3)):
        name = names[rng.integers(len(names))]
        if rng.random() < 0.15:
            name += str(rng.choice(["x", ".x", "[0]", "..", ".", "[x]", "_"]))
        value = nasty.value(rng)
        text = str(rng.choice(["{}", "{!r}"])).format(value)
        argv.append(f"--config.{name}={text}")
        told += [name, name.split(".")[-1], name.split("[")[0].split(".")[-1]]
        told.append(name.split(".")[0])
    if rng.random() < 0.2:
        more = ["--distributed=x", "--num_processes=x", "--heartbeat_s=1",
                "--worKdir=x",
                "--stopped_status=300", "more", "--", "--config", "--config=", "-x",
                "--config=none.py", "--config.", "--config.=3", "--process_id=0.5",
                "--workdir=", "--workdir", "--verbosity=x"]  # fmt: skip
        argv.insert(int(rng.integers(len(argv) + 1)), more[rng.integers(len(more))])
        told = []
    _call(folder, argv, told)


def _call(folder: Path, argv: list[str], told: list[str]) -> None:
    """`main` by its command line, as `absl.app.run` does it."""
    if not any("--workdir" in text for text in argv):
        argv.append(f"--workdir={folder / 'run'}")
    error = io.StringIO()
    for name in [n for n in flags.FLAGS if n.startswith("config.")]:
        delattr(flags.FLAGS, name)
    flags.FLAGS.unparse_flags()
    for flag in flags.FLAGS._flags().values():
        flag.unparse()
    sys.argv = ["main", *argv]
    status: Any = None
    with contextlib.redirect_stderr(error):
        try:
            rest = main.parse_flags(list(sys.argv))
            status = main.main(rest)
        except Began:
            return
        except SystemExit as stopped:
            status = stopped.code
    text = error.getvalue()
    lines = [line for line in text.splitlines() if line.startswith("error: ")]
    if status != 2 or len(lines) != 1 or "Traceback" in text:
        raise Wrong(f"status {status}, and on stderr: {text}")
    check_message(lines[0], told, quoted="the config file fails:")
    raise Refused(lines[0])
