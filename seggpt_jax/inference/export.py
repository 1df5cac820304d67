"""A model as two functions for programs without this package, in one file.

`encode` reads the prompts, once; `paint` paints any number of queries by them. They are
those of `predict.make_predict_fns` with a feature ensemble. docs/export.md has the
content of the file.
"""

import importlib.util
import json
import logging
import zipfile
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import traverse_util
from safetensors.numpy import save

import seggpt_jax
from seggpt_jax import colors
from seggpt_jax.config import suggest
from seggpt_jax.data.sample import KINDS
from seggpt_jax.models import prompted
from seggpt_jax.models.seggpt import SegGPT, SegGPTConfig
from seggpt_jax.runs import staging
from seggpt_jax.runs.paths import AnyPath
from seggpt_jax.runs.workdir import check_writable
from seggpt_jax.weights.build import abstract_params
from seggpt_jax.weights.pretrained import Weights

FORMS = ("stablehlo", "onnx")
ABOUT, PARAMS = "export.json", "params.safetensors"
_PLATFORMS = ("cpu", "cuda", "rocm", "tpu")
_MOST = 2**31  # values of an array, and bytes of an ONNX file
_BATCH = "b"  # the axis of any size
_REMEDY = "pip install 'seggpt_jax[export]'"


class Function(NamedTuple):
    """One of the two. call: takes params, then arrays like `inputs`, by name; returns a
    tuple of arrays called `outputs`."""

    name: str
    call: Callable[..., tuple]
    inputs: dict[str, jax.ShapeDtypeStruct]
    outputs: tuple[str, ...]


def check_new(out: AnyPath) -> None:
    """Raises ValueError or OSError for a file that `export` would not write."""
    if out.suffix != ".zip":
        raise ValueError(f"--out {out}: a name that ends in .zip is wanted")
    if out.exists():
        raise FileExistsError(f"--out {out} exists: give another name")
    check_writable(out.parent)


def export(weights: Weights, to: str, prompts: int, out: AnyPath) -> None:
    """Writes both functions of a model, for `prompts` prompts, as a new zip file.

    to: one of `FORMS`. Raises ValueError for what cannot be exported, also where a
    package is missing, and FileExistsError.
    """
    check_new(out)
    if to not in FORMS:
        raise ValueError(f"--to {to}: is unknown{suggest(to, FORMS)}")
    config = weights.config.replace(dtype="float32", attention="xla")
    _check_prompts(config, prompts)
    params = jax.tree.map(lambda x: np.asarray(x, np.float32), weights.params)
    functions = make_functions(config, prompts)
    write = _stablehlo if to == FORMS[0] else _onnx
    about = _about(weights, config, prompts, to, functions)
    out.parent.mkdir(parents=True, exist_ok=True)
    with staging.new_file(out) as new, zipfile.ZipFile(new, "w") as file:
        file.writestr(ABOUT, json.dumps(about, indent=2))
        for name, content in write(config, params, functions):
            file.writestr(name, content)


def make_functions(config: SegGPTConfig, prompts: int) -> tuple[Function, Function]:
    """`encode` of any number of sets of prompts, and `paint` of any number of queries
    by one set."""
    weight = np.full((1, prompts), 1 / prompts, np.float32)
    (batch,) = jax.export.symbolic_shape(_BATCH)
    h, w = config.half
    examples = jax.ShapeDtypeStruct((batch, prompts, h, w, 3), jnp.float32)

    def joined(params, images, targets, kind):
        tokens = prompted.encode(params, config, images, targets, kind)
        return prompted.join(params, config, tokens, weight)

    # One set of prompts: every array but the weights and the kind is of `encode`.
    rows = jax.ShapeDtypeStruct((1, prompts, h, w, 3), jnp.float32)
    kinds = jax.ShapeDtypeStruct((1,), jnp.int32)
    params = abstract_params(SegGPT(config))
    one = jax.eval_shape(joined, params, rows, rows, kinds)
    names = [name for name in one._fields if name not in ("weight", "kind")]

    def encode(*given):
        encoded = joined(*given)
        return tuple(getattr(encoded, name) for name in names)

    def paint(params, *given):
        *arrays, kind, queries = given
        given = dict(zip(names, arrays, strict=True))
        encoded = one._replace(**given, weight=weight, kind=kind)
        return (prompted.paint(params, config, encoded, queries),)

    first = {"images": examples, "targets": examples}
    first["kind"] = jax.ShapeDtypeStruct((batch,), jnp.int32)
    second = {name: getattr(one, name) for name in names} | {"kind": kinds}
    second["queries"] = jax.ShapeDtypeStruct((batch, h, w, 3), jnp.float32)
    return (
        Function("encode", encode, first, tuple(names)),
        Function("paint", paint, second, ("painting",)),
    )


