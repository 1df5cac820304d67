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
# This notebook opens the built-in source `shapes`, shows training pairs, trains a small
# SegGPT for a few hundred steps, and shows its paintings. It takes about a minute on
# two CPU cores. The same cells run on a GPU or a TPU.
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
# A sample is an image with its `segments`, an integer label map. The task decides the
# meaning of a label: a shape, a texture, a colour, a part, a whole object, or one
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
# patches are hidden: the model must paint them. Early in training some backgrounds take
# a random colour, so the model must read the background from the prompt too.

# %%
config = shapes.get_config()
Image.fromarray(draw_batch(config, step=0, rows=6))

# %% [markdown]
# ## Training
#
# This is the same call as `python -m seggpt_jax.main`, on eight fixed pairs. A few
# hundred steps are enough to memorise the pairs, and show that all parts work together.
# To match by the prompt, on pairs never seen, takes a few thousand steps: train
# `configs/shapes.py` as it is (docs/training.md).

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
# ## The paintings
#
# Query, truth, the model's painting, and the painting decoded to the nearest colour of
# the palette.

# %%
print(scores)
Image.open(next((workdir / "pictures").rglob("*.png")))
