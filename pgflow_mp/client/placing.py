"""How the worker's processes get at a flow or a function: they import it, or it is sent to them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from pgflow_mp.errors import FlowNotFound
from pgflow_mp.flows.flow import Flow
from pgflow_mp.loading import job_functions, shipping
from pgflow_mp.loading.finding import target_for
from pgflow_mp.loading.targets import Target


def place_flow(flow: Flow, ship: str | None) -> tuple[Target, dict[str, Any]]:
    """The flow's target, and fields of WorkerSettings to go with it.

    ``ship`` is how it is to be sent; None: it is imported. Raises FlowNotFound, ConfigError,
    FlowDefinitionError.
    """
    if shipping.check_way(ship):
        return shipping.shipped_target(), {"shipped": shipping.pack(flow)}
    return target_for(flow), {}


def place_function(function: Callable[..., Any] | str, ship: str | None) -> tuple[Target, dict[str, Any]]:
    """The same for a function that executes background jobs, or the text that names one."""
    if isinstance(function, str):
        target = Target.parse(function)
        if target.flow is None:
            raise FlowNotFound(f"{function} names no function", hint=f"For example: {function}:send_mail")
        return target, {"job": True}
    flow = job_functions.flow_of(function)  # refused here, where it can be seen why
    if shipping.check_way(ship):
        return shipping.shipped_target(), {"shipped": shipping.pack(flow), "job": True}
    return job_functions.target_for_function(function), {"job": True}
