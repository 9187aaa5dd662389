"""Densities of real tables, and what is unusual in them, for tfnvp and its peers.

    python -m benchmarks.tables density --data DIR [--table T ..] [--contender C ..] [--seed S ..]
    python -m benchmarks.tables anomaly --data DIR [...]
    python -m benchmarks.tables steps --data DIR [--table T ..] [--step S ..] [--seed S ..]
    python -m benchmarks.tables rates [--size D ..] [--batch B ..]
    python -m benchmarks.tables summary FILE.jsonl ...

DIR has the folders `density` (UCI tables as text) and `anomaly` (ADBench's .npz files); the digits
and breast cancer come with scikit-learn. Each contender fits each table for each seed in a process
of its own, on one core, and prints a JSON line with its figures and the CPU seconds of the whole
process up to the end of the fit, imports and tracing included. Contenders use their defaults, or
choose by the validation rows; none knows a table's name.

`density`: test log-likelihood in nats. 80/10/10 by `RandomState(seed).permutation`, training capped
at 10,000 rows; columns that are rounded are jittered by their smallest step, everything is
standardised by the training rows, and the log-det is added back. `FlowDensity` holds out rows by
itself, and is given the training rows with an eighth as many validation rows.

`anomaly`: area under the ROC curve and average precision. Training has half of the usual rows, at
most 5,000, and the test all others. `tfnvp` ranks by `FlowDensity.unusualness`; the same fit has a
second line, `tfnvp_log_p`, of its log p, by which the other densities rank.

`steps`: densities again, of `tfnvp` with one of its parts left out or changed (table_steps.py).

`rates`: rows a second in training and in scoring of tfnvp's vector model and zuko's RealNVP of as
many parameters, on one core, turn by turn after two turns that warm up; medians. Seconds are of CPU
time, so that other programs on the machine do not count.
"""

import argparse
import collections
import contextlib
import gzip
import importlib
import itertools
import json
import multiprocessing
import os
import time
from pathlib import Path

import numpy as np

CAP, ANOMALY_CAP = 10_000, 5_000
DENSITY = ("power-plant", "wine-red", "magic.gamma", "protein", "breast-cancer", "satellite")
DENSITY += ("digits",)
ANOMALY = ("breastw", "cardio", "Ionosphere", "letter", "magic.gamma", "mammography", "optdigits")
ANOMALY += ("satellite", "shuttle", "vowels")
CONTENDERS = {
    "density": ("tfnvp", "mixture", "kernel", "zuko_realnvp", "zuko_nsf"),
    "anomaly": ("tfnvp", "mixture", "kernel", "neighbours", "forest", "zuko_realnvp"),
}
# The names are those of benchmarks/peers/table_steps.py, which only processes that train import.
STEPS = ("no_matrices", "no_curves", "no_log_tails", "no_dropout", "no_averages", "student_t")
STEPS += ("spline_couplings", "residual_conditioners", "batch_normalization")
WARM_UPS, TURNS = 2, 15
# The figures that a summary has of a task, and their decimals.
FIGURES = {
    "density": {"nats": 2, "cpu_seconds": 2},
    "anomaly": {"auroc": 3, "average_precision": 3, "cpu_seconds": 2},
}


def read(data, name):
    """Reads a density table, float64 [N, D]."""
    files = {
        "power-plant": ("power-plant.txt", None),
        "wine-red": ("wine-quality-red.txt", None),
        "protein": ("protein.csv.gz", ","),
    }
    if name in files:
        path, delimiter = data / "density" / files[name][0], files[name][1]
        with gzip.open(path, "rt") if path.suffix == ".gz" else path.open() as file:
            return np.loadtxt(file, delimiter=delimiter)
    if name == "digits":
        x = importlib.import_module("sklearn.datasets").load_digits().data
        return x[:, x.std(axis=0) > 0]
    if name == "breast-cancer":
        return importlib.import_module("sklearn.datasets").load_breast_cancer().data
    return _npz(data, name)[0]


def _npz(data, name):
    with np.load(data / "anomaly" / f"{name}.npz", allow_pickle=True) as arrays:
        return arrays["X"].astype("float64"), arrays["y"].astype(int)


def smallest_steps(x):
    """The least distance of values of each column that has repeated ones, 0 of all others."""
    steps = np.zeros(x.shape[1])
    for j, column in enumerate(x.T):
        values = np.unique(column)
        if len(values) < 0.9 * len(column):
            steps[j] = np.diff(values).min()
    return steps


