"""Transformer blocks as pure functions over parameters stacked on a layer axis."""

import functools
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from seggpt_jax.models.attention import attend, relative_positions
from seggpt_jax.runs.partition import constrain, draw_rows

# Remat policies: which values of a block the backward pass computes again. `none`:
# nothing. `dots`: all but the products of linear layers. `full`: all, from the input.
REMAT = {
    "none": None,
    "dots": jax.checkpoint_policies.dots_with_no_batch_dims_saveable,
    "full": jax.checkpoint_policies.nothing_saveable,
}


def layer_norm(p, x):
    """LayerNorm over the last axis, eps 1e-6, statistics in float32."""
    shape = (1,) * (x.ndim - 1) + (-1,)
    y = _standardize(x.astype(jnp.float32))
    y = y * p["scale"].reshape(shape) + p["bias"].reshape(shape)
    return y.astype(x.dtype)


@jax.custom_jvp
def _standardize(x):
    return _standardized(x)[0]


def _standardized(x):
    y = x - x.mean(-1, keepdims=True)
    rate = jax.lax.rsqrt(jnp.square(y).mean(-1, keepdims=True) + 1e-6)
    return y * rate, rate


@_standardize.defjvp
def _(primals, tangents):
    """Removes from dx its mean and its part along y, then scales. This takes fewer
    passes over memory than the derivative of each operation."""
    y, rate = _standardized(*primals)
    (dx,) = tangents
    along = (dx * y).mean(-1, keepdims=True)
    return y, rate * (dx - dx.mean(-1, keepdims=True) - y * along)


@jax.custom_jvp
def gelu(x):
    """x times the normal distribution's share below x, by erf as PyTorch's, in float32.

    `jax.nn.gelu` takes erfc, which is twice as slow on a CPU (docs/speed.md).
    """
    return (x.astype(jnp.float32) * _below(x)).astype(x.dtype)


def _below(x):
    return 0.5 + 0.5 * jax.lax.erf(x.astype(jnp.float32) * np.float32(0.5**0.5))


@gelu.defjvp
def _(primals, tangents):
    """One factor in the type of x is kept for the backward pass."""
    (x,), (dx,) = primals, tangents
    wide, below = x.astype(jnp.float32), _below(x)
    density = jnp.exp(-0.5 * wide * wide) * np.float32((2 * np.pi) ** -0.5)
    return (wide * below).astype(x.dtype), dx * (below + wide * density).astype(x.dtype)


def linear(p, x):
    """x `[..., d]` @ kernel `[d, c]` + bias, in the dtype of x."""
    bias = p["bias"].reshape((1,) * (x.ndim - 1) + (-1,))
    return x @ p["kernel"].astype(x.dtype) + bias.astype(x.dtype)


def init_linear(key, shape, bias, fan: int):
    """A Xavier-uniform kernel, as MAE, and a zero bias of shape `bias`. fan: inputs and
    outputs of one product, together."""
    limit = np.sqrt(6 / fan)
    kernel = jax.random.uniform(key, shape, minval=-limit, maxval=limit)
    return {"kernel": kernel, "bias": jnp.zeros(bias)}


def init_norm(shape):
    """A LayerNorm that changes nothing after it has standardised."""
    return {"scale": jnp.ones(shape), "bias": jnp.zeros(shape)}


def init_blocks(key, depth: int, width: int, heads: int, mlp: int, grid):
    """Parameters of `depth` blocks, each leaf with a leading layer axis. Relative
    positions start at zero, as in the released code."""
    k = width // heads
    k_qkv, k_proj, k_1, k_2 = jax.random.split(key, 4)

    def layer(key, kernel, bias, fan):
        return init_linear(key, (depth, *kernel), (depth, *bias), fan)

    return {
        "norm1": init_norm((depth, width)),
        "attn": {
            "qkv": layer(k_qkv, (width, 3, heads, k), (3, heads, k), 2 * width),
            "rel_pos_h": jnp.zeros((depth, 2 * grid[0] - 1, k)),
            "rel_pos_w": jnp.zeros((depth, 2 * grid[1] - 1, k)),
            "proj": layer(k_proj, (heads, k, width), (width,), 2 * width),
        },
        "norm2": init_norm((depth, width)),
        "mlp": {
            "fc1": layer(k_1, (width, mlp), (mlp,), width + mlp),
            "fc2": layer(k_2, (mlp, width), (width,), width + mlp),
        },
    }


def project_qkv(p, x: Float[Array, "b h w d"]) -> Float[Array, "3 b n t k"]:
    """Queries, keys and values of every head."""
    b, h, w, d = x.shape
    kernel = p["qkv"]["kernel"].astype(x.dtype)
    bias = p["qkv"]["bias"].astype(x.dtype)
    qkv = jnp.einsum("btd,dsnk->sbntk", x.reshape(b, h * w, d), kernel)
    return constrain(qkv + bias[:, None, :, None, :], "qkv")


def project(p, y: Float[Array, "*b n k"]) -> Float[Array, "*b d"]:
    """Mixes the heads' outputs."""
    y = jnp.einsum("...nk,nkd->...d", y, p["proj"]["kernel"].astype(y.dtype))
    return y + p["proj"]["bias"].astype(y.dtype).reshape((1,) * (y.ndim - 1) + (-1,))


