"""A contact sheet of the pairs that training sees at a step of a config."""

import jax
import numpy as np

from seggpt_jax import canvas
from seggpt_jax.config import counted, require
from seggpt_jax.data.sample import INSTANCE
from seggpt_jax.models.seggpt import SegGPTConfig
from seggpt_jax.pictures import sheets
from seggpt_jax.training.mixture import build_dataset
from seggpt_jax.training.settings import read_settings
from seggpt_jax.training.train_step import Stage, repaint_background

HEADINGS = ("prompt", "its target", "query", "its target")
_GREY, _RED, _WHITE = (128, 128, 128), (255, 0, 0), (255, 255, 255)
_SHADE = 0.6  # of the grey over a hidden patch: its target shows through
_HATCH = 3  # px: width of the stripes on pixels that do not count


def draw_batch(config, step: int = 0, rows: int = 8) -> np.ndarray:
    """Sheet uint8 `[H, W, 3]` of the first `rows` rows of the batch of `step`."""
    return sheets.contact_sheet(batch_rows(config, step, rows), HEADINGS)


def batch_rows(config, step: int, rows: int) -> list[sheets.Row]:
    """The rows of that sheet."""
    config = read_settings(config)
    require(0 <= step < config.steps, "--step", step, f"in [0, {config.steps})")
    batch_size = config.loader.batch_size
    require(1 <= rows <= batch_size, "--rows", rows, f"in [1, {batch_size}]")
    model = SegGPTConfig.read(config.model)
    opened, dataset = build_dataset(config, model.half, model.patch)
    sources, index = list(opened.values()), config.stage_at(step)
    stage = list(config.stages.values())[index]
    done = (step - config.spans[index].start) / stage.steps
    prompts = config.context.prompts
    repainted = _repainted_rows(config.seed, stage, step, done, batch_size, prompts)
    # Batches are consecutive pieces of the stream, so only these rows are made.
    return [
        _row(dataset[step * batch_size + i], model.patch, sources, bool(repainted[i]))
        for i in range(rows)
    ]


def _repainted_rows(
    seed: int, stage: Stage, step: int, done: float, batch_size: int, prompts: int
):
    """Which rows of the batch get a background colour, by the draw of the train step:
    it is repeated on a batch of single pixels, which turn from 0 to 1."""
    key, _ = jax.random.split(jax.random.fold_in(jax.random.key(seed), step))
    prob = stage.background_prob * min(max(2 - 2 * done, 0), 1)
    zeros = np.zeros((batch_size, 1, 1, 3))
    painted = repaint_background(
        key, zeros, zeros[..., 0] > 0, zeros[:, 0, 0] + 1, prob, prompts
    )
    return np.asarray(painted)[:, 0, 0, 0] > 0


def _row(pair, patch: int, sources, repainted: bool) -> sheets.Row:
    target = pair["targets"].copy()
    if repainted:
        target[~pair["foreground"]] = pair["background"]
    hidden = canvas.to_pixels(pair["hidden"], patch)
    shaded = (1 - _SHADE) * target[hidden] + _SHADE * np.array(_GREY)
    target[hidden] = shaded.astype(np.uint8)
    y, x = np.nonzero(~pair["valid"])
    stripe = ((x + y) // _HATCH % 2 == 0)[:, None]
    target[y, x] = np.where(stripe, _RED, _WHITE)
    (prompt, query), (its, other) = canvas.split(pair["images"]), canvas.split(target)
    kind = "instance" if pair["kind"] == INSTANCE else "category"
    source = sources[pair["source"]]
    caption = f"{source.name} #{pair['record']}, {kind}"
    labels = [int(label) for label in pair["labels"] if label]
    if pair["kind"] == INSTANCE:
        caption += ": " + counted(len(labels), "object")
    else:
        caption += ": " + ", ".join(source.class_names[label] for label in labels)
    return sheets.Row((prompt, its, query, other), caption)
