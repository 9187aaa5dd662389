"""Models outside TensorFlow: StableHLO modules that any XLA runtime runs."""

import json
import os
import shutil
import tempfile
from pathlib import Path

import numpy as np
import tensorflow as tf

from tfnvp.checks import check_choice, check_positive_int
from tfnvp.models import ImageRealNVP, VectorRealNVP

# Training steps whose losses are recorded.
_RECORDED_STEPS = 10


def export_stablehlo(model, path, what="log_prob", batch_size=64):
    """Writes one function of a model as a StableHLO module, with its weights beside it.

    The directory `path` then holds

    - `module.mlir`, StableHLO text: its arguments are the function's own and then the variables;
      its results are the function's own and then those variables that it changes;
    - `weights.npz`, the variables by name;
    - `signature.json`, name, shape and dtype of every argument and result, in order;
    - `recorded.npz`, arguments of a run and what TensorFlow made of them.

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
        batch_size: B, which a module fixes.

    Returns:
        The directory, a `pathlib.Path`.

    Raises:
        TypeError: if the model is neither.
        ValueError: for another `what`, a batch size that is not positive, or `train_step` of a
            model without an optimizer.
        FileExistsError: if the path exists.

    Example:
        >>> import tempfile, tfnvp
        >>> model = tfnvp.ImageRealNVP((4, 4, 1), num_scales=1, filters=4, residual_blocks=1)
        >>> path = tfnvp.export_stablehlo(model, tempfile.mkdtemp() + "/scorer", batch_size=2)
        >>> sorted(file.name for file in path.iterdir())
        ['module.mlir', 'recorded.npz', 'signature.json', 'weights.npz']
    """
    if not isinstance(model, (ImageRealNVP, VectorRealNVP)):
        raise TypeError(
            f"model must be a tfnvp.VectorRealNVP or tfnvp.ImageRealNVP, got {type(model).__name__}"
        )
    check_choice("what", what, sorted(_FUNCTIONS))
    check_positive_int("batch_size", batch_size)
    if what == "train_step" and getattr(model, "optimizer", None) is None:
        raise ValueError("model must be compiled with an optimizer for what='train_step'")
    path = Path(path)
    if path.exists():
        raise FileExistsError(f"path {path} exists: remove it or choose another")

    function, argument = _FUNCTIONS[what](model, batch_size)
    compiled = tf.function(function, jit_compile=True, autograph=False)
    spec = tf.TensorSpec(argument.shape, argument.dtype)
    module = compiled.experimental_get_compiler_ir(spec)(stage="stablehlo")
    graph = compiled.get_concrete_function(argument)
    captured = _captured(graph, model)
    changed = _assigned(graph, captured)
    before = {name: value.numpy() for name, value in captured.items()}
    # Without XLA, to check XLA against; where noise is drawn XLA alone draws the same.
    draws = what == "sample" or (what == "train_step" and isinstance(model, ImageRealNVP))
    run = compiled if draws else tf.function(function, autograph=False)
    try:
        if what == "train_step":
            recorded = np.array([run(argument).numpy() for _ in range(_RECORDED_STEPS)])
            result = recorded[0]
        else:
            recorded = result = run(argument).numpy()
    finally:
        # The model is left as it was, whatever happens.
        for name in changed:
            captured[name].assign(before[name])
    signature = {
        "what": what,
        "arguments": [
            _described(_ARGUMENTS[what], argument),
            *(_described(name, value) for name, value in before.items()),
        ],
        "results": [
            _described(_RESULTS[what], result),
            *(_described(name, before[name]) for name in changed),
        ],
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    written = Path(tempfile.mkdtemp(prefix=".writing-", dir=path.parent))
    try:
        (written / "module.mlir").write_text(module)
        (written / "signature.json").write_text(json.dumps(signature, indent=1) + "\n")
        np.savez(written / "weights.npz", **before)
        np.savez(written / "recorded.npz", argument=argument.numpy(), result=recorded)
        written.chmod(0o755)
        os.rename(written, path)
    except BaseException:
        shutil.rmtree(written, ignore_errors=True)
        raise
    return path


def _log_prob(model, batch_size):
    return lambda x: model(x, training=False), _data(model, batch_size)


def _sample(model, batch_size):
    distribution = model.distribution
    shape = [batch_size, *distribution.event_shape]

    def sample(seed):
        z = tf.random.stateless_normal(shape, seed, dtype=distribution.dtype, alg="philox")
        x = distribution.bijector.forward(z)
        return tf.clip_by_value(x, 0, 1) if isinstance(model, ImageRealNVP) else x

    return sample, tf.constant([0, 0])


def _train_step(model, batch_size):
    if not model.optimizer.built:
        model.optimizer.build(model.trainable_variables)

    def step(x):
        bits, penalty = model.optimize(x)
        return tf.reduce_mean(bits) + penalty

    return step, _data(model, batch_size)


_FUNCTIONS = {"log_prob": _log_prob, "sample": _sample, "train_step": _train_step}
_ARGUMENTS = {"log_prob": "data", "sample": "seed", "train_step": "data"}
_RESULTS = {"log_prob": "log_prob", "sample": "samples", "train_step": "loss"}


def _data(model, batch_size):
    """Rows to record a run with: images or vectors of noise."""
    random, shape = np.random.default_rng(0), [batch_size, *model.distribution.event_shape]
    if isinstance(model, ImageRealNVP):
        return tf.constant(random.integers(0, model.levels, shape, dtype=np.uint8))
    return tf.constant(random.normal(size=shape), model.distribution.dtype)


def _captured(graph, model):
    """What a concrete function uses, by name, in the order of its arguments: variables, tensors."""
    optimizer = getattr(model, "optimizer", None)
    known = [*model.variables, *(optimizer.variables if optimizer else [])]
    by_handle = {id(variable.value.handle): variable for variable in known}
    captured = {}
    for tensor in graph.captured_inputs:
        variable = by_handle.get(id(tensor))
        name, value = (
            (variable.path, variable.value) if variable is not None else ("constant", tensor)
        )
        captured[name if name not in captured else f"{name}_{len(captured)}"] = value
    return captured


def _assigned(graph, captured):
    """The names of the variables that it changes."""
    inputs = [tensor.name for tensor in graph.graph.inputs[-len(captured) :]]
    names = dict(zip(inputs, captured, strict=True))
    changed = set()
    for operation in graph.graph.get_operations():
        if operation.type in ("AssignVariableOp", "AssignAddVariableOp", "AssignSubVariableOp"):
            changed.add(names[operation.inputs[0].name])
        elif operation.type == "ResourceApplyAdam":
            changed |= {names[tensor.name] for tensor in operation.inputs[:3]}
        elif operation.type == "StatefulPartitionedCall":
            # The optimizer's, of a whole layer; functions that only read are given values.
            given = [tensor for tensor in operation.inputs if tensor.dtype == tf.resource]
            changed |= {names[tensor.name] for tensor in given}
    return [name for name in captured if name in changed]


def _described(name, value):
    value = np.asarray(value)
    return {"name": name, "shape": list(value.shape), "dtype": value.dtype.name}
