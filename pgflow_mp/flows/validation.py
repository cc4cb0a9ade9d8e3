"""Rules for options, patterns and handlers of a flow definition (contract: worker section 6).

Every function raises FlowDefinitionError with the contract's text. Nothing here knows Flow.
"""

from __future__ import annotations

import functools
import inspect
import json
import os
from collections.abc import Callable, Iterable, Mapping
from types import FunctionType
from typing import Any, Final, cast

from pgflow_mp.errors import ConfigError, FlowDefinitionError
from pgflow_mp.flows.labels import labels_of
from pgflow_mp.flows.options import FLOW, MINIMUM, NANS, OPTIONS, POLICY_MINIMUM, Nan
from pgflow_mp.flows.refusals import about
from pgflow_mp.values.stores import normal_root

MODES: Final = ("fail", "skip", "skip-cascade")
_MAX_INTEGER: Final = 2_147_483_647  # the columns are PostgreSQL integers

_TOLERATE_HINT: Final = (
    "An integer is a count of items, a float a share of them: tolerate=10 or tolerate=0.01."
)

_OTHER_NAMES: Final = {  # what people who know pgflow or another task queue type first
    "maxAttempts": "max_attempts",
    "baseDelay": "base_delay",
    "startDelay": "start_delay",
    "dependsOn": "depends_on",
    "whenUnmet": "when_unmet",
    "whenExhausted": "when_exhausted",
    "if": "when",
    "if_": "when",
    "ifNot": "unless",
    "if_not": "unless",
    "array": "over",
    "concurrency": "limit",
    "max_concurrency": "limit",
    "rate_limit": "rate",
    "retries": "max_attempts",
    "max_retries": "max_attempts",
    "name": "slug",
}


def check_options(options: Mapping[str, object], where: str) -> dict[str, int]:
    """Return the options that are set (not None), in the contract's order, if all are in bounds."""
    return _integers(options, MINIMUM, where)


def _integers(options: Mapping[str, object], least: Mapping[str, int], where: str) -> dict[str, int]:
    checked: dict[str, int] = {}
    for name, minimum in least.items():
        value = options.get(name)
        if value is None:
            continue
        if not isinstance(value, int) or isinstance(value, bool):
            raise FlowDefinitionError(
                f"{name} must be an integer, not {type(value).__name__}",
                hint=f"It was given for {where}.",
                option=name,
            )
        if value < minimum:
            raise FlowDefinitionError(
                f"{name} must be greater than or equal to {minimum}",
                hint=f"{where} has {value}.",
                option=name,
            )
        if value > _MAX_INTEGER:
            raise FlowDefinitionError(
                f"{name} must be less than or equal to {_MAX_INTEGER}",
                hint=f"{where} has {value}.",
                option=name,
            )
        checked[name] = value
    return checked


@about("tolerate")
def check_policy(options: Mapping[str, object], where: str) -> dict[str, int | float]:
    """Return a map's failure policy, and its batch, by the names of their SQL columns; only what is set."""
    policy: dict[str, int | float] = {}
    tolerate = options.get("tolerate")
    if isinstance(tolerate, bool) or not isinstance(tolerate, int | float | None):
        raise FlowDefinitionError(
            f"tolerate of {where} must be a number, not {type(tolerate).__name__}", hint=_TOLERATE_HINT
        )
    if isinstance(tolerate, int):
        if not 0 <= tolerate <= _MAX_INTEGER:
            wrong = "be negative" if tolerate < 0 else f"be more than {_MAX_INTEGER}"
            raise FlowDefinitionError(f"tolerate of {where} must not {wrong}", hint=_TOLERATE_HINT)
        policy["tolerated_failures"] = tolerate
    elif tolerate is not None:
        if not 0.0 <= tolerate <= 1.0:
            raise FlowDefinitionError(
                f"tolerate of {where} must be a share from 0.0 to 1.0, not {tolerate}", hint=_TOLERATE_HINT
            )
        policy["tolerated_share"] = tolerate
    return policy | _integers(options, POLICY_MINIMUM, where)


def check_unknown(unknown: Iterable[str], known: Iterable[str], where: str) -> None:
    """Refuse keyword arguments that do not exist, naming the one that was probably meant."""
    names, allowed = list(unknown), list(known)
    if not names:
        return
    name = names[0]
    import difflib

    owners = [f"{kind}s" for spec in OPTIONS if spec.name == name for kind in spec.kinds if kind != FLOW]
    close = difflib.get_close_matches(name, allowed, 1)
    guess = _OTHER_NAMES.get(name) or (close[0] if close else None)
    hint = f"Did you mean {guess}? " if guess in allowed and not owners else ""
    hint = f"It is an option of {' and '.join(owners)}. " if owners else hint
    raise FlowDefinitionError(
        f'{where} has no option "{name}"', hint=f"{hint}Options are {', '.join(allowed)}.", option=name
    )


