"""The command `tfnvp`: what a trained model knows, in pictures and figures.

MODEL is a .keras file, the name of a model that ships (see `tfnvp presets`), or the directory of a
SavedModel's version, with which a command does what its signatures suffice for. All but
`extrapolate` take models of vectors too: vectors are read from and written to .npy and .npz files.
"""

import contextlib
import json
import math
import sys
import warnings
from pathlib import Path
from typing import Annotated

import keras
import numpy as np
import tensorflow as tf
import typer

import tfnvp
from tfnvp import data, files, latent, plotting
from tfnvp.models import ImageRealNVP, VectorRealNVP, presets
from tfnvp.serving.export import export_saved_model
from tfnvp.serving.saved_model import SavedModel

app = typer.Typer(
    add_completion=False, no_args_is_help=True, pretty_exceptions_enable=False, help=__doc__
)
Model = Annotated[str, typer.Argument(metavar="MODEL", help=".keras file, name or SavedModel")]
To = Annotated[Path, typer.Option(help="the .png, .npy or .npz file to write")]
Seed = Annotated[int, typer.Option(help="the same seed gives the same images")]
Temperature = Annotated[float, typer.Option(min=0, help="less is closer to the mean")]
Json = Annotated[bool, typer.Option("--json", help="print JSON")]
Dataset = Annotated[str | None, typer.Option(help=", ".join(data.names()))]
Split = Annotated[str, typer.Option(help="train, validation or test")]
Inputs = Annotated[
    list[Path] | None,
    typer.Argument(help="PNG or JPEG images, or .npy or .npz files of vectors [N, D]"),
]
Labels = Annotated[
    str | None,
    typer.Option(metavar="Y,Y,..", help="classes, taken in turn: 3 or 0,1,2 [default: p(x)]"),
]


@app.command(
    context_settings={"allow_extra_args": True, "ignore_unknown_options": True},
    add_help_option=False,
)
def train(context: typer.Context):
    """Trains a model, as `python -m train` does, where tfnvp is installed from a checkout.

    Example: tfnvp train digits --epochs 10 --run-dir runs/mine
    """
    with _one_line_errors():
        from tfnvp.training import command

        sys.argv = ["tfnvp train", *context.args]
        command.main("tfnvp train")


@app.command()
def evaluate(
    model: Model,
    inputs: Inputs = None,
    dataset: Dataset = None,
    split: Split = "test",
    labels: Labels = None,
    batch_size: Annotated[int, typer.Option(min=1)] = 100,
    samples: Annotated[int, typer.Option(min=1, help="of noise, for a tighter bound")] = 1,
    as_json: Json = False,
):
    """Prints the bits per dimension of a data set, with the standard error of the mean.

    Of images they are a bound, by uniform dequantization; with --samples K a second line has the
    tighter, importance-weighted bound of K samples of noise for each image. Of vectors nats come
    first. A model with classes is given the labels of the data set: the figures are of p(x | y).

    Example: tfnvp evaluate runs/mine/model.keras --dataset digits --samples 16
    """
    with _one_line_errors():
        flow = _load(model)
        vectors = _of_vectors(flow)
        if samples > 1:
            _need_keras(_need_images(flow, "evaluate --samples"), "evaluate --samples")
        if dataset and not inputs:
            if labels is not None:
                raise ValueError("--labels is for files: a data set has labels of its own")
            _check_set(flow, dataset)
            classes = _has_classes(flow)
            batches = data.load(dataset, split, batch_size, shuffle=False, labels=classes)
            name = f"{dataset} {split}"
        else:
            _, x = _inputs(flow, inputs, dataset, split)
            y = _in_turn(labels, len(x))
            rows = tf.data.Dataset.from_tensor_slices(x if y is None else (x, y))
            batches = rows.batch(batch_size)
            name = "inputs"
        for count in sorted({1, samples}):
            options = {"samples": count} if count > 1 else {}
            with _progress(batches, name) as progress:
                log_prob = np.concatenate(
                    [
                        flow.log_prob(*(batch if isinstance(batch, tuple) else [batch]), **options)
                        for batch in progress
                    ]
                )
            bits = tfnvp.metrics.bits_per_dim(log_prob, flow.event_size, flow.levels)
            figures = {"dataset": dataset, "split": split} if dataset else {}
            figures |= {
                "log_prob": float(log_prob.mean()),
                "bits_per_dim": float(bits.mean()),
                "standard_error": _standard_error(bits),
                "vectors" if vectors else "images": len(bits),
                "samples": count,
            }
            line = f"{bits.mean():.4f} +- {_standard_error(bits):.4f} bits/dim, {len(bits)} "
            line += "vectors" if vectors else "images"
            if vectors:
                line = f"{log_prob.mean():.4f} +- {_standard_error(log_prob):.4f} nats, {line}"
            if count > 1:
                line += f", importance-weighted, {count} samples"
            print(json.dumps(figures) if as_json else f"{name}: {line}")


