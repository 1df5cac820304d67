"""Every row of configs/eval.py end to end: on real pictures where there are some in the
owners' layout, on miniatures elsewhere; with a small model of random parameters, whose
scores mean nothing."""

import csv
import functools
import json
import math
import os
import pickle
import shutil

import numpy as np
import pytest
from PIL import Image

from configs import eval as eval_config
from seggpt_jax import evaluate
from seggpt_jax.runs.sharding import make_mesh
from tests.support import row_miniatures
from tests.support.layouts import mask, photo, write_json, write_lines
from tests.support.models import write_release


def link(target, path):
    path.parent.mkdir(parents=True, exist_ok=True)
    os.symlink(target, path)


def listed(folder, split):
    """Rows of a sample's table: image, mask, labels."""
    with (folder / "index.tsv").open(newline="") as file:
        for row in csv.DictReader(file, delimiter="\t"):
            if row["split"] == split and row["classes"]:
                labels = [int(c) for c in row["classes"].split(",")]
                yield folder / row["image"], folder / row["mask"], labels


def fss1000(data, root):
    shutil.copytree(data / "fss1000-sample/fewshot_data", root / "fewshot_data")
    write_lines(root / "splits/test.txt", "african_elephant", "eiffel_tower")
    return {"episodes": 10}


def pascal5i(data, root):
    """The two folds that have the most images here."""
    link(data / "voc2012-mini/VOC2012", root / "VOC2012")
    for fold in (2, 3):
        lines = [
            f"{image.stem}__{label:02}"
            for image, _, labels in listed(data / "voc2012-mini", "val")
            for label in labels
            if (label - 1) // 5 == fold
        ]
        write_lines(root / f"splits/pascal/val/fold{fold}.txt", *lines)
    return {"episodes": 6, "sources": ("fold2", "fold3")}


def coco20i(data, root):
    """The fold of person; labels 1 to 80 in place of COCO's 90, as in HSNet's masks."""
    with (data / "coco-mini/classes.tsv").open(newline="") as file:
        ids = [int(row["id"]) for row in csv.DictReader(file, delimiter="\t")]
    places = np.zeros(256, np.uint8)
    places[ids], places[255] = np.arange(1, 81), 255
    lists = {c: [] for c in range(80)}
    (root / "annotations/val2014").mkdir(parents=True)
    for image, target, labels in listed(data / "coco-mini", "val"):
        name, wanted = f"val2014/{image.name}", [int(places[k]) - 1 for k in labels]
        wanted = [c for c in wanted if c % 4 == 0]
        if wanted and len(lists[wanted[0]]) < 8:
            link(image, root / name)
            recoded = Image.fromarray(places[np.asarray(Image.open(target))])
            recoded.save(root / f"annotations/val2014/{target.name}")
            for c in wanted:
                lists[c].append(name)
    path = root / "splits/coco/val/fold0.pkl"
    path.parent.mkdir(parents=True)
    path.write_bytes(pickle.dumps(lists))
    return {"episodes": 6, "sources": ("fold0",)}


def lvis(data, root):
    """Twenty classes of four images, so that a fold has two."""
    base, notes, images = "http://images.cocodataset.org/val2017", [], []
    for n in range(1, 5):
        photo(root / f"val2017/{n:012}.jpg", n)
        row = {"id": n, "height": 24, "width": 32, "coco_url": f"{base}/{n:012}.jpg"}
        images.append(row)
    for category in range(1, 21):
        for image in range(1, 5):
            # Every image shows one class of each fold.
            if (category > 10) == (image > 2):
                notes.append({
                    "id": len(notes) + 1, "image_id": image, "category_id": category,
                    "segmentation": [[0, 0, 12, 0, 12, 24, 0, 24]], "area": 1.0,
                    "bbox": [0, 0, 12, 24],
                })  # fmt: skip
    names = [{"id": k, "name": f"c{k}"} for k in range(1, 21)]
    data = {"images": images, "categories": names, "annotations": notes}
    write_json(root / "annotations/lvis_v1_val.json", data)
    return {"episodes": 4, "sources": ("fold0", "fold7")}


