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
# # Your own data: tune a prompt, fine-tune a model
#
# [![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/OWNER/seggpt_jax/blob/main/notebooks/tune_own_data.ipynb)
#
# A folder of images and masks, or a COCO JSON, becomes a data set. Then a prompt is
# tuned for it, parts of the model are fine-tuned, and each is measured on held-out
# images.
#
# | runtime | model | time | memory |
# |---|---|---|---|
# | Colab: T4 GPU or v5e-1 TPU | the released weights, your data | 40 minutes, estimated | 12 GB, estimated |
# | any CPU: the small form, without a network | `mini`, photos of docs/examples | 2 minutes | 1.9 GB |
#
# In Colab choose the runtime in *Runtime > Change runtime type*. Then press Shift-Enter
# in every cell, from the first to the last.

# %% [markdown]
# ## Install
#
# This cell does nothing where all is there. Else it installs this project and, on a
# TPU, a `jax` with the `libtpu` that belongs to it. If something older was loaded
# before, the runtime must restart: Colab does so by itself, elsewhere the cell says it.

# %%
import importlib.metadata
import importlib.util
import os
import subprocess
import sys
from pathlib import Path

REPOSITORY = "https://github.com/OWNER/seggpt_jax"
EXTRAS = []
# What must be there, and the package that has it, where ours does not bring it.
MODULES = {"seggpt_jax": "", "matplotlib": "matplotlib"}


def missing(module):
    found = importlib.util.find_spec(module)
    return found is None or found.origin is None  # None: a mere folder of that name


def versions():
    return {d.name: d.version for d in importlib.metadata.distributions()}


def terminal(*words):
    done = subprocess.run(words, capture_output=True, text=True)
    assert not done.returncode, done.stderr[-3000:]


here = Path.cwd()
places = [here, *here.parents, here / "seggpt-files"]
files = next((p for p in places if (p / "docs/examples/clip.mp4").exists()), places[-1])
if not files.exists():
    owner = "write the address of the repository into REPOSITORY, in this cell"
    assert "OWNER" not in REPOSITORY, owner
    terminal("git", "clone", "-q", "--depth=1", REPOSITORY, str(files))
if absent := [module for module in MODULES if missing(module)]:
    tpu = ["tpu"] if os.environ.get("COLAB_TPU_1VM") == "1" else []
    extras = f"[{','.join(EXTRAS + tpu)}]" if EXTRAS + tpu else ""
    wanted = [f"{files}{extras}"]
    wanted += [MODULES[module] for module in absent if MODULES[module]]
    before = versions()
    if before.get("numpy", "") > "2.1":
        wanted.append(f"numpy=={before['numpy']}")  # much else is built for this one
    if Path("/dev/nvidia0").exists():
        wanted.append("jax[cuda12]")  # Colab's driver may be too old for CUDA 13
    terminal(sys.executable, "-m", "pip", "install", "-q", *wanted)
    importlib.invalidate_caches()
    changed = {name for name, v in versions().items() if before.get(name, v) != v}
    owners = importlib.metadata.packages_distributions()
    stale = [m for m in owners if m in sys.modules and changed & {*owners[m]}]
    print("installed:", ", ".join(wanted))
    if stale and "google.colab" in sys.modules:
        from IPython import get_ipython

        print("The runtime restarts now. Go on with the next cell.")
        get_ipython().kernel.do_shutdown(True)
    elif stale:
        print(f"Restart the kernel now: {', '.join(stale)} was loaded before.")

# %% [markdown]
# ## Check the device

# %%
import os
import sys
from pathlib import Path

import jax
import numpy as np
from IPython.display import display
from PIL import Image, ImageOps

from seggpt_jax.pictures.sheets import Row, contact_sheet
from seggpt_jax.runs.runtime import cache_compiled

