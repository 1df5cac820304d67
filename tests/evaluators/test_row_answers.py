"""Every row of configs/eval.py on miniatures, with answers that are known: of a reader,
which paints without a mistake what its examples show, and of one who paints black."""

import io
import math
from zipfile import ZipFile

import numpy as np
import pytest
from PIL import Image

from configs import eval as eval_config
from seggpt_jax import evaluate
from seggpt_jax.evaluators.cases import Cases
from seggpt_jax.training.settings import read_settings
from tests.support import blocks, row_miniatures
from tests.support.row_miniatures import SIZE


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return row_miniatures.write_all(tmp_path_factory.mktemp("rows"))


# Row -> score -> what the reader gets, what black gets. In the miniatures a class fills
# the half of an image or a quarter, and no class of ADE20K that is shown has the
# darkest of Painter's colours. Where no class paints, the first one takes all.
EPISODES = {"1shot/miou": (1, 0), "1shot/wrong/miou": (0, 0)}
VIDEOS = {"K8/j": (1, 0), "K8/f": (1, 0)}
ANSWERS = {
    "fss1000": EPISODES | {"1shot/fbiou": (1, 0.25)},
    "pascal5i": EPISODES | {"1shot/fbiou": (1, 0.25)},
    "coco20i": EPISODES,
    "lvis92i": EPISODES | {"1shot/fbiou": (1, 0.375)},
    "isaid5i": EPISODES,
    "isic": EPISODES | {"1shot/fbiou": (1, 0.25)},
    "chest_xray": {"1shot/miou": (1, 0), "1shot/fbiou": (1, 0.25)},
    "suim": EPISODES | {"1shot/fbiou": (1, 0.25)},
    "pascal_part": EPISODES | {"1shot/fbiou": (1, 0.375)},
    "paco_part": EPISODES | {"1shot/fbiou": (1, 0.375)},
    "permis": EPISODES | {"1shot/fbiou": (1, 0.25)},
    "ade20k_examples": {
        f"N{n}/{key}": (1, black)
        for n in (1, 2)
        for key, black in (("miou", 0.25 / 3), ("macc", 1 / 3))
    },
    "ade20k_tuned": {"miou": (1, 0), "macc": (1, 0), "pacc": (1, 0)},
    "coco_panoptic_tuned": {"pq": (1, 0), "rq_things": (1, 0), "sq_stuff": (1, 0)},
    "polyp": {"N8/dice": (1, 0), "N8/image_iou": (1, 0), "N8/miou": (1, 0.25)},
    "davis16": VIDEOS,
    "davis17": VIDEOS,
    "ytvos18": {"K8/jf": (math.nan, math.nan)},  # only their servers have truth
    "mose": {"K8/jf": (math.nan, math.nan)},
    "indexed": EPISODES,
}
assert ANSWERS.keys() == eval_config.ROWS.keys()


def build(row, data, functions):
    """The evaluators of a row, by an engine of these functions; fewer episodes, folds
    and seeds than the paper's."""
    config = eval_config.get_config(row)
    config.data_dir, config.checkpoint = str(data), "shapes"
    settings = config.evals[row]
    if settings.type == "fewshot":
        settings.episodes = 14
        for fold in [f for f in settings.sources if f.startswith("fold")][2:]:
            del settings.sources[fold]
    if settings.type == "examples":
        settings.examples, settings.seeds = settings.examples[:2], (1000, 2000)
    settings = read_settings(config)
    engine = blocks.engine(SIZE, **functions)
    (group,) = evaluate.build_groups(settings.evals, settings.data_dir, engine)
    return group


def scored(row, data, folder, functions):
    """The scores of each source of a row, without its name."""
    for evaluator in build(row, data, functions).evaluators.values():
        with Cases(folder) as cases:
            scores = dict(evaluator.run(None, cases))
        yield {k.removeprefix(f"{evaluator.name}/"): v for k, v in scores.items()}


@pytest.mark.parametrize("row", ANSWERS)
def test_a_row_gives_what_its_answers_are_worth(row, data, tmp_path):
    seen = set()
    answers = {"reader": row_miniatures.reader(seen), "black": row_miniatures.blind()}
    for place, (name, functions) in enumerate(answers.items()):
        for found in scored(row, data, tmp_path / name, functions):
            wanted = {key: both[place] for key, both in ANSWERS[row].items()}
            own = {key: found[key] for key in wanted}
            assert own == pytest.approx(wanted, nan_ok=True), name
    # No example is the picture that is scored by it.
    assert seen and not [pair for pair in seen if pair[0] == pair[1]]


@pytest.mark.parametrize("row", ["ytvos18", "mose"])
def test_what_is_sent_to_a_server(row, data, tmp_path):
    """Every frame's objects, of which a picture's colours tell: one is red, two is
    yellow. Black finds none but those that are given."""
    answers = {"reader": row_miniatures.reader(set()), "black": row_miniatures.blind()}
    labels = {}
    for name, functions in answers.items():
        list(scored(row, data, tmp_path / name, functions))
        with ZipFile(next((tmp_path / name).rglob("*.zip"))) as archive:
            for file in archive.namelist():
                frame = "/".join(file.split("/")[-2:]).removesuffix(".png")
                content = np.asarray(Image.open(io.BytesIO(archive.read(file))))
                labels.setdefault(frame, {})[name] = content
    assert len(labels) == 8
    folder = eval_config.ROWS[row]()["sources"]
    root = data / next(iter(folder.values()))["folder"] / "valid/JPEGImages"
    for frame, own in labels.items():
        red, green, _ = np.moveaxis(np.asarray(Image.open(root / f"{frame}.jpg")), 2, 0)
        truth = np.where(red > 127, np.where(green > 127, 2, 1), 0)
        np.testing.assert_array_equal(own["reader"], truth)
        given = {"00000": truth == 1, "00002": truth == 2}
        if row == "mose":
            given = {"00000": truth > 0}
        kept = given.get(frame.split("/")[1], np.zeros_like(truth, bool))
        np.testing.assert_array_equal(own["black"], np.where(kept, truth, 0))
