"""What visitors may do where actions are allowed: to runs, flows, workers, schedules.

What cannot be taken back, and what is done to many runs, is asked about first, on a page of its own.
Threads: may be called from several; each call borrows a connection.
"""

from __future__ import annotations

import secrets
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from typing import Final, NamedTuple
from urllib.parse import urlencode
from uuid import UUID

from pgflow_mp.db import draining, engine, pausing, pruning, retrying, schedules
from pgflow_mp.db.engine import Connection
from pgflow_mp.db.shared_connections import SharedConnections
from pgflow_mp.errors import WHY_NO_RUN, ConfigError, InputError, PgflowError, RunNotFound
from pgflow_mp.observe import read_reports
from pgflow_mp.observe.text import plural
from pgflow_mp.web.page_settings import PageSettings
from pgflow_mp.web.questions import FLOW, RUN, SAID, WORKER, PageQuery, pattern, question, way
from pgflow_mp.web.rendering import Drawn
from pgflow_mp.web.views.runs_page import FILTERS, RunFilter

SentForm = Mapping[str, Sequence[str]]

REASON: Final = "Cancelled on the web page"
_COUNTED: Final = 500
_AT_ONCE: Final = 200
"""Runs of a filter that are read at once."""
_SECONDS: Final = 20.0
"""After which the rest of many runs is left to the next click."""
_SAYINGS: Final = 200


class RunAction(NamedTuple):
    """What can be done to a run: ``change`` answers whether that changed anything."""

    did: str
    change: Callable[[Connection, str], bool]
    asks: str = ""
    """What is asked before it is done, if anything."""
    states: tuple[str, ...] = ()
    """Of runs for which it makes sense; empty for all."""


def _cancel(conn: Connection, run_id: str) -> bool:
    if _status(conn, run_id) != "started":
        return False
    engine.cancel_run(conn, run_id, REASON)
    return True


def _retry(conn: Connection, run_id: str) -> bool:
    _status(conn, run_id)
    return bool(retrying.retry_items(conn, run_id, retrying.Choice(None, None, None)))


def _pause(conn: Connection, run_id: str) -> bool:
    return _status(conn, run_id) == "started" and pausing.pause_run(conn, run_id)


def _resume(conn: Connection, run_id: str) -> bool:
    return pausing.resume_run(conn, run_id)


def _delete(conn: Connection, run_id: str) -> bool:
    if _status(conn, run_id) == "started":
        raise InputError(
            f"Run {run_id} is started, only a run that has ended can be removed", hint="Cancel it first."
        )
    pruning.remove_run(conn, run_id)
    return True


def _status(conn: Connection, run_id: str) -> str:
    status = engine.run_status(conn, run_id)
    if status is None:
        raise RunNotFound(f"There is no run {run_id} in this database", hint=WHY_NO_RUN)
    return status


RUN_ACTIONS: Final[dict[str, RunAction]] = {
    "cancel": RunAction(
        "Cancelled", _cancel, "What runs of it is stopped. What is recorded stays, and it can be retried."
    ),
    "retry": RunAction("Retried", _retry),
    "pause": RunAction("Paused", _pause),
    "resume": RunAction("Resumed", _resume),
    "delete": RunAction(
        "Deleted", _delete, "Its inputs, results and errors are gone for good. This cannot be taken back."
    ),
}
_ASKED_FIRST: Final = ("cancel", "delete")
_NOTHING: Final = {
    "cancel": "had ended already",
    "retry": "had nothing to retry",
    "pause": "had ended or was paused already",
    "resume": "was not paused",
    "delete": "was gone already",
}


