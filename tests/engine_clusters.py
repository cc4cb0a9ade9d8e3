"""Real engines for tests: a cluster of two processes each, started once where it is installed."""

from __future__ import annotations

import functools
import importlib.util
import logging
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import start_flows

from pgflow_mp.executors.choosing import factory
from pgflow_mp.executors.protocol import ExecutorFactory

ENGINES = {"dask": "distributed", "ray": "ray", "mpi": "mpi4py"}
"""Package by engine."""


NOTES = os.environ.get(start_flows.NOTES) or f"{tempfile.gettempdir()}/pgflow-notes-{os.getpid()}"
"""Where on_start functions of tests write in processes of the engines, which have the environment of then."""
_closing: list[Callable[[], Any]] = []


def close_all() -> None:
    """End all that was started."""
    while _closing:
        _closing.pop()()
    for cached in (dask_cluster, dask_client, ray_cluster):
        cached.cache_clear()
    for path in (NOTES, f"{NOTES}.order"):
        Path(path).unlink(missing_ok=True)


def missing(engine: str) -> bool:
    """Whether it is not installed."""
    return importlib.util.find_spec(ENGINES[engine]) is None


def needs(engine: str) -> pytest.MarkDecorator:
    """The mark of tests with it."""
    return pytest.mark.skipif(missing(engine), reason=f"{ENGINES[engine]} is not installed")


@functools.cache
def dask_cluster() -> Any:
    """Two workers of one thread each, with nannies; one death of its worker is too many for a task."""
    import dask
    import distributed

    os.environ[start_flows.NOTES] = NOTES
    # A cluster gives up for good what is not back in time: on a busy machine each of its two workers.
    lasting = {"distributed.scheduler.allowed-failures": 0, "distributed.deploy.lost-worker-timeout": "1h"}
    dask.config.set(lasting)
    logging.getLogger("distributed").setLevel(logging.CRITICAL)
    cluster = distributed.LocalCluster(
        n_workers=2, threads_per_worker=1, processes=True, dashboard_address=":0"
    )
    _closing.append(cluster.close)
    return cluster


@functools.cache
def dask_client() -> Any:
    """A client of that cluster."""
    import distributed

    client = distributed.Client(dask_cluster(), set_as_default=False)
    _closing.append(client.close)
    return client


@functools.cache
def ray_cluster() -> None:
    """Two CPUs, of a cluster of this process's own."""
    import ray

    os.environ[start_flows.NOTES] = NOTES
    os.environ["RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO"] = "0"  # it warns of what will change otherwise
    ray.init(
        address="local",
        num_cpus=2,
        include_dashboard=False,
        log_to_driver=False,
        logging_level=logging.CRITICAL,
    )
    _closing.append(ray.shutdown)


def on_dask() -> ExecutorFactory:
    """The executor over the cluster."""
    return factory(dask_client())


def on_ray() -> ExecutorFactory:
    """The executor over the cluster."""
    ray_cluster()
    return factory("ray")


def on_mpi() -> ExecutorFactory:
    """The executor over two processes."""
    return factory("mpi", 2)
