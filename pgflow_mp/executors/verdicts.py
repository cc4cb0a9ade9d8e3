"""From the way a lane's process ended to what is recorded for the item it was running. Pure functions."""

from __future__ import annotations

import errno
import signal
from collections.abc import Hashable
from dataclasses import dataclass
from typing import Final

from pgflow_mp import paths
from pgflow_mp.executors.events import Cause
from pgflow_mp.executors.lanes.lifeline import TERMINATE
from pgflow_mp.executors.messages import AnyChunk, Kind, Outcome, StartTrouble

_UNCHARGED: Final = (Cause.CANCELLED, Cause.STALLED, Cause.STOPPED, Cause.LOST)


@dataclass(frozen=True, slots=True)
class KillReason:
    """Why a lane is killed: ``error`` is recorded for the item at ``target`` (chunk ordinal, position)."""

    cause: Cause
    error: str = ""
    target: tuple[int, int] | None = None


def task_name(step: str, index: int) -> str:
    """How errors name an item."""
    return f'step "{step}" task {index}'


_BY_US: Final = "terminated by its worker"


def timeout_error(step: str, index: int, timeout: float) -> str:
    """The error of an item whose process was killed over its time limit (seconds)."""
    name = task_name(step, index)
    return f"TimeoutError: {name} exceeded its timeout of {timeout:g} s and its process was terminated"


def memory_error(step: str, index: int, used: int, limit: int) -> str:
    """The error of an item whose process was killed over its memory cap (bytes)."""
    return f"MemoryError: {task_name(step, index)} {memory_text(used, limit)}"


def memory_text(used: int, limit: int) -> str:
    """What is said of whatever a process ran that was killed over its memory cap (bytes)."""
    sizes = f"{used / 2**20:.0f} MiB, more than the {limit / 2**20:.0f} MiB allowed per lane"
    return f"used {sizes}, and its process was terminated"


def crash_error(step: str, index: int, cause: Cause, how: str) -> str:
    """The error of an item whose process died by itself."""
    addition = {
        Cause.OUT_OF_MEMORY: ", sent by the kernel's out-of-memory killer",
        Cause.TERMINATED: ", sent by something other than this worker",
    }.get(cause, "")
    if not addition and how.startswith("signal 9 "):
        addition = ", not sent by this worker (an operator, or an out-of-memory killer)"
    verb = "died from" if how.startswith("signal") else "was" if how == _BY_US else "ended with"
    return f"Crashed: {task_name(step, index)}: its process {verb} {how}{addition}"


def start_trouble(
    flow: str, what: str, reason: KillReason | None, exitcode: int | None
) -> StartTrouble | None:
    """What is said of a process that ended while it ran an on_start function (``what``) of a flow.

    None where that is nobody's fault.
    """
    if reason is not None:
        return StartTrouble(flow, f"{what} {reason.error}") if reason.error else None
    how = describe_exit(exitcode)
    verb = "died from" if how.startswith("signal") else "ended with"
    return StartTrouble(flow, f"{what}: its process {verb} {how}")


def deaths_error(step: str, index: int, workers: int) -> str:
    """The error of an item that took whole workers down, or so it seems."""
    return (
        f"quarantined, it took {workers} workers down: each of them held {task_name(step, index)} when it "
        "died without a word, the last one nothing else that is suspect; either the task kills its worker, "
        "or it needs more memory than the machine or container has, or somebody killed the workers"
    )


def losses_error(step: str, index: int, times: int) -> str:
    """The error of an item that took the lanes' parent process down, or so it seems."""
    return (
        f"quarantined after {times} deaths of the lanes' parent process: {task_name(step, index)} was being "
        "run each time, the last time without another suspect; either the task kills its parent process, or "
        "somebody else did"
    )


def describe_exit(exitcode: int | None) -> str:
    """``signal 11 (SIGSEGV)``, ``exit code 3``, or that it was us: our signal has no name."""
    if exitcode is None:
        return "no exit code"
    if exitcode >= 0:
        return f"exit code {exitcode}"
    if -exitcode == TERMINATE:
        return _BY_US
    try:
        return f"signal {-exitcode} ({signal.Signals(-exitcode).name})"
    except ValueError:
        return f"signal {-exitcode}"


