"""What a lane's process tells of itself to whoever has it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pgflow_mp.executors.events import LaneEvent
from pgflow_mp.executors.lanes.killing import Killing
from pgflow_mp.executors.messages import Hello, StartTrouble

if TYPE_CHECKING:
    from pgflow_mp.executors.lanes.lane import LaneProcess


@dataclass(frozen=True, slots=True)
class RunningItem:
    """What a lane is executing: ``timeout`` and ``elapsed`` in seconds, ``target`` for a KillReason."""

    lane: int
    generation: int
    pid: int
    seq: int
    target: tuple[int, int]
    run: str
    step: str
    index: int
    timeout: float | None
    elapsed: float


@dataclass(slots=True)
class Hooks:
    """What a process calls: ``emit`` with its lock held, the others without.

    ``started``: it has loaded its target. ``serves``: it has run a chunk of this flow for the first time.
    ``troubled``: it cannot run one, and will run nothing more. ``leaving`` says whether the pool, or the
    worker that it belongs to, is being stopped.
    """

    emit: Callable[[LaneEvent], None]
    started: Callable[[LaneProcess, Hello], None]
    serves: Callable[[str], None]
    troubled: Callable[[LaneProcess, StartTrouble], None]
    died: Callable[[LaneProcess, str], None]
    leaving: Callable[[], bool] = lambda: False


@dataclass(slots=True)
class LaneState:
    """What became of a process so far."""

    ready: bool = False
    retired: bool = False
    dead: bool = False
    closed: bool = False
    killing: Killing | None = None
