"""User code that a type checker refuses: each marked line must have exactly the error it names."""

from __future__ import annotations

from pgflow_mp import Context, Flow

flow = Flow("typed", retries=3)  # expect: call-arg
Flow("typed", timeout="60")  # expect: arg-type
Flow(5)  # expect: arg-type


@flow.step
def first(x: int) -> int:
    return x


@flow.step(depends_on=[first], when_unmet="ignore")  # expect: call-overload
def second(first: int) -> int:
    return first


@flow.map(depends_on=[first])  # expect: call-overload
def third(x: int) -> int:
    return x


@flow.array(max_attempts="3")  # expect: call-overload
def fourth(ctx: Context) -> list[int]:
    return [ctx.index]  # expect: attr-defined


Flow("f", storage="rows")  # expect: arg-type
Flow("f", nan="nul")  # expect: arg-type


@flow.step(batch=3)  # expect: call-overload
def fifth(x: int) -> int:
    return x


@flow.map(barrier="no")  # expect: call-overload
def sixth(x: int) -> int:
    return x


first("x")  # expect: arg-type
flow.step("s", 5)  # expect: call-overload
