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
# # Train on a Colab TPU
#
# [![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/OWNER/seggpt_jax/blob/main/notebooks/train_tpu.ipynb)
#
# The training loop on a v5e-1 or v6e-1: attention kernels side by side, a Ti/16 and a
# B/16 from scratch on drawn scenes, steps per second and MFU, a profile, releases on
# Drive, a stop and a resume.
#
# | runtime | models | time | memory |
# |---|---|---|---|
# | Colab: v5e-1 or v6e-1 TPU | Ti/16 and B/16 at 896 x 448 | 40 minutes, estimated | 12 GB, estimated |
# | any CPU: the small form, without a network | 0.3 M parameters | 4 minutes | 1.9 GB |
#
# In Colab choose the runtime in *Runtime > Change runtime type*: v5e-1 TPU or v6e-1
# TPU. Then press Shift-Enter in every cell, from the first to the last. Nothing here
# was run on a TPU yet, so times on a TPU are estimates.

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
# The small form trains a model of 0.3 million parameters, on any CPU. It is the default
# outside of Colab where there is no accelerator. `TO_DRIVE = True` writes the releases
# to your Google Drive; Colab asks for permission.

# %%
import json
import tempfile

SMALL = found == "cpu" and not on_colab
TO_DRIVE = False
assert SMALL or found == "tpu", (
    f"This notebook is for a TPU, and jax uses a {found}. Runtime > Change runtime type "
    "> v5e-1 TPU or v6e-1 TPU, then begin at the first cell. Or set SMALL = True"
)
RELEASES = Path("releases")
if TO_DRIVE:
    from google.colab import drive

    drive.mount("/content/drive")
    RELEASES = Path("/content/drive/MyDrive/seggpt/releases")
# Runs stay on the local disk, which is faster than Drive.
WORK = Path(tempfile.mkdtemp(prefix="train-")) if SMALL else Path("runs").resolve()
RELEASES = WORK / RELEASES
print(f"runs: {WORK}, releases: {RELEASES}")

# %% [markdown]
# ## Attention: `splash` beside the definition
#
# `xla` is the definition of attention with relative positions. `splash` is JAX's fused
# kernel for TPUs; it keeps no logits. Both get the same arrays, forward and backward.
# Where `splash` is refused, its error is printed and the definition is used below.

# %%
import time

import jax.numpy as jnp

from seggpt_jax.models.attention import attend

# batch, heads, rows and columns of the grid of patches, width of a head
GRIDS = {"small": (2, 2, 24, 12, 32)}
if not SMALL:
    GRIDS = {"ti16": (8, 3, 56, 28, 64), "b16": (4, 12, 56, 28, 64)}


def arrays(batch, heads, rows, columns, width):
    keys = jax.random.split(jax.random.key(0), 5)
    tokens = (batch, heads, rows * columns, width)
    shapes = [tokens] * 3 + [(rows, rows, width), (columns, columns, width)]
    scales = [1, 1, 1, 0.1, 0.1]
    return [
        scale * jax.random.normal(key, shape, jnp.bfloat16)
        for key, shape, scale in zip(keys, shapes, scales, strict=True)
    ]


def timed(impl, given):
    """Output and gradients, and milliseconds of both together."""

    def loss(*args):
        out = attend(*args, impl=impl)
        return (out.astype(jnp.float32) ** 2).mean(), out

    function = jax.jit(jax.value_and_grad(loss, range(5), has_aux=True))
    (_, out), grads = jax.block_until_ready(function(*given))
    begin = time.perf_counter()
    for _ in range(10):
        result = function(*given)
    jax.block_until_ready(result)
    return (out, *grads), 100 * (time.perf_counter() - begin)


def furthest(ours, theirs):
    """The largest difference, as a share of the largest value."""
    ours, theirs = (np.asarray(x, np.float32) for x in (ours, theirs))
    return np.abs(ours - theirs).max() / np.abs(theirs).max()


ATTENTION = "splash"
for name, shape in GRIDS.items():
    given = arrays(*shape)
    expected, milliseconds = timed("xla", given)
    print(f"{name}: xla {milliseconds:.2f} ms")
    try:
        values, milliseconds = timed("splash", given)
    except Exception as error:  # a kernel may be refused in many words
        ATTENTION = "xla"
        print(f"{name}: splash is refused: {str(error)[:300]}")
        continue
    gaps = [furthest(a, b) for a, b in zip(values, expected, strict=True)]
    print(f"{name}: splash {milliseconds:.2f} ms, largest relative difference of output "
          f"{gaps[0]:.1e}, of gradients {max(gaps[1:]):.1e}")  # fmt: skip
    if max(gaps) > 0.05:  # bfloat16 has 8 bits
        ATTENTION = "xla"
        print("that is too much: the definition is used")