def _videos(data, root, year):
    """Two videos of DAVIS, six frames each."""
    small = data / "davis2016-val/DAVIS-small"
    for name in ("camel", "dog"):
        for kind in ("JPEGImages", "Annotations"):
            folder = small / kind / "480p" / name
            for path in sorted(folder.iterdir())[:6]:
                link(path, root / "DAVIS" / kind / "480p" / name / path.name)
    write_lines(root / f"DAVIS/ImageSets/{year}/val.txt", "camel", "dog")
    return {"memories": (2,)}


def davis2016(data, root):
    return _videos(data, root, 2016)


def davis2017(data, root):
    """Of 2017 a mask holds numbers, where 2016 has white: 255 is ignored there."""
    settings = _videos(data, root, 2017)
    for path in (root / "DAVIS/Annotations").rglob("*.png"):
        white = np.asarray(Image.open(path).convert("L")) > 0
        path.unlink()  # a link to the sample
        Image.fromarray(white.astype(np.uint8)).save(path)
    return settings


def _miniature(root):
    for video in ("one", "two"):
        for k in range(4):
            photo(root / f"JPEGImages/{video}/{k:05}.jpg", k)
        mask(root / f"Annotations/{video}/00000.png", (1, 0, 2, 2), "P")
    return {"memories": (2,)}


def youtube_vos(data, root):
    objects = {str(n): {"category": "dog", "frames": ["00000"]} for n in (1, 2)}
    videos = {"one": {"objects": objects}, "two": {"objects": objects}}
    write_json(root / "valid/meta.json", {"videos": videos})
    return _miniature(root / "valid")


def mose(data, root):
    return _miniature(root / "valid")


def ade20k(data, root):
    """The sample has validation images only: they are each other's examples."""
    shutil.copytree(data / "ade20k-sample", root, dirs_exist_ok=True)
    settings = {"prompts.split": "val", "examples": (2,), "seeds": (1000, 2000)}
    return settings | {"example": "ADE_val_00000001"}


def coco_panoptic(data, root):
    sample = data / "coco-panoptic-sample"
    shutil.copytree(sample, root, dirs_exist_ok=True)
    annotations = json.loads((sample / "panoptic_examples.json").read_text())
    categories = json.loads((sample / "panoptic_coco_categories.json").read_text())
    names = (root / "input_images", root / "panoptic_examples")
    os.rename(names[0], root / "val2017")
    (root / "annotations").mkdir()
    os.rename(names[1], root / "annotations/panoptic_val2017")
    annotations["categories"] = categories
    write_json(root / "annotations/panoptic_val2017.json", annotations)
    return {"prompts.split": "val", "example": "000000142238"}


def kvasir_seg(data, root):
    """The polyps of the sample are each other's examples."""
    shutil.copytree(data / "kvasir-seg-sample", root, dirs_exist_ok=True)
    for path in (root / "masks").iterdir():  # as the owners have them
        white = np.uint8(255) * (np.asarray(Image.open(path)) > 0)
        Image.fromarray(white).save(path.with_suffix(".jpg"), quality=95)
        path.unlink()
    source = {"type": "kvasir_seg", "folder": "kvasir_seg", "split": "all"}
    return {"sources": {"kvasir": source}, "examples": (1, 2), "seeds": (1000,)}


def miniature(kind):
    """A set that no sample is of."""

    def write(data, root):
        row_miniatures.SETS[kind](root)
        return {"episodes": 4}

    write.__name__ = kind
    return write


def every(data, root):
    """All sets that lie in the folder, by their own tables."""
    for path in data.iterdir():
        link(path, root.parent / path.name)
    return {"episodes": 2}


