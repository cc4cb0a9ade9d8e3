"""Starting runs and following them from anywhere: nothing is executed here."""

from __future__ import annotations

from pgflow_mp.client.async_client import AsyncClient
from pgflow_mp.client.async_run import AsyncRun
from pgflow_mp.client.client import Client
from pgflow_mp.client.event_feed import Event
from pgflow_mp.client.run_handles import Run
from pgflow_mp.client.step_handles import Step
from pgflow_mp.flows.finished_item import FinishedItem

__all__ = ["AsyncClient", "AsyncRun", "Client", "Event", "FinishedItem", "Run", "Step"]
