"""Types that steps give and take, and handlers of them, for the tests of which types fit each other."""

from __future__ import annotations

import enum
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple, NewType, TypedDict

import msgspec
import pytest

from pgflow_mp import FlowDefinitionError


class Item(msgspec.Struct):
    name: str
    size: int = 0


@dataclass
class Named:
    name: str


class Row(TypedDict):
    name: str
    size: int


class Pair(NamedTuple):
    left: int
    right: str


class Tree(msgspec.Struct):
    children: list[Tree]


class Colour(enum.Enum):
    RED = "red"


class Level(enum.IntEnum):
    LOW = 1


Number = NewType("Number", int)


def gives(annotation: Any) -> Callable[..., Any]:
    def handler(x: Any) -> Any:
        return x

    handler.__annotations__["return"] = annotation
    return handler


def takes(annotation: Any, returned: Any = None) -> Callable[..., Any]:
    def handler(a: Any) -> Any:
        return a

    handler.__annotations__["a"] = annotation
    handler.__annotations__["return"] = returned
    return handler


def refused(define: Callable[[], object]) -> str:
    with pytest.raises(FlowDefinitionError) as error:
        define()
    return f"{error.value}\n{error.value.hint}"