# Row -> the folder of its data, who makes it, and a score that must be there.
ROWS = {
    "fss1000": (fss1000, "fss1000/fss1000/1shot/miou"),
    "pascal5i": (pascal5i, "pascal5i/mean/1shot/miou"),
    "coco20i": (coco20i, "coco20i/fold0/1shot/miou"),
    "lvis92i": (lvis, "lvis92i/mean/1shot/miou"),
    "isaid5i": (miniature("isaid5i"), "isaid5i/mean/1shot/miou"),
    "isic": (miniature("isic2018"), "isic/isic2018/1shot/miou"),
    "chest_xray": (miniature("chest_xray"), "chest_xray/chest_xray/1shot/miou"),
    "suim": (miniature("suim"), "suim/suim/1shot/miou"),
    "pascal_part": (miniature("pascal_part"), "pascal_part/mean/1shot/miou"),
    "paco_part": (miniature("paco_part"), "paco_part/mean/1shot/miou"),
    "permis": (miniature("permis"), "permis/permis/1shot/miou"),
    "davis16": (davis2016, "davis16/davis2016/K2/jf"),
    "davis17": (davis2017, "davis17/davis2017/K2/jf"),
    "ytvos18": (youtube_vos, ""),
    "mose": (mose, ""),
    "ade20k_examples": (ade20k, "ade20k_examples/ade20k/N2/miou"),
    "ade20k_tuned": (ade20k, "ade20k_tuned/ade20k/miou"),
    "coco_panoptic_tuned": (coco_panoptic, "coco_panoptic_tuned/coco_panoptic/pq"),
    "polyp": (kvasir_seg, "polyp/kvasir/N2/dice"),
    "indexed": (every, "indexed/mean/1shot/miou"),
}
assert ROWS.keys() == eval_config.ROWS.keys()


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return write_release(tmp_path_factory.mktemp("model") / "release")


def small(name, model, data, folder):
    """A row's config, with what there is."""
    make, _ = ROWS[name]
    given = make(data, folder / "data" / make.__name__)
    config = eval_config.get_config(name)
    config.data_dir, config.checkpoint = str(folder / "data"), model
    row = config.evals[name]
    for key, value in given.items():
        if key == "sources" and isinstance(value, tuple):
            for other in [other for other in row.sources if other not in value]:
                del row.sources[other]
        elif key.startswith("prompts."):
            row.prompts[key.removeprefix("prompts.")] = value
        elif key in row:
            row[key] = value
    return config


one_mesh = functools.cache(make_mesh)  # and so one engine for all rows


# Rows whose evaluator and layout others have, too.
SLOW = ("pascal5i", "coco20i", "isaid5i", "isic", "chest_xray", "suim", "paco_part",
        "davis17", "ytvos18", "polyp", "indexed")  # fmt: skip


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=pytest.mark.slow) if name in SLOW else name
     for name in ROWS],
)  # fmt: skip
def test_a_row_end_to_end(name, model, data_dir, tmp_path, monkeypatch):
    monkeypatch.setattr(evaluate.sharding, "make_mesh", one_mesh)
    config, (_, key) = small(name, model, data_dir, tmp_path), ROWS[name]
    run = tmp_path / "run"
    scores = evaluate.evaluate(config, str(run))
    result = json.loads((run / f"results/{name}.json").read_text())
    assert {n: entry["value"] for n, entry in result["scores"].items()} == {
        n: None if math.isnan(value) else value for n, value in scores.items()
    }
    assert result["about"] and result["seconds"] >= 0
    assert len(result["weights_sha256"]) == 64 and result["hardware"]["devices"]
    if key:
        entry = result["scores"][key]
        assert 0 <= entry["low"] <= entry["value"] <= entry["high"] <= 1
        assert [*(run / "pictures").rglob("*.png")]
    else:  # for a server
        assert all(math.isnan(value) for value in scores.values())
        assert [*run.rglob("*.zip")]
    if name == "davis16":
        assert {f"davis16/davis2016/{arm}/jf" for arm in ("K2", "copy")} <= {*scores}
        assert all(0 <= value < 1 for value in scores.values())
        assert scores["davis16/davis2016/copy/jf"] > 0
        assert (run / "pictures/0000000/davis16-davis2016.png").exists()
        config.model.dtype, config.model.width = "bfloat16", 4
        with pytest.raises(ValueError, match="release does not fit the model"):
            evaluate.evaluate(config, str(tmp_path / "other"))
        del config.model.dtype, config.model.width
    if name == "indexed":
        arms = [f"{key} - {arm}" for arm in ("wrong", "copy", "color")]
        assert {*arms} <= {*result["differences"]}

    # Once more: every case is there, and the scores are the same.
    def never(*args):
        raise AssertionError("a finished case was done again")

    monkeypatch.setattr("seggpt_jax.evaluators.cases.Cases.add", never)
    assert evaluate.evaluate(config, str(run)) == pytest.approx(scores, nan_ok=True)
