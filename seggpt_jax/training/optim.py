"""AdamW with layer-wise learning-rate decay, as Painter trains; Muon by setting."""

import dataclasses
import re

import jax
import jax.numpy as jnp
import numpy as np
import optax
from optax.contrib import MuonDimensionNumbers as Axes
from optax.contrib import muon

from seggpt_jax.config import require, shorten
from seggpt_jax.trees import first_match, map_named, named_leaves, table

# The rule of the released code: no weight decay for 1-D parameters and pos_embed. Here
# it goes by name, since blocks are stacked and heads have an axis of their own. Tokens
# (4-D in the release) and tables of relative positions do decay.
DECAY = [(r".*/(bias|scale)", False), (r"pos_embed", False), (r".*", True)]

ALGORITHMS = ("adamw", "muon")
# The matrices that Muon makes orthogonal: the axes that a product sums over, and the
# axes of its result. Each layer, and each of q, k and v, is a matrix of its own. Adam
# updates all other parameters.
MATRICES = [
    (r"blocks/attn/qkv/kernel", Axes((1,), (3, 4))),
    (r"blocks/attn/proj/kernel", Axes((1, 2), (3,))),
    (r"blocks/mlp/.*/kernel", Axes((1,), (2,))),
    (r".*", None),
]
_MUON_RMS = 0.2  # of Muon's steps, as of AdamW's: arXiv 2502.16982, section 2.2


@dataclasses.dataclass(frozen=True)
class OptimSettings:
    """AdamW or Muon, and modifiers; learning rates come with each stage of training.

    algorithm: one of `ALGORITHMS`. betas, eps: Adam's. clip: the largest global norm of
    a gradient. trainable: regex of the parameters that change (`trees.first_match`).
    """

    algorithm: str = "adamw"
    weight_decay: float = 0.05
    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-8
    clip: float = 3.0
    layer_decay: float = 0.8
    trainable: str = ".*"

    def __post_init__(self):
        require(self.algorithm in ALGORITHMS, "optim.algorithm", self.algorithm,
                f"one of {', '.join(ALGORITHMS)}")  # fmt: skip
        try:
            re.compile(self.trainable)
        except (re.error, TypeError) as error:
            raise ValueError(
                f"setting optim.trainable = {self.trainable!r}: must be a regular "
                f"expression ({error})"
            ) from error
        limits = {
            "weight_decay": 0 <= self.weight_decay,
            "betas": all(0 <= b < 1 for b in self.betas),
            "eps": self.eps > 0,
            "clip": self.clip > 0,
            "layer_decay": 0 < self.layer_decay <= 1,
        }
        for name, good in limits.items():
            if not good:
                raise ValueError(f"optim.{name} {getattr(self, name)} is out of range")


def layer_factors(params, layer_decay: float):
    """Learning-rate factor of every parameter; stacked blocks get one per layer.

    Block i of L gets decay^(L - i), the embeddings below the blocks decay^(L + 1), and
    tokens, final norm and decoder 1, as in Painter's util/lr_decay.py. The embeddings
    of ViT-L get 0.8^25 = 0.0038. A tuned prompt has no blocks: its factor is 1.
    """
    blocks = jax.tree.leaves(params.get("blocks", {}))
    depth = blocks[0].shape[0] if blocks else 0
    powers = layer_decay ** np.arange(depth, 0, -1, dtype=np.float32)
    rules = [
        (r"(pos_embed|patch_embed/.*)", np.float32(layer_decay ** (depth + 1))),
        (r"blocks/.*", powers),
        (r".*", np.float32(1)),
    ]

    def factor(name, leaf):
        value = np.asarray(first_match(rules, name))
        return value.reshape(
            value.shape + (1,) * (leaf.ndim if value.ndim == 0 else leaf.ndim - 1)
        )

    return map_named(factor, params)


def decay_mask(params):
    """True for parameters under weight decay."""
    return map_named(lambda name, _: first_match(DECAY, name), params)


def trainable_mask(params, settings: OptimSettings):
    """True for parameters that change. Raises ValueError when none does."""
    rules = [(settings.trainable, True), (r".*", False)]
    mask = map_named(lambda name, _: first_match(rules, name), params)
    names = shorten(named_leaves(params), 40)
    require(any(jax.tree.leaves(mask)), "optim.trainable", settings.trainable,
            f"a regular expression that fits one of {names}")  # fmt: skip
    return mask


