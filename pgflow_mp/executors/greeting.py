"""The first words with an engine: has it the code, which flows are there."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, Final, TypeVar

import msgspec

from pgflow_mp.errors import PgflowError
from pgflow_mp.executors import code_identity, remote
from pgflow_mp.executors.call_engines import CallEngine, CallFault
from pgflow_mp.executors.messages import FlowInfo, Setup, decode_hello, encode

T = TypeVar("T")

_TRIES: Final = 5
_PAUSE: Final = 0.5
_PASSING: Final = (CallFault.PLACE, CallFault.HOST, CallFault.WITHDRAWN)


def greet(engine: CallEngine, orders: Setup, patience: float) -> tuple[list[FlowInfo], Setup]:
    """The flows that it can run, and the orders to give it: with the code that each process has to have.

    Raises DifferentCode, and PgflowError where it cannot run anything, within ``patience`` seconds.
    """
    if engine.far:
        there, where = _call(engine, patience, remote.version)
        if there != (here := code_identity.own_version()):
            text = code_identity.other_version(there, where, here)
            raise code_identity.DifferentCode(text, hint=code_identity.HINT)
    hello = decode_hello(_call(engine, patience, remote.hello, encode(orders)))
    if hello.error:
        raise PgflowError(hello.error, hint=hello.hint)
    if engine.far:
        wanted = code_identity.digests_here(hello.code, orders)
        if other := code_identity.differences(hello.host, wanted, hello.code):
            raise code_identity.DifferentCode(other, hint=code_identity.HINT)
        orders = msgspec.structs.replace(orders, code=wanted, version=code_identity.own_version())
    return hello.flows, orders


def _call(engine: CallEngine, patience: float, function: Callable[..., T], *args: Any) -> T:
    """What it answers; where only its worker was lost meanwhile, at the next try."""
    tries = _TRIES if engine.far else 1
    while True:
        tries -= 1
        try:
            return engine.submit(function, *args).result(patience)
        except TimeoutError:
            raise PgflowError(
                f"Executor {engine.name} has not loaded the flow within {patience:g} s",
                hint="Look whether it has workers, and what the module does when it is imported. "
                "--load-timeout gives it more time.",
            ) from None
        except Exception as error:
            if tries and engine.fault(error) in _PASSING:
                time.sleep(_PAUSE)
                continue
            raise PgflowError(
                f"Executor {engine.name} cannot run anything: {type(error).__name__}: {error}",
                hint="It must be open, and its workers must be able to import pgflow_mp.",
            ) from error
