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
# # Follow objects in a video
#
# [![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/OWNER/seggpt_jax/blob/main/notebooks/video.ipynb)
#
# Mark objects in the first frame, follow them, correct a frame in the midst of the
# video, add an object that comes later, and write the result.
#
# | runtime | model | time | memory |
# |---|---|---|---|
# | Colab: T4 GPU or v5e-1 TPU | the released weights, 1.48 GB to fetch | 10 minutes, estimated | 6 GB, estimated |
# | any CPU: the small form, without a network | `mini`, in the package | 1 minute | 0.7 GB |
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
EXTRAS = ["video"]
# What must be there, and the package that has it, where ours does not bring it.
MODULES = {"seggpt_jax": "", "av": "", "cv2": "opencv-python-headless"}


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
# ## The video
#
# Sixteen frames of a plastic card, in which the edge of the table comes into sight.
# [docs/examples](https://github.com/OWNER/seggpt_jax/blob/main/docs/examples/README.md)
# has their author and licence. `mini` was trained on most of them, so this shows how it
# works, and not how good it is.
#
# To take your own in Colab, set `UPLOAD = True`, run the cell again, and choose two
# files: the video, and the mask of its first frame (a PNG: 0 is background, 1, 2, ...
# are objects). Elsewhere write their paths into `VIDEO` and `FIRST`. Take a short one, of
# some hundred frames: here all are held in memory, which `seggpt video` does not.

# %%
from seggpt_jax.pictures import video

UPLOAD = False
VIDEO = FILES / "docs/examples/clip.mp4"
FIRST = FILES / "docs/examples/clip-first-mask.png"
if UPLOAD:
    from google.colab import files as colab_files

    VIDEO, FIRST = sorted(colab_files.upload(), key=lambda name: name.endswith(".png"))
frames = [frame.image for frame in video.read_frames(VIDEO)]
print(f"{len(frames)} frames of {frames[0].shape[1]} x {frames[0].shape[0]} pixels")


def strip(*rows):
    """Shows some frames of videos, one below the other. rows: (caption, pictures)."""
    shown = np.linspace(0, len(rows[0][1]) - 1, 8).astype(int).tolist()
    show(
        [f"frame {k}" for k in shown],
        [(caption, *(pictures[k] for k in shown)) for caption, pictures in rows],
        side=128,
    )


strip(("", frames))

# %% [markdown]
# ## Follow one object
#
# The mask of the first frame is white on the card. The first frame and the last few
# frames, with their results, are the examples of each frame. The paper takes eight of
# them; `mini` does best with few.

# %%
from seggpt_jax import Predictor
from seggpt_jax.pictures.images import overlay

predictor = Predictor.from_pretrained(MODEL)
MEMORY = 2 if SMALL else 8


def overlays(frames, results):
    return [overlay(f, r.colors) for f, r in zip(frames, results, strict=True)]


show(["frame 0", "its mask"], [("", frames[0], Image.open(FIRST).convert("L"))])
one = list(predictor.track(VIDEO, first=FIRST, memory=MEMORY))
strip(("", overlays(frames, one)))

# %% [markdown]
# ## Mark objects by boxes
#
# The other sections take a pan over one photo: there it is known where every object is
# in every frame, so there is a score. `mini` was not trained on this photo.
#
# A box around an object makes a mask (GrabCut; `seggpt mask` is the command). Two
# objects are two labels of one mask, and are followed in one pass: the cup, and the
# spoon, of which the first frame shows only the edge.

# %%
from seggpt_jax.pictures.images import read_image

photo = read_image(FILES / "docs/examples/own/coffee.jpg").pixels
SIDE, COUNT = 190, 16
places = np.linspace((60, 0), (225, 98), COUNT).round().astype(int)


def pan(picture):
    """The frames of a window that moves over a picture, from left to right and down."""
    return [picture[y : y + SIDE, x : x + SIDE] for x, y in places]


def by_boxes(picture, boxes):
    """A mask of labels. boxes: label -> left, top, right, bottom in pixels."""
    mask = np.zeros(picture.shape[:2], np.uint8)
    for label, box in boxes.items():
        _, marked = predictor.example(picture, box=box)
        mask[np.asarray(marked) > 0] = label
    return mask