on_colab, on_tpu = "google.colab" in sys.modules, os.environ.get("COLAB_TPU_1VM") == "1"
machine = "tpu" if on_tpu else "gpu" if Path("/dev/nvidia0").exists() else "cpu"
found = jax.default_backend()
print(f"jax {jax.__version__}: {len(jax.devices())} x {jax.devices()[0].device_kind}")
assert found == machine or os.environ.get("JAX_PLATFORMS") == "cpu", (
    f"This runtime has a {machine.upper()}, but jax {jax.__version__} uses a {found}: "
    "Runtime > Restart session, then begin at the first cell"
)
here = Path.cwd()
places = [here, *here.parents, here / "seggpt-files"]
FILES = next(p for p in places if (p / "docs/examples/clip.mp4").exists())
sys.path.append(str(FILES))  # of the configs
cache_compiled()  # so that no program is compiled twice, here or by a command


def show(headings, rows, side=192):
    """Shows rows of (caption, picture, picture, ...) of any sizes."""

    def fit(cell):
        picture = Image.fromarray(np.asarray(cell)).convert("RGB")
        whole = max(1, side // max(picture.size))  # a small one grows pixel by pixel
        grown = picture.resize(
            [whole * n for n in picture.size], Image.Resampling.NEAREST
        )
        return np.asarray(ImageOps.pad(grown, (side, side), color="white"))

    rows = [Row([fit(cell) for cell in cells], caption) for caption, *cells in rows]
    display(Image.fromarray(contact_sheet(rows, headings)))


# %% [markdown]
# The small form has a bundled model in place of the released weights, and needs no
# network. It is the default where there is no accelerator.

# %%
SMALL = found == "cpu"
if on_colab and SMALL:
    print("For the released weights: Runtime > Change runtime type > T4 GPU or v5e-1")
    print("TPU, then begin at the first cell")
MODEL = "mini" if SMALL else "BAAI/seggpt-vit-large"

# %% [markdown]
# ## The data
#
# Thirty-five photos of
# [docs/examples](https://github.com/OWNER/seggpt_jax/blob/main/docs/examples/README.md)
# stand here for yours. They show five different things on a table, and their masks are
# white on the thing, whichever it is. `mini` was trained on other photos of these
# things, where an example asks for a thing of its own sort. To find all five by one
# example is new to it.
#
# To take your own, write into `IMAGES` a folder of images and into `MASKS` a folder of
# masks of the same names, or a COCO JSON of the images. `NAMES` names the values of
# masks, as in `"1=cat,2=dog"`; without it they have numbers, and a JSON has names of its
# own. In Colab: upload a zip by the file browser on the left and unpack it, or mount
# Drive. `ON_DRIVE = True` keeps all that is written here on your Drive, so that it
# outlives the runtime; Colab asks for permission.

# %%
import shlex
import shutil
import tempfile

from seggpt_jax.cli import command

IMAGES, MASKS, NAMES = "", "", ""
ON_DRIVE = False
if ON_DRIVE:
    from google.colab import drive

    drive.mount("/content/drive")
    WORK = Path("/content/drive/MyDrive/seggpt/own")
else:
    WORK = Path("/content/own") if on_colab else Path(tempfile.mkdtemp(prefix="own-"))
ours = not IMAGES
if ours:
    IMAGES, MASKS, NAMES = f"{WORK}/mine/images", f"{WORK}/mine/masks", "255=thing"
    if not Path(IMAGES).exists():
        shutil.copytree(FILES / "docs/examples/desk/images", IMAGES)
        Path(MASKS).mkdir()
        for path in (FILES / "docs/examples/desk/masks").iterdir():
            thing = np.asarray(Image.open(path)) > 0
            Image.fromarray(np.uint8(255 * thing)).save(f"{MASKS}/{path.name}")


def seggpt(*words):
    """Runs `seggpt WORDS`, as in a terminal. It runs in this process, because a TPU
    serves one process at a time."""
    words = [str(word) for word in words]
    print("$ seggpt", shlex.join(words))
    try:
        command.main(words)
    except SystemExit as ended:
        assert not ended.code, f"it ended with status {ended.code}"


# %% [markdown]
# ## Tables
#
# `seggpt index` reads every mask, finds the classes, keeps a fifth of the images for
# validation and writes two small tables, `index.tsv` and `classes.tsv`. `seggpt check`
# then reads every file as training does, and names its faults.

# %%
ROOT = Path(IMAGES).parent
OUT = WORK / f"{ROOT.name}-results"  # other data have other results
OUT.mkdir(parents=True, exist_ok=True)
if not (ROOT / "index.tsv").exists():
    named = ["--names", NAMES] if NAMES else []
    seggpt("index", IMAGES, MASKS, "--out", ROOT, *named)
print((ROOT / "index.tsv").read_text()[:400])

# %%
seggpt("check", "indexed", "--root", ROOT)

# %% [markdown]
# ## Look at it
#
# Look at the masks before anything is trained: most failures are seen here.

# %%
from seggpt_jax.colors import BLACK, spread_palette
from seggpt_jax.data.sources import open_sources
from seggpt_jax.pictures.images import overlay

one = {"type": "indexed", "folder": ROOT.name}
opened = open_sources(
    {split: one | {"split": split} for split in ("train", "val")}, str(ROOT.parent)
)
training, held_out = opened["train"], opened["val"]
print(f"{len(training)} images to learn from, {len(held_out)} held out, classes "
      f"{training.class_names}")  # fmt: skip


def wanted(sample):
    """Where a sample shows any class."""
    return np.isin(sample.segments, [*training.class_names])


def over(image, mask):
    """A mask over an image."""
    color = np.where(mask[..., None], spread_palette(1)[0], BLACK).astype(np.uint8)
    return overlay(image, color)


samples = [training[int(i)] for i in np.linspace(0, len(training) - 1, 6)]
pairs = [(s.image, over(s.image, wanted(s))) for s in samples]
show(["image", "mask"] * 3, [("", *sum(pairs[i : i + 3], ())) for i in (0, 3)])

# %% [markdown]
# ## Before: the model as it is
#
# One training image is the example. All held-out images are segmented, and the mean
# intersection over union is the score. With several classes the union of all is scored
# here; `seggpt tune` scores each.

# %%
from seggpt_jax import Predictor

queries = [held_out[i] for i in range(len(held_out))]
example = training[0]


def score(predictor):
    """Mean IoU over the held-out images, and the masks that were found."""
    results = predictor([query.image for query in queries])
    found = [result.segments > 0 for result in results]
    truths = [wanted(query) for query in queries]
    pairs = list(zip(found, truths, strict=True))
    return np.mean([(a & b).sum() / max(1, (a | b).sum()) for a, b in pairs]), found


def shown(found):
    return [over(q.image, mask) for q, mask in zip(queries[:6], found, strict=False)]


def compare(*rows):
    """Shows the first held-out images. rows: (caption, masks)."""
    truths = [wanted(query) for query in queries]
    rows = [("truth", truths), *rows]
    width = min(6, len(queries))
    show(
        [f"held-out {i}" for i in range(width)],
        [(caption, *shown(found)) for caption, found in rows],
        side=128,
    )


predictor = Predictor.from_pretrained(MODEL)
predictor.set_prompts(example.image, np.uint8(wanted(example)))
before, first_found = score(predictor)
compare((f"one example: mean IoU {before:.2f}", first_found))

# %% [markdown]
# ## Tune a prompt
#
# The model stays as it is; a prompt is learned, pixel by pixel. This helps most for
# little: a few images and minutes. The result is one small file.

# %%
STEPS = 100
PROMPT = OUT / "tuned.safetensors"
seggpt(
    "tune", "--model", MODEL, "--data", ROOT, "--out", PROMPT, "--steps", STEPS,
    "--batch", 4 if SMALL else 2,
)  # fmt: skip

# %%
tuned = Predictor.from_pretrained(MODEL)
print("label -> class:", tuned.load_prompt(PROMPT))
after, tuned_found = score(tuned)
compare(
    (f"one example: mean IoU {before:.2f}", first_found),
    (f"tuned prompt: mean IoU {after:.2f}", tuned_found),
)
assert after > before or not (SMALL and ours), "the tuned prompt is no better"

# %% [markdown]
# ## Fine-tune the model
#
# The training loop goes on from the model's weights, on the tables, by the config
# `configs/finetune.py`. In a terminal this is `python -m seggpt_jax.main
# --config=configs/finetune.py:steps=150 --config.data_dir=FOLDER --workdir=runs/mine`.
# `form=decoder` trains the decoder alone, and needs less memory. The pairs below are what
# training sees: a prompt and a query in random colours, with the hidden patches grey.

# %%
from configs import finetune

FINE_STEPS = 150
arguments = f"steps={FINE_STEPS},model={MODEL},val="
arguments += ",lr=5e-4" if SMALL else ",form=decoder,batch=2"
config = finetune.get_config(arguments)
config.data_dir = str(ROOT)
config.log_every, config.save_every = 10, 50
seggpt(
    "show", "--config", f"{FILES}/configs/finetune.py:{arguments}",
    f"--config.data_dir={ROOT}", "--out", OUT / "batch.png", "--rows", 2,
)  # fmt: skip
display(Image.open(OUT / "batch.png"))

# %% [markdown]
# Colab takes a runtime back after some hours, or when the browser is away too long. The
# same call then goes on at the last checkpoint, if `WORK` is still there (on Drive).
# Here the run is stopped on purpose: after its first log a thread sends SIGTERM, which
# lets it save.

# %%
import json
import signal
import threading
import time

from seggpt_jax.train import train

RUN = OUT / "run"


def stop_soon():
    """Sends SIGTERM to this process once the run has logged."""
    metrics = RUN / "metrics.jsonl"
    while not metrics.exists() or not metrics.read_text():
        time.sleep(0.1)
    os.kill(os.getpid(), signal.SIGTERM)


if not RUN.exists():
    threading.Thread(target=stop_soon, daemon=True).start()
    assert train(config, str(RUN)) is None
    saved = max(int(path.name) for path in (RUN / "checkpoints").glob("[0-9]*"))
    print(f"stopped: step {saved} of {FINE_STEPS} is saved")

# %% [markdown]
# The same call goes on, with the same data in the same order.

# %%
from matplotlib import pyplot as plt

train(config, str(RUN))
lines = map(json.loads, (RUN / "metrics.jsonl").read_text().splitlines())
losses = {line["step"]: line["loss"] for line in lines if "loss" in line}
figure, axes = plt.subplots(figsize=(6, 2.5))
axes.plot(*zip(*losses.items(), strict=True))
axes.set_xlabel("step")
axes.set_ylabel("loss")
plt.show()

# %% [markdown]
# ## After
#
# The fine-tuned model still takes an example. A release is the folder to keep: the
# weights alone, with checksums.

# %%
import dataclasses

from seggpt_jax.weights import pretrained, release

weights = pretrained.load(RUN)
config = dataclasses.asdict(weights.config)
release.export_params(OUT / "release", weights.params, config)
fine = Predictor.from_pretrained(OUT / "release")
fine.set_prompts(example.image, np.uint8(wanted(example)))
last, fine_found = score(fine)
compare(
    (f"one example: mean IoU {before:.2f}", first_found),
    (f"tuned prompt: mean IoU {after:.2f}", tuned_found),
    (f"fine-tuned, one example: mean IoU {last:.2f}", fine_found),
)
assert last > before or not (SMALL and ours), "the fine-tuned model is no better"

# %%
figure, axes = plt.subplots(figsize=(6, 2.5))
axes.barh(["fine-tuned", "tuned prompt", "one example"], [last, after, before])
axes.set_xlabel(f"mean IoU of {len(queries)} held-out images")
axes.set_xlim(0, 1)
plt.show()
