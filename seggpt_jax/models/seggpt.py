"""SegGPT: a plain ViT that paints the query's target (paper section 3, figure 2)."""

import dataclasses
import itertools
import math
from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float, Int

from seggpt_jax.canvas import patchify, unpatchify
from seggpt_jax.config import (
    check_names,
    check_types,
    construct,
    plain,
    require,
    suggest,
)
from seggpt_jax.models import transformer
from seggpt_jax.models.attention import CHOICES
from seggpt_jax.models.resample import cubic_matrix
from seggpt_jax.runs.partition import axis_ways, constrain

Array = jax.Array | np.ndarray

#       width, depth, heads
SIZES = {
    "ti16": (192, 12, 3),
    "s16": (384, 12, 6),
    "b16": (768, 12, 12),
    "l16": (1024, 24, 16),
    "g16": (1408, 40, 22),
}


# Settings of how a model is trained or computed. All other settings are geometry.
_HOW = ("drop_path", "dtype", "attention", "remat", "scan")
_COUNTS = ("width", "depth", "heads", "patch", "pos_grid", "mlp_ratio", "decoder_width")


def quarters(depth: int) -> tuple[int, ...]:
    """The last block of each quarter of the depth: where features are tapped."""
    return tuple(depth * (i + 1) // 4 - 1 for i in range(4))


@dataclasses.dataclass(frozen=True)
class SegGPTConfig:
    """Geometry and numerics. `SegGPTConfig.of("l16")` is the released model.

    Attributes:
      canvas: rows and columns in pixels that the relative-position tables are made for.
        For any other 2:1 canvas the tables are interpolated.
      pos_grid: side of the square position table (14: MAE at 224).
      merge_after: image and target streams are averaged after this block.
      taps: blocks whose outputs the decoder reads.
      one_way: the prompt's half of a canvas attends to itself only, and the query's
        half to both, in every block. So prompts do not depend on the query. The
        released models are two-way.
      remat: which values of a block the backward pass computes again. It is one policy
        for all blocks, or one for each group of blocks: up to the merge, then up to
        each tap.
    """

    width: int
    depth: int
    heads: int
    patch: int = 16
    canvas: tuple[int, int] = (896, 448)
    pos_grid: int = 14
    mlp_ratio: int = 4
    merge_after: int = 2
    taps: tuple[int, ...] = ()
    decoder_width: int = 64
    one_way: bool = False
    drop_path: float = 0.0
    dtype: str = "float32"
    attention: str = "auto"
    remat: str | tuple[str, ...] = "none"
    scan: bool = True

    @classmethod
    def of(cls, size: str, **settings) -> "SegGPTConfig":
        """A row of `SIZES` with some settings replaced."""
        if size not in SIZES:
            raise ValueError(f"model size {size!r} is unknown{suggest(size, SIZES)}")
        width, depth, heads = SIZES[size]
        check_names("model", settings, [f.name for f in dataclasses.fields(cls)])
        check_types("model", settings, cls)
        row = {"width": width, "depth": depth, "heads": heads}
        return cls(**(row | settings))

    @classmethod
    def read(cls, settings) -> "SegGPTConfig":
        """From the settings of a config or of a release: a `size` of `SIZES` with some
        settings replaced, or every setting."""
        settings = plain(settings)
        require(isinstance(settings, Mapping), "model", settings, "settings by name")
        if "size" in settings:
            size = settings.pop("size")
            require(isinstance(size, str), "model.size", size, "the name of a size")
            return cls.of(size, **settings)
        return construct(cls, "model", settings)

    @property
    def half(self) -> tuple[int, int]:
        """Rows and columns of half a canvas, the size of a prompt or query image."""
        return self.canvas[0] // 2, self.canvas[1]

    @property
    def geometry(self) -> dict[str, Any]:
        """The settings that decide which function the parameters make."""
        settings = dataclasses.asdict(self).items()
        return {name: value for name, value in settings if name not in _HOW}

    def replace(self, **settings) -> "SegGPTConfig":
        """A copy with some settings replaced."""
        return dataclasses.replace(self, **settings)

    def __post_init__(self):
        set_ = lambda name, value: object.__setattr__(self, name, value)  # noqa: E731
        for name in _COUNTS:
            value = getattr(self, name)
            require(value >= 1, f"model.{name}", value, "at least 1")
            require(value < 2**16, f"model.{name}", value, "below 65536")
        set_("canvas", tuple(self.canvas))
        set_("taps", tuple(self.taps) or quarters(self.depth))
        choices = {"dtype": ("float32", "bfloat16"), "attention": CHOICES}
        for name, known in choices.items():
            if (value := getattr(self, name)) not in known:
                raise ValueError(
                    f"model.{name} {value!r} is not one of {', '.join(known)}"
                )
        rows, cols = self.canvas
        if rows < 1 or cols < 1 or rows % (2 * self.patch) or cols % self.patch:
            raise ValueError(
                f"model.canvas {self.canvas}: a prompt above a query needs rows that "
                f"are a multiple of {2 * self.patch} (2 x patch) and columns of "
                f"{self.patch} (patch)"
            )
        if self.width % self.heads:
            raise ValueError(f"model.width {self.width} is not a multiple of heads "
                             f"{self.heads}")  # fmt: skip
        if not 0 <= self.merge_after <= self.taps[0] or self.taps != tuple(
            sorted(set(self.taps) & set(range(self.depth)))
        ):
            raise ValueError(
                f"model.taps {self.taps} must rise within the {self.depth} blocks and "
                f"not come before merge_after = {self.merge_after}"
            )
        if not isinstance(self.remat, str):
            set_("remat", tuple(self.remat))
        groups, remats = len(self.stops), transformer.REMAT
        if len(self.policies) != groups or not remats.keys() >= set(self.policies):
            raise ValueError(
                f"model.remat {self.remat!r}: give one of {', '.join(remats)}, or one "
                f"for each of the {groups} groups of blocks"
            )
        if not 0 <= self.drop_path < 1:
            raise ValueError(f"model.drop_path {self.drop_path} is not in [0, 1)")

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of patches on the canvas."""
        return self.canvas[0] // self.patch, self.canvas[1] // self.patch

    @property
    def stops(self) -> list[int]:
        """Number of the first block after each group: groups end at merge and taps."""
        return sorted({self.merge_after + 1, *(tap + 1 for tap in self.taps)})

    @property
    def runs(self) -> list[list[int]]:
        """Each run is a list of block numbers: where its pieces end.

        All pieces of a run have as many blocks, and are compiled once, as a loop. The
        first run is the group up to the merge. Each later run joins neighbouring groups
        of one remat policy. Every tap is the end of a piece, but not every end is a
        tap. The result of each piece takes memory, so groups are never cut into single
        blocks.
        """
        depths = np.diff([0, *self.stops]).tolist()
        runs = [[depths[0]]]
        pairs = zip(self.policies[1:], depths[1:], strict=True)
        for _, members in itertools.groupby(pairs, key=lambda pair: pair[0]):
            found = [depth for _, depth in members]
            if (depth := math.gcd(*found)) > 1:
                pieces = [[depth] * (sum(found) // depth)]
            else:
                pieces = [list(alike) for _, alike in itertools.groupby(found)]
            for piece in pieces:
                runs.append([int(n) for n in runs[-1][-1] + np.cumsum(piece)])
        return runs

    @property
    def policies(self) -> tuple[str, ...]:
        """`remat` of every group of blocks."""
        if isinstance(self.remat, str):
            return (self.remat,) * len(self.stops)
        return self.remat


def _init_patch_embed(key, c: SegGPTConfig):
    pixels = 3 * c.patch**2
    return transformer.init_linear(
        key, (pixels, c.width), c.width, fan=pixels + c.width
    )


def _init_decoder(key, c: SegGPTConfig):
    k_embed, k_conv, k_head = jax.random.split(key, 3)
    w, taps, linear = c.decoder_width, len(c.taps) * c.width, transformer.init_linear
    made = c.patch**2 * w  # features that the decoder makes of a patch
    return {
        "embed": linear(k_embed, (taps, made), made, fan=taps + made),
        "conv": linear(k_conv, (3, 3, w, w), w, fan=18 * w),
        "norm": transformer.init_norm(w),
        "head": linear(k_head, (w, 3), 3, fan=w + 3),
    }


def _init_tokens(key, *shape: int):
    return 0.02 * jax.random.normal(key, shape)


# Initialisers as MAE: Xavier kernels, zero biases and relative positions, tokens and
# positions of standard deviation 0.02. The released code draws its linear layers from a
# truncated normal of 0.02 instead, which matters to runs from random parameters only.
INITIALIZERS = {
    "patch_embed": _init_patch_embed,
    "pos_embed": lambda key, c: 0.02 * jax.random.truncated_normal(
        key, -2, 2, (c.pos_grid, c.pos_grid, c.width)
    ),
    "mask_token": lambda key, c: _init_tokens(key, c.width),
    "stream_tokens": lambda key, c: _init_tokens(key, 2, c.width),
    "kind_tokens": lambda key, c: _init_tokens(key, 2, c.width),
    "blocks": lambda key, c: transformer.init_blocks(
        key, c.depth, c.width, c.heads, c.mlp_ratio * c.width, c.grid
    ),
    "norm": lambda key, c: transformer.init_norm(c.width),
    "decoder": _init_decoder,
}  # fmt: skip


def position_embedding(table: Float[Array, "g g d"], grid) -> Float[Array, "h w d"]:
    """The square position table on a grid of patches, bicubic as torch computes it."""
    side = table.shape[0]
    if grid == (side, side):
        return table
    rows = jnp.asarray(cubic_matrix(side, grid[0]))
    cols = jnp.asarray(cubic_matrix(side, grid[1]))
    return jnp.einsum("hg,gkd,wk->hwd", rows, table, cols)


def decode(p, tapped, patch: int, halo: int = 0):
    """Tapped features `[b, h, w, taps * d]` -> painting float32 `[b, H, W, 3]`.

    A linear layer makes `decoder_width` features of every pixel of a patch; a 3x3
    convolution over the pixels lets neighbouring patches agree. halo: the topmost rows
    of patches, which the convolution reads across a seam and which are not painted.
    """
    if halo:
        # A mesh cuts pixels by their rows, and only evenly. Rows above the halo count
        # for nothing.
        halo += (more := -tapped.shape[1] % axis_ways("patches", 1))
        tapped = jnp.pad(tapped, [(0, 0), (more, 0), (0, 0), (0, 0)])
    # Over `tensor` the kernel cuts the features of each patch. Then every device takes
    # all features of some rows, so that none ever holds all pixels.
    x = constrain(transformer.linear(p["embed"], tapped), "hidden")
    x = constrain(unpatchify(constrain(x, "patches"), patch), "pixels")
    x = jax.lax.conv_general_dilated(
        x, p["conv"]["kernel"].astype(x.dtype), (1, 1), "SAME",
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )  # fmt: skip
    x = x + p["conv"]["bias"].astype(x.dtype)[None, None, None, :]
    x = transformer.gelu(transformer.layer_norm(p["norm"], x))
    painting = transformer.linear(p["head"], x).astype(jnp.float32)
    return painting[:, halo * patch :]


class SegGPT(nn.Module):
    """`SegGPT(config).apply({"params": p}, images, targets, hidden, kind)`."""

    config: SegGPTConfig

    @nn.compact
    def __call__(
        self,
        images: Float[Array, "b H W 3"],
        targets: Float[Array, "b H W 3"],
        hidden: Bool[Array, "b h w"],
        kind: Int[Array, " b"],
        *,
        train: bool = False,
        prompts: int = 1,
        query_only: bool = False,
    ) -> tuple[Float[Array, "b rows W 3"], dict[str, Any]]:
        """Paints the target canvas.

        images, targets: canvases, ImageNet-normalised. hidden: per patch, true where
        the target is replaced by the mask token. kind: 0 category, 1 instance. prompts:
        feature ensemble over groups of that many rows of the batch, which hold one
        query with different prompts (paper, "Context Ensemble"). query_only: paints the
        query half alone, the same pixels at half the decoder's cost.

        Returns the painting, ImageNet-normalised float32, and named intermediates.
        """
        c = self.config
        p = {n: self.param(n, init, c) for n, init in INITIALIZERS.items()}
        dtype = jnp.dtype(c.dtype)
        # Two streams of tokens: the image canvas and the target canvas, each `[b, h, w,
        # d]`, share the patch embedding and all blocks. They lie on the batch axis, so
        # x is `[2b, h, w, d]` up to the merge.
        with jax.named_scope("embed"):
            x = _embed(p, images, targets, hidden, kind, c.patch, dtype, prompts)
        out = {"embedded": x}
        # Stochastic depth as in Painter: no block is dropped at the bottom, and the
        # rate rises linearly to `drop_path` at the last block.
        use_drop = train and c.drop_path > 0
        keys = jax.random.split(self.make_rng("dropout"), c.depth) if use_drop else None
        rates = jnp.linspace(0, c.drop_path, c.depth, dtype=jnp.float32)

        # The blocks run in pieces that end where a result is used: at the merge and at
        # the taps. A run is one or more pieces of equal depth, compiled once. It
        # lists stops. A stop is the number of the first block after a piece.
        tapped, start = [], 0
        runs = c.runs
        lasts = [run[-1] for run in runs]
        layers = transformer.cut_layers((p["blocks"], rates, keys), lasts)
        remats = dict(zip(c.stops, c.policies, strict=True))
        for run, last, part in zip(runs, lasts, layers, strict=True):
            with jax.named_scope(f"blocks_{start}_{last - 1}"):
                ends, each = transformer.run_groups(
                    part[0], x, *part[1:], groups=len(run), impl=c.attention,
                    prompts=prompts, one_way=c.one_way, remat=remats[last],
                    scan=c.scan,
                )  # fmt: skip
            out |= {f"block_{start + i}": y for i, y in enumerate(each)}
            if last - 1 == c.merge_after:
                # The two streams become their mean, token by token: `[b, h, w, d]`.
                # From now on a token holds image and target of one place. So a token of
                # the query can find similar tokens of the prompt and read their target.
                streams = ends[0].reshape(-1, 2, prompts, *x.shape[1:])  # 2 streams
                image, target = jnp.split(streams, 2, axis=1)
                ends = [((image + target) * 0.5).reshape(-1, *x.shape[1:])]
                out["merged"] = ends[0]
            x = ends[-1]
            for stop, end in zip(run, ends, strict=True):
                if stop - 1 in c.taps:  # one LayerNorm for all taps, as in the release
                    tapped.append(transformer.layer_norm(p["norm"], end))
            start = last
        # Features of several depths side by side, `[b, h, w, taps * d]`: the decoder
        # needs fine detail as well as meaning.
        out["tapped"] = jnp.concatenate(tapped, axis=-1)
        with jax.named_scope("decode"):
            tapped, halo = out["tapped"], 0
            if query_only:
                tapped, halo = tapped[:, tapped.shape[1] // 2 - 1 :], 1
            painting = decode(p["decoder"], tapped, c.patch, halo)
        return painting, out


def init_params(model: SegGPT, key):
    """Initial parameters. Under jit or eval_shape the forward pass is not computed."""
    rows, cols = model.config.canvas
    canvas = jnp.zeros((1, rows, cols, 3))
    hidden = jnp.zeros((1, *model.config.grid), bool)
    return model.init(key, canvas, canvas, hidden, jnp.zeros(1, jnp.int32))["params"]


def _embed(p, images, targets, hidden, kind, patch, dtype, prompts):
    """Image and target tokens, `[2b, h, w, d]`.

    The order is: the images of one group of `prompts` rows, the targets of this group,
    the images of the next group, and so on. So a mesh keeps both streams of a row on
    one device, and groups stay whole for the feature ensemble.
    """
    x, y = (
        transformer.linear(p["patch_embed"], patchify(canvas.astype(dtype), patch))
        for canvas in (images, targets)
    )
    # The mask token replaces a hidden patch of the target before position and kind are
    # added. So the model knows where to paint, but not the target there.
    y = jnp.where(hidden[..., None], p["mask_token"].astype(dtype), y)
    x, y = jnp.stack([x, y]) + added_tokens(p, x.shape[1:3], kind).astype(dtype)
    groups = [stream.reshape(-1, prompts, *x.shape[1:]) for stream in (x, y)]
    both = jnp.stack(groups, axis=1).reshape(-1, *x.shape[1:])
    return constrain(both, "tokens")


def added_tokens(p, grid, kind) -> Float[Array, "2 b h w d"]:
    """Position, kind and stream tokens of a canvas: the image's, then the target's."""
    positions = position_embedding(p["pos_embed"], grid)
    shared = positions[None] + p["kind_tokens"][kind][:, None, None, :]
    return shared[None] + p["stream_tokens"].reshape(2, 1, 1, 1, -1)
