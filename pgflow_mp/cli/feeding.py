"""Reading what feeds a run, and loading its items with a bar on a terminal."""

from __future__ import annotations

import contextlib
import difflib
import json
import logging
import sys
import uuid
from collections.abc import Callable, Iterator, Sequence
from io import FileIO
from pathlib import Path
from typing import TYPE_CHECKING, Final

from pgflow_mp.cli import connecting
from pgflow_mp.cli.command_line import DatabaseChoice
from pgflow_mp.cli.input_options import InputChoice
from pgflow_mp.errors import InputError
from pgflow_mp.io.source import BadLine, ItemSource, collect
from pgflow_mp.io.whole import Whole
from pgflow_mp.values.inputs import LIMIT, RunInput, encode_input

if TYPE_CHECKING:
    from rich.progress import Progress

    from pgflow_mp.cli.preflight import FlowFacts
    from pgflow_mp.db.keeper import Keeper
    from pgflow_mp.db.pausing import When
    from pgflow_mp.db.reusing import Reuse
    from pgflow_mp.db.run_keys import Keyed
    from pgflow_mp.loading.targets import Target

_MESSAGE: Final = "Give its input, with all parameters, as one JSON value: --input FILE.json"


def read(
    choice: InputChoice, database: DatabaseChoice, workers: int | None = None
) -> RunInput | ItemSource | None:
    """The input, or a source of items that is yet to be read; None without any. Raises InputError.

    ``database`` is that of the runs, with connections for so many ``workers``: --sql asks it, too, unless
    another server is named.
    """
    from pgflow_mp.io.chosen import Wanted, choose

    if choice.sql is not None:
        from pgflow_mp.db.connection import discover_dsn, parse
        from pgflow_mp.io.query import Query

        found = connecting.named_dsn(database) if choice.sql_dsn is None else discover_dsn(choice.sql_dsn)
        if found is None:
            return Query(choice.sql, lambda: connecting.dsn_while_open(database, workers))
        parse(found)  # refuses what is not a connection string
        return Query(choice.sql, found)
    if choice.text is None:
        return None
    if choice.text == "-" and sys.stdin is not None:
        return choose("-", Wanted(choice.format, choice.stat, sys.stdin.buffer, choice.skip))
    return choose(choice.text, Wanted(choice.format, choice.stat, lenient=choice.skip))


class Skipped:
    """Bad lines, which go to a file of their own, ``NAME.bad.jsonl`` in the working directory."""

    def __init__(self, source: ItemSource, choice: InputChoice) -> None:
        name = "input" if choice.text in (None, "-") else str(choice.text).rstrip("/").rpartition("/")[2]
        self._path = Path(f"{name.replace('*', '_') or 'input'}.bad.jsonl")
        self._file: FileIO | None = None
        self._count = 0
        if choice.skip:
            source.on_bad = self._take

    def tell(self) -> None:
        """Say how many there were, and where they are."""
        if self._file is not None:
            self._file.close()
            lines = "1 bad line was" if self._count == 1 else f"{self._count:,} bad lines were"
            print(f"warning: {lines} skipped, see {self._path}", file=sys.stderr)

    def _take(self, bad: BadLine) -> None:
        try:
            if self._file is None:
                self._file = self._path.open("wb", buffering=0)  # written now, not once the run has begun
            line = json.dumps(bad._asdict()).encode() + b"\n"
            while line:
                line = line[self._file.write(line) or 0 :]
        except OSError as error:
            raise InputError(
                f"{self._path}, for bad lines, cannot be written: {error.strerror}",
                hint="Go where files can be written.",
            ) from None
        self._count += 1


@contextlib.contextmanager
def _in_our_words() -> Iterator[None]:
    """Say what to do as the command line has it, not as Python does."""
    from pgflow_mp.db.loads import AS_ONE_VALUE

    try:
        yield
    except InputError as error:
        if error.hint.startswith(AS_ONE_VALUE):
            error.hint = _MESSAGE
        raise


class Feed:
    """The items of a run, to be loaded, with the parameters of its other steps."""

    def __init__(self, source: ItemSource, choice: InputChoice, skipped: Skipped | None = None) -> None:
        self.source = source
        self.params = encode_input(choice.params or {})
        self._skipped = skipped

    def load(self, dsn: str, flow_slug: str, run_id: str) -> int:
        """Load all items for the run; how many. Raises InputError with the place of the first bad line."""
        from pgflow_mp.db import loads

        with _in_our_words(), self._reading(dsn) as (keeper, bar):
            return loads.load(keeper, flow_slug, self.source.batches(), run_id, progress=bar)

    def start(
        self,
        dsn: str,
        flow_slug: str,
        *,
        priority: int,
        tags: Sequence[str],
        after: When | None,
        key: str | None,
        reuse: Reuse | None = None,
    ) -> Keyed:
        """Load all items and start their run, or find the one of the key. Raises InputError, as above too."""
        from pgflow_mp.client import keyed_runs

        with _in_our_words(), self._reading(dsn) as (keeper, bar):
            return keyed_runs.load_and_start(
                keeper,
                flow_slug,
                self.source.batches(),
                self.params,
                str(uuid.uuid4()),
                priority=priority,
                tags=tags,
                after=after,
                key=key,
                reuse=reuse,
                progress=bar,
            )

    @contextlib.contextmanager
    def _reading(self, dsn: str) -> Iterator[tuple[Keeper, _Bar]]:
        from pgflow_mp.db import loads

        keeper = loads.patient(dsn, on_state=_say_once())
        with _bar(self.source) as bar, contextlib.closing(self.source), keeper:
            yield keeper, bar
            if bar.items == 0:
                print(f"warning: {self.source.name} has no items", file=sys.stderr)
        if self._skipped is not None:
            self._skipped.tell()