def start_hint(error: BaseException) -> str:
    """What to do where a process could just not be started: its semaphores are files in /dev/shm."""
    number = error.errno if isinstance(error, OSError) else None
    if number == errno.ENOENT and paths.is_gone():
        return paths.GONE
    if number in (errno.ENOSPC, errno.EROFS, errno.EACCES, errno.ENOENT):
        return "Processes need a /dev/shm that can be written and has room: docker run --shm-size=64m."
    if number in (errno.EMFILE, errno.ENFILE):
        return "Too many files are open: raise the limit (ulimit -n), or use fewer --workers."
    if number in (errno.EAGAIN, errno.ENOMEM):
        return "Use fewer --workers, or raise the limits of processes (ulimit -u) and memory."
    return ""


def by_process_manager(exitcode: int | None) -> bool:
    """Whether this is how processes end that are told to stop by a process manager or a terminal."""
    return exitcode in (-signal.SIGTERM, -signal.SIGINT, -signal.SIGHUP)


def cause_of(exitcode: int | None, *, lost: bool, oom_killed: bool, told_to_leave: bool = False) -> Cause:
    """Why a process that nobody here ordered to die did."""
    if lost:
        return Cause.LOST
    if told_to_leave and by_process_manager(exitcode):
        return Cause.STOPPED
    if exitcode == -signal.SIGTERM:
        return Cause.TERMINATED
    if exitcode == -signal.SIGKILL and oom_killed:
        return Cause.OUT_OF_MEMORY
    return Cause.CRASH


def crashed(chunk: AnyChunk, position: int, error: BaseException) -> tuple[str, Outcome]:
    """How somebody else's process ended, and the outcome of the item of this chunk that it ended of."""
    _, step, _, index = chunk.locate(position)
    how = f"{type(error).__name__}: {error}"
    text = crash_error(step, index, Cause.CRASH, how)
    return how, Outcome(position, Kind.FAILED, text.encode("utf-8", "backslashreplace"), 0.0)


def shorten_trace(trace: str) -> str:
    """faulthandler's text down to the handler's own frames: the first process, nothing below our call."""
    lines: list[str] = []
    for line in trace.splitlines():
        if "/pgflow_mp/executors/" in line or "/pgflow_mp/flows/handlers.py" in line:
            break
        if lines and not line.strip():
            if any(text.startswith("  File") for text in lines):
                break
            continue
        lines.append(line)
    return "\n".join(lines).strip()


def verdict(cause: Cause, error: str, trace: str, position: int, seconds: float) -> Outcome | None:
    """The outcome of the running item; None where it is handed back."""
    if cause in _UNCHARGED:
        return None
    text = f"{error}\n{trace}" if trace else error
    return Outcome(position, Kind.FAILED, text.encode("utf-8", "backslashreplace"), seconds)


class CrashBudget:
    """How many crashes an item may cause before it is quarantined; kept apart from its attempts.

    Keys are the caller's, e.g. (run, step, index). Not thread-safe.
    """

    def __init__(self, limit: int = 2) -> None:
        if limit < 1:
            raise ValueError(f"a crash budget is at least 1, not {limit}")
        self.limit = limit
        self._crashes: dict[Hashable, int] = {}

    def charge(self, key: Hashable, outcome: Outcome) -> Outcome:
        """Count a crash of ``key``; at the limit its failure becomes permanent and says so."""
        crashes = self._crashes.get(key, 0) + 1
        if crashes < self.limit:
            self._crashes[key] = crashes
            return outcome
        self._crashes.pop(key, None)
        times = "1 crash" if crashes == 1 else f"{crashes} crashes"
        body = f"quarantined after {times}: ".encode() + outcome.body
        return Outcome(outcome.position, Kind.FAILED_FOR_GOOD, body, outcome.seconds)

    def crashes(self, key: Hashable) -> int:
        """Crashes charged to ``key`` so far."""
        return self._crashes.get(key, 0)

    def forget(self, key: Hashable) -> None:
        """``key`` is settled."""
        self._crashes.pop(key, None)
