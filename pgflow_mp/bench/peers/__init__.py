"""Other task queues and pools, each in its documented best way for this work.

A module here has ``PEER`` and ``measure(task) -> float``; it is run by child.py in a process of its own.
Nothing in it is imported before that, so that a peer that is not installed costs nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import quote, urlencode

from psycopg.conninfo import conninfo_to_dict

from pgflow_mp.bench import burning


@dataclass(frozen=True, slots=True)
class PeerTask:
    """What to measure: ``function`` of bench.work on ``items``.

    ``dsn`` is an empty database (for ``schema`` peers: one with our schema), ``redis`` a socket.
    """

    function: str
    items: list[int]
    variant: str
    lanes: int
    dsn: str
    redis: str

    @property
    def call(self) -> Callable[[Any], Any]:
        """The function itself."""
        return burning.FUNCTIONS[self.function]

    @property
    def lists(self) -> list[list[int]]:
        """The items in lists, for engines where one batches by hand."""
        size = 20 if self.burns else 100
        return [self.items[i : i + size] for i in range(0, len(self.items), size)]

    @property
    def url(self) -> str:
        """``dsn`` as a URL, for drivers that take nothing else."""
        parts = conninfo_to_dict(self.dsn)
        user, password = (quote(str(parts.get(name) or ""), safe="") for name in ("user", "password"))
        login = f"{user}:{password}@" if password else f"{user}@"
        place = urlencode({"host": str(parts.get("host", "")), "port": str(parts.get("port") or 5432)})
        return f"postgresql://{login}/{quote(str(parts['dbname']))}?{place}"

    @property
    def burns(self) -> bool:
        """Whether items need a CPU for themselves."""
        return self.function == "burn"


@dataclass(frozen=True, slots=True)
class Peer:
    """What is compared, and what has to be known about it.

    ``packages`` must be installed. ``needs``: "postgres", "schema" (a database with our schema), "redis".
    ``slow`` variants get a tenth of the items: all of them would take minutes.
    """

    title: str
    packages: tuple[str, ...]
    variants: tuple[str, ...]
    needs: tuple[str, ...]
    results: str
    durable: str
    lacks: str
    slow: tuple[str, ...] = ()


MODULES: Final = (
    "bare_pool",
    "loky",
    "dask",
    "celery_redis",
    "pgqueuer",
    "procrastinate",
    "dbos",
    "reference",
)
