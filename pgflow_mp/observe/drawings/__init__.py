"""Drawings of runs as SVG text, for the web page and the report: pure functions from plain data.

Nothing in them comes from elsewhere: no script, no font, no inline style; colours are classes and variables
of ``palette.STYLE``, which the page that embeds them has once. All text in them is escaped.
"""
