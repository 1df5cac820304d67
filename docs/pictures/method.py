"""Draws the method: canvases, hidden patches, two streams, merge, taps, decoder.

    python docs/pictures/method.py --out docs/pictures/method.png

Every number is read from `SegGPTConfig.of("l16")`. The pictures are those of
docs/examples, and the painting is the one of the bundled model `mini`.
"""

import argparse
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt  # noqa: E402
import numpy as np  # noqa: E402
from matplotlib.axes import Axes  # noqa: E402
from matplotlib.patches import FancyBboxPatch, Rectangle  # noqa: E402
from PIL import Image  # noqa: E402

from seggpt_jax import Predictor  # noqa: E402
from seggpt_jax.canvas import stitch  # noqa: E402
from seggpt_jax.models.seggpt import SegGPTConfig  # noqa: E402

EXAMPLES = Path(__file__).parents[1] / "examples"
INK, SOFT = "#1f2328", "#57606a"
IMAGE, TARGET, MERGED, TAP = "#9ecae1", "#fdae6b", "#c7c2e0", "#7b6bb5"
HIDDEN = 176  # grey of a hidden patch
SIDE = 1.15  # inches, of a prompt or a query


def pictures() -> dict[str, np.ndarray]:
    """Both canvases, and the query's painting and segments; uint8 RGB."""
    paths = [EXAMPLES / n for n in ("prompt.jpg", "prompt-mask.png", "query.jpg")]
    predictor = Predictor.from_pretrained("mini")
    predictor.set_prompts(paths[0], paths[1])
    found = predictor(paths[2])
    prompt, query = (np.asarray(Image.open(p).convert("RGB")) for p in paths[::2])
    mask = np.asarray(Image.open(paths[1])) > 0
    target = np.uint8(mask[..., None] * found.palette[1])
    return {
        "image": stitch(prompt, query),
        "target": stitch(target, np.full_like(query, HIDDEN)),
        "painting": np.uint8(found.painting.round()),
        "segments": found.colors,
    }


def show(axes: Axes, picture, x: float, y: float, grid=None):
    """A picture with its lower left corner at (x, y), and its patches."""
    height = SIDE * picture.shape[0] / picture.shape[1]
    axes.imshow(picture, extent=(x, x + SIDE, y, y + height), zorder=2)
    if grid:
        rows, cols = grid
        style = {"color": "white", "linewidth": 0.25, "alpha": 0.7, "zorder": 3}
        axes.vlines(x + SIDE * np.arange(1, cols) / cols, y, y + height, **style)
        axes.hlines(y + height * np.arange(1, rows) / rows, x, x + SIDE, **style)
    edge = {"fill": False, "edgecolor": INK, "linewidth": 0.8, "zorder": 4}
    axes.add_patch(Rectangle((x, y), SIDE, height, **edge))
    if height > SIDE:
        axes.hlines(y + SIDE, x, x + SIDE, color=INK, linewidth=1.2, zorder=4)


def say(axes: Axes, x: float, y: float, text: str, size=9.5, color=INK, **how):
    style = {"ha": "center", "va": "center", "linespacing": 1.3} | how
    axes.text(x, y, text, fontsize=size, color=color, zorder=6, **style)


def box(axes: Axes, x, y, width, height, color, text="", size=9.5):
    """A box with its centre at (x, y)."""
    corner = (x - width / 2, y - height / 2)
    style = "round,pad=0,rounding_size=0.05"
    axes.add_patch(
        FancyBboxPatch(corner, width, height, boxstyle=style, facecolor=color,
                       edgecolor=INK, linewidth=0.7, zorder=5)
    )  # fmt: skip
    say(axes, x, y, text, size)


def arrow(axes: Axes, *points):
    """A line through points, with a head at the last."""
    for start, end in zip(points, points[1:-1], strict=False):
        axes.plot(*zip(start, end, strict=True), color=INK, linewidth=1, zorder=1)
    style = {"arrowstyle": "-|>", "color": INK, "linewidth": 1, "shrinkA": 0,
             "shrinkB": 0, "mutation_scale": 10}  # fmt: skip
    axes.annotate("", points[-1], points[-2], arrowprops=style, zorder=1)


def draw_canvases(axes: Axes, c: SegGPTConfig, found: dict[str, np.ndarray]):
    rows, cols = c.grid
    show(axes, found["image"], 0.5, 3.85, c.grid)
    show(axes, found["target"], 2.05, 3.85, c.grid)
    for x, name in ((0.5, "image canvas"), (2.05, "target canvas")):
        say(axes, x + SIDE / 2, 6.32, name, 10, weight="bold")
    for y, name in ((5.0, "prompt"), (3.85, "query")):
        say(axes, 0.33, y + SIDE / 2, name, rotation=90)
    say(axes, 2.05 + SIDE / 2, 3.85 + SIDE / 2, "hidden:\nmask\ntoken", 9.5)
    say(axes, 1.85, 3.53, f"{c.canvas[0]} × {c.canvas[1]} pixels, {rows} × {cols} "
        f"patches of {c.patch} × {c.patch}", 8.5, SOFT)  # fmt: skip


