"""Settings of Sphinx for the documentation site; scripts/build_site.py runs it."""

from __future__ import annotations

from sphinx.application import Sphinx

import pgflow_mp
from docsite import docstrings, references

project = "pgflow_mp"
author = "the authors of pgflow_mp"
copyright = "the authors of pgflow_mp, Apache-2.0"
version = release = pgflow_mp.__version__

extensions = ["myst_parser", "sphinx.ext.autodoc"]
root_doc = "index"
myst_heading_anchors = 6  # the anchors that GitHub gives headings
smartquotes = False  # --options and "words" are typed as they are shown
highlight_language = "text"

autodoc_member_order = "bysource"
autodoc_typehints_format = "short"
add_module_names = False
toc_object_entries_show_parents = "hide"
python_display_short_literal_types = True
python_maximum_signature_line_length = 76

html_theme = "furo"
html_title = "pgflow_mp"
html_static_path = ["static"]
html_css_files = ["site.css"]
html_copy_source = False
html_show_sourcelink = False
html_show_search_summary = False  # fetching pages for it does not work with file://
html_domain_indices = False
html_last_updated_fmt = None


def setup(app: Sphinx) -> None:
    """What Sphinx calls."""
    app.connect("missing-reference", references.resolve)
    app.connect("autodoc-process-signature", references.leave_out_constructors)
    app.connect("autodoc-process-docstring", docstrings.render)
