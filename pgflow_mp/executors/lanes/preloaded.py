"""What a lane's process has loaded, perhaps before it was forked (zygote.py); kept once per process.

Threads: the main thread of a lane, or of the forkserver, only.
"""

from __future__ import annotations

import msgspec

from pgflow_mp.executors.execution import Loadable, flows_of
from pgflow_mp.executors.messages import Message
from pgflow_mp.flows.flow import Flow


class Preload(Message):
    """What the forkserver is told, without secrets. ``target`` (if any) and ``modules`` it loads."""

    target: str
    flows: list[str]
    sys_path: list[str]
    main_path: str | None
    threads: int
    modules: list[str]
    argv: list[str]
    lifeline: str = ""  # a pipe that ends with the parent
    job: bool = False
    shipped: bytes = b""
    contents: dict[str, bytes] = msgspec.field(default_factory=dict)
    handlers: list[str] = msgspec.field(default_factory=list)


before_fork: bool = False
"""Whether what was asked for was loaded by the process that this one was forked from."""
why_not: str = ""
"""Why it was not, if it was tried."""

_flows: dict[str, Flow] | None = None


def load(target: Loadable) -> dict[str, Flow]:
    """Import the target's flows, once per process. Raises whatever the import raises."""
    global _flows
    if _flows is None:
        _flows = flows_of(target, may_be_main=True)
    return _flows
