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
# # Segment photos by an example
#
# [![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/OWNER/seggpt_jax/blob/main/notebooks/segment.ipynb)
#
# Show a photo with its mask, and other photos are segmented the same way.
#
# | runtime | model | time | memory |
# |---|---|---|---|
# | Colab: T4 GPU or v5e-1 TPU | the released weights, 1.48 GB to fetch | 10 minutes, estimated | 6 GB, estimated |
# | any CPU: the small form, without a network | `mini`, in the package | 1 minute | 0.6 GB |
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
MODULES = {"seggpt_jax": "", "cv2": "opencv-python-headless"}


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
# ## One example
#
# The example: a photo, and a mask that is white on the USB stick. The query shows the
# stick from its other side.
#
# The photos are those of
# [docs/examples](https://github.com/OWNER/seggpt_jax/blob/main/docs/examples/README.md),
# where their authors and licences are. They were chosen: `mini` is good at them, and
# often wrong on others.

# %%
from seggpt_jax import Predictor
from seggpt_jax.pictures.images import overlay, read_image, read_mask

predictor = Predictor.from_pretrained(MODEL)
example, mask, query = (
    FILES / "docs/examples" / name
    for name in ("prompt.jpg", "prompt-mask.png", "query.jpg")
)
predictor.set_prompts(example, mask)
result = predictor(query)
image = read_image(query).pixels
cells = [Image.open(example), Image.open(mask).convert("L"), image]
cells += [overlay(image, result.colors), np.uint8(255 * result.confidence)]
show(["example", "its mask", "query", "found", "confidence"], [("", *cells)])

# %% [markdown]
# `result.segments` has the labels at the query's own size, `result.scores` the mean
# confidence of each label, `result.shares` the share of every label in every pixel.

# %%
print(result.segments.shape, np.unique(result.segments), result.scores)

# %% [markdown]
# ## Photos
#
# Seven photos of the stick have masks by hand, so that a score stands beside each
# picture. Four are examples, and three are queries. [Your own](#Your-own-photos) come
# further down.

# %%
from seggpt_jax.data.sources import open_sources

spec = {"type": "indexed", "folder": "desk", "split": "val"}
(desk,) = open_sources({"desk": spec}, str(FILES / "docs/examples")).values()
label = next(k for k, name in desk.class_names.items() if name == "USB flash drive")
samples = [desk[int(i)] for i in desk.by_class[label]]
photos = [sample.image for sample in samples]
masks = [np.uint8(sample.segments == label) for sample in samples]
EXAMPLES, QUERIES = range(4), range(4, 7)


def iou(found, truth):
    """Intersection over union of two masks."""
    return (found & truth).sum() / max(1, (found | truth).sum())


pairs = [(photo, 255 * truth) for photo, truth in zip(photos, masks, strict=True)]
show(["photo", "its mask"] * 2, [("", *pairs[i], *pairs[i + 1]) for i in (0, 2)])

# %% [markdown]
# ## More examples
#
# Several examples are shown together: their features of the query are averaged (feature
# ensemble).

# %%
rows = []
for query in QUERIES:
    cells, scores = [], []
    for count in (1, 2, 4):
        predictor.set_prompts(photos[:count], masks[:count])
        result = predictor(photos[query])
        scores.append(iou(result.segments == 1, masks[query] == 1))
        cells.append(overlay(photos[query], result.colors))
    caption = "IoU " + ", ".join(f"{score:.2f}" for score in scores)
    rows.append((caption, photos[query], *cells))
show(["query", "1 example", "2 examples", "4 examples"], rows, side=128)

# %% [markdown]
# ## A mask by a box
#
# Where there is no mask yet, a box around the object makes one (GrabCut). It tells
# objects by colour, so look at the mask before you use it. Here are the cup and the
# spoon of one photo.

# %%
coffee = read_image(FILES / "docs/examples/own/coffee.jpg").pixels
names = {1: "cup", 2: "spoon"}
boxes = {1: (126, 10, 310, 159), 2: (240, 180, 310, 249)}
target = np.zeros(coffee.shape[:2], np.uint8)
for label, box in boxes.items():
    _, marked = predictor.example(coffee, box=box)
    target[np.asarray(marked) > 0] = label
predictor.set_prompts(coffee, target, names=names)
painted = np.zeros_like(coffee)
for label in names:
    painted[target == label] = predictor.palette[label]
show(["photo", "masks by two boxes"], [("", coffee, overlay(coffee, painted))])

# %% [markdown]
# ## Several labels at once
#
# A mask may hold several labels. All of them are found in one pass, here in two other
# views of the photo.

# %%
views = {"mirrored": coffee[:, ::-1], "a part": coffee[:, 90:370]}
found = [overlay(view, predictor(view).colors) for view in views.values()]
show(list(views), [(" and ".join(names.values()), *found)])

