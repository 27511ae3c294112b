"""The version, in the one place from which the build and the package read it."""

from __future__ import annotations

__version__ = "0.1.0"