def _check_prompts(config: SegGPTConfig, prompts: int) -> None:
    each = config.heads * (config.grid[0] * config.grid[1]) ** 2
    most = (_MOST - 1) // each
    if not 1 <= prompts <= most:
        raise ValueError(
            f"--prompts {prompts}: must be 1 to {most} with this model: its attention "
            f"has {each:,} logits a prompt: more than 2**31 do not fit an array"
        )


def _stablehlo(config, params, functions) -> Iterator[tuple[str, bytes]]:
    """Both functions as `jax.export` has them, and the parameters beside."""
    _require("flatbuffers", "--to stablehlo", _REMEDY)
    flat = traverse_util.flatten_dict(params, sep="/")
    shapes = {x: jax.ShapeDtypeStruct(a.shape, a.dtype) for x, a in flat.items()}
    for function in functions:

        def call(flat, *arrays, function=function):
            return function.call(traverse_util.unflatten_dict(flat, sep="/"), *arrays)

        make = jax.export.export(jax.jit(call), platforms=_PLATFORMS)
        exported = make(shapes, *function.inputs.values())
        yield f"{function.name}.stablehlo", bytes(exported.serialize())
    arrays = {name: np.ascontiguousarray(array) for name, array in flat.items()}
    yield PARAMS, save(arrays)


def _onnx(config, params, functions) -> Iterator[tuple[str, bytes]]:
    """Both functions as ONNX graphs, each with its parameters inside."""
    size = sum(leaf.nbytes for leaf in jax.tree.leaves(params))
    if size >= _MOST:
        raise ValueError(
            f"--to onnx: the model has {size / 1e9:.1f} GB of parameters, and an ONNX "
            "file holds 2 GB: take --to stablehlo"
        )
    _require("jax2onnx", "--to onnx", "docs/export.md says how to install it")
    if jax.__version_info__ >= (0, 11):
        raise ValueError(
            f"--to onnx: jax2onnx needs jax below 0.11, and this is {jax.__version__}: "
            "docs/export.md has an environment for it"
        )
    import onnx_ir
    from jax2onnx import to_onnx
    from onnx_ir.passes.common import RemoveUnusedNodesPass

    # Shapes of values inside a loop have no type yet; a warning for each says so.
    logging.getLogger("onnx_ir.serde").setLevel(logging.ERROR)

    def first(leaf):
        return leaf[: config.merge_after + 1]

    for function in functions:
        own = params
        if function.name == "encode" and not config.one_way:  # it runs no other blocks
            own = params | {"blocks": jax.tree.map(first, params["blocks"])}
        own = jax.tree.map(jnp.asarray, own)

        def call(*arrays, function=function, own=own):
            return function.call(own, *arrays)

        model = to_onnx(
            call,
            list(function.inputs.values()),
            model_name=function.name,
            input_names=list(function.inputs),
            output_names=list(function.outputs),
            return_mode="ir",
        )
        RemoveUnusedNodesPass()(model)
        for graph in (model.graph, *model.graph.subgraphs()):
            for unused in [v for v in graph.initializers.values() if not v.uses()]:
                del graph.initializers[unused.name]  # a runtime would warn of each
        yield f"{function.name}.onnx", onnx_ir.to_proto(model).SerializeToString()


def _require(package: str, option: str, remedy: str) -> None:
    if importlib.util.find_spec(package) is None:
        raise ValueError(f"{option} needs {package}: {remedy}")


def _about(weights, config, prompts, to, functions) -> dict[str, Any]:
    """What a program must know of the arrays."""
    return {
        "form": to,
        "made_by": f"seggpt_jax {seggpt_jax.__version__}, jax {jax.__version__}",
        "model": weights.name,
        "step": weights.step,
        "geometry": config.geometry,
        "prompts": prompts,
        "size": config.half,
        "colors": "RGB",
        "mean": [round(float(x), 3) for x in colors.MEAN],
        "std": [round(float(x), 3) for x in colors.STD],
        "images": "resized to size (height, width) by bicubic, colours 0 to 1 less "
        "mean, divided by std",
        "targets": "a colour for each label on black; resized by nearest pixel, then "
        "as images",
        "kind": KINDS,
        "painting": "times std plus mean: colours 0 to 1; a pixel has the label of the "
        "nearest colour, by the sum of absolute differences",
        "functions": {
            function.name: {
                "inputs": {
                    name: f"{x.dtype}[{','.join(map(str, x.shape))}]"
                    for name, x in function.inputs.items()
                },
                "outputs": function.outputs,
            }
            for function in functions
        },
    }
