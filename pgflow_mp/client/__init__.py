"""Starting runs and following them from anywhere: nothing is executed here."""

from __future__ import annotations

from pgflow_mp.client.client import Client
from pgflow_mp.client.run_handles import Run, Step
from pgflow_mp.flows.finished_item import FinishedItem

__all__ = ["Client", "FinishedItem", "Run", "Step"]
