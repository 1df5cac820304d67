"""AdamW with layer-wise learning-rate decay, as Painter trains."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax

from seggpt_jax.trees import first_match, map_named, named_leaves, table

# Torch's rule "no decay for 1-D parameters and pos_embed", by name: stacking and head
# axes change ranks here, and the 4-D tokens and rel-pos tables of the release do decay.
DECAY = [(r".*/(bias|scale)", False), (r"pos_embed", False), (r".*", True)]


@dataclasses.dataclass(frozen=True)
class OptimSettings:
    """AdamW and its modifiers; learning rates come with each stage of training."""

    weight_decay: float = 0.05
    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-8
    clip: float = 3.0
    layer_decay: float = 0.8

    def __post_init__(self):
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

    Block i of L: decay^(L - i); the embeddings below them: decay^(L + 1); tokens, final
    norm and decoder: 1. (Painter's util/lr_decay.py; for ViT-L the embeddings get
    0.8^25 = 0.0038.)
    """
    depth = jax.tree.leaves(params["blocks"])[0].shape[0]
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


def schedule(steps: int, lr: float, warmup: int, end_lr: float):
    """Linear warm-up over `warmup` steps, then half a cosine down to `end_lr`."""
    return optax.warmup_cosine_decay_schedule(
        0.0 if warmup else lr, lr, warmup, max(steps, warmup + 1), end_lr
    )


def make_optimizer(
    settings: OptimSettings, learning_rate
) -> optax.GradientTransformation:
    """Clip, Adam, decoupled decay, layer factors, then the schedule."""

    def scale_layers(updates, params):
        factors = layer_factors(params, settings.layer_decay)
        return jax.tree.map(lambda u, f: u * jnp.asarray(f, u.dtype), updates, factors)

    return optax.chain(
        optax.clip_by_global_norm(settings.clip),
        optax.scale_by_adam(*settings.betas, settings.eps),
        optax.add_decayed_weights(settings.weight_decay, decay_mask),
        optax.stateless(scale_layers),
        optax.scale_by_learning_rate(learning_rate),
    )


def describe(params, settings: OptimSettings) -> str:
    """A table of every parameter: shape, learning-rate factor, decay."""
    factors = named_leaves(layer_factors(params, settings.layer_decay))
    decays = named_leaves(decay_mask(params))

    def span(factor):
        low, high = float(factor.min()), float(factor.max())
        return f"{low:.4g}" if low == high else f"{low:.4g} .. {high:.4g}"

    rows = [
        (name, "x".join(map(str, leaf.shape)), span(factors[name]),
         settings.weight_decay if decays[name] else "-")
        for name, leaf in named_leaves(params).items()
    ]  # fmt: skip
    return table(("parameter", "shape", "lr factor", "weight decay"), rows)