def attention(
    p, x: Float[Array, "b h w d"], impl: str, one_way: bool
) -> Float[Array, "b h w d"]:
    """Multi-head self-attention over the tokens of a canvas. one_way: the prompt's
    half, which is the upper one, attends to itself only."""
    b, h, w, d = x.shape
    q, k, v = project_qkv(p, x)
    rel_h = relative_positions(p["rel_pos_h"].astype(x.dtype), h)
    rel_w = relative_positions(p["rel_pos_w"].astype(x.dtype), w)
    with jax.named_scope("attend"):
        if one_way:
            rows, tokens = h // 2, h // 2 * w
            above, below = q[:, :, :tokens], q[:, :, tokens:]
            keys, values = k[:, :, :tokens], v[:, :, :tokens]
            above = attend(above, keys, values, rel_h[:rows, :rows], rel_w, impl=impl)
            below = attend(below, k, v, rel_h[rows:], rel_w, impl=impl)
            y = jnp.concatenate([above, below], axis=2)
        else:
            y = attend(q, k, v, rel_h, rel_w, impl=impl)
    return project(p, y.swapaxes(1, 2)).reshape(b, h, w, d)


def mlp(p, x):
    """The second half of a block, before the residual."""
    with jax.named_scope("mlp"):
        y = linear(p["mlp"]["fc1"], layer_norm(p["norm2"], x))
        return linear(p["mlp"]["fc2"], gelu(constrain(y, "hidden")))


def average_query_half(x: Float[Array, "b h w d"], prompts: int):
    """Feature ensemble: the query half becomes its mean over groups of `prompts` rows.

    Groups are contiguous on the batch axis, so two streams stacked there are averaged
    separately, as in the released code. (The transformers port does not.)
    """
    if prompts == 1:
        return x
    b, h, w, d = x.shape
    groups = x.reshape(b // prompts, prompts, h, w, d)
    # Each prompt's half keeps its own features. The same query is in every row, and the
    # mean gives it one answer (paper, "Context Ensemble").
    mean = groups[:, :, h // 2 :].mean(1, keepdims=True)
    query = jnp.broadcast_to(mean, (*groups.shape[:2], h - h // 2, w, d))
    return jnp.concatenate([groups[:, :, : h // 2], query], 2).reshape(x.shape)


def drop_path(x, rate, key, prompts: int = 1):
    """Stochastic depth per group of `prompts` rows of the batch, which stay alike;
    `key` None leaves x alone.

    A kept branch is scaled by 1 / (1 - rate), so its expected value does not change.
    """
    if key is None:
        return x

    def draw(rows):
        return jax.random.bernoulli(key, 1 - rate, (rows,) + (1,) * (x.ndim - 1))

    keep = draw_rows(draw, x.shape[0] // prompts).repeat(prompts, 0)
    return jnp.where(keep, x / (1 - rate).astype(x.dtype), 0)


def block(p, x, rate, key, *, impl: str, prompts: int, one_way: bool):
    """Pre-norm block: attention (feature ensemble before the residual), then MLP."""
    keys = (None, None) if key is None else jax.random.split(key)
    y = attention(p["attn"], layer_norm(p["norm1"], x), impl, one_way)
    y = drop_path(average_query_half(y, prompts), rate, keys[0], prompts)
    x = constrain(x + y, "tokens")
    return constrain(x + drop_path(mlp(p, x), rate, keys[1], prompts), "tokens")


def cut_layers(tree, stops: Sequence[int]) -> list:
    """Cuts stacked leaves along the layer axis before every stop.

    `lax.split` has one concatenation as its gradient. The gradient of each slice would
    be padded to the whole stack, and all of them summed.
    """
    sizes = np.diff([0, *stops]).tolist()
    leaves, structure = jax.tree.flatten(tree)
    cut = [jax.lax.split(leaf[: stops[-1]], sizes) for leaf in leaves]
    return [jax.tree.unflatten(structure, part) for part in zip(*cut, strict=True)]


def run_blocks(p, x, rates, keys, *, impl, prompts, one_way, remat, scan) -> tuple:
    """Runs stacked blocks; returns the result and, when unrolled, every block's output.

    p: leaves `[l, ...]`. rates: `[l]`. keys: `[l]` or None (no drop path).
    """
    how = {"impl": impl, "prompts": prompts, "one_way": one_way}
    body: Callable = functools.partial(block, **how)
    if REMAT[remat] is not None:
        body = jax.checkpoint(body, policy=REMAT[remat], prevent_cse=not scan)
    if scan:
        step = lambda x, layer: (body(layer[0], x, *layer[1:]), None)  # noqa: E731
        return jax.lax.scan(step, x, (p, rates, keys))[0], []
    outputs = []
    for layer in cut_layers((p, rates, keys), range(1, len(rates) + 1)):
        p, rate, key = jax.tree.map(lambda leaf: leaf[0], layer)
        x = body(p, x, rate, key)
        outputs.append(x)
    return x, outputs


def run_groups(p, x, rates, keys, *, groups: int, scan: bool, **how) -> tuple:
    """Runs stacked blocks as `groups` of equal depth: a loop over groups around the
    loop over blocks, so that one block is compiled for all. Returns each group's result
    and, when unrolled, every block's output. how: as in `run_blocks`.
    """
    if groups == 1 or not scan:
        x, each = run_blocks(p, x, rates, keys, scan=scan, **how)
        depth = len(rates) // groups
        return [x] if groups == 1 else each[depth - 1 :: depth], each

    def run(x, layers):
        p, rates, keys = layers
        x = run_blocks(p, x, rates, keys, scan=True, **how)[0]
        return x, x

    layers = jax.tree.map(
        lambda leaf: leaf.reshape(groups, -1, *leaf.shape[1:]), (p, rates, keys)
    )
    ends = jax.lax.scan(run, x, layers)[1]
    return [end[0] for end in cut_layers(ends, range(1, groups + 1))], []
