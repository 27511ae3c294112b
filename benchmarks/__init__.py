"""Measurements of this package's budgets; see `python -m benchmarks --help`."""
