"""Loading the items of a run page by page: nobody sees them until the run is started, whole and at once.

Pages go to the server in a pipeline: while it stores one, the next is read. What was not yet confirmed when a
connection is lost is sent again on the next one. A load that is given up is dropped; one that is killed never
runs, and the database drops it a day later, when somebody else loads.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import Final, NamedTuple, Protocol, cast

import psycopg

from pgflow_mp.db import connection, definitions, engine, patience, reusing, run_tags
from pgflow_mp.db.connection import Backoff
from pgflow_mp.db.engine import Connection, RunRow
from pgflow_mp.db.keeper import Keeper, Stopped, first_line
from pgflow_mp.db.pausing import When
from pgflow_mp.db.reusing import Reuse
from pgflow_mp.db.wire import Int4Array, RawJson, RawJsonArray
from pgflow_mp.errors import WHY_NO_RUN, DatabaseUnavailable, InputError, RunNotFound

PAGE_BYTES: Final = 64_000
MOST_ITEMS: Final = 20_000
"""Of a page: of tiny elements there are not more."""
_CALL_PAGES: Final = 4
_CALL_BYTES: Final = 4 * PAGE_BYTES
_AHEAD: Final = 4  # calls under way before they are waited for, or
_AHEAD_BYTES: Final = _AHEAD * _CALL_BYTES  # so much

NO_LOAD: Final = "PF003"
"""That a load is not under way."""
AS_ONE_VALUE: Final = "Give its input as one value"
"""How the hint begins where a flow has no items; the command line has other words for how."""

Elements = Sequence[object]
"""Raw JSON, as bytes or what is joined like them."""
ItemPage = tuple[int, bytes]
"""So many elements, and their JSON array."""
Hears = Callable[[int], object]


class HasElements(Protocol):
    """Consecutive elements."""

    @property
    def elements(self) -> Elements: ...


def patient(
    dsn: str,
    *,
    prepare: Callable[[Connection], object] | None = None,
    on_state: Callable[[str], object] | None = None,
) -> Keeper:
    """A keeper to load with: a server that is away is waited for as long as one that is silent."""
    backoff = Backoff(0.05, 1.0)
    return Keeper(dsn, prepare=prepare, on_state=on_state, give_up_after=patience.SILENCE, backoff=backoff)


def load(
    keeper: Keeper,
    flow_slug: str,
    batches: Iterator[HasElements],
    run_id: str,
    *,
    progress: Hears = lambda _items: None,
) -> int:
    """Store all elements for the run to come, see ``load_pages``."""
    return load_pages(keeper, flow_slug, _pages(batches), run_id, progress=progress)


def load_pages(
    keeper: Keeper,
    flow_slug: str,
    pages: Iterator[ItemPage],
    run_id: str,
    *,
    progress: Hears = lambda _items: None,
) -> int:
    """Store all elements for the run to come; how many they are. ``progress`` is told how many so far.

    A connection that is lost meanwhile is opened again, as long as the keeper tries. Whatever is raised,
    also by ``pages`` and KeyboardInterrupt, drops the load. Raises FlowNotFound, InputError for a flow
    without a map over its input and for elements that the database refuses, and DatabaseUnavailable.
    """
    tries = 0

    def begin(conn: Connection) -> None:
        nonlocal tries
        tries += 1
        try:
            conn.execute("select pgflow.open_load(%s, %s::uuid)", (flow_slug, run_id))
        except psycopg.errors.UniqueViolation as error:
            if tries == 1 or error.diag.constraint_name != "loads_pkey":
                raise  # else the last try had got through

    try:
        keeper.call(begin)
    except (psycopg.Error, DatabaseUnavailable) as error:
        told = _refused(keeper, error, flow_slug)
        raise told from (error if isinstance(told, DatabaseUnavailable) else None)
    sender = _Sender(keeper, run_id, progress)
    try:
        for call in _calls(pages):
            sender.send(call)
        return sender.finish()
    except BaseException:
        sender.give_up()
        raise


def drop(conn: Connection, run_id: str) -> None:
    """Give a load up; where the database cannot be reached, it does that by itself after a day."""
    with contextlib.suppress(psycopg.Error, OSError):
        conn.execute("select pgflow.drop_load(%s::uuid)", (run_id,))


def drop_with(keeper: Keeper, run_id: str) -> None:
    """The same; a server that is away is not waited for."""
    if (conn := keeper.current()) is not None:
        drop(conn, run_id)


def start_loaded_once(
    conn: Connection,
    run_id: str,
    params: bytes | None,
    *,
    priority: int = 0,
    tags: Sequence[str] = (),
    after: When | None = None,
    reuse: Reuse | None = None,
) -> RunRow:
    """Start the run of a load, or find that it was started. Raises InputError.

    ``params``: a JSON object, the run's input; None: that is the array of its items.
    """
    known = engine.get_run(conn, run_id)
    if known is None:
        try:
            with run_tags.marking(conn, tags, after) as tag:
                if reuse is not None:
                    reusing.start_loaded(conn, run_id, params, reuse, priority=priority)
                else:
                    conn.execute(
                        "select pgflow.start_loaded_run(%s::uuid, %s, %s)",
                        (run_id, None if params is None else RawJson(params), priority),
                    )
                tag(run_id)
        except psycopg.Error as error:
            if connection.is_transient(error):
                raise
            known = engine.get_run(conn, run_id)  # the last try may have got through while this one waited
            if known is None or error.sqlstate != NO_LOAD:
                raise InputError(f"The run cannot be started: {first_line(error)}") from None
        known = engine.get_run(conn, run_id)
    if known is None:
        raise RunNotFound(f"There is no run {run_id} in this database", hint=WHY_NO_RUN)
    return known


class _Pages(NamedTuple):
    """Consecutive pages, arguments of one call."""

    firsts: list[int]
    counts: list[int]
    bodies: list[bytes]

    @property
    def end(self) -> int:
        return self.firsts[-1] + self.counts[-1]


def _calls(pages: Iterator[ItemPage]) -> Iterator[_Pages]:
    group, size, first = _Pages([], [], []), 0, 0
    for count, body in pages:
        group.firsts.append(first)
        group.counts.append(count)
        group.bodies.append(body)
        first, size = first + count, size + len(body)
        if len(group.bodies) == _CALL_PAGES or size >= _CALL_BYTES:
            yield group
            group, size = _Pages([], [], []), 0
    if group.bodies:
        yield group


class _Sender:
    """Sends pages in a pipeline, and what is not confirmed once more where the connection is lost.

    Pages that are there already, and the same, are left as they are (``pgflow.add_pages``).
    """

    def __init__(self, keeper: Keeper, run_id: str, progress: Hears) -> None:
        self._keeper = keeper
        self._run_id = run_id
        self._progress = progress
        self._pipeline: contextlib.AbstractContextManager[psycopg.Pipeline] | None = None
        self._open: psycopg.Pipeline | None = None
        self._unconfirmed: list[_Pages] = []
        self._size = 0
        self._items = 0

    def send(self, pages: _Pages) -> None:
        self._unconfirmed.append(pages)
        self._size += sum(map(len, pages.bodies))
        self._items = pages.end
        confirm = len(self._unconfirmed) == _AHEAD or self._size >= _AHEAD_BYTES
        self._surely(lambda conn: self._pass_on(conn, [pages], confirm))
        if confirm:
            self._all_confirmed()
            self._progress(self._items)

    def finish(self) -> int:
        """Have all of it stored; how many items there are."""
        self._surely(lambda conn: self._pass_on(conn, [], True))
        self._all_confirmed()
        self._leave_quietly()  # a connection that is lost from here on takes nothing with it
        self._progress(self._items)
        return self._items

    def give_up(self) -> None:
        """Drop the load."""
        self._leave_quietly()
        drop_with(self._keeper, self._run_id)

    def _all_confirmed(self) -> None:
        self._unconfirmed.clear()
        self._size = 0

    def _surely(self, work: Callable[[Connection], None]) -> None:
        """Do it; on a new connection, where the last one is lost, all that is unconfirmed."""
        try:
            conn = self._keeper.current()
            if conn is None or self._open is None:
                self._keeper.call(self._again)
            else:
                try:
                    work(conn)
                except psycopg.Error as error:
                    if not self._keeper.passes(error):
                        raise
                    self._leave_quietly()
                    self._keeper.close()
                    self._keeper.call(self._again)
        except psycopg.Error as error:
            if connection.is_transient(error):
                raise unavailable(error) from error
            raise InputError(f"The items cannot be loaded: {first_line(error)}") from None
        except (DatabaseUnavailable, Stopped) as error:
            raise unavailable(error) from error

    def _again(self, conn: Connection) -> None:
        self._leave_quietly()
        self._pipeline = conn.pipeline()
        self._open = self._pipeline.__enter__()
        try:
            self._pass_on(conn, self._unconfirmed, True)
        except BaseException:
            self._leave_quietly()
            raise

    def _pass_on(self, conn: Connection, calls: Sequence[_Pages], confirm: bool) -> None:
        for firsts, counts, bodies in calls:
            conn.execute("begin")  # in a pipeline all would be one transaction, left open for a slow source
            patience.lift_limits(conn)
            conn.execute(
                "select pgflow.add_pages(%s::uuid, %s, %s, %s)",
                (self._run_id, Int4Array(firsts), Int4Array(counts), RawJsonArray(bodies)),
            )
            conn.execute("commit")
        if confirm and self._open is not None:
            self._open.sync()  # waits for them, and raises what was refused

    def _leave(self) -> None:
        pipeline, self._pipeline, self._open = self._pipeline, None, None
        if pipeline is not None:
            pipeline.__exit__(None, None, None)

    def _leave_quietly(self) -> None:
        """Leave what was refused or interrupted behind."""
        with contextlib.suppress(psycopg.Error, OSError):
            self._leave()
        if (conn := self._keeper.current()) is not None:
            with contextlib.suppress(psycopg.Error, OSError):
                conn.rollback()


def unavailable(error: BaseException) -> DatabaseUnavailable:
    """What to say where the database was away for too long."""
    return DatabaseUnavailable(
        f"The items could not be loaded: {first_line(error)}",
        hint="Nothing of them was started: load them again.",
    )


def _pages(batches: Iterator[HasElements]) -> Iterator[ItemPage]:
    """(items, JSON array) of about PAGE_BYTES out of batches of any size."""
    held: list[object] = []
    size = 0
    for batch in batches:
        for at in range(0, len(batch.elements), MOST_ITEMS):
            part = batch.elements[at : at + MOST_ITEMS]
            body = _join(part)
            if len(body) >= PAGE_BYTES // 2 and not held:
                yield from _cut(part, body)
                continue
            held += part
            size += len(body)
            if size >= PAGE_BYTES // 2 or len(held) >= MOST_ITEMS:
                yield from _cut(held, _join(held))
                held, size = [], 0
    if held:
        yield len(held), _join(held)


def _cut(elements: Elements, body: bytes) -> Iterator[ItemPage]:
    if len(body) <= 2 * PAGE_BYTES or len(elements) == 1:
        yield len(elements), body
        return
    middle = len(elements) // 2
    for part in (elements[:middle], elements[middle:]):
        yield from _cut(part, _join(part))


def _join(elements: Elements) -> bytes:
    return b"[" + b",".join(cast("Sequence[bytes]", elements)) + b"]"


def _refused(keeper: Keeper, error: Exception, flow_slug: str) -> Exception:
    conn = keeper.current()
    if conn is None or not isinstance(error, psycopg.Error) or connection.is_transient(error):
        return unavailable(error)
    if error.sqlstate == "PF006" and not definitions.queues(conn, flow_slug):
        return definitions.no_flow(conn, flow_slug)
    text = (error.diag.message_primary or first_line(error)).strip()
    if error.sqlstate == "PF006":
        return InputError(text, hint=f'{AS_ONE_VALUE}: start_flow("{flow_slug}", input)')
    return InputError(text)
