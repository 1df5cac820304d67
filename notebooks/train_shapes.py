# ---
# jupyter:
#   jupytext:
#     formats: ipynb,py:percent
#     text_representation:
#       extension: .py
#       format_name: percent
#       format_version: '1.3'
#       jupytext_version: 1.19.6
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # In-context segmentation on procedural scenes
#
# Opens the built-in source `shapes`, shows what a training pair looks like, trains a
# small SegGPT for a few hundred steps and looks at what it paints. About a minute on
# two CPU cores; the same cells run on a GPU or a TPU.
#
# It needs an installed checkout: `pip install -e .` in the repository, or
# `pip install -e '.[tpu]'` on a Colab TPU runtime, followed by a restart of the
# runtime.

# %%
import json
import pathlib
import tempfile

import numpy as np
from PIL import Image

from configs import common, shapes
from seggpt_jax import colors
from seggpt_jax.data.sources.shapes import Shapes
from seggpt_jax.pictures import sheets
from seggpt_jax.train import train
from seggpt_jax.training.batch_sheet import draw_batch

# %% [markdown]
# ## The source
#
# A sample is an image with its `segments`, an integer label map. What a label means
# depends on the task: a shape, a texture, a colour, a part, a whole object, or one
# instance. Nothing is read from disk.

# %%
source = Shapes(size=(64, 64))
palette = colors.random_palette(np.random.default_rng(0), 20, min_distance=120)
rows = []
for index in range(4):
    sample = source[index]
    labels = sample.classes
    target, _ = colors.paint(sample.segments, labels, palette[: len(labels)])
    names = [source.class_names.get(c, f"instance {c}") for c in labels]
    rows.append(sheets.Row((sample.image, target), ", ".join(names)[:60]))
Image.fromarray(sheets.contact_sheet(rows, ("image", "segments, in colours")))

# %% [markdown]
# ## The training pairs
#
# A pair is a prompt stacked above a query, with one random palette for both. The grey
# patches are hidden: the model must paint them. Some backgrounds take a random colour
# early in training, so that what is background must be read from the prompt too.

# %%
config = shapes.get_config()
Image.fromarray(draw_batch(config, step=0, rows=6))

# %% [markdown]
# ## Training
#
# The same call as `python -m seggpt_jax.main`, on eight fixed pairs: a few hundred
# steps are enough to memorise those, and show that every part works together. Matching
# by the prompt, on pairs never seen, appears after a few thousand steps: that is
# `configs/shapes.py` as it stands (docs/training.md).

# %%
STEPS = 250
config.fixed_pairs = 8
config.stages = common.ordered(
    find=common.stage(
        steps=STEPS, lr=1e-3, warmup=50, loss="l2", max_foreground_weight=12.0
    )
)
config.evals = common.ordered(memorised={"type": "pairs", "count": 8, "batch_size": 8})
config.log_every = 20
config.eval_every = STEPS
config.save_every = STEPS

workdir = pathlib.Path(tempfile.mkdtemp(prefix="shapes-"))
scores = train(config, str(workdir))

# %%
lines = map(json.loads, (workdir / "metrics.jsonl").read_text().splitlines())
losses = {line["step"]: line["loss"] for line in lines if "loss" in line}
for step, loss in losses.items():
    print(f"step {step:4d}  loss {loss:.3f}")
assert losses[STEPS] < losses[config.log_every] / 4, "it does not memorise eight pairs"

# %% [markdown]
# ## What it paints
#
# Query, truth, the painting as the model gives it, and the painting decoded to the
# nearest colour of the palette.

# %%
print(scores)
Image.open(next((workdir / "pictures").rglob("*.png")))
