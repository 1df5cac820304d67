"""Training state and one pure step of in-context painting."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import optax

from seggpt_jax import colors
from seggpt_jax.config import require
from seggpt_jax.losses import LOSSES, counted_pixels, foreground_weights, painting_loss
from seggpt_jax.models.seggpt import SegGPT
from seggpt_jax.runs.partition import sum_over_data
from seggpt_jax.training.optim import (
    OptimSettings,
    hold_frozen,
    make_optimizer,
    schedule,
)

# `(params, frozen, rows, key) -> painting`. params: the trained leaves. frozen:
# parameters that no step changes. rows: a batch with normalised canvases.
Paint = Callable[[Any, Any, dict[str, jax.Array], jax.Array], jax.Array]


@flax.struct.dataclass
class TrainState:
    """Everything a step changes. ema: moving average of params, or None."""

    step: Any
    params: Any
    opt_state: Any
    ema: Any

    @property
    def average(self):
        """The parameters to evaluate: the moving average if there is one."""
        return self.params if self.ema is None else self.ema


@dataclasses.dataclass(frozen=True)
class Stage:
    """A stretch of training with its own loss and learning-rate schedule.

    The paper has one stage: smooth-L1, from pre-trained parameters. From scratch,
    another stage before it helps (docs/training.md). A stage after the first starts
    from the EMA, or from the parameters if none is kept, with a fresh optimizer.

    loss, beta: as in `losses.painting_loss`. max_foreground_weight: the most that a
    painted pixel may weigh, where background weighs 1. background_prob: share of the
    pairs whose background is a random colour, in both targets. It is constant for half
    the stage, then falls linearly to 0. weights: source -> sampling weight in this
    stage, instead of the source's own; 0 leaves the source out.
    """

    steps: int
    lr: float
    warmup: int = 0
    end_lr: float = 0.0
    loss: str = "smooth_l1"
    beta: float = 0.01
    max_foreground_weight: float = 1.0
    background_prob: float = 0.0
    weights: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    def __post_init__(self):
        def check(name, good, allowed):
            require(good, f"stages.*.{name}", getattr(self, name), allowed)

        check("steps", self.steps > 0, "positive")
        check("lr", self.lr > 0, "positive")
        check("warmup", 0 <= self.warmup < self.steps, "in [0, steps)")
        check("end_lr", 0 <= self.end_lr <= self.lr, "in [0, lr]")
        check("loss", self.loss in LOSSES, f"one of {', '.join(LOSSES)}")
        check("beta", self.beta > 0, "positive")
        check("max_foreground_weight", self.max_foreground_weight >= 1, "at least 1")
        check("background_prob", 0 <= self.background_prob <= 1, "in [0, 1]")

    def optimizer(self, settings: OptimSettings) -> optax.GradientTransformation:
        """This stage's optimizer."""
        return make_optimizer(settings, self.learning_rate)

    def learning_rate(self, step):
        """Learning rate at a step of this stage."""
        return schedule(self.steps, self.lr, self.warmup, self.end_lr)(step)


def new_state(params, tx: optax.GradientTransformation, ema: bool) -> TrainState:
    """The training state before the first step."""
    average = jax.tree.map(jnp.copy, params) if ema else None
    return TrainState(jnp.zeros((), jnp.int32), params, tx.init(params), average)


def enter_stage(state: TrainState, tx: optax.GradientTransformation) -> TrainState:
    """Starts a later stage: parameters from the EMA if one is kept, a fresh optimizer.

    Entering twice at the same step changes nothing, so a restart there is exact.
    """
    params = jax.tree.map(jnp.copy, state.average)
    return dataclasses.replace(state, params=params, opt_state=tx.init(params))