def _standard_error(values):
    return float(np.std(values, ddof=1) / math.sqrt(len(values))) if len(values) > 1 else math.nan


@app.command()
def sample(
    model: Model,
    to: To,
    n: Annotated[int, typer.Option("-n", min=1, help="how many")] = 64,
    temperature: Temperature = 1.0,
    seed: Seed = 0,
    labels: Labels = None,
):
    """Draws samples, as a grid in a PNG or as an array [N, H, W, C] in [0, 1].

    Those of a model of vectors are an array [N, D].

    Example: tfnvp sample digits --to samples.png
    """
    with _one_line_errors():
        files.check_suffix(to)
        flow = _load(model)
        _check_file(flow, to)
        with _status(f"drawing {n} samples"):
            drawn = flow.sample(n, _in_turn(labels, n), temperature=temperature, seed=seed)
        _write(flow, to, drawn)
        print(to)


@app.command()
def interpolate(
    model: Model,
    to: To,
    images: Annotated[
        tuple[Path, Path, Path, Path] | None,
        typer.Option(
            metavar="A B C D",
            help="the corners, or files of one vector each [default: four samples]",
        ),
    ] = None,
    steps: Annotated[int, typer.Option(min=2, help="images a row, and a column")] = 8,
    full_circle: Annotated[
        bool, typer.Option("--full-circle", help="angles from 0 to 2 pi, as in the paper's figure")
    ] = False,
    seed: Seed = 0,
    labels: Annotated[
        str | None, typer.Option(metavar="Y", help="a class, one for all [default: p(x)]")
    ] = None,
):
    """Draws the paper's manifold of latents through four images, or four vectors.

    Example: tfnvp interpolate digits --to sphere.png
    """
    with _one_line_errors():
        files.check_suffix(to)
        flow = _load(model)
        _check_file(flow, to)
        if labels is not None and len(_integers(labels)) > 1:
            raise ValueError(f"--labels of interpolate is one class for all, got {labels}")
        with _status("interpolating"):
            if images:
                corners = _inputs(flow, images)[1]
                if len(corners) != 4:
                    raise ValueError(
                        f"--images must be files of one vector each, got {len(corners)} in all"
                    )
            else:
                corners = flow.sample(4, _in_turn(labels, 4), seed=seed)
            z = flow.encode(corners, _in_turn(labels, 4))
            z = latent.interpolate(*z, steps=steps, full_circle=full_circle)
            z = tf.reshape(z, [-1, *z.shape[2:]])
            drawn = flow.decode(z, _in_turn(labels, len(z)))
        _write(flow, to, drawn, columns=steps)
        print(to)


@app.command()
def extrapolate(
    model: Model,
    to: To,
    times: Annotated[int, typer.Option(min=1, help="height and width, of the trained ones")] = 2,
    n: Annotated[int, typer.Option("-n", min=1, help="how many")] = 16,
    temperature: Temperature = 1.0,
    seed: Seed = 0,
    labels: Labels = None,
    as_json: Json = False,
):
    """Draws images larger than those of training, from the same weights.

    Prints the mean and the variance of each channel's pixels, beside those of as many pixels of
    samples at the trained size.

    Example: tfnvp extrapolate digits --to large.png --times 10 -n 4
    """
    with _one_line_errors():
        files.check_suffix(to)
        flow = _need_keras(_need_images(_load(model), "extrapolate"), "extrapolate")
        height, width, channels = flow.image_shape
        shape = (times * height, times * width, channels)
        with _status(f"drawing {n} images of {shape[0]} x {shape[1]}"):
            options = {"temperature": temperature, "seed": seed}
            usual = flow.sample(n * times**2, _in_turn(labels, n * times**2), **options)
            large = flow.sample(n, _in_turn(labels, n), image_shape=shape, **options)
        files.write_images(to, large)
        figures = {
            f"{x.shape[1]}x{x.shape[2]}": {
                "mean": np.mean(x, axis=(0, 1, 2)).tolist(),
                "variance": np.var(x, axis=(0, 1, 2)).tolist(),
            }
            for x in (usual, large)
        }
        if as_json:
            print(json.dumps({"to": str(to), **figures}))
            return
        for size, moments in figures.items():
            values = {k: " ".join(f"{value:.4f}" for value in v) for k, v in moments.items()}
            print(f"{size}: mean {values['mean']}, variance {values['variance']}")
        print(to)


