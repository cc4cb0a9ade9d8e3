"""User code that a type checker refuses: each marked line has exactly the error that it names."""

from __future__ import annotations

from pgflow_mp import Context, Flow

flow = Flow("typed", retries=3)  # error: call-arg | reportCallIssue
Flow("typed", timeout="60")  # error: arg-type | reportArgumentType
Flow(5)  # error: arg-type | reportArgumentType


@flow.step
def first(x: int) -> int:
    return x


@flow.step(depends_on=[first], when_unmet="no")  # error: call-overload | reportCallIssue, reportArgumentType
def second(first: int) -> int:
    return first


@flow.map(depends_on=[first])  # error: call-overload | reportCallIssue
def third(x: int) -> int:
    return x


@flow.array(max_attempts="3")  # error: call-overload | reportCallIssue, reportArgumentType
def fourth(ctx: Context) -> list[int]:
    return [ctx.index]  # error: attr-defined | reportAttributeAccessIssue


Flow("f", storage="rows")  # error: arg-type | reportArgumentType
Flow("f", nan="nul")  # error: arg-type | reportArgumentType


@flow.step(batch=3)  # error: call-overload | reportCallIssue
def fifth(x: int) -> int:
    return x


@flow.map(barrier="no")  # error: call-overload | reportCallIssue, reportArgumentType
def sixth(x: int) -> int:
    return x


first("x")  # error: arg-type | reportArgumentType
flow.step("s", 5)  # error: call-overload | reportArgumentType
