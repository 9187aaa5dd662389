"""The peers of tfnvp in `benchmarks.throughput`, each behind a class `Contender`."""