print("used below:", ATTENTION)

# %% [markdown]
# ## The scenes, and what training sees
#
# A pair is a prompt above a query, with one random palette for both. The grey patches
# are hidden: the model must paint them. To train on a set of your own instead, set
# `SOURCES` to its settings
# ([docs/own-data.md](https://github.com/OWNER/seggpt_jax/blob/main/docs/own-data.md))
# and `DATA` to the folder that holds it. Keep data on the local disk, not on Drive.

# %%
from configs import common, shapes
from seggpt_jax.training.batch_sheet import draw_batch

DATA, SOURCES = "", {}
STEPS = 250 if SMALL else 400


def config_of(size):
    """Training from scratch. Small form: eight fixed pairs, to be learned by heart."""
    c = shapes.get_config()
    c.stages = common.ordered(
        find=common.stage(
            steps=STEPS, lr=1e-3, warmup=50, loss="l2", max_foreground_weight=12.0
        )
    )
    if SMALL:
        c.fixed_pairs = 8
        evaluated = {"type": "pairs", "count": 8, "batch_size": 8}
        c.evals = common.ordered(memorised=evaluated)
    else:
        c.model = {
            "size": size, "canvas": (896, 448), "dtype": "bfloat16", "remat": "full",
            "attention": ATTENTION,
        }  # fmt: skip
        c.loader.batch_size, c.loader.threads = {"ti16": 64, "b16": 32}[size], 16
        c.accumulate = 4 if ATTENTION == "xla" else 1  # its logits are large
        c.optim.algorithm = "adamw"
        c.evals.heldout.episodes, c.evals.heldout.batch_size = 96, 8
    if SOURCES:
        c.data_dir, c.sources = DATA, common.ordered(**SOURCES)
        c.evals = common.ordered()
    c.log_every, c.save_every, c.eval_every = 20, STEPS // 2, STEPS
    return c


SIZES = ["small"] if SMALL else ["ti16", "b16"]
display(Image.fromarray(draw_batch(config_of(SIZES[0]), step=0, rows=6)))

# %% [markdown]
# ## Train
#
# The same call as `python -m seggpt_jax.main`. After some steps a thread writes a
# profile of two seconds of the running loop. A run whose workdir is there goes on where
# it was: after a restart of the session run all cells again. A runtime that Colab takes
# back takes its disk along, and only what `TO_DRIVE` wrote is left.

# %%
import threading

from seggpt_jax.train import train


def trace(workdir, seconds=2.0):
    """Profiles a run of this process, once it has logged three times."""
    metrics = workdir / "metrics.jsonl"
    while not metrics.exists() or len(metrics.read_text().splitlines()) < 3:
        time.sleep(0.1)
    options = jax.profiler.ProfileOptions()
    options.python_tracer_level = 0  # the loop's Python would drown the rest
    with jax.profiler.trace(str(workdir / "profile"), profiler_options=options):
        time.sleep(seconds)


def train_traced(size):
    workdir = WORK / size
    tracer = threading.Thread(target=trace, args=[workdir], daemon=True)
    if not (workdir / "profile").exists():
        tracer.start()
    scores = train(config_of(size), str(workdir))
    if tracer.ident:
        tracer.join()
    return scores


for size in SIZES:
    print(size, train_traced(size))

# %% [markdown]
# ## Losses, steps per second and MFU
#
# `mfu` is the share of the maker's peak in bfloat16 that the counted operations take;
# it is known for TPUs and some GPUs. `data_wait` is the share of the time that the
# device waits for pictures: where it is high, raise `loader.threads`, or prepare the
# data.

# %%
from matplotlib import pyplot as plt


def logged(size, name):
    lines = map(json.loads, (WORK / size / "metrics.jsonl").read_text().splitlines())
    return {line["step"]: line[name] for line in lines if name in line}


figure, axes = plt.subplots(1, 3, figsize=(11, 3), layout="constrained")
for size in SIZES:
    for panel, name in zip(axes, ("loss", "steps_per_s", "data_wait"), strict=True):
        panel.plot(*zip(*logged(size, name).items(), strict=True), label=size)
        panel.set_title(name)
        panel.set_xlabel("step")
axes[0].set_yscale("log")
axes[0].legend()
plt.show()
for size in SIZES:
    rates = {
        name: np.median([*values.values()][1:])
        for name in ("steps_per_s", "images_per_s", "tflops_per_s", "mfu", "peak_gib")
        if (values := logged(size, name))
    }
    print(size, ", ".join(f"{name} {value:.3g}" for name, value in rates.items()))
