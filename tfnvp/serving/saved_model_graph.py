"""Changes to a SavedModel's file before it is served: shapes of inputs, and short names."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import tensorflow as tf

from tfnvp.graph.internals import SavedModelProto


def read_saved_model(directory: Path) -> SavedModelProto:
    """Gives what the file of a SavedModel says, as a proto."""
    return SavedModelProto.FromString((directory / "saved_model.pb").read_bytes())


def versions_in(directory: Path) -> list[int]:
    """Lists the versions of a model, which are directories named by numbers, the newest last."""
    names = (path.parent.name for path in directory.glob("*/saved_model.pb"))
    return sorted(int(name) for name in names if name.isdecimal())


def finish(directory: Path, inputs: Mapping[str, Mapping[str, tf.TensorSpec]]) -> None:
    """Shortens names in a SavedModel, and writes into signatures the shapes that inputs take.

    Keras and TFP name an operation after every layer and bijector around it, and each operation
    names those that it reads from. The shapes are for readers: the graph itself knows none. They
    are those of the inputs of each signature, by name.
    """
    saved = read_saved_model(directory)
    for graph in saved.meta_graphs:
        names = {f.signature.name: _shorten(f) for f in graph.graph_def.library.function}
        # A function within a function may use a tensor of the outer one, which Python's loader
        # looks for by name.
        for node in graph.object_graph_def.nodes:
            if node.HasField("captured_tensor"):
                captured = node.captured_tensor
                captured.name = _renamed(captured.name, names[captured.concrete_function])
        for name, specs in inputs.items():
            for key, spec in specs.items():
                told = graph.signature_def[name].inputs[key].tensor_shape
                told.CopyFrom(spec.shape.as_proto())
    content = saved.SerializeToString(deterministic=True)
    (directory / "saved_model.pb").write_bytes(content)
    # The checksum no longer fits the file, and loaders do without it.
    (directory / "fingerprint.pb").unlink(missing_ok=True)


def _shorten(function: Any) -> dict[str, str]:
    """Shortens the names in a function; returns the new names by the old ones."""
    names = {}
    for i, argument in enumerate(function.signature.input_arg):
        # Callers pass arguments that are no resources by name.
        captured = argument.type == tf.resource.as_datatype_enum
        names[argument.name] = f"v{i}" if captured else argument.name
        argument.name = names[argument.name]
    for i, node in enumerate(function.node_def):
        names[node.name] = f"n{i}"
    assert len(set(names.values())) == len(names), f"{function.signature.name}: names clash"
    for node in function.node_def:
        node.name = names[node.name]
        node.input[:] = [_renamed(name, names) for name in node.input]
        node.ClearField("experimental_debug_info")
        for place in node.attr["_class"].list.s if "_class" in node.attr else ():
            assert not place.startswith(b"loc:@"), f"{node.name} is placed by {place}"
    for returned in (function.ret, function.control_ret):
        for key, name in list(returned.items()):
            returned[key] = _renamed(name, names)
    return names


def _renamed(reference: str, names: Mapping[str, str]) -> str:
    """Puts the new name into `^name`, `name` or `name:output:index`."""
    control = "^" if reference.startswith("^") else ""
    name, colon, output = reference.removeprefix("^").partition(":")
    return f"{control}{names[name]}{colon}{output}"
