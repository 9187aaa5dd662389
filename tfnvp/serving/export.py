"""The export of models as SavedModels for TF Serving."""

import contextlib
import json
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import tensorflow as tf

from tfnvp import atomic_file
from tfnvp.checks import check_choice, check_positive_int
from tfnvp.models import FlowModel, ImageRealNVP, VectorRealNVP
from tfnvp.serving.image_signatures import ImageSignatures, ImageSize
from tfnvp.serving.saved_model_graph import finish
from tfnvp.serving.signatures import NormalSignatures, Options, Signatures
from tfnvp.serving.warm_up import write_warm_up

_CONVERTIBLE = ("log_prob", "encode", "decode")  # Others need texts, files or random numbers.
_MOST_PIXELS = 4_000_000  # An image of any size has no more, unless the caller says otherwise.


def export_saved_model(
    model: FlowModel,
    directory: str | os.PathLike,
    signatures: Sequence[str] | None = None,
    image_size: ImageSize = None,
    bfloat16_weights: bool = False,
    card: Mapping[str, Any] | None = None,
    max_pixels: int | None = None,
    strict: bool = False,
    static_batch: int | None = None,
) -> Path:
    """Writes a model as a new version of a SavedModel that TF Serving can load and batch.

    All inputs and outputs of a signature have rows first, as many each; nothing of tfnvp, Keras or
    TFP is needed to load the SavedModel.

    | signature | in | out |
    |---|---|---|
    | `serving_default`, `log_prob` | `images` uint8 [B,H,W,C] | `log_prob`, `bits_per_dim` [B] |
    | `score_encoded` (C is 1, 3 or 4) | `image_bytes` string [B], PNG or JPEG | the same |
    | `encode` | `images` uint8 [B,H,W,C] | `latents` float32 [B,H,W,C] |
    | `decode` | `latents` float32 [B,H,W,C] | `images` uint8 [B,H,W,C] |
    | `sample` | `seed` int64 [B], `temperature` float32 [B] | `images` uint8 [B,H,W,C] |

    uint8 images carry 0..levels-1; PNG and JPEG files carry 0..255. Any other model has the same
    signatures but `score_encoded`, with `vectors` float32 [B,D] for `images` and `latents` [B,D],
    or, where an event is no vector, `data` float32 [B, *event shape]. A sample depends on its own
    seed alone, a score on its own image or vector.

    Rows answer for themselves: a further output of each signature, `error` string [B], says what is
    wrong with a row that cannot be answered (values out of range, NaN, a file that cannot be
    decoded, a score that overflows), and is empty for others. The scores of such a row are NaN, its
    data or latents zeros. Only inputs of a wrong rank, dtype or shape are an InvalidArgument, which
    names the input.

    Each signature of a conditional model takes `label` too: int64 [B], in which -1 asks for p(x)
    and needs label_dropout in training, or float [B,context_size].

    Beside the model are its card, `assets/model_card.json`, and, where the extra `serving` is
    installed, `assets.extra/tf_serving_warmup_requests`: requests of 1, 8 and 64 rows a signature,
    with which TF Serving gets ready before it answers.

    Args:
        directory: the served model's; the versions 1, 2, ... are directories in it. The new one
            follows the largest, and appears whole, so that no server sees half of it.
        signatures: the names of the signatures to write; None for all. `serving_default` comes with
            `log_prob`.
        image_size: (height, width) of the images; None for the model's own. "any" takes all sizes
            that the model's scales divide, and draws samples of the model's own.
        bfloat16_weights: whether kernels are stored in bfloat16, for half the size; arithmetic
            stays the same.
        card: facts about the model, a dictionary such as `tfnvp.presets.card(name)`.
        max_pixels: the pixels (height times width) of the largest image that is answered for where
            `image_size` is "any"; None for 4 megapixels.
        strict: whether a row that cannot be answered is an InvalidArgument too, which fails all
            rows that a server puts together with it; there is no `error` then.
        static_batch: the number of rows of all inputs, for the converters of other runtimes:
            `log_prob`, `encode` and `decode` as graphs of ordinary operations, with the weights in
            them, all shapes known, in full precision, and no `error`, for which rows of faults are
            NaN, images zeros. None for any number, as TF Serving wants it.

    Returns:
        The new version's directory.

    Raises:
        TypeError: if the model is no `FlowModel`.
        ValueError: for an unknown signature, a size that does not fit the model, options that
            exclude each other, or a card that is not JSON.
        OSError: if the directory cannot be written; nothing half-written stays.

    Example:
        >>> import tempfile
        >>> model = tfnvp.VectorRealNVP(2, num_couplings=2, hidden_units=(4,))
        >>> tfnvp.export_saved_model(model, tempfile.mkdtemp(), signatures=["log_prob"]).name
        '1'
    """
    check_positive_int("static_batch", static_batch, optional=True)
    if static_batch and (strict or bfloat16_weights or image_size == "any"):
        raise ValueError(
            "static_batch is of one size, without assertions and in full precision, got "
            f"static_batch={static_batch}, strict={strict}, bfloat16_weights={bfloat16_weights}, "
            f"image_size={image_size!r}"
        )
    options = Options(bfloat16_weights, strict, static_batch)
    served = _signatures_of(model, options, image_size, max_pixels)
    known = [name for name in served.inputs if not static_batch or name in _CONVERTIBLE]
    if isinstance(signatures, str):
        raise ValueError(f"signatures must be a list of names, got signatures={signatures!r}")
    names = known if signatures is None else list(dict.fromkeys(signatures))
    for name in names:
        check_choice("signature", name, known)
    if not names:
        raise ValueError(f"signatures must name one of {', '.join(known)}, got none")
    card = _as_json(card)
    directory = Path(directory)
    directory.mkdir(parents=True, exist_ok=True)
    version = _next_version(directory)
    target = directory / str(version)
    with _plain_io_errors(directory), atomic_file.writing(target) as written:
        written.mkdir()
        # We keep only the model's variables, since the functions use no Keras object.
        module = tf.Module()
        if not static_batch:
            module.weights, module.latent_mean = served.weights, served.latent_mean
        functions = {name: served.concrete(name) for name in names}
        inputs = {name: served.inputs[name] for name in names}
        if "log_prob" in names:
            functions = {"serving_default": functions["log_prob"], **functions}
            inputs["serving_default"] = inputs["log_prob"]
        tf.saved_model.save(module, str(written), signatures=functions)
        finish(written, {} if static_batch else inputs)
        content = {
            **card,
            "served": {
                "version": version,
                "tensorflow": tf.__version__,
                "signatures": {
                    name: _described(served.inputs[name], static_batch or "rows") for name in names
                },
                "weights": "kernels in bfloat16" if bfloat16_weights else model.variable_dtype,
                "log_prob": "nats",
                **served.units,
                "latents": "standard normal where the model fits",
                "error": _error(strict, static_batch),
            },
        }
        assets = written / "assets"
        assets.mkdir(exist_ok=True)
        (assets / "model_card.json").write_text(json.dumps(content, indent=2) + "\n")
        if not static_batch:
            write_warm_up(served, names, directory.name, written)
    return target


