"""Prediction: paint the query's target from one prompt or several."""

import functools
import math
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Float, Int

from seggpt_jax import colors
from seggpt_jax.canvas import query_half, stitch
from seggpt_jax.models import prompted
from seggpt_jax.models.seggpt import SegGPT
from seggpt_jax.runs import hosts, sharding
from seggpt_jax.runs.partition import ROWS, ways

Array = jax.Array | np.ndarray
S = TypeVar("S")
T = TypeVar("T")
ENSEMBLES = ("none", "feature", "spatial", "both")
_SIDE = 2  # of the grids of "both": the only size the paper gives scores for
_END = object()  # of what is read ahead
_CELLS = 3  # per side of an image, over which its features are averaged


class PredictFns(NamedTuple):
    """Prediction in two steps: prompts that serve many queries are encoded once.

    encode_prompts: `(params, images [b, p, h, w, 3], targets, kind [b]) -> prompts`.
    predict: `(params, prompts, queries [b, h, w, 3]) -> painting [b, h, w, 3]`; the
    prompts of one row (b = 1) serve any number of queries.
    """

    encode_prompts: Callable[..., prompted.AnyPrompts]
    predict: Callable[..., jax.Array]


def make_predict_fns(model: SegGPT, ensemble: str = "feature") -> PredictFns:
    """The jitted two-step form of `make_predict_fn`."""
    if ensemble not in ENSEMBLES:
        raise ValueError(f"ensemble {ensemble!r} is not one of {', '.join(ENSEMBLES)}")
    return PredictFns(
        jax.jit(functools.partial(_encode, model, ensemble)),
        jax.jit(functools.partial(_paint, model)),
    )


def make_predict_fn(
    model: SegGPT, ensemble: str = "feature"
) -> Callable[..., jax.Array]:
    """A jitted `fn(params, images, targets, queries, kind) -> painting`.

    images, targets: prompts `[b, p, h, w, 3]`; queries `[b, h, w, 3]`, all
    ImageNet-normalised; kind `[b]`. Returns `[b, h, w, 3]`, normalised, float32.

    ensemble: how several prompts are combined (paper, "Context Ensemble"). `feature`:
    the features of the query are averaged over the prompts after every attention.
    `spatial`: the prompts are tiled into one square grid, resized to one prompt.
    `both`: features are averaged over grids of 2 x 2. `none`: one prompt only. Empty
    cells of a grid show the prompts again, from the first on.
    """
    encode_prompts, predict = make_predict_fns(model, ensemble)

    def fn(params, images, targets, queries, kind):
        prompts = encode_prompts(params, images, targets, kind)
        return predict(params, prompts, queries)

    return jax.jit(fn)


def _encode(
    model: SegGPT,
    ensemble: str,
    params,
    images: Float[Array, "b p h w 3"],
    targets: Float[Array, "b p h w 3"],
    kind: Int[Array, " b"],
) -> prompted.AnyPrompts:
    count = images.shape[1]
    if count > 1 and ensemble == "none":
        raise ValueError(
            f"{count} prompts need an ensemble: {', '.join(ENSEMBLES[1:])}"
        )
    # Spatial: from here on every grid of prompts is one prompt. The model averages over
    # the grids of "both", or over the prompts of "feature", with equal weights.
    if count > 1 and ensemble in ("spatial", "both"):
        side = _SIDE if ensemble == "both" else math.ceil(math.sqrt(count))
        images = tile(images, side, "linear")
        targets = tile(targets, side, "nearest")
    encoded = prompted.encode(params, model.config, images, targets, kind)
    weight = jnp.full(images.shape[:2], 1 / images.shape[1])
    return prompted.join(params, model.config, encoded, weight)


def _paint(
    model: SegGPT,
    params,
    prompts: prompted.AnyPrompts,
    queries: Float[Array, "b h w 3"],
) -> Float[Array, "b h w 3"]:
    return prompted.paint(params, model.config, prompts, queries)


def make_features_fn(model: SegGPT) -> Callable[..., jax.Array]:
    """A jitted `fn(params, images [b, h, w, 3], kind [b]) -> features [b, 9 * d]`, to
    compare images by (`search.similar`); images are ImageNet-normalised.

    An image is shown as its own prompt, with a black target. The features are the first
    tap on the prompt's half, averaged over 3 x 3 cells. Of all compared features
    (docs/notes/choosing-prompts.md) these choose the best prompts.
    """
    return jax.jit(functools.partial(_features, model))