def repaint_background(key, targets, foreground, background, prob, prompts: int = 1):
    """Repaints the background of a share `prob` of the groups of `prompts` rows.

    targets: uint8 `[b, 2h, w, 3]`. foreground: bool `[b, 2h, w]`. background: the
    colour of each row, uint8 `[b, 3]`.
    """
    chosen = jax.random.bernoulli(key, prob, (targets.shape[0] // prompts,))
    chosen = jnp.repeat(chosen, prompts)
    where = chosen[:, None, None, None] & ~foreground[..., None]
    return jnp.where(where, background[:, None, None, :], targets)


def paint_model(model: SegGPT, query_only: bool, prompts: int = 1) -> Paint:
    """The `Paint` of a model whose own parameters are trained. query_only, prompts: as
    in `SegGPT.__call__`."""

    def paint(params, frozen, rows, key):
        return model.apply(
            {"params": params}, rows["images"], rows["targets"], rows["hidden"],
            rows["kind"], train=True, rngs={"dropout": key}, query_only=query_only,
            prompts=prompts,
        )[0]  # fmt: skip

    return paint


def make_train_step(
    model: SegGPT,
    stage: Stage,
    optim: OptimSettings,
    *,
    start: int = 0,
    accumulate: int = 1,
    ema: float = 0.0,
    query_only: bool = False,
    prompts: int = 1,
    paint: Paint | None = None,
) -> Callable[..., tuple[TrainState, dict]]:
    """One stage's pure step `(state, batch, key, frozen=None) -> (state, metrics)`.

    batch: the pairs of `data.context`, stacked. start: the stage's first step.
    accumulate: micro-batches per step. The loss is one sum divided by one count, both
    over the whole batch. So their number changes the memory but not the result.
    query_only: every `hidden` is the query half, so only this half is painted, at less
    cost. prompts: so many neighbouring rows show one query. paint: replaces the model's
    own, for a tuned prompt.
    """
    tx = stage.optimizer(optim)
    paint = paint or paint_model(model, query_only, prompts)

    def step(state: TrainState, batch, key, frozen=None):
        # All randomness is a function of the run's key and the step. So a run that was
        # stopped draws the same numbers as a run that was not.
        key = jax.random.fold_in(key, state.step)
        k_background, k_drop = jax.random.split(key)
        done = (state.step - start) / stage.steps
        targets = batch["targets"]
        # Backgrounds are black, and a model from scratch first learns to paint all
        # black. Backgrounds of random colours force it to read the prompt early.
        if stage.background_prob:
            prob = stage.background_prob * jnp.clip(2 - 2 * done, 0, 1)
            targets = repaint_background(
                k_background, targets, batch["foreground"], batch["background"], prob,
                prompts,
            )  # fmt: skip
        # The weight of every value, `[b, 2h, w, 3]`. Their total is of the whole batch:
        # the loss must not depend on how micro-batches and devices divide it.
        weights = counted_pixels(batch["hidden"], batch["valid"], targets.shape)
        if stage.max_foreground_weight > 1:
            weights = foreground_weights(
                batch["foreground"], weights, stage.max_foreground_weight
            )
        total = weights.sum()

        def loss_fn(params, rows, key, frozen, total):
            # Colours are sent to the devices as uint8, a quarter of the bytes.
            canvases = {n: colors.normalize(rows[n]) for n in ("images", "targets")}
            free = hold_frozen(params, optim)
            painting = paint(free, frozen, rows | canvases, key)
            # painting: `[b, 2h or h, w, 3]`
            counted = canvases["targets"], rows["hidden"], rows["weights"]
            if query_only:  # the painting is the lower half of the canvas
                counted = tuple(x[:, x.shape[1] // 2 :] for x in counted)
            return painting_loss(
                painting, *counted, loss=stage.loss, beta=stage.beta, total=total
            )

        rows = {n: batch[n] for n in ("images", "hidden", "kind")}
        rows |= {"targets": targets, "weights": weights}
        whole = state.params, k_drop, frozen, total
        loss, grads = _accumulated(loss_fn, rows, whole, accumulate, prompts)
        updates, opt_state = tx.update(grads, state.opt_state, state.params)
        params = optax.apply_updates(state.params, updates)
        average = _average(state.ema, params, state.step, ema)
        new = TrainState(state.step + 1, params, opt_state, average)
        metrics = {
            "loss": loss,
            "grad_norm": optax.tree.norm(grads),
            "lr": jnp.asarray(stage.learning_rate(state.step - start)),
        }
        return new, metrics

    return step


def _accumulated(loss_fn, rows, whole, count: int, prompts: int):
    """Loss and gradients of `loss_fn(params, rows, *rest)`, in `count` micro-batches.
    whole: parameters, key, and what else `loss_fn` takes. prompts: so many neighbouring
    rows stay together."""
    value_and_grad = jax.value_and_grad(loss_fn)
    if count == 1:
        params, *rest = whole
        return value_and_grad(params, rows, *rest)

    # A device holds consecutive rows. The queries of one micro-batch are `count` apart,
    # so that every device has rows of each, and no row moves to another device.
    def cut(x):
        y = x.reshape(-1, count, prompts, *x.shape[1:]).swapaxes(0, 1)
        return y.reshape(count, -1, *x.shape[1:])

    def run(rows, whole):
        params, key, *rest = whole

        def add(carry, micro):
            part = value_and_grad(params, *micro, *rest)
            return jax.tree.map(jnp.add, carry, part), None

        zero = jnp.zeros(()), jax.tree.map(jnp.zeros_like, params)
        micros = jax.tree.map(cut, rows), jax.random.split(key, count)
        return jax.lax.scan(add, zero, micros)[0]

    # Gradients are summed over `data` once, not in every micro-batch.
    return sum_over_data(run)(rows, whole)


def _average(ema, params, step, decay: float):
    if ema is None:
        return None
    # The decay rises from 1/20 to `decay`: otherwise the average of a short run would
    # be mostly the initial values. Steps count from the run's start: a later stage has
    # no warm-up of its own.
    change = 1 - jnp.minimum(decay, (1 + step) / (20 + step))
    return jax.tree.map(lambda e, p: e + change * (p - e), ema, params)


@jax.jit
def all_finite(tree):
    """Whether every floating-point value of a tree is finite, as an array."""
    leaves = [x for x in jax.tree.leaves(tree) if jnp.issubdtype(x.dtype, jnp.floating)]
    return jnp.all(jnp.stack([jnp.isfinite(x).all() for x in leaves]))