def draw_streams(axes: Axes, c: SegGPTConfig) -> dict[int, float]:
    """Embedding, the blocks before the merge and after it; where the taps are."""
    rows, cols = c.grid
    up, low, middle = 5.55, 4.45, 5.0
    for y, color, name in ((up, IMAGE, "image"), (low, TARGET, "target")):
        box(axes, 4.35, y, 1.1, 0.75, color, "linear\n+ position\n+ kind + stream", 8)
        arrow(axes, (4.9, y), (5.2, y))
        for i in range(c.merge_after + 1):
            box(axes, 5.4 + 0.42 * i, y, 0.36, 0.6, color, str(i))
        say(axes, 5.82, y + 0.45, f"{name} stream", 9)
    # The image canvas stands behind the target canvas: its line runs around that.
    arrow(axes, (0.5 + SIDE, up), (1.85, up), (1.85, 6.58), (3.5, 6.58), (3.5, up),
          (3.8, up))  # fmt: skip
    arrow(axes, (2.05 + SIDE, low), (3.8, low))
    for y in (up, low):
        arrow(axes, (6.42, y), (6.72, y), (6.72, middle + np.sign(y - middle) * 0.2))
    axes.add_patch(plt.Circle((6.72, middle), 0.2, facecolor="white", edgecolor=INK,
                              linewidth=0.8, zorder=5))  # fmt: skip
    say(axes, 6.72, middle, "mean", 7)
    say(axes, 6.9, low + 0.02, f"merge after\nblock {c.merge_after}", 9, ha="left")
    arrow(axes, (6.92, middle), (7.16, middle))
    first, step = 7.28, 0.222
    taps = {}
    for i in range(c.merge_after + 1, c.depth):
        x = first + step * (i - c.merge_after - 1)
        tapped = i in c.taps
        box(axes, x, middle, 0.18, 0.6, TAP if tapped else MERGED)
        if tapped:
            taps[i] = x
            say(axes, x, middle + 0.42, str(i), 9.5, weight="bold")
    say(axes, first, middle + 0.42, str(c.merge_after + 1), 9.5)
    say(axes, 9.5, 5.75, f"one stream: {rows} × {cols} = {rows * cols} tokens of width "
        f"{c.width},\nattention over the whole canvas in every block", 9)  # fmt: skip
    return taps


def draw_decoder(axes: Axes, c: SegGPTConfig, taps: dict[int, float]):
    total, top, y = len(c.taps) * c.width, 3.55, 1.9
    for x in taps.values():
        arrow(axes, (x, 4.7), (x, top + 0.2))
    left, right = min(taps.values()) - 0.55, max(taps.values()) + 0.15
    middle = (left + right) / 2
    box(axes, middle, top, right - left, 0.4, "#efedf6",
        f"taps {', '.join(map(str, c.taps))}: shared LayerNorm, concatenate to "
        f"{len(c.taps)} × {c.width} = {total}", 9)  # fmt: skip
    pixels = f"{c.patch} × {c.patch} × {c.decoder_width}"
    parts = [
        (10.6, 2.2, f"linear {total} to {pixels},\nlaid out as pixels of the canvas"),
        (8.4, 1.5, f"convolution 3 × 3,\n{c.decoder_width} channels"),
        (6.75, 1.1, "LayerNorm,\nexact GELU"),
        (5.35, 1.0, "linear to\nRGB"),
    ]
    arrow(axes, (10.6, top - 0.2), (10.6, y + 0.35))
    for (x, width, text), (after, wide, _) in zip(parts, parts[1:] + [(3.2, 0, "")],
                                                  strict=True):  # fmt: skip
        box(axes, x, y, width, 0.7, "#dcefdc", text, 9)
        arrow(axes, (x - width / 2, y), (after + wide / 2 + (0 if wide else 0.05), y))
    say(axes, 8.0, 2.55, "decoder", 10, weight="bold")
    say(axes, 7.2, 0.85, "training: smooth-L1 between painting and target on hidden "
        "patches only.\nHidden in training: random blocks of exactly half of all "
        f"patches ({c.grid[0] * c.grid[1] // 2}),\nor, in one pair in ten, the query "
        "half, as it is drawn here.", 9, SOFT)  # fmt: skip


def draw_answer(axes: Axes, found: dict[str, np.ndarray]):
    for x, name in ((0.5, "segments"), (2.05, "painting")):
        show(axes, found[name], x, 1.25)
        say(axes, x + SIDE / 2, 2.6, name, 10, weight="bold")
    arrow(axes, (2.05, 1.9), (0.5 + SIDE, 1.9))
    say(axes, 1.85, 0.95, "of the query half, decoded\nby nearest colour", 8.5, SOFT)


def draw(c: SegGPTConfig, found: dict[str, np.ndarray], out: Path):
    width, height = 12.1, 6.4
    figure = plt.figure(figsize=(width, height), facecolor="white")
    axes = figure.add_axes((0, 0, 1, 1))
    draw_canvases(axes, c, found)
    draw_decoder(axes, c, draw_streams(axes, c))
    draw_answer(axes, found)
    axes.set(xlim=(0, width), ylim=(0.4, height + 0.4), aspect="equal")
    axes.axis("off")
    figure.savefig(out, dpi=150, facecolor="white")
    plt.close(figure)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, help="a .png or .svg")
    draw(SegGPTConfig.of("l16"), pictures(), parser.parse_args().out)


if __name__ == "__main__":
    main()