def _features(
    model: SegGPT, params, images: Float[Array, "b h w 3"], kind: Int[Array, " b"]
) -> Float[Array, "b c"]:
    rows, cols = (side // model.config.patch for side in images.shape[1:3])
    shown = stitch(images, images)
    black = colors.normalize(np.zeros((1, 1, 1, 3), np.uint8))
    hidden = query_half((2 * rows, cols))[None]
    _, out = model.apply(
        {"params": params},
        shown,
        jnp.broadcast_to(black, shown.shape),
        jnp.broadcast_to(hidden, (len(images), *hidden.shape[1:])),
        kind,
    )
    first = out["tapped"][:, :rows, :, : model.config.width].astype(jnp.float32)
    means = jnp.einsum("gh,kw,bhwd->bgkd", _cells(rows), _cells(cols), first)
    return means.reshape(len(images), -1)


def _cells(length: int) -> np.ndarray:
    """Means `[g, length]` over neighbouring cells, at most `_CELLS` of them."""
    cells = min(_CELLS, length)
    own = np.arange(length) * cells // length == np.arange(cells)[:, None]
    return (own / own.sum(1, keepdims=True)).astype(np.float32)


class Memory(NamedTuple):
    """The memory of tracking. The first prompts are never replaced. The slots after
    them hold the last frames; a new frame replaces the oldest.

    encoded: of `first + last` prompts. seen: the number of frames since the start.
    """

    encoded: prompted.AnyTokens
    seen: Int[Array, ""]


class TrackFns(NamedTuple):
    """Tracking (paper, "Context Ensemble"): every frame is painted by a feature
    ensemble of the first prompts and of the last frames, each with its own result as
    target.

    start: `(params, images [1, p, h, w, 3], targets, kind [1]) -> memory`.
    step: `(params, memory, frame [1, h, w, 3], palette uint8 [c, 3]) -> painting,
    memory`. The frame is remembered with the nearest colours of the palette. The old
    memory is donated: it cannot be used again.
    """

    start: Callable[..., Memory]
    step: Callable[..., tuple[jax.Array, Memory]]


def make_track_fns(model: SegGPT, last: int = 8) -> TrackFns:
    """Jitted tracking that remembers the `last` frames (8 in the paper)."""
    if last < 0:
        raise ValueError(f"memory of {last} frames: must be 0 or more")
    return TrackFns(
        jax.jit(functools.partial(_start, model, last)),
        jax.jit(functools.partial(_step, model, last), donate_argnums=1),
    )


def _start(model: SegGPT, last: int, params, images, targets, kind) -> Memory:
    encoded = prompted.encode(params, model.config, images, targets, kind)

    # Later frames have their slots from the start: one shape, compiled once. Empty
    # slots are zeros: finite in attention, and of weight 0.
    def with_room(x):
        widths = [(0, 0)] * x.ndim
        widths[prompted.AXIS] = (0, last)
        return jnp.pad(x, widths)

    encoded = prompted.map_prompts(with_room, encoded)
    return Memory(encoded, jnp.zeros((), jnp.int32))


def _step(model: SegGPT, last: int, params, memory: Memory, frame, palette):
    encoded, seen = memory
    slots = prompted.count(encoded)
    first = slots - last
    # Slots without a frame yet have weight 0; all others have the same weight.
    known = jnp.arange(slots) < first + seen
    weight = (known / (first + jnp.minimum(seen, last)))[None]
    prompts = prompted.join(params, model.config, encoded, weight)
    painting = prompted.paint(params, model.config, prompts, frame)
    if last:
        # A frame is remembered with its decoded labels, not with its painting: blurred
        # colours would become worse from frame to frame.
        labels = colors.decode(colors.denormalize(painting), palette[None])
        target = colors.normalize(palette[labels])
        new = prompted.encode(
            params, model.config, frame[:, None], target[:, None], encoded.kind
        )
        # First in, first out: the new frame takes the place of the oldest.
        put = functools.partial(_put, at=first + seen % last)
        encoded = prompted.map_prompts(put, encoded, new)
    return painting, Memory(encoded, seen + 1)


def make_keep_fn(model: SegGPT, last: int = 8) -> Callable[..., Memory]:
    """A jitted `fn(memory, params, images [1, p, h, w, 3], targets, kind [1]) ->
    memory` for corrections of a video: these prompts replace the first ones.

    The last of them is the newest frame with its right target, which replaces its own
    result among the last frames too. memory: of `make_track_fns` with as many frames.
    """
    return jax.jit(functools.partial(_renew, model, last))


def _renew(model: SegGPT, last: int, memory: Memory, params, images, targets, kind):
    old, seen = memory
    new = prompted.encode(params, model.config, images, targets, kind)

    def joined(first, old):
        axis = prompted.AXIS
        slots = jax.lax.slice_in_dim(old, old.shape[axis] - last, None, axis=axis)
        if last:
            newest = jax.lax.slice_in_dim(first, -1, None, axis=axis)
            right = _put(slots, newest, (seen - 1) % last)
            # No frame is remembered yet where the corrected one is itself the first.
            slots = jnp.where(seen > 0, right, slots)
        return jnp.concatenate([first, slots], axis=axis)

    return Memory(prompted.map_prompts(joined, new, old), seen)


def _put(slots, new, at):
    """Slots of prompts with a new one in place of that with the number `at`."""
    return jax.lax.dynamic_update_slice_in_dim(slots, new, at, prompted.AXIS)


class Engine:
    """A model on the devices of a mesh, as evaluators and the `Predictor` use it
    (`evaluators.common.Engine` says what each member does).

    Functions are compiled once for all users of an engine. Without a mesh, host arrays
    stay where they are, and jax takes them to its default device.
    """

    def __init__(self, model: SegGPT, mesh: Mesh | None = None):
        self.size = model.config.half
        self.parts = ways(mesh.shape, ROWS) if mesh else 1
        self.predict_fn = functools.cache(functools.partial(make_predict_fn, model))
        self.prompt_fns = functools.cache(functools.partial(make_predict_fns, model))
        self.track_fns = functools.cache(functools.partial(make_track_fns, model))
        self.keep_fn = functools.cache(functools.partial(make_keep_fn, model))
        self._features = make_features_fn(model)
        self.put = self.put_everywhere = lambda tree: tree
        if mesh:
            self.put = functools.partial(sharding.put_rows, mesh)
            self.put_everywhere = functools.partial(sharding.put_replicated, mesh)

    def features(self, params, images: Array, kind: Array) -> np.ndarray:
        placed = self.put_everywhere((images, kind))
        return hosts.fetch(self._features(params, *placed))

    @staticmethod
    def fetch(painting: Array) -> np.ndarray:
        # By `device_get`: the train loop forbids implicit transfers.
        return colors.denormalize(hosts.fetch(painting).astype(np.float32))


def tile(x: Float[Array, "b p h w c"], side: int, method: str):
    """Grids of `side` x `side` prompts, each resized to one prompt: `[b, g, h, w, c]`.

    The last grid is filled up with the prompts again, from the first on.
    """
    b, count, h, w, c = x.shape
    grids = math.ceil(count / side**2)
    cells = jnp.asarray(x)[:, np.arange(grids * side**2) % count]
    cells = cells.reshape(b, grids, side, side, h, w, c).transpose(0, 1, 2, 4, 3, 5, 6)
    whole = cells.reshape(b, grids, side * h, side * w, c)
    return jax.image.resize(whole, (b, grids, h, w, c), method)


def overlapped(items: Iterable[T], start: Callable[[T], S]) -> Iterator[S]:
    """Starts the device on every item; yields what was started.

    Three things happen at once: a thread reads the next item, the device runs this one,
    and the caller works on the result of the item before.
    """
    reading = iter(items)
    with ThreadPoolExecutor(1) as pool:
        running: list[S] = []
        fault: Exception | None = None
        ahead = pool.submit(next, reading, _END)
        while True:
            item: Any = _END
            try:
                item = ahead.result()
            except Exception as error:  # raised after the results of earlier items
                fault = error
            started = []
            if item is not _END:
                ahead = pool.submit(next, reading, _END)
                started = [start(item)]
            yield from running
            if not started:
                break
            running = started
    if fault:
        raise fault
