"""AdamW against torch's, and the layer-wise rates against Painter's rule."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch

from seggpt_jax.models.seggpt import SegGPT, SegGPTConfig
from seggpt_jax.training import optim
from seggpt_jax.training.optim import OptimSettings
from seggpt_jax.trees import named_leaves
from tests.support.models import inputs, random_params, small


@pytest.fixture(scope="module")
def vit_large():
    model = SegGPT(SegGPTConfig.of("l16"))
    args = jax.eval_shape(lambda: inputs(model.config))
    return jax.eval_shape(model.init, jax.random.key(0), *args)["params"]


def test_layer_rates_of_vit_large(vit_large):
    """Painter's rule: block i has exponent 25 - (i + 1), embeddings 25, the rest 0."""
    factors = named_leaves(optim.layer_factors(vit_large, 0.8))
    blocks = factors["blocks/mlp/fc1/kernel"].ravel()
    np.testing.assert_allclose(
        blocks, [0.8 ** (25 - (i + 1)) for i in range(24)], rtol=1e-5
    )
    for name in ("pos_embed", "patch_embed/kernel", "patch_embed/bias"):
        np.testing.assert_allclose(factors[name], 0.8**25, rtol=1e-5)
    for name in ("mask_token", "stream_tokens", "kind_tokens", "norm/scale",
                 "decoder/embed/kernel", "decoder/head/bias"):  # fmt: skip
        assert factors[name].ravel() == [1], name


def test_no_decay_rules(vit_large):
    """The release's 1-D parameters and pos_embed: none; tokens and rel-pos: decay."""
    decays = named_leaves(optim.decay_mask(vit_large))
    for name, decay in decays.items():
        wanted = not name.endswith(("/bias", "/scale")) and name != "pos_embed"
        assert decay == wanted, name
    assert decays["blocks/attn/rel_pos_h"] and decays["mask_token"]
    assert not decays["blocks/attn/qkv/bias"]


def test_table_names_every_parameter(vit_large):
    text = optim.describe(vit_large, OptimSettings())
    lines = {line.split()[0]: line.split() for line in text.splitlines()[1:]}
    assert set(lines) == set(named_leaves(vit_large))
    assert lines["pos_embed"][1:] == ["14x14x1024", "0.003778", "-"]
    assert lines["blocks/mlp/fc1/kernel"][2:] == ["0.004722", "..", "0.8", "0.05"]


def test_steps_equal_torch_adamw_with_layer_groups():
    params = random_params(small())
    settings = OptimSettings(weight_decay=0.05, layer_decay=0.8, clip=0.5)
    lr = optim.schedule(20, 1e-2, 3, 1e-4)
    tx = optim.make_optimizer(settings, lr)
    state, update = tx.init(params), jax.jit(tx.update)
    theirs, groups = _torch_groups(params, settings)
    adam = torch.optim.AdamW(groups, betas=settings.betas, eps=settings.eps)
    rng = np.random.default_rng(0)
    for step in range(5):
        grads = jax.tree.map(
            lambda p: rng.normal(size=p.shape).astype(np.float32), params
        )
        for (name, layer), parameter in theirs.items():
            grad = named_leaves(grads)[name]
            parameter.grad = torch.tensor(grad if layer is None else grad[layer])
        torch.nn.utils.clip_grad_norm_(list(theirs.values()), settings.clip)
        for group in adam.param_groups:
            group["lr"] = float(lr(step)) * group["factor"]
        adam.step()
        updates, state = update(grads, state, params)
        params = jax.tree.map(np.add, params, updates)
    for (name, layer), parameter in theirs.items():
        ours = named_leaves(params)[name]
        ours = ours if layer is None else ours[layer]
        # Five float32 steps of size 1e-2.
        np.testing.assert_allclose(
            ours, parameter.detach().numpy(), atol=2e-6, err_msg=name
        )