def density_split(data, name, seed):
    """Training, validation and test rows, standardised, and the log-det of that."""
    x = read(data, name)
    order = np.random.RandomState(seed).permutation(len(x))
    noise = np.random.RandomState(seed + 1000).uniform(size=x.shape)
    x = (x + smallest_steps(x) * noise)[order]
    first, second = int(0.8 * len(x)), int(0.9 * len(x))
    training = x[:first][:CAP]
    mean, scale = training.mean(axis=0), training.std(axis=0)
    parts = ((part - mean) / scale for part in (training, x[first:second], x[second:]))
    return *parts, -np.log(scale).sum()


def anomaly_split(data, name, seed):
    """Training rows, test rows, and which of these are unusual."""
    x, y = _npz(data, name)
    usual = np.random.RandomState(seed).permutation(np.flatnonzero(y == 0))
    half = len(usual) // 2
    test = np.concatenate([usual[half:], np.flatnonzero(y == 1)])
    return x[usual[:half][:ANOMALY_CAP]], x[test], y[test]


def run(task, data, name, contender, seed, connection):
    """Fits one contender to one table, in a process of its own; sends figures by contender."""
    peer = contender
    if task == "steps":
        importlib.import_module("benchmarks.peers.table_steps").STEPS[contender]()
        peer = "tfnvp"
    fit = getattr(importlib.import_module("benchmarks.peers.table_models"), peer)
    started = time.process_time()
    if task == "anomaly":
        training, test, unusual = anomaly_split(data, name, seed)
        scores = fit(training, None, seed)
    else:
        training, validation, test, log_det = density_split(data, name, seed)
        scores = fit(training, validation, seed)
    fitted = round(time.process_time(), 1)
    found = {}
    for line, score in (scores if isinstance(scores, dict) else {contender: scores}).items():
        of_test = score(test)
        if task == "anomaly":
            figures = ranked(unusual, -of_test)
        else:
            figures = {"nats": round(float(np.mean(of_test) + log_det), 3)}
        found[line] = {"cpu_seconds": fitted, **figures}
        found[line]["fit_and_score_seconds"] = round(time.process_time() - started, 1)
    connection.send(found)


def ranked(unusual, scores):
    """Gives how well scores, high where a row is unusual, tell the unusual rows."""
    metrics = importlib.import_module("sklearn.metrics")
    scores = np.nan_to_num(scores, nan=np.inf, posinf=1e30, neginf=-1e30)
    areas = {"auroc": metrics.roc_auc_score, "average_precision": metrics.average_precision_score}
    return {name: round(float(area(unusual, scores)), 4) for name, area in areas.items()}


