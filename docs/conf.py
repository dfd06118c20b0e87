"""Sphinx configuration of the documentation: `make docs` builds it."""

from importlib import metadata

from docutils import nodes
from sphinx.addnodes import pending_xref
from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment

project = "Highway"
author = "Highway contributors"
copyright = author
release = version = metadata.version("highway-loader")

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.intersphinx",
    "sphinx.ext.napoleon",
    "sphinx_copybutton",
]
source_suffix = {".md": "markdown"}
exclude_patterns = ["_build"]
# The builders of docs/ have no network: links to other projects' pages are written out.
intersphinx_mapping: dict[str, tuple[str, None]] = {}

myst_enable_extensions = ["colon_fence", "deflist", "fieldlist"]
myst_heading_anchors = 3

autodoc_default_options = {"members": True, "member-order": "bysource"}
autodoc_typehints = "none"
autodoc_class_signature = "mixed"
napoleon_google_docstring = False
napoleon_use_rtype = False
napoleon_use_ivar = True

default_role = "py:obj"
toc_object_entries_show_parents = "hide"
html_theme = "pydata_sphinx_theme"
html_static_path = ["_static"]
html_css_files = ["site.css"]
# Pages without pages below them have nothing to show at the left.
html_sidebars: dict[str, list[str]] = {
    "index": [],
    "get_started": [],
    "performance": [],
    "architecture": [],
}
html_title = f"Highway {version}"
html_copy_source = False
html_show_sourcelink = False
html_theme_options = {
    "navbar_end": ["theme-switcher"],
    "secondary_sidebar_items": ["page-toc"],
    "show_prev_next": True,
    "show_toc_level": 2,
    "navigation_with_keys": False,
}


def public_name(
    app: Sphinx, env: BuildEnvironment, node: pending_xref, content: nodes.TextElement
) -> nodes.Node | None:
    """Resolve names in docstrings as Python code imports them: `Normalize` is that of highway.transforms."""
    python = env.domains.python_domain
    if node.get("refdomain") != python.name:
        return None
    for module in ("engine", "batch", "modules", "transforms", "errors"):
        target = f"highway.{module}.{node['reftarget']}"
        if target in python.objects:
            return python.resolve_xref(env, node["refdoc"], app.builder, "obj", target, node, content)
    return None


def setup(app: Sphinx) -> None:
    """Register what this file adds to Sphinx."""
    app.connect("missing-reference", public_name)
