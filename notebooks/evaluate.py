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
# # Evaluate a model by a row of the paper
#
# [![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/OWNER/seggpt_jax/blob/main/notebooks/evaluate.ipynb)
#
# FSS-1000 from end to end: episodes as HSNet draws them, the model beside three
# baselines, 95 % intervals, the best and the worst cases, and a stop in between.
#
# | runtime | model and data | time | memory |
# |---|---|---|---|
# | Colab: T4 GPU or v5e-1 TPU | the released weights, a miniature or your data | 15 minutes, estimated | 6 GB, estimated |
# | any CPU: the small form, without a network | `mini`, a miniature | 1 minute | 1.4 GB |
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
# To score the real set, write the folder that holds `fss1000` into `DATA`
# ([docs/datasets.md](https://github.com/OWNER/seggpt_jax/blob/main/docs/datasets.md)
# says where the owners have it). Without it a miniature is made in the owners' layout,
# a folder for each class with images and masks, and a list of the classes. Its photos
# are seven of each of five things, from
# [docs/examples](https://github.com/OWNER/seggpt_jax/blob/main/docs/examples/README.md).
# `mini` was trained on other frames of the same videos: so its scores are much higher
# here than [on photos in general](https://github.com/OWNER/seggpt_jax/blob/main/docs/results.md#real-pictures).

# %%
import tempfile

from seggpt_jax.data.sources import open_sources

DATA = ""
WORK = Path(tempfile.mkdtemp(prefix="evaluate-"))
if not DATA:
    DATA = str(WORK / "data")
    spec = {"type": "indexed", "folder": "desk", "split": "val"}
    (desk,) = open_sources({"desk": spec}, str(FILES / "docs/examples")).values()
    names = [name.replace(" ", "_") for name in desk.class_names.values()]
    for label, name in zip(desk.class_names, names, strict=True):
        folder = Path(DATA) / "fss1000" / name
        folder.mkdir(parents=True)
        for number, index in enumerate(desk.by_class[label], start=1):
            sample = desk[int(index)]
            mask = np.uint8(255 * (sample.segments == label))
            Image.fromarray(sample.image).save(folder / f"{number}.jpg", quality=95)
            Image.fromarray(mask).save(folder / f"{number}.png")
    lists = Path(DATA) / "fss1000/splits"
    lists.mkdir()
    (lists / "test.txt").write_text("\n".join(names) + "\n")
    print(f"{len(names)} classes: {', '.join(names)}")

# %%
spec = {"type": "fss1000", "folder": "fss1000", "split": "test"}
(source,) = open_sources({"fss1000": spec}, DATA).values()
rows = []
for label in source.by_class:
    cells = []
    for index in source.by_class[label][:3]:
        sample = source[int(index)]
        cells += [sample.image, np.uint8(255 * (sample.segments == label))]
    rows.append((source.class_names[label], *cells))
show(["image", "mask"] * 3, rows, side=128)

# %% [markdown]
# ## The row
#
# `configs/eval.py:fss1000` is the row of the paper: every image of every test class is
# once a query, and its prompts are other images of its class. Each query is answered
# four times: by the model, by the model with prompts of another class (`wrong`), by a
# copy of the prompt's mask (`copy`), and by the nearest colours (`color`). A model that
# does not beat the wrong prompt has not learned from its context.
#
# In a terminal this is `python -m seggpt_jax.main
# --config=configs/eval.py:fss1000,shots=5 --workdir=...`.

# %%
import json

from configs import eval as rows_of_the_paper
from seggpt_jax.evaluate import evaluate

SHOTS = (1, 5)
ARMS = {"": "right prompt", "/wrong": "wrong prompt", "/copy": "copied mask",
        "/color": "nearest colours"}  # fmt: skip


def config_of(shots):
    config = rows_of_the_paper.get_config(f"fss1000,shots={shots}")
    config.checkpoint, config.data_dir = MODEL, DATA
    config.evals.fss1000.episodes = min(len(source), 2400)
    return config


def run(shots):
    evaluate(config_of(shots), str(WORK / f"{shots}shot"))
    return json.loads((WORK / f"{shots}shot/results/fss1000.json").read_text())


results = {shots: run(shots) for shots in SHOTS}

# %% [markdown]
# ## Scores with intervals
#
# The bars are mIoU by HSNet's rule with 95 % intervals: episodes are drawn again 1,000
# times. The paper has 85.6 (1 shot) and 89.3 (few-shot) for the released model on the
# real set.

# %%
from matplotlib import pyplot as plt

figure, axes = plt.subplots(figsize=(7, 3))
for group, (shots, result) in enumerate(results.items()):
    for place, (arm, word) in enumerate(ARMS.items()):
        key = f"fss1000/fss1000/{shots}shot{arm}/miou"
        score = {k: 100 * v for k, v in result["scores"][key].items()}
        spread = [[score["value"] - score["low"]], [score["high"] - score["value"]]]
        at = group + (place - 1.5) / 5
        axes.bar(at, score["value"], 0.18, yerr=spread, capsize=3, color=f"C{place}",
                 label=word if not group else None)  # fmt: skip
        print(f"{shots} shot, {word}: {score['value']:.1f} "
              f"[{score['low']:.1f}, {score['high']:.1f}]")  # fmt: skip
axes.set_xticks(range(len(SHOTS)), [f"{shots} shot" for shots in SHOTS])
axes.set_ylabel("mIoU")
axes.legend(fontsize="small", loc="upper center")
plt.show()

# %% [markdown]
# All four answer the same episodes, so their differences are paired.

# %%
print("1 shot, mIoU by the right prompt, minus that")
for arm in ("wrong", "copy", "color"):
    name = f"fss1000/fss1000/1shot/miou - {arm}"
    gap = {k: 100 * v for k, v in results[1]["differences"][name].items()}
    print(f"  by the {ARMS[f'/{arm}']}: {gap['value']:+.1f} "
          f"[{gap['low']:+.1f}, {gap['high']:+.1f}]")  # fmt: skip
    assert gap["low"] > 0 or arm != "wrong", "the prompt is ignored"
model, digest = results[1]["checkpoint"], results[1]["weights_sha256"]
print(f"model {model}, sha256 of its weights {digest[:12]}...")

# %% [markdown]
# ## The best, the median and the worst cases

# %%
for sheet in sorted((WORK / "1shot/pictures").rglob("*.png")):
    display(Image.open(sheet).convert("RGB"))

# %% [markdown]
# ## A stop, and on
#
# A finished case is a line of `cases.jsonl`. Here the second half of the lines is taken
# away, as if the runtime had been lost there. The same call does only what is missing,
# and the scores are the same.

# %%
(cases,) = (WORK / "1shot/results").rglob("cases.jsonl")
lines = cases.read_text().splitlines(keepends=True)
cases.write_text("".join(lines[: len(lines) // 2]))
again = run(1)
print(f"{len(lines) // 2} of {len(lines)} lines were kept")
assert again["scores"] == results[1]["scores"]
