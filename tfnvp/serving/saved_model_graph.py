"""SavedModels as they are served: with the shapes of inputs, without long names."""

from pathlib import Path

from tensorflow.core.framework import types_pb2
from tensorflow.core.protobuf import saved_model_pb2

# Of these, the name is in the error that a file meets which they cannot decode.
_TELLING = ("DecodeImage", "ExtractJpegShape")


def shorten_names(directory):
    """Gives the operations inside a SavedModel's functions short names; nothing else changes.

    Keras and TFP name an operation after every layer and bijector around it, and each operation
    names those that it reads from.

    Args:
        directory: of the SavedModel.
    """
    path = Path(directory) / "saved_model.pb"
    saved = saved_model_pb2.SavedModel.FromString(path.read_bytes())
    for graph in saved.meta_graphs:
        names = {f.signature.name: _shorten(f) for f in graph.graph_def.library.function}
        # Functions within functions may use what the outer one computed: Python's loader looks for
        # it by name.
        for node in graph.object_graph_def.nodes:
            if node.HasField("captured_tensor"):
                captured = node.captured_tensor
                captured.name = _renamed(captured.name, names[captured.concrete_function])
    path.write_bytes(saved.SerializeToString(deterministic=True))
    # Its checksum is of the file that was; loaders do without.
    (path.parent / "fingerprint.pb").unlink(missing_ok=True)


def show_shapes(directory, inputs):
    """Makes signatures tell the shapes that their inputs take; the graph itself knows none.

    Args:
        directory: of the SavedModel.
        inputs: by signature, the `tf.TensorSpec`s of its inputs by name.
    """
    path = Path(directory) / "saved_model.pb"
    saved = saved_model_pb2.SavedModel.FromString(path.read_bytes())
    for graph in saved.meta_graphs:
        for name, specs in inputs.items():
            for key, spec in specs.items():
                told = graph.signature_def[name].inputs[key].tensor_shape
                told.CopyFrom(spec.shape.as_proto())
    path.write_bytes(saved.SerializeToString(deterministic=True))


def _shorten(function):
    """Shortens the names in a function; returns the new ones by the old."""
    names = {}
    for i, argument in enumerate(function.signature.input_arg):
        # Those that are no resources are asked for by name.
        captured = argument.type == types_pb2.DT_RESOURCE
        names[argument.name] = f"v{i}" if captured else argument.name
        argument.name = names[argument.name]
    for i, node in enumerate(function.node_def):
        end = "/".join(node.name.split("/")[-2:])
        names[node.name] = f"n{i}/{end}" if node.op in _TELLING else f"n{i}"
    assert len(set(names.values())) == len(names), f"{function.signature.name}: names clash"
    for node in function.node_def:
        node.name = names[node.name]
        node.input[:] = [_renamed(name, names) for name in node.input]
        node.ClearField("experimental_debug_info")
        for place in node.attr["_class"].list.s if "_class" in node.attr else ():
            assert not place.startswith(b"loc:@"), f"{node.name} is placed by {place}"
    for key, name in list(function.ret.items()):
        function.ret[key] = _renamed(name, names)
    for key, name in list(function.control_ret.items()):
        function.control_ret[key] = _renamed(name, names)
    return names


def _renamed(reference, names):
    """`^name`, `name` or `name:output:index`, of the new name."""
    control = "^" if reference.startswith("^") else ""
    name, colon, output = reference.removeprefix("^").partition(":")
    return f"{control}{names[name]}{colon}{output}"
