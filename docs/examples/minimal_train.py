"""In-context segmentation from scratch: all of SegGPT's training in one loop.

    python docs/examples/minimal_train.py --steps=240 --out=minimal.png

A prompt and a query are two scenes with objects of one class, which have one random
colour in both targets. So only the prompt says which objects of the query are meant,
and in which colour to paint them. In a minute the model learns where objects are and
takes the prompt's colour. Telling which objects are meant takes longer
(configs/shapes.py).
"""

import argparse

import jax
import numpy as np
from PIL import Image

from seggpt_jax import canvas, colors
from seggpt_jax.data.augment import View
from seggpt_jax.data.context import Context, ContextSettings
from seggpt_jax.data.masking import Masking
from seggpt_jax.data.pipeline import make_dataset, make_iterator
from seggpt_jax.data.recolor import Recolor
from seggpt_jax.data.sources.shapes import Shapes
from seggpt_jax.models.seggpt import SegGPT, SegGPTConfig, init_params
from seggpt_jax.predict import make_predict_fn
from seggpt_jax.training.optim import OptimSettings
from seggpt_jax.training.train_step import Stage, make_train_step, new_state

parser = argparse.ArgumentParser()
parser.add_argument("--steps", type=int, default=240)
parser.add_argument("--out", default="minimal.png")
args = parser.parse_args()

# Data: a pair is made of crops of two scenes; the target of the query is hidden.
context = Context(
    ContextSettings(same_image=0.0, mix_prob=0.0), View(flip=0.0, jitter_prob=0.0),
    Recolor(max_colors=1), Masking(half_prob=1.0), size=(48, 48), patch=4,
)  # fmt: skip
scenes = {"tasks": {"colour": 1}, "lighting": 0.0, "plain": True}
dataset = make_dataset([Shapes(seed=1, **scenes)], [1.0], context, seed=0)

# Model: a ViT of 4 blocks. Its canvas is the prompt above the query, 96 x 48 pixels.
model = SegGPT(SegGPTConfig.of(
    "ti16", width=64, depth=4, heads=2, patch=4, canvas=(96, 48), pos_grid=24,
    merge_after=0, taps=(1, 3), decoder_width=8, scan=False,
))  # fmt: skip

# Training: painted pixels weigh more than black ones; otherwise a small model finds
# out that all black is nearly right.
stage = Stage(args.steps, lr=2e-3, loss="l2", max_foreground_weight=8.0)
optim = OptimSettings(algorithm="muon", betas=(0.9, 0.98), clip=1.0, layer_decay=1.0)
step = jax.jit(make_train_step(model, stage, optim, ema=0.98, query_only=True))
key = jax.random.key(0)
state = new_state(init_params(model, key), stage.optimizer(optim), ema=True)
batches = make_iterator(dataset, batch_size=8)
for number, batch in zip(range(args.steps), batches, strict=False):
    state, metrics = step(state, batch, key)
    if number % max(args.steps // 10, 1) == 0:
        print(f"step {number:4d}  loss {metrics['loss']:.3f}")
batches.close()

# Prediction: two scenes whose colours of objects the training never showed.
pair = context(Shapes(seed=2, split="heldout", **scenes), 0, np.random.default_rng(0))
(prompt, query), (target, truth) = map(canvas.split, (pair["images"], pair["targets"]))
shown = (colors.normalize(x)[None] for x in (prompt[None], target[None], query))
painting = make_predict_fn(model)(state.average, *shown, pair["kind"][None])
painting = colors.denormalize(np.asarray(painting[0])).clip(0, 255).astype(np.uint8)
# From left to right: prompt, its target, query, the painting, the right answer.
picture = np.hstack([prompt, target, query, painting, truth])
Image.fromarray(picture).resize((960, 192), Image.Resampling.NEAREST).save(args.out)
