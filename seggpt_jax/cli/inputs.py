"""Input files of `seggpt segment`, and the files written for each of them."""

import glob
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from pycocotools import mask as coco_mask

from seggpt_jax.config import suggest
from seggpt_jax.inference import Result
from seggpt_jax.pictures.images import overlay, save_labels
from seggpt_jax.runs import staging

FORMS = ("segments", "overlay", "colors", "coco-json")
COCO = "coco.json"
_SUFFIX = {"segments": ".png", "overlay": "_overlay.jpg", "colors": "_colors.png",
           "coco-json": ".coco.json"}  # fmt: skip
_GLOB = "*?["

Palette = Mapping[int, tuple[int, int, int]]


def read_forms(text: str, known: Sequence[str] = FORMS) -> list[str]:
    """`segments,overlay` -> the forms, each one of the known."""
    forms = [form for form in text.split(",") if form]
    for form in forms:
        if form not in known:
            raise ValueError(f"--as {form!r} is unknown{suggest(form, known)}")
    if not forms:
        raise ValueError(f"--as is empty: choose from {', '.join(known)}")
    return forms


def find_inputs(
    inputs: Sequence[str], suffixes: Iterable[str], out: Path
) -> dict[str, Path]:
    """Files, globs and folders (searched through) -> output name -> input file.

    An output name is the file's path within its folder, or its name, without the
    suffix. Files below `out` are results of an earlier run and are left out, unless
    named one by one. Raises ValueError when nothing is found, or two files would have
    one name.
    """
    suffixes, made = set(suffixes), out.resolve()
    found: dict[str, Path] = {}
    for given in inputs:
        for path, name in _expand(given, suffixes):
            if str(path) != given and path.resolve().is_relative_to(made):
                continue
            stem = str(Path(name).with_suffix(""))
            if stem in found and found[stem] != path:
                raise ValueError(
                    f"{found[stem]} and {path} would both be written as {stem}: use "
                    "two runs and two --out"
                )
            found[stem] = path
    if not found:
        raise ValueError(f"nothing to segment in {', '.join(inputs)}")
    return found


def check_apart(written: Iterable[Path], used: Iterable[str | Path]) -> None:
    """Raises ValueError if a file that is to be written is one that is read."""
    read = {Path(path).resolve() for path in used}
    for path in written:
        if path.resolve() in read:
            raise ValueError(f"{path} would be overwritten: choose another --out")


def _expand(given: str, suffixes: set[str]) -> list[tuple[Path, str]]:
    path = Path(given)
    if path.is_dir():
        inside = sorted(
            p for p in path.rglob("*") if p.suffix.lower() in suffixes and p.is_file()
        )
        if not inside:
            kinds = ", ".join(sorted(suffixes))
            raise ValueError(f"{given} has no file to segment ({kinds})")
        return [(p, str(p.relative_to(path))) for p in inside]
    if path.exists() or not any(c in given for c in _GLOB):
        return [(path, path.name)]
    files = [Path(p) for p in sorted(glob.glob(given, recursive=True))]
    files = [path for path in files if path.is_file()]
    if not files:
        raise ValueError(f"{given} matches no file")
    return [(p, p.name) for p in files]


def places(out: Path, name: str, forms: Sequence[str]) -> dict[str, Path]:
    """Where every form of a result is written."""
    return {form: out / f"{name}{_SUFFIX[form]}" for form in forms}


def write_result(
    where: Mapping[str, Path],
    source: Path,
    image: np.ndarray,
    result: Result,
    kind: str,
) -> None:
    """Writes the forms of one result; each file appears when it is whole."""
    writers: dict[str, Callable[[Path], None]] = {
        "segments": lambda path: save_labels(path, result.segments, result.palette),
        "overlay": lambda path: _save(overlay(image, result.colors), path, "JPEG"),
        "colors": lambda path: _save(result.colors, path, "PNG"),
        "coco-json": lambda path: _write_json(path, _annotated(source, result, kind)),
    }
    for form, path in where.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        with staging.new_file(path) as temporary:
            writers[form](temporary)


def _save(picture: np.ndarray, path: Path, kind: str) -> None:
    Image.fromarray(picture).save(path, format=kind)


def _annotated(source: Path, result: Result, kind: str) -> dict[str, Any]:
    """One image of a COCO file: an annotation for every label, as compressed RLE."""
    height, width = result.segments.shape
    annotations = []
    for label, score in sorted(result.scores.items()):
        rle = coco_mask.encode(np.asfortranarray(result.segments == label, np.uint8))
        annotations.append({
            "category_id": label if kind == "category" else 1,
            "segmentation": {"size": rle["size"], "counts": rle["counts"].decode()},
            "area": int(coco_mask.area(rle)),
            "bbox": coco_mask.toBbox(rle).tolist(),
            "iscrowd": 0,
            "score": round(score, 4),
        })  # fmt: skip
    image = {"file_name": str(source), "height": height, "width": width}
    return {"image": image, "annotations": annotations}


def join_coco(paths: Sequence[Path], out: Path, palette: Palette, kind: str) -> None:
    """Joins the annotations of images that were written one by one into `coco.json`."""
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for path in paths:
        one = json.loads(path.read_text())
        images.append({"id": len(images) + 1, **one["image"]})
        for each in one["annotations"]:
            head = {"id": len(annotations) + 1, "image_id": len(images)}
            annotations.append(head | each)
    labels = [label for label in palette if label] if kind == "category" else [1]
    categories = [{"id": label, "name": str(label)} for label in labels]
    whole = {"images": images, "annotations": annotations, "categories": categories}
    with staging.new_file(out / COCO) as temporary:
        _write_json(temporary, whole)


def _write_json(path: Path, content: Any) -> None:
    path.write_text(json.dumps(content) + "\n")
