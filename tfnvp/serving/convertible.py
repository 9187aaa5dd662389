"""Functions as converters to other runtimes want them: one graph of ordinary operations."""

from collections.abc import Sequence
from typing import Any

import tensorflow as tf

from tfnvp.graph import internals


def convertible(function: Any) -> Any:
    """Makes the same concrete function without variables, inner functions and assertions.

    All that depends on no input is computed beforehand: kernels of normalised weights, inverses of
    matrices, fixed noise. What is left is arithmetic, which other runtimes have.

    Args:
        function: a concrete function of tensors by name, of known shapes, to tensors by name,
            whose only effects are assertions.
    """
    frozen = internals.frozen(function)
    definition = _pure(frozen.graph.as_graph_def())
    with tf.Graph().as_default() as graph:
        tf.graph_util.import_graph_def(definition, name="")
    outputs = [graph.get_tensor_by_name(output.name) for output in frozen.outputs]
    needed, fixed = _folded(graph, outputs)

    def signature(**inputs: tf.Tensor) -> dict[str, tf.Tensor]:
        attributes = [a for operation in needed for a in operation.node_def.attr.values()]
        if any(attribute.HasField("func") for attribute in attributes):
            # It brings the bodies of loops and branches along.
            tf.graph_util.import_graph_def(type(definition)(library=definition.library))
        known = {f"{name}:0": x for name, x in inputs.items()}
        known |= {name: tf.constant(value) for name, value in fixed.items()}
        for operation in needed:
            made = _made_again(operation, [known[x.name] for x in operation.inputs])
            known |= {x.name: y for x, y in zip(operation.outputs, made, strict=True)}
        names = sorted(function.structured_outputs)
        return {name: known[x.name] for name, x in zip(names, outputs, strict=True)}

    specs = function.structured_input_signature[1]
    return tf.function(signature, autograph=False).get_concrete_function(**specs)


def _pure(definition: tf.compat.v1.GraphDef) -> tf.compat.v1.GraphDef:
    """Leaves values alone in a graph: nothing runs before another but for what it reads of it."""
    for node in definition.node:
        # Such inputs have assertions run first, and nothing else where there are no variables.
        node.input[:] = [name for name in node.input if not name.startswith("^")]
    return definition


def _folded(
    graph: tf.Graph, outputs: Sequence[tf.Tensor]
) -> tuple[list[tf.Operation], dict[str, Any]]:
    """The operations that outputs need of those that depend on inputs, and the values they read."""
    varying, operations = set(), graph.get_operations()  # Each comes after those that it reads.
    for operation in operations:
        given = operation.type == "Placeholder" or operation.op_def.is_stateful
        if given or any(x.op in varying for x in operation.inputs):
            varying.add(operation)
    needed, left = set(), [x.op for x in outputs]
    while left:
        operation = left.pop()
        if operation in varying and operation not in needed:
            needed.add(operation)
            left += [x.op for x in operation.inputs]
    read = [*outputs, *(x for operation in needed for x in operation.inputs)]
    with tf.compat.v1.Session(graph=graph) as session:
        values = session.run({x.name: x for x in read if x.op not in varying})
    return [x for x in operations if x in needed and x.type != "Placeholder"], values


def _made_again(operation: tf.Operation, inputs: list[tf.Tensor]) -> list[tf.Tensor]:
    """Makes an operation in the graph that is being made, of those that runtimes have right."""
    if operation.type == "PlaceholderWithDefault":
        return inputs
    # LiteRT chooses between numbers of 32 bits alone.
    if operation.type == "SelectV2" and inputs[1].dtype == tf.uint8:
        wide = (tf.cast(x, tf.int32) for x in inputs[1:])
        return [tf.cast(tf.where(inputs[0], *wide), tf.uint8)]
    # ONNX has neither of these two. Written out they lose digits where x is small beside 1, and the
    # flow adds 1 or more to them.
    if operation.type == "Log1p":
        return [tf.math.log(inputs[0] + 1)]
    if operation.type == "Expm1":
        return [tf.exp(inputs[0]) - 1]
    # No other runtime has a binary search. The place of a value is how many bounds it reaches.
    if operation.type == "UpperBound":
        bounds, values = inputs
        reached = values[..., tf.newaxis] >= bounds[:, tf.newaxis]
        return [tf.reduce_sum(tf.cast(reached, tf.int32), axis=-1, keepdims=True)[..., 0]]
    # Names that begin so are TensorFlow's own, as those of gradients are.
    attributes = {k: v for k, v in operation.node_def.attr.items() if not k.startswith("_")}
    dropped = "keep_dims" in attributes and not attributes["keep_dims"].b
    if dropped:
        # OpenVINO on CPUs fuses a reduction with what is added next, to the wrong rows where the
        # axis is gone: https://github.com/openvinotoolkit/openvino/issues/23616
        attributes["keep_dims"] = tf.compat.v1.AttrValue(b=True)
    dtypes = [x.dtype for x in operation.outputs]
    graph = tf.compat.v1.get_default_graph()
    made = graph.create_op(operation.type, inputs, dtypes, attrs=attributes).outputs
    return [tf.reshape(made[0], operation.outputs[0].shape)] if dropped else made
