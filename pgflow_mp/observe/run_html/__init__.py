"""The report of a run as one HTML file to mail: it needs nothing else, and says what the database says."""

from __future__ import annotations

from pgflow_mp.observe.run_html.gathering import gather
from pgflow_mp.observe.run_html.writing import write

__all__ = ["gather", "write"]
