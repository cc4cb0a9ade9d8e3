"""What a user may give as ``--executor`` or ``executor=``, and the factory of the executor that it means.

Threads: the one that makes the executor.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from concurrent.futures import Executor as Pool
from concurrent.futures import ThreadPoolExecutor
from typing import Final

from pgflow_mp.errors import ConfigError
from pgflow_mp.executors import tied_processes
from pgflow_mp.executors.call_engines import CallEngine, InlinePool, PoolEngine
from pgflow_mp.executors.cpus import available_cpus
from pgflow_mp.executors.engines import packages
from pgflow_mp.executors.engines.dask_engine import DaskEngine, is_dask
from pgflow_mp.executors.engines.mpi_engine import MpiEngine
from pgflow_mp.executors.engines.ray_engine import RayEngine
from pgflow_mp.executors.futures import FuturesExecutor
from pgflow_mp.executors.lanes.executor import lanes
from pgflow_mp.executors.messages import Setup
from pgflow_mp.executors.protocol import ExecutorFactory, Limits, OnEvent

WORDS: Final = "lanes, threads, inline, dask, dask://HOST:PORT, ray, ray://HOST:PORT, mpi"
_KINDS: Final = ("lanes", "threads", "inline", "dask", "dask+tls", "ray", "mpi")
_ADDRESSED: Final = ("dask", "dask+tls", "ray")
Given = Pool | Callable[[], Pool] | str
"""An Executor, a function that makes one, or a word; or what Dask has, which cannot be named here."""


def factory(given: object, workers: int | None = None) -> ExecutorFactory:
    """The ExecutorFactory for a word, an Executor, a function that makes one, or a Client of Dask.

    ``workers`` is how many chunks run at once at most (None: what it says itself, else one for each CPU).
    Raises ConfigError for anything else, and for an engine that is not installed.
    """
    if given is None or given == "lanes":
        return lanes
    if isinstance(given, str):
        return _of_word(given, workers)
    if is_dask(given):
        return over(lambda: DaskEngine(given, workers), workers)
    if not isinstance(given, Pool) and not callable(given):
        raise ConfigError(
            f"executor is a {type(given).__name__}, not a concurrent.futures.Executor: {given!r}",
            hint=f"Give an Executor, a function that makes one, or a word: {WORDS}.",
        )

    def make_engine() -> CallEngine:
        pool = given if isinstance(given, Pool) else given()
        again = None if isinstance(given, Pool) else given
        if not isinstance(pool, Pool):
            raise ConfigError(f"executor made a {type(pool).__name__}, not a concurrent.futures.Executor")
        places = workers or _size_of(pool) or available_cpus()
        return PoolEngine(pool, places, again=again)

    return over(make_engine)


def _of_word(word: str, workers: int | None) -> ExecutorFactory:
    check_word(word)
    kind, _, address = word.partition("://")
    if kind == "inline":
        return over(lambda: PoolEngine(InlinePool(), 1, name="inline"))
    if kind in ("dask", "dask+tls"):
        protocol = "tls" if kind == "dask+tls" else "tcp"
        where = f"{protocol}://{address}" if address else None
        return over(lambda: DaskEngine(where, workers), workers)
    if kind == "ray":
        return over(lambda: RayEngine(word if address else None, workers), workers)
    if kind == "mpi":
        return over(lambda: MpiEngine(workers), workers)
    count = workers or available_cpus()

    def threads() -> Pool:
        return ThreadPoolExecutor(count, "pgflow_mp item")

    return over(lambda: PoolEngine(threads(), count, again=threads, name="threads"))


def _size_of(pool: Pool) -> int | None:
    """What it says itself: those of the standard library, and others by the name that it has there."""
    for name in ("_max_workers", "num_workers"):
        if isinstance(size := getattr(pool, name, None), int) and size > 0:
            return size
    return None


def over(make_engine: Callable[[], CallEngine], most: int | None = None) -> ExecutorFactory:
    """The ExecutorFactory over an engine; ``most``: lanes that are used at most."""

    def make(setup: Setup, limits: Limits, on_event: OnEvent) -> FuturesExecutor:
        tied_processes.own_process()
        return FuturesExecutor(
            setup,
            on_event,
            make_engine(),
            most=most,
            max_memory=limits.max_memory,
            load_timeout=limits.load_timeout,
        )

    return make


def check_word(word: str) -> None:
    """Raise ConfigError for a word that names no executor, or one of an engine that is not installed."""
    kind, colon, address = word.partition("://")
    if kind not in _KINDS or (colon and kind not in _ADDRESSED):
        raise ConfigError(f"There is no executor {word!r}", hint=f"There are {WORDS}.")
    example = f"{kind}://host:{10001 if kind == 'ray' else 8786}"
    if bool(address) < bool(colon) or (kind == "dask+tls" and not address):
        raise ConfigError(f"Executor {word!r} lacks its address", hint=f"For example: {example}")
    if address and not re.fullmatch(r"(\[[0-9a-fA-F:.]+\]|[^\s/:\[\]]+):\d+", address):
        raise ConfigError(f"Executor {word!r}: {address!r} is not HOST:PORT", hint=f"For example: {example}")
    if (extra := kind.partition("+")[0]) in packages.EXTRAS:
        packages.check(extra)