def _torch_groups(params, settings):
    """One torch parameter and group per tensor of the release: per layer in blocks."""
    factors = named_leaves(optim.layer_factors(params, settings.layer_decay))
    decays = named_leaves(optim.decay_mask(params))
    theirs, groups = {}, []
    for name, leaf in named_leaves(params).items():
        layers = range(len(leaf)) if name.startswith("blocks/") else [None]
        for layer in layers:
            value = torch.tensor(np.array(leaf if layer is None else leaf[layer]))
            theirs[name, layer] = torch.nn.Parameter(value)
            factor = float(factors[name].ravel()[layer or 0])
            decay = settings.weight_decay if decays[name] else 0.0
            groups.append({"params": [theirs[name, layer]], "weight_decay": decay,
                           "factor": factor, "lr": 0.0})  # fmt: skip
    return theirs, groups


def test_schedule_warms_up_then_falls_as_half_a_cosine():
    lr = optim.schedule(100, 1.0, 10, 0.1)
    np.testing.assert_allclose([lr(0), lr(5), lr(10)], [0, 0.5, 1], atol=1e-6)
    np.testing.assert_allclose(lr(55), 0.1 + 0.9 * 0.5, atol=1e-6)
    np.testing.assert_allclose(lr(100), 0.1, atol=1e-6)


def test_a_schedule_without_warmup_is_silent(caplog):
    lr = optim.schedule(10, 2.0, 0, 0.5)
    assert not caplog.records
    np.testing.assert_allclose([lr(0), lr(5), lr(10)], [2, 1.25, 0.5], atol=1e-6)
    assert optim.schedule(0, 0.0, 0, 0.5)(0) == 0


@pytest.mark.parametrize(
    ("name", "value"),
    [("weight_decay", -0.1), ("betas", (0.9, 1.0)), ("clip", 0.0), ("layer_decay", 1.5),
     ("eps", 0.0)],
)  # fmt: skip
def test_settings_out_of_range(name, value):
    with pytest.raises(ValueError, match=f"optim.{name}"):
        OptimSettings(**{name: value})


@functools.cache
def muon(weight_decay=0.0, layer_decay=1.0):
    """A jitted first step, of parameters and gradients."""
    settings = OptimSettings(
        algorithm="muon", weight_decay=weight_decay, layer_decay=layer_decay, clip=1e9
    )
    tx = optim.make_optimizer(settings, 1.0)
    return jax.jit(lambda params, grads: tx.update(grads, tx.init(params), params)[0])


def muon_step(params, grads, **settings):
    return muon(**settings)(params, grads)


def few_params():
    """Some for Muon, and some for Adam, of which one is a matrix too."""
    params = random_params(small())
    return {
        "blocks": {"mlp": params["blocks"]["mlp"]},
        "decoder": {"head": params["decoder"]["head"]},
        "norm": params["norm"],
    }


def noise_like(params):
    rng = np.random.default_rng(1)
    draw = lambda p: jnp.asarray(rng.normal(size=p.shape), p.dtype)  # noqa: E731
    return jax.tree.map(draw, params)


def test_muon_steps_matrices_of_blocks_orthogonally_and_the_rest_as_adam():
    """Five rounds of Newton-Schulz leave singular values at 0.7 to 1.2."""
    params = random_params(small())
    step = muon_step(params, noise_like(params))
    for matrix in np.asarray(step["blocks"]["mlp"]["fc1"]["kernel"]):
        values = np.linalg.svd(matrix, compute_uv=False)
        values /= 0.2 * max(matrix.shape) ** 0.5
        assert 0.6 < values.min() and values.max() < 1.3
    scale = np.abs(np.asarray(step["norm"]["scale"]))
    np.testing.assert_allclose(scale, scale[0], rtol=1e-4)  # Adam's first is a sign


