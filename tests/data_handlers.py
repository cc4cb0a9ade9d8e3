"""Functions that flows which are data name, of every kind that a list of handlers has to tell apart."""

from __future__ import annotations

import functools
import os
from os import system  # noqa: F401 - what a list of modules must not let through
from typing import Any


def split(text: str) -> list[str]:
    return text.split()


def length(word: str) -> int:
    return len(word)


def total(length: list[int | None], flow_input: str) -> int:
    return sum(filter(None, length)) + 0 * len(flow_input)


def anything(value: Any = None) -> Any:
    return value


def lengths(words: list[str]) -> list[int]:
    return [len(word) for word in words]


def numbers(pids: Any = None) -> list[int]:
    return [os.getpid()]


def greeting() -> str:
    return "hello"


def greet(name: str, greeting: str) -> str:
    return f"{greeting} {name}"


def _hidden(value: Any) -> Any:
    return value


partial = functools.partial(anything, 1)
no_function = 3
