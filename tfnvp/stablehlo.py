"""Models outside TensorFlow: StableHLO modules that any XLA runtime runs."""

import json
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from tfnvp import atomic_file
from tfnvp.checks import check_choice, check_positive_int
from tfnvp.models import ImageRealNVP, VectorRealNVP
from tfnvp.types import TensorLike

# This many losses of training steps are recorded, to be checked elsewhere.
_RECORDED_STEPS = 10

Model = ImageRealNVP | VectorRealNVP
Function = Callable[[tf.Tensor], tf.Tensor]
ConcreteFunction = tf.types.experimental.ConcreteFunction


def export_stablehlo(
    model: Model, path: str | os.PathLike, what: str = "log_prob", batch_size: int = 64
) -> Path:
    """Writes one function of a model as a StableHLO module, with its weights beside it.

    The directory `path` then holds

    - `module.mlir`, StableHLO text: its arguments are the function's own and then the variables;
      its results are the function's own and then the variables that it changes;
    - `weights.npz`, the variables by name;
    - `signature.json`, name, shape and dtype of every argument and result, in order;
    - `recorded.npz`, arguments of a run and the results that TensorFlow had.

    `benchmarks/run_stablehlo.py` loads, checks, times and trains it with numpy and JAX alone. XLA
    knows no assertions: values out of range are not refused there.

    | what | argument | result |
    |---|---|---|
    | `log_prob` | images uint8 [B,H,W,C] or vectors [B,D] | log p(x) [B], nats |
    | `sample` | seed int32 [2] | images in [0, 1] or vectors, [B,...] |
    | `train_step` | images or vectors as above | loss; then weights and optimizer state |

    Args:
        model: an `ImageRealNVP` or `VectorRealNVP`; for `train_step` a compiled one.
        path: the directory; it appears whole, and must not exist before.
        what: "log_prob", "sample" or "train_step".
        batch_size: B, which is fixed in the module.

    Returns:
        The directory, a `pathlib.Path`.

    Raises:
        TypeError: if the model is neither.
        ValueError: for another `what`, a batch size that is not positive, or `train_step` of a
            model without an optimizer.
        FileExistsError: if the path exists.

    Example:
        >>> import tempfile
        >>> model = tfnvp.ImageRealNVP((4, 4, 1), num_scales=1, filters=4, residual_blocks=1)
        >>> path = tfnvp.export_stablehlo(model, tempfile.mkdtemp() + "/scorer", batch_size=2)
        >>> sorted(file.name for file in path.iterdir())
        ['module.mlir', 'recorded.npz', 'signature.json', 'weights.npz']
    """
    if not isinstance(model, (ImageRealNVP, VectorRealNVP)):
        raise TypeError(
            f"model must be a tfnvp.VectorRealNVP or tfnvp.ImageRealNVP, got {type(model).__name__}"
        )
    check_choice("what", what, sorted(_KINDS))
    check_positive_int("batch_size", batch_size)
    if what == "train_step" and getattr(model, "optimizer", None) is None:
        raise ValueError("model must be compiled with an optimizer for what='train_step'")
    path = Path(path)
    if path.exists():
        raise FileExistsError(f"path {path} exists: remove it or choose another")

    make, argument_name, result_name = _KINDS[what]
    function, argument = make(model, batch_size)
    compiled = tf.function(function, jit_compile=True, autograph=False)
    spec = tf.TensorSpec(argument.shape, argument.dtype)
    module = compiled.experimental_get_compiler_ir(spec)(stage="stablehlo")
    # TensorFlow leaves copies in it that are not StableHLO, and that XLA refuses for GPUs; a
    # reshape to the same shape does the same.
    module = re.sub(r"mhlo\.copy (%\S+) : (\S+)", r"stablehlo.reshape \1 : (\2) -> \2", module)
    graph = compiled.get_concrete_function(argument)
    captured = _captured(graph, model)
    changed = _assigned(graph, captured)
    before = {name: value.numpy() for name, value in captured.items()}
    # The run is recorded without XLA, to check XLA against it, unless it draws noise, of which XLA
    # has its own.
    draws = what == "sample" or (what == "train_step" and isinstance(model, ImageRealNVP))
    run = compiled if draws else tf.function(function, autograph=False)
    try:
        if what == "train_step":
            recorded = np.array([run(argument).numpy() for _ in range(_RECORDED_STEPS)])
            result = recorded[0]
        else:
            recorded = result = run(argument).numpy()
    finally:
        # A recording leaves the model as it was, also when it fails.
        for name in changed:
            captured[name].assign(before[name])
    signature = {
        "what": what,
        "arguments": _described({argument_name: argument, **before}),
        "results": _described({result_name: result, **{name: before[name] for name in changed}}),
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_file.writing(path) as written:
        written.mkdir()
        (written / "module.mlir").write_text(module)
        (written / "signature.json").write_text(json.dumps(signature, indent=1) + "\n")
        np.savez(written / "weights.npz", **before)
        np.savez(written / "recorded.npz", argument=argument.numpy(), result=recorded)
    return path


def _log_prob(model: Model, batch_size: int) -> tuple[Function, tf.Tensor]:
    return lambda x: model(x, training=False), _data(model, batch_size)


def _sample(model: Model, batch_size: int) -> tuple[Function, tf.Tensor]:
    distribution = model.distribution
    shape = [batch_size, *distribution.event_shape]

    def sample(seed: tf.Tensor) -> tf.Tensor:
        z = tf.random.stateless_normal(shape, seed, dtype=distribution.dtype, alg="philox")
        x = distribution.bijector.forward(z)
        return tf.clip_by_value(x, 0, 1) if isinstance(model, ImageRealNVP) else x

    return sample, tf.constant([0, 0])


def _train_step(model: Model, batch_size: int) -> tuple[Function, tf.Tensor]:
    if not model.optimizer.built:
        model.optimizer.build(model.trainable_variables)

    def step(x: tf.Tensor) -> tf.Tensor:
        bits, penalty = model.optimize(x)
        return tf.reduce_mean(bits) + penalty

    return step, _data(model, batch_size)


# Each entry has the function that makes one with its argument, and the names of that argument and
# of the result.
_KINDS = {
    "log_prob": (_log_prob, "data", "log_prob"),
    "sample": (_sample, "seed", "samples"),
    "train_step": (_train_step, "data", "loss"),
}


def _data(model: Model, batch_size: int) -> tf.Tensor:
    """Makes rows to record a run with: images or vectors of noise."""
    random, shape = np.random.default_rng(0), [batch_size, *model.distribution.event_shape]
    if isinstance(model, ImageRealNVP):
        return tf.constant(random.integers(0, model.levels, shape, dtype=np.uint8))
    return tf.constant(random.normal(size=shape), model.distribution.dtype)


def _captured(graph: ConcreteFunction, model: Model) -> dict[str, tf.Variable | tf.Tensor]:
    """The variables and tensors that a function uses, by name, in the order of its arguments."""
    optimizer = getattr(model, "optimizer", None)
    known = [*model.variables, *(optimizer.variables if optimizer else [])]
    by_handle = {id(variable.value.handle): variable for variable in known}
    captured = {}
    for tensor in graph.captured_inputs:
        variable = by_handle.get(id(tensor))
        name, value = ("constant", tensor) if variable is None else (variable.path, variable.value)
        captured[name if name not in captured else f"{name}_{len(captured)}"] = value
    return captured


def _assigned(graph: ConcreteFunction, captured: dict[str, tf.Variable | tf.Tensor]) -> list[str]:
    """The names of the variables that a function changes."""
    inputs = [tensor.name for tensor in graph.graph.inputs[-len(captured) :]]
    names = dict(zip(inputs, captured, strict=True))
    changed = set()
    for operation in graph.graph.get_operations():
        if operation.type in ("AssignVariableOp", "AssignAddVariableOp", "AssignSubVariableOp"):
            changed.add(names[operation.inputs[0].name])
        elif operation.type == "ResourceApplyAdam":
            changed |= {names[tensor.name] for tensor in operation.inputs[:3]}
    return [name for name in captured if name in changed]


def _described(values: dict[str, TensorLike]) -> list[dict[str, Any]]:
    arrays = {name: np.asarray(value) for name, value in values.items()}
    return [
        {"name": name, "shape": list(value.shape), "dtype": value.dtype.name}
        for name, value in arrays.items()
    ]
