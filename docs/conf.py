"""Sphinx configuration; `tox -e docs` builds with warnings as errors."""

from __future__ import annotations

from pytest_ckpt._version import __version__

project = "pytest-ckpt"
author = "The pytest-ckpt maintainers"
copyright = f"2026, {author}"  # noqa: A001  # the name that Sphinx reads
version = release = __version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
source_suffix = {".md": "markdown"}
exclude_patterns = ["_build"]
default_role = "code"  # docstrings put names between single backticks
nitpicky = False  # no inventory of other projects is fetched: their names stay plain text

myst_enable_extensions = ["colon_fence", "deflist", "fieldlist"]
myst_heading_anchors = 3

autodoc_member_order = "bysource"
autodoc_typehints = "description"
autodoc_typehints_description_target = "documented_params"
napoleon_use_ivar = True

html_theme = "furo"
html_static_path = ["_static"]
html_css_files = ["tables.css"]
html_title = f"pytest-ckpt {release}"
