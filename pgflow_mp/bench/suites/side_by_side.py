"""Other task queues and pools beside ours, in one run on one server, round by round."""

from __future__ import annotations

import contextlib
import dataclasses
import importlib
import importlib.util
import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable
from typing import Final

from pgflow_mp.bench.arena import Arena
from pgflow_mp.bench.findings import Bar, SuiteResult, Table
from pgflow_mp.bench.measure import Samples, interleave
from pgflow_mp.bench.peers import MODULES, Peer, PeerTask
from pgflow_mp.bench.peers.redis_server import redis_server
from pgflow_mp.bench.stage import Stage
from pgflow_mp.errors import PgflowError

NOOPS: Final = 10_000
BURN: Final = 0.001
_LIMIT: Final = 600
OURS: Final = "pgflow_mp"


class _Measured:
    """Seconds of every round of one engine's variant."""

    def __init__(self, peer: Peer | None, variant: str, noops: int, burns: int) -> None:
        self.peer, self.variant, self.noops, self.burns = peer, variant, noops, burns
        self.times: list[tuple[float, float]] = []

    @property
    def noop_rate(self) -> Samples:
        return Samples(tuple(self.noops / noop for noop, _ in self.times))

    @property
    def burn_rate(self) -> Samples:
        return Samples(tuple(self.burns / burn for _, burn in self.times))


def run(stage: Stage) -> SuiteResult:
    """No-op items and 1 ms of CPU, each engine in a process of its own."""
    result = SuiteResult("peers", "Side by side")
    burns = [stage.loops_for(BURN)] * (1000 if stage.quick else 3000)
    with contextlib.ExitStack() as stack:
        socket = ""
        try:
            socket = stack.enter_context(redis_server())
        except PgflowError as error:
            result.notes.append(f"without Redis: {error}")
        variants: dict[str, Callable[[], float]] = {}
        measured: dict[str, _Measured] = {}
        for storage, arena in stack.enter_context(stage.arenas("bench_map", "bench_burn")).items():
            entry = measured[f"{OURS}, {storage}"] = _Measured(None, f"maps in {storage}", NOOPS, len(burns))
            arena.warm_up("bench_map", list(range(500)))
            arena.warm_up("bench_burn", burns[:200], times=1)
            variants[f"{OURS}, {storage}"] = _ours(stage, arena, entry, burns)
        for name in MODULES:
            peer = _load(name)
            if reason := _missing(peer, socket):
                result.notes.append(f"{peer.title} is skipped: {reason}")
                continue
            for variant in peer.variants:
                key = f"{peer.title}, {variant}"
                share = 10 if variant in peer.slow else 1
                entry = measured[key] = _Measured(peer, variant, NOOPS // share, len(burns) // share)
                variants[key] = _runner(stage, name, entry, burns, socket, result)
        interleave(variants, stage.repeats(1, 3))
    _report(result, measured)
    return result


def _ours(stage: Stage, arena: Arena, entry: _Measured, burns: list[int]) -> Callable[[], float]:
    def run_ours() -> float:
        stage.say(f"{OURS}, {entry.variant}")
        noop = arena.run("bench_map", list(range(NOOPS))).total
        entry.times.append((noop, arena.run("bench_burn", burns).total))
        return noop

    return run_ours


def _load(name: str) -> Peer:
    peer: Peer = importlib.import_module(f"pgflow_mp.bench.peers.{name}").PEER
    return peer


def _missing(peer: Peer, socket: str) -> str:
    absent = [package for package in peer.packages if importlib.util.find_spec(package) is None]
    if absent:
        return f"{', '.join(absent)} is not installed"
    return "there is no redis-server" if "redis" in peer.needs and not socket else ""


def _runner(
    stage: Stage, name: str, entry: _Measured, burns: list[int], socket: str, result: SuiteResult
) -> Callable[[], float]:
    peer = entry.peer

    def run_peer() -> float:
        assert_peer = peer or _load(name)
        stage.say(f"{assert_peer.title}, {entry.variant}")
        with contextlib.ExitStack() as stack:
            dsn = ""
            if set(assert_peer.needs) & {"postgres", "schema"}:
                dsn = stack.enter_context(stage.database(with_schema="schema" in assert_peer.needs))
            common = (entry.variant, stage.lanes, dsn, socket)
            tasks = [
                PeerTask("noop", list(range(entry.noops)), *common),
                PeerTask("burn", burns[: entry.burns], *common),
            ]
            times = _in_child(name, tasks)
        if isinstance(times, str):
            result.notes.append(f"{assert_peer.title}, {entry.variant} failed: {times}")
            return 0.0
        entry.times.append((times[0], times[1]))
        return times[0]

    return run_peer


def _in_child(name: str, tasks: list[PeerTask]) -> list[float] | str:
    """Seconds for each task, or why there are none."""
    fields = json.dumps([dataclasses.asdict(task) for task in tasks])
    command = [sys.executable, "-m", "pgflow_mp.bench.peers.measured", name, fields]
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as err:
        # Files, not pipes: what a peer leaves running would keep a pipe open.
        child = subprocess.Popen(command, stdout=out, stderr=err, start_new_session=True)
        try:
            code = child.wait(_LIMIT)
        except subprocess.TimeoutExpired:
            return f"took longer than {_LIMIT} s"
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(child.pid, signal.SIGKILL)
            child.wait()
        out.seek(0)
        err.seek(0)
        lines, errors = out.read().splitlines(), err.read().strip().splitlines()
    if code or not lines:
        return errors[-1] if errors else f"exit status {code}"
    times: list[float] = json.loads(lines[-1])
    return times


def _report(result: SuiteResult, measured: dict[str, _Measured]) -> None:
    rows = []
    shown = [entry for entry in measured.values() if entry.times]
    for entry in sorted(shown, key=lambda entry: -entry.noop_rate.median):
        peer = entry.peer
        rows.append(
            (
                peer.title if peer else OURS,
                entry.variant,
                f"{entry.noop_rate.median:,.0f} ±{entry.noop_rate.spread / 2:.0%}",
                f"{entry.burn_rate.median:,.0f}",
                peer.results if peer else "in PostgreSQL",
                peer.durable if peer else "yes",
                peer.lacks if peer else "",
            )
        )
    for key, entry in measured.items():
        result.samples[key] = {"no-op": entry.noops, "burn": entry.burns, "seconds": entry.times}
    columns = ("engine", "as", "no-op items/s", "1 ms CPU items/s", "results", "durable", "note")
    result.tables.append(Table("whole jobs", columns, rows))
    ours = max(e.noop_rate.median for e in shown if e.peer is None)
    queue = [e.noop_rate.median for e in shown if e.peer is not None and e.peer.title == "PgQueuer"]
    if queue:
        what = "no-op items/s over pgqueuer's best"
        result.bars.append(Bar.at_least(what, ours / max(queue), 1.0, "{:.2f}"))
    stand_in = [e.noop_rate.median for e in shown if e.peer is not None and "one call" in e.peer.title]
    if stand_in:
        what = (
            "no-op items/s over one call per task on our SQL (a stand-in for the reference, faster than it)"
        )
        result.bars.append(Bar(what, f"{ours / stand_in[0]:.0f}", "50 over the reference", None))
