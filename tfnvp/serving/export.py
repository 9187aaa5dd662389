"""SavedModels for TF Serving."""

import json
import os
import shutil
import tempfile
import warnings
from pathlib import Path

import tensorflow as tf

from tfnvp.checks import check_choice
from tfnvp.serving.saved_model_graph import shorten_names, show_shapes
from tfnvp.serving.signatures import signatures_of

_WARM_UP = Path("assets.extra", "tf_serving_warmup_requests")


def export_saved_model(
    model, directory, signatures=None, image_size=None, bfloat16_weights=False, card=None
):
    """Writes a model as a new version of a SavedModel that TF Serving can load and batch.

    Every input and output has rows first, as many in all; nothing of tfnvp, Keras or TFP is needed
    to load it.

    | signature | in | out |
    |---|---|---|
    | `serving_default`, `log_prob` | `images` uint8 [B,H,W,C] | `log_prob`, `bits_per_dim` [B] |
    | `score_encoded` (C is 1, 3 or 4) | `image_bytes` string [B], PNG or JPEG | the same |
    | `encode` | `images` uint8 [B,H,W,C] | `latents` float32 [B,H,W,C] |
    | `decode` | `latents` float32 [B,H,W,C] | `images` uint8 [B,H,W,C] |
    | `sample` | `seed` int64 [B], `temperature` float32 [B] | `images` uint8 [B,H,W,C] |

    uint8 images carry 0..levels-1; PNG and JPEG files carry 0..255. A vector model has the same
    signatures but `score_encoded`, with `vectors` float32 [B,D] for `images` and `latents` [B,D]. A
    sample depends on its own seed alone, a score on its own image or vector. What a signature
    cannot take is an InvalidArgument that names the input.

    Each signature of a conditional model takes `label` too: int64 [B], of which -1 asks for p(x)
    and needs label_dropout in training, or float [B,context_size].

    Beside the model are `assets/model_card.json`, what is known of it, and, where the extra
    `serving` is installed, `assets.extra/tf_serving_warmup_requests`, a request a signature, with
    which TF Serving gets ready before it answers.

    Args:
        model: an `ImageRealNVP` or a `VectorRealNVP`.
        directory: of the served model; the versions 1, 2, ... are directories in it. The new one
            follows the largest, and appears whole: it is written beside and renamed.
        signatures: the names of those to write; None for all. `serving_default` comes with
            `log_prob`.
        image_size: (height, width) of the images, or "any" for all that the model's scales divide,
            where samples have the model's own; None for the model's own.
        bfloat16_weights: whether kernels are stored in bfloat16, for half the size; arithmetic is
            what it was.
        card: a dictionary of what is known of the model, such as `tfnvp.presets.card(name)`.

    Returns:
        The new version's directory, a `pathlib.Path`.

    Raises:
        TypeError: if the model is neither.
        ValueError: for an unknown signature, or a size that does not fit the model.
        OSError: if the directory cannot be written; nothing half-written stays.

    Example:
        >>> import tempfile, tfnvp
        >>> model = tfnvp.VectorRealNVP(2, num_couplings=2, hidden_units=(4,))
        >>> tfnvp.export_saved_model(model, tempfile.mkdtemp(), signatures=["log_prob"]).name
        '1'
    """
    served = signatures_of(model, image_size, bfloat16_weights)
    names = list(served.inputs) if signatures is None else list(signatures)
    for name in names:
        check_choice("signature", name, list(served.inputs))
    if not names:
        raise ValueError(f"signatures must name one of {', '.join(served.inputs)}, got none")
    directory = Path(directory)
    directory.mkdir(parents=True, exist_ok=True)
    # Beside rather than in place, so that a server watching the directory sees no half model.
    written = Path(tempfile.mkdtemp(prefix=".writing-", dir=directory))
    try:
        _save(served, names, written)
        shorten_names(written)
        shown = {name: served.inputs[name] for name in names}
        if "log_prob" in shown:
            shown["serving_default"] = shown["log_prob"]
        show_shapes(written, shown)
        version = 1 + max((int(p.name) for p in directory.iterdir() if p.name.isdigit()), default=0)
        _write_card(model, served, names, bfloat16_weights, version, card, written)
        _write_warm_up(served, names, directory.name, written)
        written.chmod(0o755)
        target = directory / str(version)
        os.rename(written, target)
    except BaseException:
        shutil.rmtree(written, ignore_errors=True)
        raise
    return target


def _save(served, names, directory):
    # The variables are all that is kept of the model: the functions see no Keras object.
    module = tf.Module()
    module.weights = served.weights
    functions = {name: served.concrete(name) for name in names}
    if "log_prob" in functions:
        functions = {"serving_default": functions["log_prob"], **functions}
    tf.saved_model.save(module, str(directory), signatures=functions)


def _write_card(model, served, names, bfloat16_weights, version, card, directory):
    image = served.data == "images"
    values = f"uint8, 0..{model.levels - 1}; PNG and JPEG files 0..255" if image else "float32"
    content = {
        **(card or {}),
        "served": {
            "version": version,
            "tensorflow": tf.__version__,
            "signatures": {
                name: {
                    key: f"{spec.dtype.name} {['rows', *spec.shape[1:].as_list()]}"
                    for key, spec in served.inputs[name].items()
                }
                for name in names
            },
            "weights": "kernels in bfloat16" if bfloat16_weights else model.variable_dtype,
            served.data: values,
            "log_prob": "nats",
            "bits_per_dim": "-log_prob / (D log 2)" + (" + log2(levels)" if image else ""),
            "latents": "standard normal where the model fits",
        },
    }
    assets = directory / "assets"
    assets.mkdir(exist_ok=True)
    (assets / "model_card.json").write_text(json.dumps(content, indent=2) + "\n")


def _write_warm_up(served, names, model_name, directory):
    try:
        from tensorflow_serving.apis import predict_pb2, prediction_log_pb2
    except ImportError:
        warnings.warn(
            "no warm-up requests are written, for which the extra `serving` is needed: "
            "pip install 'tfnvp[serving]'",
            stacklevel=3,
        )
        return
    path = directory / _WARM_UP
    path.parent.mkdir()
    with tf.io.TFRecordWriter(str(path)) as writer:
        for name in names:
            request = predict_pb2.PredictRequest()
            request.model_spec.name = model_name
            request.model_spec.signature_name = name
            for key, value in served.example(name).items():
                request.inputs[key].CopyFrom(tf.make_tensor_proto(value))
            log = prediction_log_pb2.PredictionLog()
            log.predict_log.request.CopyFrom(request)
            writer.write(log.SerializeToString(deterministic=True))
