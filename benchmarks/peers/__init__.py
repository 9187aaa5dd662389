"""What tfnvp is measured against by `benchmarks.throughput`, each behind a class `Contender`."""