def hold_frozen(params, settings: OptimSettings):
    """The same parameters; the gradients of frozen ones are not computed."""
    mask = trainable_mask(params, settings)
    stop = jax.lax.stop_gradient
    return jax.tree.map(lambda p, free: p if free else stop(p), params, mask)


def schedule(steps: int, lr: float, warmup: int, end_lr: float):
    """Linear warm-up over `warmup` steps, then half a cosine down to `end_lr`."""
    if not warmup:  # optax would log that a warm-up of no steps is a constant
        return optax.cosine_decay_schedule(lr, max(steps, 1), end_lr / lr if lr else 0)
    return optax.warmup_cosine_decay_schedule(
        0.0, lr, warmup, max(steps, warmup + 1), end_lr
    )


def make_optimizer(
    settings: OptimSettings, learning_rate
) -> optax.GradientTransformation:
    """Clip, Adam or Muon, decoupled decay, layer factors, then the schedule.

    Parameters that `trainable` does not match stay as they are and have no moments.
    """
    # Without masks where all change: masks would change the tree of the state.
    all_change = settings.trainable == ".*"

    def free(params):
        return trainable_mask(params, settings)

    def frozen(params):
        return jax.tree.map(lambda x: not x, free(params))

    def decayed(params):
        return jax.tree.map(lambda a, b: a and b, decay_mask(params), free(params))

    # Layer factors scale the learning rate. AdamW's decay is multiplied by this rate
    # too, so the factors come after the decay.
    def scale_layers(updates, params):
        factors = layer_factors(params, settings.layer_decay)
        return jax.tree.map(lambda u, f: u * jnp.asarray(f, u.dtype), updates, factors)

    step = _direction(settings)
    clip = optax.clip_by_global_norm(settings.clip)
    if not all_change:  # the norm for clipping leaves out frozen gradients too
        step = optax.masked(step, free)
        clip = optax.chain(optax.masked(optax.set_to_zero(), frozen), clip)
    return optax.chain(
        clip,
        step,
        optax.add_decayed_weights(settings.weight_decay, decayed),
        optax.stateless(scale_layers),
        optax.scale_by_learning_rate(learning_rate),
    )


def _direction(settings: OptimSettings) -> optax.GradientTransformation:
    if settings.algorithm == "adamw":
        return optax.scale_by_adam(*settings.betas, settings.eps)

    def matrices(params):
        return map_named(lambda name, _: first_match(MATRICES, name), params)

    # optax's Muon multiplies its steps by minus the learning rate. At -1 the steps stay
    # as they are; decay and schedule come later.
    return muon(
        -1.0, adam_b1=settings.betas[0], adam_b2=settings.betas[1], eps=settings.eps,
        muon_weight_dimension_numbers=matrices, consistent_rms=_MUON_RMS,
    )  # fmt: skip


def count(params, settings: OptimSettings) -> str:
    """How many parameters there are and how many change, in words."""
    free = named_leaves(trainable_mask(params, settings))
    sizes = {name: leaf.size for name, leaf in named_leaves(params).items()}
    total = sum(sizes.values())
    changing = sum(size for name, size in sizes.items() if free[name])
    which = "all change" if changing == total else f"{changing / 1e6:,.2f} M change"
    return f"{total / 1e6:,.2f} M parameters, {which}"


def describe(params, settings: OptimSettings) -> str:
    """A table of every parameter: shape, learning-rate factor and weight decay, or
    `frozen`."""
    free = named_leaves(trainable_mask(params, settings))
    factors = named_leaves(layer_factors(params, settings.layer_decay))
    decays = named_leaves(decay_mask(params))

    def span(factor):
        low, high = float(factor.min()), float(factor.max())
        return f"{low:.4g}" if low == high else f"{low:.4g} .. {high:.4g}"

    rows = [
        (name, "x".join(map(str, leaf.shape)),
         span(factors[name]) if free[name] else "frozen",
         settings.weight_decay if decays[name] and free[name] else "-")
        for name, leaf in named_leaves(params).items()
    ]  # fmt: skip
    return table(("parameter", "shape", "lr factor", "weight decay"), rows)