class Actions:
    """Performs what forms ask for, on connections of its own that may write."""

    def __init__(self, dsn: str, settings: PageSettings) -> None:
        self._settings = settings
        self._said: OrderedDict[str, str] = OrderedDict()
        self._lock = threading.Lock()
        self._connections = SharedConnections(dsn, most=2, seconds=0, writes=True)
        self._paths = (
            (pattern(f"/runs/{RUN}"), self._run),
            (pattern("/runs"), self._many),
            (pattern(f"/flows/{FLOW}"), self._flow),
            (pattern(f"/workers/{WORKER}"), self._worker),
            (pattern(f"/schedules/{FLOW}/(?P<name>[^/]{{1,100}})"), self._schedule),
        )

    def open(self) -> None:
        """Begin; nothing is connected yet."""
        if self._settings.allow_actions:
            self._connections.open()

    def close(self) -> None:
        """Close the connections."""
        if self._settings.allow_actions:
            self._connections.close()

    def told(self, asked: PageQuery) -> str | None:
        """What an action has done that has led here; told once. The query has a number for it only."""
        with self._lock:
            return self._said.pop(asked.text(SAID) or "", None)

    def _on(self, path: str, text: str, **query: str) -> str:
        """Where to go on, with what there is to tell."""
        number = secrets.token_hex(8)
        with self._lock:
            self._said[number] = text
            while len(self._said) > _SAYINGS:
                self._said.popitem(last=False)
        return path + "?" + urlencode({**query, SAID: number})

    def perform(self, path: str, form: SentForm) -> str | Drawn:
        """Do what a form asks for: where to go on, or a page that asks whether it is meant.

        Raises PgflowError for what cannot be done, and ConfigError where nothing may.
        """
        if not self._settings.allow_actions:
            raise ConfigError(
                "This page is read-only: it was started without --allow-actions",
                hint="Who serves it can start it with that, or use the command line.",
            )
        for matches, act in self._paths:
            if (match := matches(path)) is not None:
                with self._connections.lent() as conn:
                    return act(conn, match.groupdict(), form)
        raise InputError("There is nothing to do under this address")

    # -- one run ------------------------------------------------------------------------------------------

    def _run(self, conn: Connection, pieces: Mapping[str, str], form: SentForm) -> str | Drawn:
        run_id, name = str(UUID(pieces["run"])), _action(form)
        action = RUN_ACTIONS[name]
        if name in _ASKED_FIRST and _one(form, "sure") != "1":
            return _ask(name, f"run {run_id}", action.asks, way("runs", run_id), way("runs", run_id), {})
        changed = action.change(conn, run_id)
        told = f"{action.did}." if changed else f"Nothing was changed: the run {_NOTHING[name]}."
        if name == "delete":
            return self._on("/runs", f"Deleted run {run_id}.")
        return self._on(way("runs", run_id), told)

    # -- many runs ----------------------------------------------------------------------------------------

    def _many(self, conn: Connection, _pieces: Mapping[str, str], form: SentForm) -> str | Drawn:
        name = _action(form)
        filters = {each: _one(form, each) for each in FILTERS if _one(form, each)}
        back = "/runs" + ("?" + urlencode(filters) if filters else "")
        ids: list[str] | None = None
        if _one(form, "which") != "all":
            ids = _ids(form.get("run", ()))
            if not ids:
                raise InputError("No run is ticked", hint="Tick some, or choose all that the filters show.")
        asked = question("/runs", {}, urlencode(filters))
        if _one(form, "sure") != "1":
            meant = plural(len(ids), "run") if ids is not None else self._counted(conn, asked)
            kept = {**filters, "which": "all" if ids is None else "ticked"}
            shown = RUN_ACTIONS[name].asks.replace("it ", "them ").replace("Its ", "Their ")
            return _ask(name, meant, shown, "/runs", back, kept, ids or ())
        told = self._do(conn, name, ids, asked)
        return self._on("/runs", told, **filters)

    @staticmethod
    def _counted(conn: Connection, asked: PageQuery) -> str:
        found, further = RunFilter(asked).read(conn, _COUNTED)
        return f"{len(found):,} runs and more" if further else plural(len(found), "run")

    def _do(self, conn: Connection, name: str, ids: list[str] | None, asked: PageQuery) -> str:
        """Do it to these runs, or to those that the filter shows, while a visitor may be kept waiting."""
        action, until = RUN_ACTIONS[name], time.monotonic() + _SECONDS
        changed, same, refused, first = 0, 0, 0, ""
        left, wanted = False, RunFilter(asked)
        while True:
            if ids is None:
                batch, wanted.mark = wanted.read(conn, _AT_ONCE)
            for run_id in ids if ids is not None else [run.run_id for run in batch]:
                if time.monotonic() > until:
                    left = True
                    break
                try:
                    done = action.change(conn, run_id)
                    changed, same = changed + done, same + (not done)
                except PgflowError as error:
                    refused += 1
                    first = first or str(error)
            if left or wanted.mark is None:
                break
        told = [f"{action.did} {plural(changed, 'run')}."]
        if same:
            told.append(
                f"{plural(same, 'run')} {_NOTHING[name].replace('was', 'were' if same > 1 else 'was')}."
            )
        if refused:
            told.append(f"{plural(refused, 'run')} refused: {first}.")
        if left:
            told.append("That took long enough: do it again for the rest.")
        return " ".join(told)

    # -- flows, workers, schedules ----------------------------------------------------------------------

    def _flow(self, conn: Connection, pieces: Mapping[str, str], form: SentForm) -> str:
        slug, name = pieces["flow"], _action(form, ("pause", "resume"))
        if name == "pause":
            told = "Paused." if pausing.pause_flow(conn, slug) else "It was paused already."
        else:
            told = "Resumed." if pausing.resume_flow(conn, slug) else "It was not paused."
        return self._on(way("flows", slug), told)

    def _worker(self, conn: Connection, pieces: Mapping[str, str], form: SentForm) -> str | Drawn:
        _action(form, ("drain",))
        worker_id = pieces["worker"].lower()
        found = read_reports.read_worker(conn, worker_id)
        if found is None:
            raise RunNotFound(f"There is no worker {worker_id} in this database")
        path = way("workers", worker_id)
        if _one(form, "sure") != "1":
            about = "It ends and records what it runs, takes nothing more, and stops."
            return _ask("drain", f"worker {found.name}", about, path, path, {})
        drained = [each for one in found.worker_ids for each in draining.drain_workers(conn, worker=one)]
        told = "It ends what it runs, and stops." if drained else "It was told so before, or has ended."
        return self._on(path, told)

    def _schedule(self, conn: Connection, pieces: Mapping[str, str], form: SentForm) -> str:
        flow, name, action = pieces["flow"], pieces["name"], _action(form, ("pause", "resume"))
        if action == "pause":
            told = "Paused {}." if schedules.pause(conn, flow, name) else "{} was paused already."
        else:
            told = "Resumed {}." if schedules.resume(conn, flow, name) else "{} was not paused."
        shown = flow if name == "default" else f"{flow} / {name}"
        return self._on("/schedules", told.format(shown))


def _ask(
    name: str, what: str, about: str, path: str, back: str, kept: Mapping[str, str], ids: Sequence[str] = ()
) -> Drawn:
    values = {
        "action": name,
        "what": what,
        "about": about,
        "path": path,
        "back": back,
        "kept": [*kept.items(), *(("run", run_id) for run_id in ids)],
    }
    return Drawn("sure.html", {}, values)


def _one(form: SentForm, name: str) -> str:
    return (form.get(name) or [""])[0].strip()


def _action(form: SentForm, known: Sequence[str] = tuple(RUN_ACTIONS)) -> str:
    name = _one(form, "action")
    if name not in known:
        raise InputError(f"There is no action {name[:40]!r} here")
    return name


def _ids(texts: Sequence[str]) -> list[str]:
    try:
        return list(dict.fromkeys(str(UUID(text)) for text in texts))
    except ValueError:
        raise InputError("One of the runs that are ticked has no id") from None
