"""Durable, CPU-heavy batch work in Python on nothing but PostgreSQL.

Flow, Context and the errors are what a flow is written with. Importing this package imports no
database driver: worker processes do without one.
"""

from __future__ import annotations

from pgflow_mp.context import Context
from pgflow_mp.errors import (
    ConfigError,
    DatabaseError,
    DatabaseUnavailable,
    FlowDefinitionError,
    FlowNotFound,
    InputError,
    LeaseLost,
    PermanentError,
    PgflowError,
    RunFailed,
    RunNotFound,
    SchemaError,
    ShapeMismatch,
    WaitTimeout,
)
from pgflow_mp.flow import Flow

__version__ = "0.1.0"

__all__ = [
    "ConfigError",
    "Context",
    "DatabaseError",
    "DatabaseUnavailable",
    "Flow",
    "FlowDefinitionError",
    "FlowNotFound",
    "InputError",
    "LeaseLost",
    "PermanentError",
    "PgflowError",
    "RunFailed",
    "RunNotFound",
    "SchemaError",
    "ShapeMismatch",
    "WaitTimeout",
]