def _say_once() -> Callable[[str], None]:
    """Tells the log what is waited for, when that begins and when it is over."""
    waiting = ""

    def say(text: str) -> None:
        nonlocal waiting
        logger = logging.getLogger("pgflow_mp")
        if text and not waiting:
            logger.warning("waiting for the database: %s", text)
        elif waiting and not text:
            logger.info("connected to the database again")
        waiting = text

    return say


def prepare(
    targets: list[Target], name: str, choice: InputChoice, given: RunInput | ItemSource | None
) -> tuple[list[FlowFacts], FlowFacts, RunInput | Feed]:
    """The flows of the targets, the one that is meant, and how it is to be fed with what was ``given``.

    Raises InputError, FlowNotFound and what else loading the flow leads to.
    """
    from pgflow_mp.cli import preflight

    skipped: Skipped | None = None
    if isinstance(given, ItemSource):
        skipped = Skipped(given, choice)
        given.look()
    elif given is None and choice.params is not None:
        given = RunInput(encode_input(choice.params), "--set")
    is_set = isinstance(given, RunInput) and given.source == "--set"
    params = None if is_set or choice.params is None else encode_input(choice.params)
    flows = preflight.look_at(targets, given, params)
    flow = preflight.choose(flows, name)
    if isinstance(given, RunInput) and given.source == "--set" and flow.root_maps:
        given = preflight.missing_input(flow)
    feed = feed_for(flow, given or preflight.missing_input(flow), choice, skipped)
    preflight.check_input(flow, feed)
    return flows, flow, feed


def for_unknown(choice: InputChoice, given: RunInput | ItemSource | None) -> RunInput | Feed | None:
    """The input for a flow that only the database knows: items where there is a source of them."""
    if isinstance(given, ItemSource):
        return Feed(given, choice, Skipped(given, choice))
    if choice.params is None:
        return given
    return RunInput(encode_input(choice.params), "--set") if given is None else Feed(Whole(given), choice)


def feed_for(
    flow: FlowFacts, given: RunInput | ItemSource, choice: InputChoice, skipped: Skipped | None
) -> RunInput | Feed:
    """How the flow is to have what was given: as one value, or as items to be loaded.

    Items are one array where the flow has no map over its input, or where other steps read that, too, and no
    parameters were given for them. Raises InputError.
    """
    is_set = isinstance(given, RunInput) and given.source == "--set"
    if choice.params is not None and not flow.root_maps and not is_set:
        text = f"--set is for flows with a map over their input, and {flow.slug} has none"
        raise InputError(text, hint=_MESSAGE)
    _check_names(flow, choice)
    if isinstance(given, RunInput):
        return given if choice.params is None or not given.is_array else Feed(Whole(given), choice)
    given.row_types = flow.row_types
    if flow.root_maps and (choice.params is not None or not flow.reads_input):
        return Feed(given, choice, skipped)
    _refuse_folder(flow, given)
    with contextlib.closing(given):
        collected = collect(given, LIMIT)
    if skipped is not None:
        skipped.tell()
    return RunInput(collected, given.name)


def _check_names(flow: FlowFacts, choice: InputChoice) -> None:
    """Raise InputError for a parameter that nothing reads."""
    known = flow.input_names
    odd = [] if known is None else [name for name in choice.params or () if name not in known]
    if odd and known is not None:
        text = f'--set {odd[0]}: nothing in flow "{flow.slug}" reads a parameter of that name'
        close = difflib.get_close_matches(odd[0], known, 1)
        there = f"There are {', '.join(sorted(known))}." if known else "A step has them as its flow_input."
        raise InputError(text, hint=f"Did you mean {close[0]}?" if close else there)


def _refuse_folder(flow: FlowFacts, source: ItemSource) -> None:
    if not flow.root_maps and Path(source.name).is_dir():
        raise InputError(
            f"{source.name} is a directory, and flow {flow.slug} has no map over its files",
            hint="Name a file in it: .json, .jsonl or .ndjson.",
        )


@contextlib.contextmanager
def _bar(source: ItemSource) -> Iterator[_Bar]:
    if not sys.stderr.isatty():
        yield _Bar(source, None)
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (
        TextColumn("loading"),
        BarColumn(),
        TextColumn("{task.fields[items]:,} items, {task.fields[rate]:,.0f}/s"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        yield _Bar(source, progress)


class _Bar:
    """Shows how many items there are, at which rate, and how much of the source was read."""

    def __init__(self, source: ItemSource, progress: Progress | None) -> None:
        import time

        self.items = 0
        self._source = source
        self._progress = progress
        self._clock = time.monotonic
        self._began = time.monotonic()
        if progress is not None:
            self._task = progress.add_task("", total=source.size, items=0, rate=0.0)

    def __call__(self, items: int) -> None:
        self.items = items
        if self._progress is not None:
            rate = items / max(0.01, self._clock() - self._began)
            self._progress.update(self._task, completed=self._source.position, items=items, rate=rate)
