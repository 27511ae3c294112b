"""The tests of the package run pytest in pytest."""

pytest_plugins = ["pytester"]
