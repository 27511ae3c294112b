"""Training jobs that tests run: correct ones, and the same ones with one thing taken away."""
