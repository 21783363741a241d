"""Settings of Sphinx, which builds these pages and the reference of public names: `make docs`."""

import importlib
import importlib.metadata
import re
from typing import Any

# Sphinx imports with TYPE_CHECKING set, under which the models of FastAPI cannot be defined.
importlib.import_module("fastapi")

project = "ModelPred"
author = "ModelPred contributors"
release = importlib.metadata.version("modelpred")

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
exclude_patterns = ["_build"]
html_theme = "alabaster"
html_theme_options = {"description": project, "fixed_sidebar": True, "page_width": "70em"}
html_copy_source = False
html_show_sphinx = False

default_role = "code"  # what docstrings put between single backticks
myst_heading_anchors = 3  # as GitHub makes them

autodoc_typehints = "signature"
autodoc_member_order = "bysource"
napoleon_google_docstring = True
napoleon_use_ivar = True  # attributes as fields: dataclasses would list each twice


def mark_formulas(
    _app: Any, what: str, _name: str, _value: object, _options: Any, lines: list[str]
) -> None:
    """Make indented formulas of a module's docstring literal, and bars of absolute values text."""
    marked: list[str] = []
    for before, line in zip(["", *lines], lines, strict=False):
        formula = line.startswith("    ") and not before
        text = next((each for each in reversed(marked) if each), "")
        if what == "module" and formula and not text.startswith("    "):
            marked += ["::", ""]
        literal = what == "module" and line.startswith("    ")
        marked.append(line if literal else re.sub(r"(?<!\w)\|(?=\S)", r"\\|", line))
    lines[:] = marked


def setup(app: Any) -> None:
    """Register what docstrings need."""
    app.connect("autodoc-process-docstring", mark_formulas)
