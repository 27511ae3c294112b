"""The documentation, run: what a page shows is what happens. `python -m tests.docs --write` refreshes the outputs."""