@app.command()
def reconstruct(
    model: Model,
    to: To,
    inputs: Inputs = None,
    dataset: Dataset = None,
    split: Split = "test",
    n: Annotated[int, typer.Option("-n", min=1, help="images of the data set")] = 8,
    resample: Annotated[
        bool, typer.Option("--resample", help="also with finer scales drawn anew, fewer kept each")
    ] = False,
    seed: Seed = 0,
    labels: Labels = None,
):
    """Encodes and decodes images or vectors: a row has one and its reconstruction.

    With --resample the row of an image goes on, one scale of latents fewer kept from image to image
    and the rest drawn anew, to none: the paper's conceptual compression. Prints the largest error
    of the reconstructions.

    Example: tfnvp reconstruct digits --to rows.png --dataset digits --resample
    """
    with _one_line_errors():
        files.check_suffix(to)
        flow = _load(model)
        _check_file(flow, to)
        if resample:
            _need_keras(_need_images(flow, "reconstruct --resample"), "reconstruct --resample")
        with _status("reconstructing"):
            _, x = _inputs(flow, inputs, dataset, split, n)
            y = _in_turn(labels, len(x))
            originals = x if _of_vectors(flow) else (x + 0.5) / flow.levels
            decoded = flow.decode(flow.encode(x, y), y)
            columns = [originals, decoded if _of_vectors(flow) else np.clip(decoded, 0, 1)]
            if resample:
                for keep in reversed(range(flow.num_scales)):
                    columns.append(latent.resample_scales(flow, x, keep, labels=y, seed=seed))
            rows = np.stack(columns, axis=1)
        _write(flow, to, rows.reshape(-1, *rows.shape[2:]), columns=len(columns))
        print(f"largest error: {np.abs(columns[1] - originals).max():.1e}")
        print(to)


@app.command()
def score(
    model: Model,
    inputs: Inputs = None,
    dataset: Dataset = None,
    split: Split = "test",
    n: Annotated[int, typer.Option("-n", min=1, help="images of the data set")] = 100,
    labels: Labels = None,
    to: Annotated[
        Path | None, typer.Option(help="a .png histogram, or .npy or .npz of bits/dim")
    ] = None,
    as_json: Json = False,
):
    """Prints the log-likelihood (nats) and the bits per dimension of each image or vector.

    Example: tfnvp score digits --dataset digits -n 5
    """
    with _one_line_errors():
        if to is not None:
            files.check_suffix(to)
        flow = _load(model)
        with _status("scoring"):
            names, x = _inputs(flow, inputs, dataset, split, n)
            y = _in_turn(labels, len(x))
            parts = [slice(i, i + 100) for i in range(0, len(x), 100)]
            log_prob = np.concatenate(
                [flow.log_prob(x[part], None if y is None else y[part]) for part in parts]
            )
        bits = tfnvp.metrics.bits_per_dim(log_prob, flow.event_size, flow.levels)
        for name, nats, value in zip(names, log_prob.tolist(), bits.tolist(), strict=True):
            record = {"input": name, "log_prob": nats, "bits_per_dim": value}
            print(json.dumps(record) if as_json else f"{name}\t{nats:.3f}\t{value:.4f}")
        if to is not None:
            label = f"{dataset} {split}" if dataset else "inputs"
            files.write(to, bits, lambda: plotting.bits_histogram({label: bits}))


