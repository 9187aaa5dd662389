"""The page of vectors has no figure but what the benchmark prints of its results."""

from pathlib import Path

from benchmarks import tables

ROOT = Path(__file__).parents[2]


def test_each_row_of_figures_is_printed_by_the_summary(capsys):
    results = ROOT / "benchmarks" / "results"
    tables.summarise([results / "tables.jsonl"])
    # The worth of each step has a file of its own, with the densities that it is compared with.
    tables.summarise([results / "tables.jsonl", results / "table_steps.jsonl"])
    printed = capsys.readouterr().out.splitlines()
    lines = (ROOT / "docs/vectors.md").read_text().splitlines()
    rows = [line for line in lines if line.startswith("|")]
    assert len(rows) > 30
    assert [row for row in rows if row not in printed] == []