def check_pattern(pattern: object, name: str, where: str) -> dict[str, Any] | None:
    """Return a private copy of a ``when``/``unless`` pattern; the database accepts JSON objects only."""
    if pattern is None:
        return None
    if not isinstance(pattern, Mapping):
        raise FlowDefinitionError(
            f"{name} of {where} must be a JSON object, not {type(pattern).__name__}",
            hint='A pattern is matched by containment. For example: {"status": "new"}',
        )
    try:
        copy: dict[str, Any] = json.loads(json.dumps(dict(pattern), allow_nan=False, ensure_ascii=False))
        json.dumps(copy, ensure_ascii=False).encode()
    except (TypeError, ValueError, RecursionError) as error:
        raise FlowDefinitionError(f"{name} of {where} is not JSON: {error}") from None
    _check_keys(pattern, name, where)
    if "\\u0000" in json.dumps(copy) and _has_nul(copy):
        raise FlowDefinitionError(f"{name} of {where} is not JSON: PostgreSQL stores no NUL characters")
    return copy


def _check_keys(value: object, name: str, where: str) -> None:
    """Refuse keys that are one in JSON, which keeps the last. ``value`` has passed json.dumps."""
    if isinstance(value, Mapping):
        seen: dict[str, object] = {}
        for key, item in value.items():
            (text,) = json.loads(json.dumps({key: None}))
            if text in seen:
                raise FlowDefinitionError(
                    f"{name} of {where} is ambiguous: its keys {seen[text]!r} and {key!r} are both "
                    f'"{text}" in JSON',
                    hint="Remove one of them.",
                )
            seen[text] = key
            _check_keys(item, name, where)
    elif isinstance(value, list | tuple):
        for item in value:
            _check_keys(item, name, where)


def _has_nul(value: object) -> bool:
    if isinstance(value, str):
        return "\0" in value
    if isinstance(value, dict):
        return any(_has_nul(key) or _has_nul(item) for key, item in value.items())
    return isinstance(value, list) and any(map(_has_nul, value))


def check_mode(mode: object, name: str, where: str) -> str | None:
    """Return ``mode`` if it is one of fail, skip, skip-cascade, or None (the default)."""
    if mode is None:
        return None
    if not isinstance(mode, str) or mode not in MODES:
        meant = str(mode).replace("_", "-")
        hint = f"Did you mean {meant}?" if meant in MODES else ""
        raise FlowDefinitionError(
            f"{name} of {where} must be one of {', '.join(map(repr, MODES))}, not {mode!r}",
            hint=hint,
            option=name,
        )
    return mode


@about("nan")
def check_nan(nan: object, where: str) -> Nan | None:
    """Return ``nan`` if it is one of error, null, or None (not said)."""
    if nan is not None and (not isinstance(nan, str) or nan not in NANS):
        raise FlowDefinitionError(
            f"nan of {where} must be {' or '.join(map(repr, NANS))}, not {nan!r}",
            hint="It says what NaN and Infinity in a result are: an error of the item, or null.",
        )
    return cast(Nan | None, nan)


@about("requires")
def check_requires(requires: object, where: str) -> tuple[str, ...]:
    """Return the labels that a worker needs for a step."""
    try:
        return labels_of(requires)
    except ValueError as error:
        raise FlowDefinitionError(
            f"requires of {where}: {error}", hint='For example: requires=["gpu", "bigmem"]'
        ) from None


@about("artifacts")
def check_artifacts(artifacts: object, where: str) -> str | None:
    """Return the place for artifacts as an absolute path or a URL, or None (not said)."""
    if artifacts is None:
        return None
    if not isinstance(artifacts, str | os.PathLike):
        raise FlowDefinitionError(
            f"artifacts of {where} must be a folder or a URL, not {type(artifacts).__name__}",
            hint='For example: artifacts="/data/artifacts", or artifacts="s3://bucket/artifacts"',
        )
    try:
        return normal_root(os.fspath(artifacts))
    except ConfigError as error:
        raise FlowDefinitionError(f"artifacts of {where}: {error}", hint=error.hint) from None


@about("handler")
def check_handler(handler: object, where: str) -> Callable[..., Any]:
    """Return ``handler`` if it can be called in a worker process."""
    if not callable(handler):
        raise FlowDefinitionError(
            f"Handler of {where} must be callable, not {type(handler).__name__}",
            hint="The slug comes first, then the handler; options are given by name.",
        )
    call: Any = handler  # itself, not what it may wrap: that may well run inside of asyncio.run()
    while isinstance(call, functools.partial):
        call = call.func
    for target in (call,) if isinstance(call, FunctionType) else (call, type(call).__call__):
        if inspect.iscoroutinefunction(target) or inspect.isasyncgenfunction(target):
            raise FlowDefinitionError(
                f"Handler {describe(handler)} of {where} is a coroutine function",
                hint="Handlers run in processes of their own: write 'def', "
                "and call asyncio.run() inside where you need it.",
            )
    return handler


def describe(handler: object) -> str:
    """The name by which an error mentions a handler, quoted."""
    name = getattr(handler, "__qualname__", None) or type(handler).__qualname__
    return f'"{str(name).replace("<locals>.", "")}"'
