"""Directories that were kept as evidence, as reports name them."""

from __future__ import annotations


def directory_and_content(kept: str) -> tuple[str, str]:
    """Split an entry of `JobResult.kept_dirs` into the directory and what it holds."""
    directory, separator, content = kept.rpartition(": ")
    return (directory, content) if separator else (kept, "")
