"""A look at the flow before anything is written: does it load, which steps has it, does the input fit?

User code is imported in a forked copy of this process, which is short-lived: the worker's parent never
imports it, and at this point there are neither threads nor connections to be copied.
"""

from __future__ import annotations

import os
import signal
import sys
from typing import Any, Final, Literal

import msgspec

from pgflow_mp import errors, streams
from pgflow_mp.errors import FlowNotFound, InputError, PgflowError
from pgflow_mp.io.source import ItemSource
from pgflow_mp.loading.targets import Target
from pgflow_mp.values.inputs import RunInput
from pgflow_mp.values.rows import RowTypes
from pgflow_mp.values.sampling import first_elements

_SAMPLE: Final = 100
_NOTHING_GIVEN: Final = RunInput(b"{}", "none was given: {}")
_GIVE: Final = "Give --input FILE (.json, .jsonl), JSON text like '{}', or - for standard input."


class StepOutline(msgspec.Struct):
    """A step as the command line needs to know it."""

    slug: str
    is_map: bool
    dependencies: list[str]
    reads_input: bool = False
    """Whether its function reads the run's input beside its own."""


class FlowFacts(msgspec.Struct):
    """A flow of the target at position ``target``.

    ``default_input`` is the example's, ``mismatch`` why the given input does not fit, or the one that a run
    gets if none is given, or the parameters. ``input_names`` are the members of the run's input that can be
    read, None if that is not known. ``row_types`` are what the map over the input wants of the columns of a
    table, ``reads_input`` whether anything besides such maps reads the run's input.
    """

    slug: str
    steps: list[StepOutline]
    shape: bytes
    queue_mode: str = "flow"
    target: int = 0
    default_input: bytes | None = None
    mismatch: str = ""
    row_types: RowTypes | None = None
    reads_input: bool = False
    input_names: set[str] | None = None

    @property
    def root_maps(self) -> list[str]:
        """Maps over the run's input."""
        return [step.slug for step in self.steps if step.is_map and not step.dependencies]

    @property
    def leaves(self) -> list[StepOutline]:
        """Steps that nothing depends on: their outputs are the run's output."""
        inner = {parent for step in self.steps for parent in step.dependencies}
        return [step for step in self.steps if step.slug not in inner]


class _Answer(msgspec.Struct):
    flows: list[FlowFacts] = []
    error: str = ""
    hint: str = ""
    kind: str = ""


def look_at(
    targets: list[Target], run_input: RunInput | ItemSource | None = None, params: bytes | None = None
) -> list[FlowFacts]:
    """Load the targets elsewhere, and tell what is in them. ``params`` are what steps read besides items.

    Raises FlowNotFound and FlowDefinitionError as loading does, and FlowNotFound if importing kills the
    process.
    """
    streams.flush()
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(read)
        _answer(write, targets, run_input, params)
    os.close(write)
    try:
        with open(read, "rb") as pipe:
            data = pipe.read()
    except BaseException:
        os.kill(pid, signal.SIGKILL)
        raise
    finally:
        status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    if not data:
        raise _died(targets, status)
    answer = msgspec.msgpack.decode(data, type=_Answer)
    if answer.error:
        kind = getattr(errors, answer.kind, FlowNotFound)
        raise kind(answer.error, hint=answer.hint)
    return answer.flows


def choose(flows: list[FlowFacts], target: str) -> FlowFacts:
    """The one flow of a target. Raises FlowNotFound where there are several."""
    if len(flows) == 1:
        return flows[0]
    raise FlowNotFound(
        f"{target} has {len(flows)} flows: {', '.join(flow.slug for flow in flows)}",
        hint=f"Name one of them: {target}:{flows[0].slug}.",
    )


def check_input(flow: FlowFacts, run_input: RunInput | object) -> None:
    """Raise InputError if the run's input, or its items, cannot be what the root steps ask for."""
    if flow.root_maps and isinstance(run_input, RunInput) and not run_input.is_array:
        raise InputError(
            f'Step "{flow.root_maps[0]}" of flow "{flow.slug}" is a map over the run\'s input, which must '
            f"be an array; {run_input.source} is {run_input.kind}",
            hint="Give a JSON array, or a .jsonl file with one value a line.",
        )
    if flow.mismatch:
        correct = "Correct the input, or the annotations of that parameter."
        given = run_input is not _NOTHING_GIVEN
        raise InputError(flow.mismatch, hint=correct if given else _GIVE.format('{"name": "value"}'))


def missing_input(flow: FlowFacts) -> RunInput:
    """The input of a run for which none was given: the example's own, else {}.

    Raises InputError for a flow that needs an array.
    """
    if flow.default_input is not None:
        return RunInput(flow.default_input, "the example's own input")
    if flow.root_maps:
        raise InputError(
            f'Flow "{flow.slug}" needs an input: its step "{flow.root_maps[0]}" is a map over it',
            hint=_GIVE.format("[1, 2, 3]"),
        )
    return _NOTHING_GIVEN


