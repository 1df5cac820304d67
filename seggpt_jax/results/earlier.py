"""Which pictures in a folder are results of earlier runs, and no photos of the user."""

import contextlib
import json
from pathlib import Path

from seggpt_jax.data.files import walk
from seggpt_jax.results.folder import INPUTS, written
from seggpt_jax.runs.workdir import CONFIG
from seggpt_jax.runs.writer import METRICS, PICTURES

_VIDEO = ".config.json"  # of a video's results, after its name
_OF_VIDEO = {"input", "memory"}  # settings that tell it from other files


def results_in(folder: Path) -> set[Path]:
    """Files below a folder that earlier runs of `segment` and `video`, trainings and
    evaluations wrote there. Notes that cannot be read are taken as those of others."""
    made: set[Path] = set()
    files = [place / name for place, names in walk(folder) for name in names]
    for notes in (path for path in files if path.name.endswith(CONFIG)):
        if notes.name.endswith(_VIDEO) and _is_video(notes):
            place = notes.with_name(notes.name.removesuffix(_VIDEO))
            made |= {place.with_name(f"{place.name}.mp4"), *place.rglob("*")}
        elif notes.name == CONFIG and (notes.parent / METRICS).is_file():
            made.update((notes.parent / PICTURES).rglob("*"))
    for notes in (path for path in files if path.name == INPUTS):
        with contextlib.suppress(ValueError, OSError):
            made |= {Path(path) for path in written(notes.parent)}
    return {path for path in made if path.is_file()}


def _is_video(notes: Path) -> bool:
    with contextlib.suppress(ValueError, OSError):
        settings = json.loads(notes.read_bytes())
        return isinstance(settings, dict) and settings.keys() >= _OF_VIDEO
    return False
