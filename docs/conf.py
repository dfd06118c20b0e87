"""Sphinx configuration of the documentation: `make docs` builds it."""

from importlib import metadata

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

autodoc_default_options = {"members": True, "show-inheritance": True, "member-order": "bysource"}
autodoc_typehints = "none"
autodoc_class_signature = "mixed"
napoleon_google_docstring = False
napoleon_use_rtype = False
napoleon_use_ivar = True

default_role = "py:obj"
html_theme = "pydata_sphinx_theme"
html_static_path = ["_static"]
html_css_files = ["site.css"]
# Pages without pages below them have nothing to show at the left.
html_sidebars: dict[str, list[str]] = {"index": [], "get_started": [], "performance": []}
html_title = f"Highway {version}"
html_copy_source = False
html_show_sourcelink = False
html_theme_options = {
    "navbar_end": ["theme-switcher"],
    "secondary_sidebar_items": ["page-toc"],
    "show_prev_next": True,
    "navigation_with_keys": False,
}
