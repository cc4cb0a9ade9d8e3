"""Settings of Sphinx for the documentation site; scripts/build_site.py runs it."""

from __future__ import annotations

import pgflow_mp

project = "pgflow_mp"
author = "the authors of pgflow_mp"
copyright = "the authors of pgflow_mp, Apache-2.0"
version = release = pgflow_mp.__version__

extensions = ["myst_parser"]
root_doc = "index"
myst_heading_anchors = 6  # the anchors that GitHub gives headings
smartquotes = False  # --options and "words" are typed as they are shown
highlight_language = "text"

html_theme = "furo"
html_title = "pgflow_mp"
html_static_path = ["static"]
html_css_files = ["site.css"]
html_copy_source = False
html_show_sourcelink = False
html_show_search_summary = False  # fetching pages for it does not work with file://
html_domain_indices = False
html_last_updated_fmt = None
