"""A flow whose every item has a defect of its own."""

from __future__ import annotations

import math
import os
import sys
import threading
import time
from collections.abc import Callable
from decimal import Decimal
from typing import Any, NoReturn

from pgflow_mp import Flow, PermanentError


class Silent(Exception):
    """Cannot be printed."""

    def __str__(self) -> str:
        raise RuntimeError("no words")

    __repr__ = __str__


class Unpicklable(Exception):
    def __init__(self) -> None:
        super().__init__("holds a lock")
        self.lock = threading.Lock()

    def __reduce__(self) -> NoReturn:
        raise TypeError("never pickled")


def cycle() -> list[Any]:
    ring: list[Any] = []
    ring.append({"again": ring})
    return ring


def deep() -> list[Any]:
    nest: list[Any] = []
    for _ in range(5000):
        nest = [nest]
    return nest


def throw(error: BaseException) -> NoReturn:
    raise error


def recurse(depth: int = 0) -> int:
    return recurse(depth + 1)


def fork() -> str:
    if (pid := os.fork()) == 0:
        os._exit(0)
    os.waitpid(pid, 0)
    return "the parent came back"


def forked_copy_returns() -> str:
    pid = os.fork()
    if pid:
        os.waitpid(pid, 0)
        return "the original"
    return "the copy"


def threads() -> str:
    threading.Thread(target=time.sleep, args=(30,), daemon=True).start()
    threading.Thread(target=lambda: throw(ValueError("in a thread")), daemon=True).start()
    return "started"


def prints() -> str:
    print("{" * 100_000)
    sys.stderr.write("x" * 100_000)
    os.write(1, b"\xff\0raw\n")
    return "printed"


def closes_files() -> str:
    for fd in (0, 1, 2):
        os.close(fd)
    return "closed"


def leaves_things_changed() -> str:
    os.environ.clear()
    sys.stdout = None
    return "changed"


DEFECTS: dict[str, Callable[[], Any]] = {
    "nan": lambda: {"a": [1.0, math.nan]},
    "infinity": lambda: -math.inf,
    "cycle": cycle,
    "deep": deep,
    "tuple_key": lambda: {(1, 2): 3},
    "surrogate": lambda: ["\ud800"],
    "nul": lambda: {"text": "a\0b"},
    "nul_key": lambda: {"a\0b": 1},
    "object": lambda: {"it": object()},
    "complex": lambda: 1j,
    "many_digits": lambda: 10**140_000,
    "silent": lambda: throw(Silent()),
    "unpicklable": lambda: throw(Unpicklable()),
    "huge_message": lambda: throw(ValueError("x" * 1_000_000)),
    "odd_message": lambda: throw(ValueError("a\0b\ud800")),
    "group": lambda: throw(ExceptionGroup("two", [ValueError("one"), TypeError("other")])),
    "sys_exit": lambda: sys.exit("bye"),
    "interrupt": lambda: throw(KeyboardInterrupt()),
    "generator_exit": lambda: throw(GeneratorExit()),
    "recursion": recurse,
    "memory_error": lambda: throw(MemoryError("too much")),
    "permanent": lambda: throw(PermanentError("give up")),
}
FINE: dict[str, tuple[Callable[[], Any], Any]] = {
    "none": (lambda: None, None),
    "set": (lambda: {1}, [1]),
    "decimal": (lambda: Decimal("1.50"), "1.50"),
    "integer_key": (lambda: {1: 2}, {"1": 2}),
    "generator": (lambda: (n for n in (1, 2)), [1, 2]),
    "fork": (fork, "the parent came back"),
    "forked_copy_returns": (forked_copy_returns, "the original"),
    "threads": (threads, "started"),
    "prints": (prints, "printed"),
    "closes_files": (closes_files, "closed"),
    "changed": (leaves_things_changed, "changed"),
    "long_string": (lambda: "y" * 3_000_000, "y" * 3_000_000),
    "escapes": (lambda: '\u0001\\u0000"\n\u2028😀', '\u0001\\u0000"\n\u2028😀'),
}

bad = Flow("bad", max_attempts=1)


@bad.map(tolerate=1.0)
def act(name: str) -> Any:
    if name in DEFECTS:
        return DEFECTS[name]()
    return FINE[name][0]() if name in FINE else name


@bad.step(depends_on=[act])
def survivors(act: list[Any]) -> int:
    return sum(item is not None for item in act)


typed = Flow("typed", max_attempts=3, base_delay=1)


@typed.map(tolerate=1.0)
def double(number: int) -> int:
    return 2 * number


big = Flow("big", max_attempts=1)


@big.map(tolerate=1.0)
def blow(megabytes: int) -> str:
    return "z" * (megabytes * 1_000_000)
