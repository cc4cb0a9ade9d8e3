"""When a plain background job that failed is tried again (contract: worker section 1.2)."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from pgflow_mp.errors import ConfigError

_LARGEST: Final = 2**31 - 1
_MOST_DOUBLINGS: Final = 50


@dataclass(frozen=True, slots=True)
class Exponential:
    """``limit`` more tries, after ``base`` seconds, twice that, and so on, at most ``cap``.

    Raises ConfigError.
    """

    limit: int = 5
    base: int = 3
    cap: int = 300

    def __post_init__(self) -> None:
        _check_limit(self.limit, _MOST_DOUBLINGS)
        _check_base(self.base)
        if not _is_whole(self.cap) or self.cap < self.base:
            raise ConfigError(f"cap must be a whole number of seconds, at least base, not {self.cap!r}")
        if self.cap > _LARGEST:
            raise ConfigError(f"cap must be at most {_LARGEST}, not {self.cap}")

    def delay(self, attempt: int) -> int:
        """Seconds to wait once this attempt, counted from 1, has failed."""
        return min(self.base << (attempt - 1), self.cap)


@dataclass(frozen=True, slots=True)
class Fixed:
    """``limit`` more tries, each after ``base`` seconds. Raises ConfigError."""

    limit: int = 5
    base: int = 3

    def __post_init__(self) -> None:
        _check_limit(self.limit, _LARGEST)
        _check_base(self.base)

    def delay(self, attempt: int) -> int:
        """Seconds to wait once any attempt has failed."""
        return self.base


RetryPolicy = Exponential | Fixed
_STRATEGIES: Final[Mapping[str, type[Exponential] | type[Fixed]]] = {
    "exponential": Exponential,
    "fixed": Fixed,
}


def retry_of(
    given: RetryPolicy | Mapping[str, object] | None,
    retry_delay: int | None = None,
    retry_limit: int | None = None,
) -> RetryPolicy:
    """What is meant: a strategy, or one as ``{"strategy": "fixed", "limit": 5, "base": 3}``.

    ``retry_delay`` and ``retry_limit`` are the former form: a fixed strategy. Raises ConfigError.
    """
    if retry_delay is not None or retry_limit is not None:
        if given is None:
            warnings.warn(
                "retry_delay and retry_limit are deprecated: retry=Fixed(limit=..., base=...)",
                DeprecationWarning,
                stacklevel=3,
            )
            return Fixed(5 if retry_limit is None else retry_limit, 3 if retry_delay is None else retry_delay)
        warnings.warn(
            "retry_delay and retry_limit are ignored where retry is given", DeprecationWarning, stacklevel=3
        )
    if given is None:
        return Exponential()
    if isinstance(given, Exponential | Fixed):
        return given
    if not isinstance(given, Mapping):
        raise ConfigError(f"retry must be Exponential(...) or Fixed(...), not {given!r}")
    options: dict[str, Any] = {str(name): value for name, value in given.items()}
    strategy = _STRATEGIES.get(str(options.pop("strategy", None)))
    if strategy is None:
        raise ConfigError(
            f'The strategy of a retry must be "exponential" or "fixed", not {given.get("strategy")!r}'
        )
    known = ("limit", "base", "cap") if strategy is Exponential else ("limit", "base")
    if "cap" in options and strategy is Fixed:
        raise ConfigError("cap is not allowed with the strategy fixed", hint="Its delay is always base.")
    if unknown := [name for name in options if name not in known]:
        raise ConfigError(f'retry has no option "{unknown[0]}"', hint=f"There are {', '.join(known)}.")
    return strategy(**options)


def _check_limit(limit: Any, most: int) -> None:
    if not _is_whole(limit) or limit < 0:
        raise ConfigError(f"limit must be a whole number, at least 0, not {limit!r}")
    if limit > most:
        raise ConfigError(f"limit must be at most {most}, not {limit}")


def _check_base(base: Any) -> None:
    if not _is_whole(base) or base <= 0:
        raise ConfigError(f"base must be a whole number of seconds, more than 0, not {base!r}")
    if base > _LARGEST:
        raise ConfigError(f"base must be at most {_LARGEST}, not {base}")


def _is_whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)
