"""How the documentation site is made: pages are staged in one folder, then Sphinx turns them into HTML.

navigation.py reads what belongs where from docs/README.md; staging.py copies pages and rewrites their links;
the modules of reference/ write pages from the package itself; building.py runs Sphinx over all of it.
"""
