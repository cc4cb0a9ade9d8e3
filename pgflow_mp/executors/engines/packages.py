"""Packages of engines: whether they are there, and imported when they are needed."""

from __future__ import annotations

import importlib
import importlib.util
from typing import Any, Final

from pgflow_mp.errors import ConfigError
from pgflow_mp.installed import pip_install

EXTRAS: Final = {"dask": "distributed", "ray": "ray", "mpi": "mpi4py"}
"""Package by extra, which is how an executor is called, too."""


def check(extra: str) -> None:
    """Raise ConfigError if the package of this extra is not installed."""
    package = EXTRAS[extra]
    if importlib.util.find_spec(package) is None:
        raise ConfigError(
            f"Executor {extra} needs the package {package}, which is not installed here",
            hint=f"Install it, here and wherever it runs items: {pip_install(extra)}",
        )


def load(extra: str, module: str = "") -> Any:
    """The package, or a module of it. Raises ConfigError if it is not installed or does not work."""
    check(extra)
    name = f"{EXTRAS[extra]}{module and '.'}{module}"
    try:
        return importlib.import_module(name)
    except Exception as error:
        raise ConfigError(
            f"Executor {extra} cannot be used: importing {name} failed: {type(error).__name__}: {error}",
            hint=f"Install it again: {pip_install(extra, '--force-reinstall')}",
        ) from error
