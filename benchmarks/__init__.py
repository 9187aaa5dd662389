"""Measurements, printed as JSON lines; run as `python -m benchmarks.NAME` from the checkout."""