@app.command()
def export(
    model: Model,
    to: Annotated[Path, typer.Option(help="directory of the SavedModel's versions")],
    signature: Annotated[
        list[str] | None, typer.Option(help="one to write, and again for others; all unless named")
    ] = None,
    image_size: Annotated[
        str | None, typer.Option(metavar="HEIGHTxWIDTH|any", help="other than the model's own")
    ] = None,
    bfloat16_weights: Annotated[
        bool, typer.Option("--bfloat16-weights", help="store kernels at half the size")
    ] = False,
):
    """Writes a SavedModel for TF Serving, as the next version under a directory.

    What card.json beside MODEL knows of it goes into the model card.

    Example: tfnvp export runs/mine/model.keras --to saved_models/mine
    """
    with _one_line_errors(), warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("ignore")
        warnings.simplefilter("always", UserWarning)
        flow = _need_keras(_load(model), "export")
        if model in presets.trained():
            card = presets.card(model)
        else:
            beside = Path(model).with_name("card.json")
            card = json.loads(beside.read_text()) if beside.is_file() else None
        exported = export_saved_model(
            flow, to, signature or None, _size(image_size), bfloat16_weights, card
        )
        for warning in said:
            if "warm-up" in str(warning.message):
                print(f"tfnvp: {warning.message}", file=sys.stderr)
        print(exported)


def _size(text):
    if text is None or text == "any":
        return text
    height, _, width = text.partition("x")
    if not (height.isdigit() and width.isdigit()):
        raise ValueError(f"--image-size must be HEIGHTxWIDTH or any, got {text}")
    return int(height), int(width)


@app.command("presets")
def list_presets(as_json: Json = False):
    """Lists the named architectures, and the test bits/dim of those that ship trained.

    Example: tfnvp presets
    """
    rows = {name: dict(presets.get(name)) for name in presets.names()}
    for name in presets.trained():
        rows[name]["test_bits_per_dim"] = presets.card(name)["bits_per_dim"]["test"]
    if as_json:
        print(json.dumps(rows))
        return
    for name, row in rows.items():
        size = "x".join(map(str, row["image_shape"]))
        bits = row.get("test_bits_per_dim")
        trained = f"  trained: {bits:.2f} bits/dim" if bits else ""
        print(
            f"{name:<20} {size:<8} {row['num_scales']} scales, {row['residual_blocks']} blocks, "
            f"{row['filters']} filters{trained}"
        )


@app.command()
def info(model: Model, as_json: Json = False):
    """Prints what is known of a model.

    Example: tfnvp info digits
    """
    with _one_line_errors():
        flow = _load(model)
        facts = {"model": model}
        if _of_vectors(flow):
            facts["event_size"] = flow.event_size
        else:
            facts |= {"image_shape": list(flow.image_shape), "levels": flow.levels}
        if isinstance(flow, SavedModel):
            facts |= {"conditional": flow.conditional, "signatures": flow.signatures}
        elif isinstance(flow, VectorRealNVP):
            facts |= {"parameters": flow.count_params(), **flow.get_config()}
        else:
            scales = flow.latents_by_scale(np.zeros(flow.image_shape, "float32"))
            facts |= {
                "parameters": flow.count_params(),
                "num_scales": flow.num_scales,
                "filters": flow.filters,
                "residual_blocks": flow.residual_blocks,
                "mixing": flow.mixing,
                "num_classes": flow.num_classes,
                "dtype": flow.dtype_policy.name,
                "latents_by_scale": [z.shape.as_list() for z in scales],
            }
        if model in presets.trained():
            card = presets.card(model)
            facts |= {key: card[key] for key in ("data", "bits_per_dim", "command")}
        if as_json:
            print(json.dumps(facts))
            return
        for key, value in facts.items():
            if isinstance(value, dict):
                value = ", ".join(f"{k} {v}" for k, v in value.items())
            elif isinstance(value, list) and value and not isinstance(value[0], int):
                value = ", ".join(map(str, value))
            print(f"{key:<17} {value}")


