"""One flow at several moments of its life: what PGFLOW_TEST_AGE says. For tests of flows that are changed."""

from __future__ import annotations

import os

from pgflow_mp import Flow

AGE = int(os.environ.get("PGFLOW_TEST_AGE", "1"))
STORAGE = os.environ.get("PGFLOW_TEST_STORAGE", "ranges")
flow = Flow("growing", max_attempts=1, base_delay=1, storage=STORAGE)  # type: ignore[arg-type]


@flow.map
def double(x: int) -> int:
    if x == 13 and AGE < 4:
        raise ValueError("thirteen")
    return 2 * x


if AGE == 9:  # not alike

    @flow.step(depends_on=[double], when={"double": [2]})
    def total(double: list[int]) -> int:
        return sum(double)

else:

    @flow.step(depends_on=[double])
    def total(double: list[int]) -> int:
        return sum(double)


if AGE >= 2 and AGE != 9:

    @flow.map(over=double)
    def named(x: int) -> str:
        return f"#{x}"

    @flow.step(depends_on=[total, named])
    def report(total: int, named: list[str]) -> str:
        return f"{total}: {' '.join(named)}"


if AGE == 5:

    @flow.step(depends_on=["report"])
    def last(report: str) -> str:
        return report + "!"