panned = pan(photo)
truths = pan(by_boxes(photo, {1: (126, 10, 310, 159), 2: (240, 180, 310, 249)}))
two = list(predictor.track(panned, first=truths[0], memory=MEMORY))
strip(("", panned), ("two labels", overlays(panned, two)))

# %% [markdown]
# ## Correct a frame in the midst
#
# `mini` loses the spoon, because the first frame shows so little of it. A session takes
# the video frame by frame, and takes the right mask of any frame: here that of frame 8.
# It becomes an example for all frames after it.

# %%
CORRECTED = 8
session, corrected = predictor.video(first=truths[0], memory=MEMORY), []
for number, frame in enumerate(panned):
    result = session.step(frame)
    if number == CORRECTED:
        result = session.correct(truths[number])
    corrected.append(result)
strip(
    ("as it was", overlays(panned, two)),
    (f"corrected at frame {CORRECTED}", overlays(panned, corrected)),
)


# %%
def iou(found, truth):
    """Intersection over union of two masks."""
    return (found & truth).sum() / max(1, (found | truth).sum())


means = []
for results in (two, corrected):
    later = list(zip(results, truths, strict=True))[CORRECTED + 1 :]
    scores = [iou(result.segments == 2, truth == 2) for result, truth in later]
    means.append(np.mean(scores))
print(f"mean IoU of the spoon after frame {CORRECTED}: "
      f"{means[0]:.2f}, corrected {means[1]:.2f}")  # fmt: skip
assert means[1] > means[0] or not SMALL, "the correction did not help"

# %% [markdown]
# ## Add an object, and drop one
#
# Here the cup alone is followed at first. The spoon is added at frame 8, and followed
# in a pass of its own. The cup is dropped at frame 11.

# %%
cup = np.uint8(truths[0] == 1)
spoon = np.uint8(2 * (truths[CORRECTED] == 2))
session, results = predictor.video(cup, memory=MEMORY), []
for number, frame in enumerate(panned):
    result = session.step(frame)
    if number == CORRECTED:
        result = session.add(spoon)
    if number == 11:
        session.drop(1)
    results.append(result)
strip(("", overlays(panned, results)))
print("followed at the end:", session.labels)

# %% [markdown]
# ## Write it
#
# The command `seggpt video` takes a video or a folder of frames, and the same masks by
# the number of their frame. It writes a video with the overlay, which keeps the times
# and the sound of the original, and a PNG of labels per frame. In a terminal it is the
# line that is printed. Here it runs in this process, because a TPU serves one process
# at a time.

# %%
import shlex
import tempfile

from IPython.display import Video

from seggpt_jax.cli import command

WORK = Path(tempfile.mkdtemp(prefix="video-"))
(WORK / "pan").mkdir()
for number, frame in enumerate(panned):
    Image.fromarray(frame).save(WORK / f"pan/{number}.png")
Image.fromarray(truths[0]).save(WORK / "first.png")
Image.fromarray(truths[CORRECTED]).save(WORK / "right.png")


def seggpt(line):
    """Runs `seggpt LINE`."""
    print("$ seggpt", line)
    try:
        command.main(shlex.split(line))
    except SystemExit as ended:
        assert not ended.code, f"it ended with status {ended.code}"


seggpt(
    f"video --model {MODEL} --first {WORK}/first.png --at {CORRECTED}:{WORK}/right.png "
    f"--memory {MEMORY} {WORK}/pan --out {WORK}/results --as overlay,segments"
)
written = next((WORK / "results").glob("*.mp4"))
strip(("", [frame.image for frame in video.read_frames(written)]))
Video(written, embed=True)

# %% [markdown]
# ## Take it with you
#
# In Colab set `DOWNLOAD = True`.

# %%
DOWNLOAD = False
print(f"{written}: {written.stat().st_size} bytes")
if DOWNLOAD:
    from google.colab import files as colab_files

    colab_files.download(str(written))