def _load(model):
    """An `ImageRealNVP`, a `VectorRealNVP` or a `SavedModel`."""
    path = Path(model)
    with _status(f"loading {model}"):
        if model in presets.trained() and not path.is_file():
            return ImageRealNVP.from_preset(model, load_weights=True)
        if path.is_dir():
            return SavedModel(path)
        if not path.is_file() or path.suffix != ".keras":
            raise ValueError(
                "MODEL must be a .keras file, the directory of a SavedModel's version, or one of "
                f"{', '.join(presets.trained())}, got {model}"
            )
        # Not compiled: the optimizer's state is of no use here.
        flow = keras.models.load_model(path, compile=False)
    if not isinstance(flow, (ImageRealNVP, VectorRealNVP)):
        kind = type(flow).__name__
        raise ValueError(f"MODEL must hold an ImageRealNVP or VectorRealNVP, {path} holds {kind}")
    return flow


def _need_keras(flow, command):
    if isinstance(flow, SavedModel):
        raise ValueError(
            f"{command} needs more than a SavedModel's signatures: give the .keras file or a "
            f"shipped name, got {flow.path}"
        )
    return flow


def _need_images(flow, command):
    if _of_vectors(flow):
        raise ValueError(f"{command} is of images, this is a model of vectors")
    return flow


def _of_vectors(flow):
    return isinstance(flow, VectorRealNVP) or getattr(flow, "data", None) == "vectors"


def _has_classes(flow):
    return flow.conditional if isinstance(flow, SavedModel) else flow.num_classes is not None


def _in_turn(labels, n):
    """The classes that an option --labels names, one for each of n rows; None for no option."""
    if labels is None:
        return None
    return np.resize(_integers(labels), n)


def _integers(text):
    try:
        return [int(part) for part in text.split(",")]
    except ValueError:
        raise ValueError(f"--labels must be integers with commas between, got {text}") from None


def _inputs(flow, paths=None, dataset=None, split="test", n=None):
    """Names of images or vectors, and these: uint8 [N, H, W, C] of levels or float32 [N, D]."""
    if bool(paths) == bool(dataset):
        raise ValueError("give files or --dataset, one of them")
    if dataset:
        _check_set(flow, dataset)
        x = np.concatenate(list(data.load(dataset, split, shuffle=False).take(n).batch(100)))
        return [f"{dataset}/{split}/{i}" for i in range(len(x))], x
    if not _of_vectors(flow):
        return [str(path) for path in paths], files.read_images(paths, flow)
    vectors = [files.read_vectors(path, flow.event_size) for path in paths]
    names = [f"{path}/{i}" for path, x in zip(paths, vectors, strict=True) for i in range(len(x))]
    return names, np.concatenate(vectors)


def _check_set(flow, dataset):
    """Refuses vectors for a model of images, and images for one of vectors."""
    vectors = len(data.info(dataset).image_shape) == 1
    if vectors != _of_vectors(flow):
        kinds = ("vectors", "images") if vectors else ("images", "vectors")
        raise ValueError(f"--dataset {dataset} is of {kinds[0]}, this is a model of {kinds[1]}")


def _check_file(flow, to):
    if _of_vectors(flow) and to.suffix.lower() == ".png":
        raise ValueError(f"--to must be a .npy or .npz file for vectors, got {to}")


def _write(flow, to, rows, columns=None):
    """Images, of which a PNG has so many columns, or vectors."""
    if _of_vectors(flow):
        files.write(to, np.asarray(rows), figure=None)
    else:
        files.write_images(to, np.clip(rows, 0, 1), columns)


def _progress(batches, label):
    return typer.progressbar(
        batches, len(batches), label, file=sys.stderr, hidden=not sys.stderr.isatty()
    )


@contextlib.contextmanager
def _status(doing):
    """Says on a terminal what is being done, as long as it is."""
    if not sys.stderr.isatty():
        yield
        return
    print(f"{doing} ...", end="", file=sys.stderr, flush=True)
    try:
        yield
    finally:
        print("\r\033[K", end="", file=sys.stderr, flush=True)


@contextlib.contextmanager
def _one_line_errors():
    """What a user can mend is told in one line, with exit status 2."""
    try:
        yield
    except (ValueError, OSError) as error:
        print(f"tfnvp: {' '.join(str(error).split())}", file=sys.stderr)
        raise typer.Exit(2) from None


def main():
    """The entry point of the installed command."""
    app(prog_name="tfnvp")