def test_muon_goes_downhill_and_decays_as_adamw():
    """The nearest orthogonal matrix of U S V' is U V'; heads are parts of a matrix."""
    params = random_params(small())
    grads = noise_like(params)
    step, down = named_leaves(muon_step(params, grads)), named_leaves(grads)
    for name in ("attn/proj", "mlp/fc1", "mlp/fc2"):
        moves, slopes = (leaves[f"blocks/{name}/kernel"] for leaves in (step, down))
        for move, slope in zip(moves, slopes, strict=True):
            move, slope = (
                np.asarray(x).reshape(-1, x.shape[-1]) for x in (move, slope)
            )
            u, _, v = np.linalg.svd(slope, full_matrices=False)
            nearest = -0.2 * max(slope.shape) ** 0.5 * u @ v
            error = np.linalg.norm(move - nearest) / np.linalg.norm(nearest)
            assert error < 0.4, name
    np.testing.assert_array_equal(
        np.sign(step["norm/scale"]), -np.sign(down["norm/scale"])
    )
    decayed = named_leaves(muon_step(params, grads, weight_decay=0.1, layer_decay=0.5))
    factors = named_leaves(optim.layer_factors(params, 0.5))
    masks = named_leaves(optim.decay_mask(params))
    for name, leaf in named_leaves(params).items():
        wanted = factors[name] * (step[name] - 0.1 * masks[name] * leaf)
        np.testing.assert_allclose(decayed[name], wanted, atol=1e-5, err_msg=name)


def test_muon_has_adams_settings_for_the_rest():
    """Adam as in Keras' Nadam: its first moment looks a step ahead."""
    params, (b1, b2), eps = few_params(), (0.5, 0.7), 0.3
    settings = OptimSettings(
        algorithm="muon", betas=(b1, b2), eps=eps, clip=1e9, layer_decay=1.0
    )
    tx = optim.make_optimizer(settings, 1.0)
    state, first, second = tx.init(params), 0.0, 0.0
    update = jax.jit(tx.update)
    for count in (1, 2):
        grads = jax.tree.map(lambda p, k=count: k * jnp.cos(p), params)
        updates, state = update(grads, state, params)
        grad = np.asarray(grads["norm"]["scale"])
        first = b1 * first + (1 - b1) * grad
        second = b2 * second + (1 - b2) * grad**2
        root = np.sqrt(second / (1 - b2**count)) + eps
        ahead = b1 * first / (1 - b1 ** (count + 1))
        ahead = ahead + (1 - b1) * grad / (1 - b1**count)
        np.testing.assert_allclose(updates["norm"]["scale"], -ahead / root, rtol=1e-4)


def test_muon_takes_layers_and_q_k_v_for_matrices_of_their_own():
    params = random_params(small())
    grads = noise_like(params)
    before = muon_step(params, grads)["blocks"]["attn"]["qkv"]["kernel"]
    kernel = grads["blocks"]["attn"]["qkv"]["kernel"]
    grads["blocks"]["attn"]["qkv"]["kernel"] = kernel.at[0, :, 2].add(
        jnp.ones(kernel.shape[3:])
    )
    after = muon_step(params, grads)["blocks"]["attn"]["qkv"]["kernel"]
    changed = np.abs(after - before).max((1, 3, 4)) > 1e-6
    assert changed[0].tolist() == [False, False, True] and not changed[1:].any()


@pytest.mark.parametrize("trainable", ["decoder/.*", "blocks/.*"])
def test_muon_leaves_what_is_frozen(trainable):
    params = few_params()
    tx = optim.make_optimizer(
        OptimSettings(algorithm="muon", trainable=trainable), 1e-2
    )
    updates, _ = jax.jit(lambda p: tx.update(p, tx.init(p), p))(params)
    free = trainable.split("/")[0]
    for name, step in named_leaves(updates).items():
        assert np.any(step) == name.startswith(free), name


def test_gradients_of_what_is_frozen_are_not_clipped_with_the_rest():
    params = {"decoder": {"a": jnp.ones(3)}, "blocks_of_none": jnp.ones(3)}
    tx = optim.make_optimizer(OptimSettings(trainable="decoder/.*", eps=1.0), 1e-2)
    steps = []
    for frozen in (0.0, 1e6):
        grads = {"decoder": {"a": jnp.ones(3)}, "blocks_of_none": jnp.full(3, frozen)}
        updates, _ = tx.update(grads, tx.init(params), params)
        assert not np.any(updates["blocks_of_none"])
        steps.append(updates["decoder"]["a"])
    np.testing.assert_array_equal(*steps)


def test_an_unknown_algorithm_names_the_choices():
    with pytest.raises(ValueError, match="optim.algorithm = 'sgd'.*adamw, muon"):
        OptimSettings(algorithm="sgd")
