"""The assembled train step against an independent computation.

Everything that can be on is on at once. Loss, weights, background, optimizer and
average are computed again in NumPy; gradients by differences of that loss.
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from seggpt_jax.training.optim import OptimSettings
from seggpt_jax.training.train_step import (
    Stage,
    enter_stage,
    make_train_step,
    new_state,
    paint_model,
)
from seggpt_jax.trees import named_leaves
from tests.support.models import random_params, small

MODEL = small(
    width=8, depth=2, canvas=(16, 8), pos_grid=2, merge_after=0, taps=(0, 1),
    decoder_width=4, drop_path=0.5, scan=False,
)  # fmt: skip
BATCH, MICRO, START, EMA = 6, 2, 20, 0.9
# A large eps: where a gradient is 0 but for rounding, Adam would step on the rounding.
OPTIM = OptimSettings(
    weight_decay=0.1, betas=(0.8, 0.95), eps=1e-4, clip=0.05, layer_decay=0.6
)
STAGES = {
    "smooth_l1": Stage(
        steps=10, lr=0.1, warmup=3, end_lr=0.01, loss="smooth_l1", beta=0.7,
        max_foreground_weight=4.0, background_prob=0.5,
    ),
    "l2": Stage(
        steps=8, lr=0.2, warmup=2, loss="l2", max_foreground_weight=2.5,
        background_prob=0.5,
    ),
}  # fmt: skip


def make_batch(query_only: bool):
    """Random pairs; the rows differ in how much of them is painted and ignored."""
    rng = np.random.default_rng(0)
    shape, grid = (BATCH, *MODEL.config.canvas), (BATCH, *MODEL.config.grid)
    share = np.linspace(0.05, 0.6, BATCH)[:, None, None]
    hidden = rng.random(grid) < 0.6
    if query_only:
        hidden = np.broadcast_to(np.arange(grid[1])[:, None] >= grid[1] // 2, grid)
    return {
        "images": rng.integers(0, 256, (*shape, 3), np.uint8),
        "targets": rng.integers(0, 256, (*shape, 3), np.uint8),
        "foreground": rng.random(shape) < share,
        "valid": rng.random(shape) < 0.4 + share,
        "background": rng.integers(0, 256, (BATCH, 3), np.uint8),
        "hidden": hidden.copy(),
        "kind": np.arange(BATCH, dtype=np.int32) % 2,
    }


def normalized(rgb):
    return (rgb / 255 - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]


class Step:
    """A jitted step that notes what each of its micro-batches is painted from."""

    def __init__(self, stage: Stage, query_only: bool):
        self.stage, self.query_only, self.batch = (
            stage,
            query_only,
            make_batch(query_only),
        )
        self.paint, self.notes = paint_model(MODEL, query_only), []
        self.again = jax.jit(lambda *args: self.paint(args[0], None, *args[1:]))
        params, tx = random_params(MODEL, scale=0.5), stage.optimizer(OPTIM)
        state = jax.eval_shape(lambda params: new_state(params, tx, ema=True), params)
        state = jax.tree.map(lambda leaf: jnp.asarray(np.zeros(leaf.shape, leaf.dtype)),
                             state)  # fmt: skip
        average = jax.tree.map(lambda x: np.asarray(x) + 1, params)
        self.state = dataclasses.replace(
            state, step=jnp.int32(START), params=params, ema=average
        )
        self.run = jax.jit(
            make_train_step(
                MODEL, stage, OPTIM, start=START, accumulate=MICRO, ema=EMA,
                query_only=query_only, paint=self._paint,
            )
        )  # fmt: skip

    def _paint(self, params, frozen, rows, key):
        rows = {n: rows[n] for n in ("images", "targets", "hidden", "kind")}
        jax.debug.callback(self._note, rows, jax.random.key_data(key))
        return self.paint(params, frozen, rows, key)

    def _note(self, rows, key):
        self.notes.append((rows, key))

    def __call__(self):
        """A step: its metrics, and the rows and keys of its micro-batches."""
        self.notes.clear()
        self.state, metrics = self.run(self.state, self.batch, jax.random.key(3))
        jax.effects_barrier()
        return jax.device_get(metrics), list(self.notes)

    def loss(self, params, notes):
        """The loss in NumPy, of paintings of the same rows with the same keys."""
        total = count = 0.0
        for rows, key in notes:
            key = jax.random.wrap_key_data(key)
            painting = np.asarray(self.again(params, rows, key), np.float64)
            where = self.rows(rows)
            truth, weights = self.targets(rows, where), self.weights(where)
            if self.query_only:
                truth, weights = truth[:, 8:], weights[:, 8:]
            error = np.abs(painting - truth)
            each, beta = error**2, self.stage.beta
            if self.stage.loss == "smooth_l1":
                each = np.where(error < beta, error**2 / 2 / beta, error - beta / 2)
            total += (each * weights[..., None]).sum()
            count += 3 * weights.sum()
        return total / count

    def rows(self, rows):
        """Which rows of the batch a micro-batch has, by their images."""
        images = normalized(self.batch["images"])
        gaps = np.abs(np.asarray(rows["images"])[:, None] - images).max((2, 3, 4))
        assert (gaps.min(1) < 1e-5).all()
        return gaps.argmin(1)

    def targets(self, rows, where):
        """What must be painted: the target, its background repainted or not."""
        plain, ground = self.batch["targets"][where], self.batch["background"][where]
        painted = self.batch["foreground"][where][..., None]
        repainted = np.where(painted, plain, ground[:, None, None])
        given = np.asarray(rows["targets"])
        choices = np.stack([normalized(plain), normalized(repainted)])
        gaps = np.abs(choices - given).max((2, 3, 4))
        assert (gaps.min(0) < 1e-5).all()
        self.repainted = gaps.argmin(0)
        return choices[self.repainted, np.arange(len(where))]

    def weights(self, where):
        """Weight of every pixel: 0 where visible or ignored, painted ones up to the
        limit."""
        batch = {n: x[where] for n, x in self.batch.items()}
        counted = np.kron(batch["hidden"], np.ones((4, 4))) * batch["valid"]
        weights = counted.copy()
        for row, painted in zip(weights, batch["foreground"], strict=True):
            on, off = row[painted].sum(), row[~painted].sum()
            row[painted] *= np.clip(off / on, 1, self.stage.max_foreground_weight)
        return weights


def adamw(step: Step, params, moments, grads, count: int):
    """Update number `count`, from 0 on, of one stage; grads are clipped already."""
    b1, b2 = OPTIM.betas
    depth = MODEL.config.depth
    stage, done = step.stage, count - step.stage.warmup
    if done < 0:
        rate = stage.lr * count / stage.warmup
    else:
        cosine = (1 + np.cos(np.pi * done / (stage.steps - stage.warmup))) / 2
        rate = stage.end_lr + (stage.lr - stage.end_lr) * cosine
    new = {}
    for name, value in params.items():
        factor = 1.0
        if name.startswith(("patch_embed", "pos_embed")):
            factor = OPTIM.layer_decay ** (depth + 1)
        if name.startswith("blocks"):
            powers = OPTIM.layer_decay ** np.array([depth - i for i in range(depth)])
            factor = powers.reshape(-1, *(1,) * (value.ndim - 1))
        decay = OPTIM.weight_decay
        if name.endswith(("bias", "scale")) or name == "pos_embed":
            decay = 0.0
        first, second = moments[name]
        first = b1 * first + (1 - b1) * grads[name]
        second = b2 * second + (1 - b2) * grads[name] ** 2
        moments[name] = first, second
        first, second = (
            first / (1 - b1 ** (count + 1)),
            second / (1 - b2 ** (count + 1)),
        )
        move = first / (np.sqrt(second) + OPTIM.eps) + decay * value
        new[name] = value - rate * factor * move
    return new, rate


def leaves(tree, dtype=np.float64):
    return {n: np.asarray(x, dtype) for n, x in named_leaves(tree).items()}


def check_gradients(step: Step, params, grads, notes):
    """Along a random direction of every parameter, against a central difference."""
    rng, flat = np.random.default_rng(1), jax.tree.structure(params)
    for i, (name, leaf) in enumerate(named_leaves(params).items()):
        way = rng.choice([-1.0, 1.0], leaf.shape)
        ends = []
        for sign in (1, -1):
            moved = jax.tree.leaves(params)
            moved[i] = np.asarray(leaf + sign * 2e-3 * way, np.float32)
            ends.append(step.loss(jax.tree.unflatten(flat, moved), notes))
        slope, size = (ends[0] - ends[1]) / 4e-3, np.linalg.norm(grads[name])
        # float32 paintings, and the curvature of a step of 2e-3.
        np.testing.assert_allclose(
            (grads[name] * way).sum(), slope, atol=0.02 * size + 2e-5, err_msg=name
        )


@pytest.mark.parametrize(("loss", "query_only"), [("smooth_l1", False), ("l2", True)])
def test_two_steps_with_everything_on(loss, query_only):
    step = Step(STAGES[loss], query_only)
    params, average = leaves(step.state.params), leaves(step.state.ema)
    moments = {name: (0.0, 0.0) for name in params}
    repainted, keys = set(), set()
    for count in range(2):
        before = step.state
        metrics, notes = step()
        assert len(notes) == MICRO
        np.testing.assert_allclose(
            metrics["loss"], step.loss(before.params, notes), rtol=1e-5
        )
        for rows, _ in notes:
            step.targets(rows, step.rows(rows))
            repainted |= set(step.repainted.tolist())
        keys |= {tuple(key.tolist()) for _, key in notes}

        # Adam's first moments tell the gradients, clipped.
        b1 = OPTIM.betas[0]
        mu = {n.split("/mu/")[1]: x for n, x in leaves(step.state.opt_state).items()
              if "/mu/" in n}  # fmt: skip
        clipped = {n: (mu[n] - b1 * moments[n][0]) / (1 - b1) for n in params}
        norm = metrics["grad_norm"]
        assert norm > OPTIM.clip
        whole = np.sqrt(sum((x**2).sum() for x in clipped.values()))
        np.testing.assert_allclose(whole, OPTIM.clip, rtol=1e-4)
        grads = {n: x * norm / OPTIM.clip for n, x in clipped.items()}
        if not count:
            check_gradients(step, before.params, grads, notes)

        params, rate = adamw(step, params, moments, clipped, count)
        np.testing.assert_allclose(metrics["lr"], rate, rtol=1e-5)
        # The average starts fast: 21 / 40 and 22 / 41 of it are kept, not 0.9.
        kept = (START + count + 1) / (START + count + 20)
        average = {n: kept * average[n] + (1 - kept) * params[n] for n in params}
        for ours, wanted in ((step.state.params, params), (step.state.ema, average)):
            for name, leaf in leaves(ours).items():
                # float32 against float64.
                np.testing.assert_allclose(
                    leaf, wanted[name], rtol=1e-5, atol=2e-6, err_msg=name
                )
        assert step.state.step == START + count + 1
    assert repainted == {0, 1}
    # Drop path is on, and drawn anew for every micro-batch of every step.
    assert len(keys) == 2 * MICRO
    others = [(rows, key + 1) for rows, key in notes]
    wanted = step.loss(before.params, notes)
    assert abs(step.loss(before.params, others) - wanted) > 1e-4 * wanted


def one_colour(params, frozen, rows, key):
    """Paints every pixel alike, whatever the canvases show."""
    return jnp.broadcast_to(params["colour"], rows["images"].shape)


@pytest.mark.parametrize("micro", [1, 2])
def test_a_query_with_the_same_prompt_twice_is_a_query_with_this_prompt(micro):
    """Prompts of a query stay together in micro-batches, backgrounds and drop path: the
    ensemble of two that are alike then equals one of them. Other neighbours would
    not."""
    stage, batch = STAGES["l2"], make_batch(query_only=True)
    twice = {name: np.repeat(values, 2, 0) for name, values in batch.items()}
    after = []
    for prompts, rows in ((1, batch), (2, twice)):
        tx = stage.optimizer(OPTIM)
        state = new_state(random_params(MODEL, scale=0.5), tx, ema=True)
        step = make_train_step(
            MODEL, stage, OPTIM, accumulate=micro, ema=EMA, query_only=True,
            prompts=prompts,
        )  # fmt: skip
        state, metrics = jax.jit(step)(state, rows, jax.random.key(3))
        after.append((state.params, metrics))
    # Sums over twice as many rows round otherwise.
    for one, other in zip(*map(jax.tree.leaves, after), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-3, atol=1e-5)


def test_backgrounds_are_repainted_for_half_the_stage_then_less_and_less():
    """All targets are black and all backgrounds white, so the loss tells the share."""
    many, stage = 4000, Stage(steps=100, lr=1.0, loss="l2", background_prob=0.8)
    optim = OptimSettings()
    batch = {
        "images": np.zeros((many, 2, 1, 3), np.uint8),
        "targets": np.zeros((many, 2, 1, 3), np.uint8),
        "foreground": np.zeros((many, 2, 1), bool),
        "valid": np.ones((many, 2, 1), bool),
        "background": np.full((many, 3), 255, np.uint8),
        "hidden": np.ones((many, 2, 1), bool),
        "kind": np.zeros(many, np.int32),
    }
    black, white = normalized(np.array([[0] * 3, [255] * 3]))
    params = {"colour": jnp.asarray(black[None, None, None], jnp.float32)}
    state = new_state(params, stage.optimizer(optim), ema=False)
    step = jax.jit(
        make_train_step(
            MODEL, stage, optim, start=20, accumulate=1, ema=0.0, paint=one_colour
        )
    )
    shares = []
    for done in (0, 49, 75, 95):
        at = dataclasses.replace(state, step=jnp.int32(20 + done))
        loss = step(at, batch, jax.random.key(0))[1]["loss"]
        shares.append(float(loss) / np.mean((white - black) ** 2))
    # 4000 draws: a standard deviation of 0.008.
    np.testing.assert_allclose(shares, [0.8, 0.8, 0.4, 0.08], atol=0.03)


def test_a_later_stage_starts_from_the_average_with_a_fresh_optimizer():
    first, second = STAGES["l2"], STAGES["smooth_l1"]
    params = {"colour": jnp.ones((1, 1, 1, 3))}
    state = new_state(params, first.optimizer(OPTIM), ema=True)
    state = dataclasses.replace(
        state,
        step=jnp.int32(8),
        params={"colour": 3 * params["colour"]},
        ema={"colour": 2 * params["colour"]},
        opt_state=jax.tree.map(jnp.ones_like, state.opt_state),
    )
    entered = enter_stage(state, second.optimizer(OPTIM))
    for tree in (entered.params, entered.ema):
        np.testing.assert_array_equal(tree["colour"], state.ema["colour"])
    assert entered.step == 8  # of the run, not of the stage
    for leaf in jax.tree.leaves(entered.opt_state):
        assert (np.asarray(leaf) == 0).all()
    # Without an average it goes on from the parameters.
    alone = enter_stage(dataclasses.replace(state, ema=None), second.optimizer(OPTIM))
    np.testing.assert_array_equal(alone.params["colour"], state.params["colour"])