def _signatures_of(
    model: FlowModel,
    options: Options,
    image_size: ImageSize,
    max_pixels: int | None,
) -> Signatures:
    check_positive_int("max_pixels", max_pixels, optional=True)
    if max_pixels is not None and image_size != "any":
        raise ValueError(
            f"max_pixels is of image_size='any', got {max_pixels} and image_size={image_size!r}"
        )
    if not isinstance(model, FlowModel):
        raise TypeError(
            "model must be a tfnvp.FlowModel, as ImageRealNVP and VectorRealNVP are, got "
            f"{type(model).__name__}"
        )
    if isinstance(model, ImageRealNVP):
        limit = max_pixels or _MOST_PIXELS
        return ImageSignatures(model, options, image_size, limit)
    if image_size is not None:
        raise ValueError(f"image_size is of an ImageRealNVP, got image_size={image_size!r}")
    kind = NormalSignatures if isinstance(model, VectorRealNVP) else Signatures
    return kind(model, options)


def _as_json(card: Mapping[str, Any] | None) -> dict[str, Any]:
    """The facts as JSON will have them, or a ValueError before anything is traced."""
    try:
        return json.loads(json.dumps(dict(card or {})))
    except (TypeError, ValueError) as error:
        raise ValueError(f"card must be a dictionary that JSON can hold: {error}") from error


@contextlib.contextmanager
def _plain_io_errors(directory: Path) -> Iterator[None]:
    """Turns TensorFlow's errors for a disk that it cannot write to into an OSError."""
    try:
        yield
    except tf.errors.OpError as error:
        raise OSError(f"cannot write to {directory}: {error.message}") from error


def _next_version(directory: Path) -> int:
    """Gives the number after the largest version, including versions that are being written."""
    names = [path.name for path in (*directory.iterdir(), *directory.glob(".writing-*/*"))]
    # TF Serving takes these names for versions: Python accepts many more digits.
    versions = [int(name) for name in names if re.fullmatch("[0-9]{1,18}", name)]
    return 1 + max(versions, default=0)


def _described(inputs: Mapping[str, tf.TensorSpec], rows: int | str) -> dict[str, str]:
    sizes = {name: [rows, *spec.shape[1:].as_list()] for name, spec in inputs.items()}
    return {name: f"{spec.dtype.name} {sizes[name]}" for name, spec in inputs.items()}


def _error(strict: bool, static_batch: int | None) -> str:
    if static_batch:
        return "none: rows of faults are NaN, images zeros"
    return "none: a fault fails the request" if strict else "what is wrong with a row"
