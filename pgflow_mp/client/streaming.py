"""imap: a run whose items come out as they end, with its worker in a thread beside whoever reads them."""

from __future__ import annotations

from collections.abc import AsyncIterable, Callable, Generator, Iterable, Mapping, Sequence
from concurrent.futures import Executor as Pool
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple
from uuid import uuid4

import msgspec

from pgflow_mp import runner
from pgflow_mp.client import feeding_items
from pgflow_mp.client.background_run import BackgroundRun
from pgflow_mp.client.finished_items import finished_items
from pgflow_mp.client.following import Follower
from pgflow_mp.client.placing import place_flow
from pgflow_mp.client.state import open_state
from pgflow_mp.db import schema
from pgflow_mp.db.keeper import Keeper
from pgflow_mp.db.public_errors import public_errors
from pgflow_mp.db.run_tags import check_tags
from pgflow_mp.errors import FlowNotFound, InputError, PgflowError
from pgflow_mp.flows import items as uses
from pgflow_mp.flows.finished_item import FinishedItem
from pgflow_mp.flows.flow import Flow
from pgflow_mp.flows.handles import step_in
from pgflow_mp.flows.results import inputs_reader, leaf_reader, output_reader
from pgflow_mp.loading import reentry
from pgflow_mp.observe.observer import Observer
from pgflow_mp.run_request import RunRequest
from pgflow_mp.values.inputs import encode_input

if TYPE_CHECKING:
    from pgflow_mp.flows.typed import StepLike


def imap(
    flow: Flow,
    items: Iterable[object] | AsyncIterable[object],
    *,
    step: StepLike | None = None,
    ordered: bool = True,
    keep: bool = True,
    workers: int | None = None,
    batch_size: int | None = None,
    max_poll_seconds: float = 2.0,
    dsn: str | None = None,
    data_dir: Path | str | None = None,
    timeout: float | None = None,
    params: Mapping[str, object] | None = None,
    run_id: str | None = None,
    priority: int = 0,
    tags: Sequence[str] = (),
    observer: Observer | None = None,
    executor: Pool | Callable[[], Pool] | str | None = None,
    ship: Literal["cloudpickle"] | None = None,
    **settings: Any,
) -> Generator[FinishedItem[Any, Any], None, None]:
    """See :meth:`pgflow_mp.Flow.imap`."""
    reentry.refuse("imap()")
    slug = _step_of(flow, step)
    of_function = step is not None and not isinstance(step, str)
    reading = _reading(flow, slug, of_function=of_function)
    if params is None and uses.reads_whole_input(flow):
        raise InputError(
            f'Other steps of flow "{flow.slug}" read its input, which items given one by one are not',
            hint="Give them theirs with params={...}.",
        )
    settings |= {"workers": workers, "batch_size": batch_size, "max_poll_seconds": max_poll_seconds}
    wanted = str(uuid4()) if run_id is None else runner.checked_id(run_id)
    target, more = place_flow(flow, ship)
    request = RunRequest(
        target,
        flow.slug,
        input=encode_input(params or {}),
        loaded=True,
        run_id=wanted,
        timeout=timeout,
        priority=priority,
        tags=check_tags(tags),
        executor=executor,
        settings=settings | more,
    )
    request.worker_settings(dsn or "")  # refuses what makes no sense
    return _imap(flow, items, slug, reading, request, dsn, data_dir, observer, ordered=ordered, keep=keep)


class _Reading(NamedTuple):
    """What reads JSON arrays of outputs and of inputs."""

    outputs: Callable[[bytes], list[Any]]
    inputs: Callable[[bytes], list[Any]]


def _reading(flow: Flow, slug: str, *, of_function: bool) -> _Reading:
    """Outputs of a leaf as annotated, and of a step that is given as its function, whose inputs are, too."""
    if of_function:
        return _Reading(output_reader(flow.steps[slug]).tasks, inputs_reader(flow, flow.steps[slug]))
    return _Reading(leaf_reader(flow, slug).tasks, msgspec.json.decode)


def _step_of(flow: Flow, step: StepLike | None) -> str:
    """The map whose items are wanted. Raises FlowNotFound and InputError."""
    if not uses.root_maps(flow):
        raise InputError(
            f'Flow "{flow.slug}" has no map over its input, whose items could be given one by one',
            hint="Call run(flow, input).",
        )
    if step is not None:
        if not isinstance(step, str):
            return step_in(flow, step).slug
        if step not in flow.steps:
            raise FlowNotFound(
                f'Step "{step}" does not exist in flow "{flow.slug}"',
                hint=f"Its steps are {', '.join(flow.steps)}.",
            )
        return step
    parents = {slug for each in flow.steps.values() for slug in each.dependencies}
    leaves = [each for slug, each in flow.steps.items() if slug not in parents]
    maps = [each.slug for each in flow.steps.values() if each.step_type == "map"]
    if len(leaves) == 1 and leaves[0].step_type == "map":
        return leaves[0].slug
    if len(maps) == 1:
        return maps[0]
    raise InputError(
        f'Whose items? Flow "{flow.slug}" has the maps {", ".join(maps)}',
        hint=f"Name one: step={maps[-1]!r}.",
    )


def _imap(
    flow: Flow,
    items: Iterable[object] | AsyncIterable[object],
    slug: str,
    reading: _Reading,
    request: RunRequest,
    dsn: str | None,
    data_dir: Path | str | None,
    observer: Observer | None,
    *,
    ordered: bool,
    keep: bool,
) -> Generator[FinishedItem[Any, Any], None, None]:
    run_id = str(request.run_id)

    with public_errors(), open_state(dsn, data_dir) as database:
        mode = str(request.settings.get("compile", "check"))
        feeding_items.load_for(database.dsn, flow, items, run_id, mode)
        background = BackgroundRun(flow, database, request, observer, keep=keep)
        try:
            background.start()
            with Keeper(database.dsn, prepare=schema.check) as keeper:
                follower = Follower(
                    keeper, run_id, slug, inputs=True, ordered=ordered, check=background.check
                )
                for ended in follower:
                    for each in ended:
                        yield from finished_items(each, *reading)
            background.finish()
        except GeneratorExit:
            background.cancel()
            raise
        except KeyboardInterrupt:
            background.stop()
            background.check()  # says how to go on with it
            raise
        except PgflowError as error:
            if not keep:
                error.hint = "Nothing is kept of the run (keep=False)."
            raise
        finally:
            background.stop()
            background.clean_up()