losses = [*logged(SIZES[0], "loss").values()]
assert losses[-1] < losses[0] / (4 if SMALL else 1), "it does not learn"

# %% [markdown]
# ## The profile
#
# The operations with the most time on the device. The whole profile is a file for
# [xprof](https://openxla.org/xprof): `pip install xprof`, then `xprof --logdir=FOLDER`
# shows it in a browser.

# %%
import collections

from jax.profiler import ProfileData


def slowest(size, count=12):
    """Names of operations with their share of the busy time."""
    file = sorted((WORK / size / "profile").rglob("*.xplane.pb"))[-1]
    print(f"{size}: {file}, {file.stat().st_size / 2**20:.1f} MiB")
    planes = [p for p in ProfileData.from_file(str(file)).planes if p.name[0] == "/"]
    device = [p for p in planes if p.name.startswith("/device:TPU")] or [
        p for p in planes if p.name == "/host:CPU"
    ]
    lines = [line for plane in device for line in plane.lines]
    chosen = [line for line in lines if line.name == "XLA Ops"] or [
        line for line in lines if "XLA" in line.name
    ]
    times = collections.Counter()
    for event in (event for line in chosen for event in line.events):
        if not event.name.startswith(("end: ", "Thread", "Thunk")):
            times[event.name.split(" = ")[0][:50]] += event.duration_ns
    total = sum(times.values())
    return [(name, spent / total) for name, spent in times.most_common(count)]


for size in SIZES:
    top = slowest(size)
    figure, axes = plt.subplots(figsize=(8, 3))
    axes.barh([name for name, _ in top][::-1], [100 * x for _, x in top][::-1])
    axes.set_xlabel("% of the time of all operations")
    axes.set_title(size)
    axes.tick_params(labelsize=7)
    plt.show()

# %% [markdown]
# ## Paintings
#
# Prompt, query, truth, painting, and the painting decoded by its palette. A few hundred
# steps are a beginning: `configs/shapes.py` and `configs/vitl.py` have whole runs.

# %%
for size in SIZES:
    # Without a score, as with your own `SOURCES`, there are none.
    for sheet in sorted((WORK / size / "pictures").rglob("*.png"))[-1:]:
        display(Image.open(sheet).convert("RGB"))

# %% [markdown]
# ## A release
#
# A run has the optimizer's state too. A release has the weights alone, the moving
# average of the parameters, with checksums. `Predictor.from_pretrained` and `seggpt
# --model` read it. (`seggpt convert` writes one in a terminal. Where it finds PyTorch,
# as in Colab, it compares with PyTorch too.)

# %%
import dataclasses

from seggpt_jax import Predictor
from seggpt_jax.weights import pretrained, release

for size in SIZES:
    weights = pretrained.load(WORK / size)
    config = dataclasses.asdict(weights.config)
    release.export_params(RELEASES / size, weights.params, config)
    files = sorted((RELEASES / size).iterdir())
    sizes = [f"{file.name} {file.stat().st_size / 2**20:.2f} MiB" for file in files]
    print(f"{RELEASES / size}: {', '.join(sizes)}")
    Predictor.from_pretrained(RELEASES / size)  # it can be read

# %% [markdown]
# ## Stop and resume
#
# Colab takes a runtime back without warning; then the last checkpoint counts. Where
# there is a warning (SIGTERM), the run saves first. Here this process sends it to
# itself, and the same call goes on. A run on the local disk is lost with the runtime:
# copy its folder to Drive if you want to go on another day.

# %%
import shutil
import signal


def stop_soon(workdir):
    """Sends SIGTERM once the run has logged."""
    metrics = workdir / "metrics.jsonl"
    while not metrics.exists() or not metrics.read_text():
        time.sleep(0.1)
    os.kill(os.getpid(), signal.SIGTERM)


config = config_of(SIZES[0])
config.stages.find.steps, config.evals = 100, common.ordered()  # a short one
workdir = WORK / "stopped"
shutil.rmtree(workdir, ignore_errors=True)
threading.Thread(target=stop_soon, args=[workdir], daemon=True).start()
stopped = train(config, str(workdir))
saved = max(int(path.name) for path in (workdir / "checkpoints").glob("[0-9]*"))
print(f"stopped: step {saved} of 100 is saved")
assert stopped is None and saved < 100

# %%
train(config, str(workdir))
print("losses by step:", logged("stopped", "loss"))
assert max(logged("stopped", "loss")) == 100