# %% [markdown]
# ## Your own photos
#
# In Colab set `UPLOAD = True`, run the cell again and choose files: the first one is
# the example, the others are queries. Elsewhere write their paths into `OWN`. `BOX` is
# around the object in the example: left, top, right, bottom in pixels.

# %%
UPLOAD = False
OWN, BOX = [], (10, 20, 200, 180)
if UPLOAD:
    from google.colab import files as colab_files

    OWN = list(colab_files.upload())
if OWN:
    predictor.set_prompts(*predictor.example(OWN[0], box=BOX))
    own = [read_image(path).pixels for path in OWN[1:]]
    found = [overlay(image, predictor(image).colors) for image in own]
    show(["photo", "found"], [("", *pair) for pair in zip(own, found, strict=True)])

# %% [markdown]
# ## A folder
#
# The command `seggpt segment` takes a folder and writes files. In a terminal it is the
# line that is printed. Here it runs in this process, because a TPU serves one process
# at a time.

# %%
import shlex
import tempfile

from seggpt_jax.cli import command

WORK = Path(tempfile.mkdtemp(prefix="segment-"))
for name in ("photos", "examples", "masks"):
    (WORK / name).mkdir()
for i, photo in enumerate(photos):
    folder = WORK / ("examples" if i in EXAMPLES else "photos")
    Image.fromarray(photo).save(folder / f"{i}.png")
    if i in EXAMPLES:
        Image.fromarray(255 * masks[i]).save(WORK / "masks" / f"{i}.png")


def seggpt(line):
    """Runs `seggpt LINE`."""
    print("$ seggpt", line)
    try:
        command.main(shlex.split(line))
    except SystemExit as ended:
        assert not ended.code, f"it ended with status {ended.code}"


example = f"{WORK}/examples/0.png:{WORK}/masks/0.png"
seggpt(
    f"segment --model {MODEL} --prompt {example} {WORK}/photos --out {WORK}/results "
    "--names 1=stick --as segments,overlay,coco-json,csv"
)
overlays = [Image.open(path) for path in sorted(WORK.glob("results/*_overlay.jpg"))]
show(["overlay"] * len(overlays), [("", *overlays)], side=128)
print((WORK / "results/results.csv").read_text())

# %% [markdown]
# ## The best examples
#
# The score depends on the examples. Here are four candidates, and the masks of two are
# wrong on purpose. `auto:2` shows each candidate to all others and takes the two that
# did best.

# %%
for i in (1, 2):
    Image.fromarray(255 * np.roll(masks[i], 90, axis=1)).save(WORK / f"masks/{i}.png")
seggpt(
    f"segment --model {MODEL} --prompt {WORK}/examples:{WORK}/masks --prompt auto:2 "
    f"{WORK}/photos --out {WORK}/chosen"
)
candidates = [read_image(WORK / f"examples/{i}.png").pixels for i in EXAMPLES]
targets = [np.uint8(read_mask(WORK / f"masks/{i}.png").values) for i in EXAMPLES]
ranked = predictor.search_prompts(candidates, targets, count=len(EXAMPLES))
show(
    [f"mean IoU {score:.2f}" for score in ranked.scores],
    [
        ("candidates, the best first", *(candidates[k] for k in ranked.places)),
        ("their masks", *(targets[k] for k in ranked.places)),
    ],
    side=128,
)

# %% [markdown]
# Above each candidate is the mean IoU of the other candidates, with this one as the only
# example. Now the photos, which the choice has not seen:

# %%
rows, scores = [], {}
for what, places in (("worst", ranked.places[-2:]), ("best", ranked.places[:2])):
    predictor.set_prompts([candidates[k] for k in places], [targets[k] for k in places])
    results = predictor([photos[i] for i in QUERIES])
    truths = [masks[i] == 1 for i in QUERIES]
    each = [
        iou(r.segments > 0, truth) for r, truth in zip(results, truths, strict=True)
    ]
    scores[what] = np.mean(each)
    shown = [
        overlay(photos[i], result.colors)
        for i, result in zip(QUERIES, results, strict=True)
    ]
    rows.append((f"the two {what}: mean IoU {scores[what]:.2f}", *shown))
show([f"query {i}" for i in range(len(QUERIES))], rows, side=128)
assert scores["best"] > scores["worst"]

# %% [markdown]
# ## Take the results with you
#
# In Colab set `DOWNLOAD = True`.

# %%
import shutil

DOWNLOAD = False
archive = shutil.make_archive(str(WORK / "results"), "zip", WORK / "results")
print(f"{archive}: {Path(archive).stat().st_size} bytes")
if DOWNLOAD:
    from google.colab import files as colab_files

    colab_files.download(archive)