def measure(task, data, name, contender, seed):
    """Has a contender measured; gives its figures, and those of other scores of the same fit."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=run, args=(task, data, name, contender, seed, theirs))
    process.start()
    theirs.close()
    with contextlib.suppress(EOFError):
        figures = ours.recv()
        process.join()
        return figures
    raise SystemExit(f"{contender} failed on {name}, seed {seed}")


def serve_rates(contender, case, connection):
    """Trains or scores whenever it is asked to, and sends the CPU seconds that it took."""
    module = importlib.import_module("benchmarks.peers.table_rates")
    parameters, *functions = getattr(module, contender)(**case)
    functions = dict(zip(("train", "score"), functions, strict=True))
    connection.send(parameters)
    for name in iter(connection.recv, None):
        started = time.process_time()
        functions[name]()
        connection.send(time.process_time() - started)


def rates(size, batch):
    """Gives the figures of both libraries for rows of a size and batches of so many."""
    context = multiprocessing.get_context("spawn")
    case, ends, seconds = {"size": size, "batch": batch, "parameters": None}, {}, {}
    for contender in ("tfnvp", "zuko"):
        ends[contender], theirs = context.Pipe()
        context.Process(target=serve_rates, args=(contender, case, theirs), daemon=True).start()
        # zuko's width is chosen by tfnvp's parameters.
        case = {**case, "parameters": ends[contender].recv()}
        seconds[contender, "parameters"] = case["parameters"]
    for name in ("train", "score"):
        for turn in range(WARM_UPS + TURNS):
            for contender, end in ends.items():
                end.send(name)
                taken = end.recv()
                if turn >= WARM_UPS:
                    seconds.setdefault((contender, name), []).append(taken)
    for end in ends.values():
        end.send(None)
    figures = {f"{c}_parameters": seconds[c, "parameters"] for c in ends}
    for name in ("train", "score"):
        ratios = np.divide(seconds["zuko", name], seconds["tfnvp", name])
        count = batch * importlib.import_module("benchmarks.peers.table_rates").steps(batch)
        for contender in ends:
            rate = count / np.median(seconds[contender, name])
            figures[f"{contender}_{name}_rows_per_second"] = round(rate)
        figures[f"{name}_ratio"] = round(float(np.median(ratios)), 3)
    return figures


def summarise(files):
    """Prints tables of the means over seeds: tables by rows, contenders by columns."""
    records = [json.loads(line) for path in files for line in path.read_text().splitlines()]
    for task, figures in FIGURES.items():
        of_task = [record for record in records if record["task"] == task]
        names = list(dict.fromkeys(record["contender"] for record in of_task))
        for figure, digits in figures.items():
            found = collections.defaultdict(list)
            for record in of_task:
                found[record["table"], record["contender"]].append(record[figure])
            tables = list(dict.fromkeys(table for table, _ in found))
            rows = {t: [np.mean(found.get((t, c), np.nan)) for c in names] for t in tables}
            if digits == 3:
                rows["mean"] = np.mean(list(rows.values()), axis=0)
            print_table(f"{task}, {figure}", names, rows, digits)
    summarise_steps(records)
    summarise_rates([record for record in records if record["task"] == "rates"])


def summarise_steps(records):
    """Prints by how many nats each step makes the density worse or better, of the same seed."""
    found = {}
    for record in records:
        if record["task"] == "density" and record["contender"] == "tfnvp":
            found["all", record["table"], record["seed"]] = record["nats"]
        elif record["task"] == "steps":
            found[record["contender"], record["table"], record["seed"]] = record["nats"]
    names = list(dict.fromkeys(step for step, _, _ in found if step != "all"))
    tables = list(dict.fromkeys(table for step, table, _ in found if step != "all"))
    seeds = sorted({seed for step, _, seed in found if step != "all"})
    rows = {
        name: [
            np.mean([found[name, t, seed] - found["all", t, seed] for seed in seeds])
            for t in tables
        ]
        for name in names
    }
    print_table(f"nats less or more, seeds {seeds}", tables, rows, 2)


def summarise_rates(records):
    """Prints rows a second, and the ratios of tfnvp's to zuko's."""
    names = [name for name in (records or [{}])[0] if name.endswith(("second", "ratio"))]
    rows = {f"D {r['size']}, batches of {r['batch']}": [r[name] for name in names] for r in records}
    print_table("rates", names, rows, 2)


def print_table(title, columns, rows, digits):
    """Prints a table of figures in Markdown, if it has rows; whole numbers without decimals."""
    if not rows:
        return
    print(f"\n| {title} | {' | '.join(columns)} |\n|{'---|' * (len(columns) + 1)}")
    for name, values in rows.items():
        cells = (f"{v:,}" if isinstance(v, int) else f"{v:.{digits}f}" for v in values)
        print(f"| {name} | {' | '.join(cells)} |")


def main():
    """Runs the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.tables", description=__doc__.partition("\n")[0]
    )
    commands = parser.add_subparsers(dest="task", required=True)
    for task, tables in (("density", DENSITY), ("anomaly", ANOMALY), ("steps", DENSITY)):
        command = commands.add_parser(task)
        command.add_argument("--data", type=Path, required=True)
        command.add_argument("--table", nargs="*", choices=tables, default=tables)
        seeds = (0,) if task == "steps" else (0, 1, 2)
        command.add_argument("--seed", nargs="*", type=int, default=seeds)
        option, names = ("step", STEPS) if task == "steps" else ("contender", CONTENDERS[task])
        command.add_argument(
            f"--{option}", dest="contender", nargs="*", choices=names, default=names
        )
    command = commands.add_parser("rates")
    command.add_argument("--size", nargs="*", type=int, default=(8, 64))
    command.add_argument("--batch", nargs="*", type=int, default=(256, 4096))
    command = commands.add_parser("summary")
    command.add_argument("files", type=Path, nargs="+")
    args = parser.parse_args()
    if args.task == "summary":
        summarise(args.files)
        return
    os.environ |= {"OMP_NUM_THREADS": "1", "TF_NUM_INTRAOP_THREADS": "1"}
    os.environ |= {"TF_NUM_INTEROP_THREADS": "1", "TF_CPP_MIN_LOG_LEVEL": "3"}
    if args.task == "rates":
        for size, batch in itertools.product(args.size, args.batch):
            record = {"benchmark": "tables", "task": "rates", "size": size, "batch": batch}
            print(json.dumps(record | rates(size, batch)), flush=True)
        return
    for name in args.table:
        for seed in args.seed:
            for contender in args.contender:
                found = measure(args.task, args.data, name, contender, seed)
                record = {"benchmark": "tables", "task": args.task, "table": name, "seed": seed}
                for of, figures in found.items():
                    print(json.dumps({**record, "contender": of, **figures}), flush=True)


if __name__ == "__main__":
    main()
