"""Switches on pytester, which pytest accepts from the root conftest.py only."""

from __future__ import annotations

pytest_plugins = ("pytester",)
