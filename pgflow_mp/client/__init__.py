"""Starting runs and following them from anywhere: nothing is executed here."""

from __future__ import annotations

from pgflow_mp.client.client import Client
from pgflow_mp.client.run_handles import Run, Step

__all__ = ["Client", "Run", "Step"]
