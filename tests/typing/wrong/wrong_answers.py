"""Users' code that takes for something else what runs answer, or gives them what their flow does not take."""

from __future__ import annotations

from collections.abc import Iterator

from pgflow_mp import AsyncClient, Client, Flow, run
from pgflow_mp.testing import run_inline

flow = Flow[list[str]]("wrong_answers")


@flow.map
def measured(line: str) -> int:
    return len(line)


@flow.step(depends_on=[measured])
def total(measured: list[int]) -> int:
    return sum(measured)


def numbers() -> Iterator[int]:
    yield 1


ints = [1, 2]
texts = ["one"]
run(flow, ints)  # error: misc | reportArgumentType
run(flow, {"a": 1}, output=total)  # error: misc | reportArgumentType, reportCallIssue
run(flow, texts, output=total).upper()  # error: attr-defined | reportAttributeAccessIssue
text: str = run(flow, texts, output=measured)  # error: assignment | reportAssignmentType
count: int = run(flow, texts)  # error: assignment | reportAssignmentType
run(flow, texts)["total"]  # error: index | reportOptionalSubscript
run(flow, texts, output=3)  # error: call-overload | reportArgumentType, reportCallIssue
run(flow, texts, wokers=3)  # error: call-overload | reportCallIssue
run(flow, texts, preload=3)  # error: call-overload | reportArgumentType
run_inline(flow, ints)  # error: misc | reportArgumentType
same: list[str] = run_inline(flow, texts, output=measured)  # error: arg-type | reportAssignmentType
for item in flow.imap(texts, step=measured):
    item.output.bit_length()  # error: union-attr | reportOptionalMemberAccess
    item.input.bit_length()  # error: attr-defined | reportAttributeAccessIssue
flow.imap(ints)  # error: arg-type | reportArgumentType
flow.imap(numbers(), step=measured)  # error: arg-type | reportArgumentType, reportCallIssue
flow.imap(texts, step=total)  # error: call-overload | reportArgumentType, reportCallIssue
flow.imap(texts, wokers=3)  # error: call-overload | reportCallIssue


def follow(client: Client) -> None:
    client.start(flow, ints)  # error: misc | reportArgumentType, reportCallIssue
    client.start(flow, numbers())  # error: misc | reportArgumentType, reportCallIssue
    client.start_flow(flow, ints)  # error: misc | reportArgumentType, reportCallIssue
    client.schedule(flow, "* * * * *", ints)  # error: misc | reportArgumentType, reportCallIssue
    started = client.start(flow, texts)
    wrong: list[str] = list(started.results(measured))  # error: arg-type | reportAssignmentType
    print(wrong)
    for number in started.results(measured):
        number.upper()  # error: attr-defined | reportAttributeAccessIssue
    for _, name in client.indexed_results(started, measured):
        name.upper()  # error: attr-defined | reportAttributeAccessIssue
    for item in started.as_completed(measured):
        item.input.bit_length()  # error: attr-defined | reportAttributeAccessIssue
    started.result(output=total).upper()  # error: attr-defined | reportAttributeAccessIssue
    started.result()["total"]  # error: index | reportOptionalSubscript
    started.results("measured").append(3)  # error: attr-defined | reportAttributeAccessIssue
    for output in started.results("measured"):
        print(output + 1)  # error: operator | reportOperatorIssue
    client.enqueue("mails", 3).upper()  # error: attr-defined | reportAttributeAccessIssue


async def follow_later(client: AsyncClient) -> None:
    await client.start(flow, ints)  # error: misc | reportArgumentType, reportCallIssue
    await client.start_flow(flow, ints)  # error: misc | reportArgumentType, reportCallIssue
    started = await client.start(flow, texts)
    async for number in started.results(measured):
        number.upper()  # error: attr-defined | reportAttributeAccessIssue
    (await started.result(output=total)).upper()  # error: attr-defined | reportAttributeAccessIssue
    print(client.wait(started).run_id)  # error: attr-defined | reportAttributeAccessIssue