def _died(targets: list[Target], status: int) -> PgflowError:
    names = ", ".join(map(str, targets))
    if status == -signal.SIGINT:
        raise KeyboardInterrupt
    how = f"was killed by {signal.Signals(-status).name}" if status < 0 else f"exited with status {status}"
    return FlowNotFound(f"The process that imported {names} {how}", hint="Import it in Python to see why.")


def _answer(
    write: int, targets: list[Target], run_input: RunInput | ItemSource | None, params: bytes | None
) -> None:
    """In the forked process: load, describe, and leave without ever returning."""
    status = 1
    try:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        os.dup2(2, 1)  # what user code prints while it is imported is not our output
        answer = _describe(targets, run_input, params)
        with open(write, "wb") as pipe:
            pipe.write(msgspec.msgpack.encode(answer))
        status = 0
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


def _describe(
    targets: list[Target], run_input: RunInput | ItemSource | None, params: bytes | None
) -> _Answer:
    from pgflow_mp.loading import finding

    try:
        finding.load_app(targets)
        return _Answer(
            [
                _facts(flow, number, run_input, params)
                for number, target in enumerate(targets)
                for flow in finding.load_flows(target)
            ]
        )
    except PgflowError as error:
        return _Answer(error=str(error), hint=error.hint, kind=type(error).__name__)
    except BaseException as error:  # noqa: BLE001 - user code may raise anything while it is imported
        return _Answer(
            error=f"Loading {', '.join(map(str, targets))} failed with {type(error).__name__}: {error}"
        )


def _facts(
    flow: Any, target: int, run_input: RunInput | ItemSource | None, params: bytes | None
) -> FlowFacts:
    from pgflow_mp.flows import items
    from pgflow_mp.flows.shapes import definition

    steps = [
        StepOutline(step.slug, step.step_type == "map", list(step.dependencies), items.reads_beside(step))
        for step in flow.steps.values()
    ]
    facts = FlowFacts(flow.slug, steps, msgspec.json.encode(definition(flow)), flow.queues, target)
    module = sys.modules.get(flow.module)
    default = getattr(module, "DEFAULT_INPUT", None)
    if default is not None and flow.module.startswith("pgflow_mp.examples."):
        facts.default_input = msgspec.json.encode(default)
    facts.row_types, facts.reads_input = items.row_type(flow), items.reads_whole_input(flow)
    facts.input_names = items.input_names(flow)
    if params is not None and facts.root_maps:
        facts.mismatch = _mismatch(flow, RunInput(params, "--set"), only="others")
        if facts.mismatch:
            return facts
    if isinstance(run_input, ItemSource):
        run_input.row_types = facts.row_types
        sample = b"[" + b",".join(run_input.sample(_SAMPLE)) + b"]"
        facts.mismatch = _mismatch(flow, RunInput(sample, run_input.name), only="elements")
        return facts
    if params is not None and facts.root_maps and run_input is not None:
        facts.mismatch = _mismatch(flow, run_input, only="elements")
    elif run_input is not None or not facts.root_maps or facts.default_input is not None:
        facts.mismatch = _mismatch(flow, run_input or missing_input(facts))
    return facts


def _mismatch(flow: Any, run_input: RunInput, *, only: Literal["elements", "others"] | None = None) -> str:
    """Why the input does not fit, or nothing. Of an array for a root map, only a sample is looked at.

    ``only``: such maps are to be asked, or all others.

    Single misfits among many elements are the business of their tasks; if all of the first hundred are
    wrong, then the input is.
    """
    from pgflow_mp.flows.binding import Source
    from pgflow_mp.flows.checks import reader

    for step in flow.steps.values():
        is_map = step.step_type == "map"
        for argument in step.arguments:
            is_input = argument.source in (Source.INPUT, Source.MEMBERS) and not step.dependencies
            if argument.source is not Source.FLOW_INPUT and not is_input:
                continue
            if only is not None and (only == "elements") != (is_map and is_input):
                continue
            try:
                decode = reader(step.handler, argument, step.facts)[1]
            except PgflowError:  # reported when the flow is loaded
                continue
            samples: list[Any] = [run_input.json]
            if is_map and is_input:
                if not run_input.is_array:
                    continue
                samples = [*first_elements(run_input.json, _SAMPLE)]
                if step.batch:
                    samples = [b"[" + sample + b"]" for sample in samples]
            if problem := _all_wrong(decode, samples):
                what = f"the input ({run_input.source}, {run_input.kind})"
                what = f"No element of {what} fits" if is_map and is_input else f"T{what[1:]} does not fit"
                name = f'parameter "{argument.name}" of step "{step.slug}" in flow "{flow.slug}"'
                return f"{what} {name}: {problem}"
    return ""


def _all_wrong(decode: Any, samples: list[Any]) -> str:
    first = ""
    for sample in samples:
        try:
            decode(sample)
        except (msgspec.MsgspecError, RecursionError) as error:
            first = first or str(error)
        else:
            return ""
    return first
