"""Artifacts of runs that are gone go, too: by whoever prunes, as far as he can reach their places."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

import psycopg

from pgflow_mp.db import artifact_stores
from pgflow_mp.db.engine import Connection
from pgflow_mp.values.stores import Folders, RemovedFiles, is_url

_AT_ONCE: Final = 500  # runs that are asked for in one statement


@dataclass
class Removal:
    """What was removed; ``unreachable``: places that could not be looked into, with the reason."""

    removed: RemovedFiles = field(default_factory=RemovedFiles)
    unreachable: dict[str, str] = field(default_factory=dict)


def remove_leftovers(conn: Connection, flows: Sequence[str] | None, beside: str | None) -> Removal:
    """Remove the artifacts of runs that do not exist: of these flows, or of all that our role may use.

    ``beside`` is the folder of the embedded server, which holds those of all flows. What several do at once
    is done once.
    """
    done = Removal()
    places: dict[str, set[str] | None] = {}
    for flow, url in artifact_stores.known(conn, flows):
        of_place = places.setdefault(url, set())
        if of_place is not None:
            of_place.add(flow)
    if beside is not None and os.path.isdir(beside):
        places[beside] = None if flows is None else set(flows)
    id_ = artifact_stores.installation(conn)
    for place, wanted in places.items():
        try:
            folders = Folders(place if place != beside else os.path.abspath(place), id_)
            if place != beside and not folders.exist():
                done.unreachable[place] = "it is not on this machine"
            else:
                _remove(conn, folders, wanted, done)
        except psycopg.Error:
            raise
        except Exception as error:  # noqa: BLE001 - each store has errors of its own
            done.unreachable[place] = str(error).partition("\n")[0] or type(error).__name__
    return done


def _remove(conn: Connection, folders: Folders, flows: set[str] | None, done: Removal) -> None:
    for flow in folders.flows():
        if flows is not None and flow not in flows:
            continue
        found = folders.runs(flow)
        runs = list(found)
        for first in range(0, len(runs), _AT_ONCE):
            gone = artifact_stores.gone(conn, flow, runs[first : first + _AT_ONCE])
            aside = {run: [folders.set_aside(flow, name) for name in found[run]] for run in gone}
            still = set(artifact_stores.gone(conn, flow, gone)) if gone else set()
            for run, names in aside.items():
                for name in names:
                    if run not in still:  # its id was given again in between
                        folders.put_back(flow, name)
                        continue
                    done.removed += folders.remove(flow, name)
                done.removed += RemovedFiles(run in still)


def unreachable_text(place: str, reason: str) -> str:
    """Why artifacts stay, and what to do."""
    what = "URL" if is_url(place) else "folder"
    return (
        f"artifacts of removed runs stay in {place}: {reason}. Prune where that {what} can be reached, or "
        "remove the folders of the runs there"
    )
