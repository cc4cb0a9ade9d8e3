"""What happens before a worker claims anything: schema, flows, registration (contract: worker section 2)."""

from __future__ import annotations

import contextlib
import math
import os
import sys
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

import msgspec
import psycopg

from pgflow_mp.db import artifact_stores, definitions, engine, fitness
from pgflow_mp.db.engine import Connection
from pgflow_mp.db.keeper import Keeper
from pgflow_mp.errors import ConfigError, FlowNotFound
from pgflow_mp.executors.messages import FlowInfo, Setup
from pgflow_mp.loading import flow_files
from pgflow_mp.loading.targets import Target
from pgflow_mp.values.artifacts import NO_PLACE
from pgflow_mp.values.stores import prepare_root
from pgflow_mp.worker.settings import Compile, WorkerSettings

_PATIENCE: Final = 60.0


@dataclass(frozen=True, slots=True)
class StepPolicy:
    """What the worker needs to know of a step's options."""

    max_attempts: int = 3
    base_delay: int = 5


Policies = Mapping[tuple[str, str], StepPolicy]
"""By flow and step."""


def lane_setup(settings: WorkerSettings, installation: str = "local") -> Setup:
    """What lanes are told; ``installation`` is the database's id.

    Raises FlowNotFound and FlowFileError for flow files that cannot be read.
    """
    targets = [] if settings.shipped else [Target.parse(text) for text in settings.targets]
    paths = [path for target in targets for path in target.sys_path]
    main = settings.main_path
    if main is None and any(target.module == "__main__" for target in targets):
        main = getattr(sys.modules["__main__"], "__file__", None)
    return Setup(
        target="\n".join(settings.targets),
        flows=list(settings.flows or ()),
        dsn=settings.dsn,
        worker_config=settings.for_handlers(),
        sys_path=list(dict.fromkeys([*settings.sys_path, *paths])),
        main_path=os.path.abspath(main) if main else None,
        threads=settings.threads,
        log_level=settings.log_level,
        log_format=settings.log_format,
        artifacts=settings.artifacts,
        artifacts_beside=settings.artifacts_beside,
        installation=installation,
        job=settings.job,
        shipped=settings.shipped,
        contents=flow_files.contents_of(targets, settings.contents),
        handlers=list(settings.handlers),
    )


def prepare_artifacts(conn: Connection, flows: list[FlowInfo], settings: WorkerSettings) -> None:
    """See to it that the flows have a place for what they make of files, and that it is known.

    Raises ConfigError for a place that cannot be used, and for a flow that needs one and has none.
    """
    for info in flows:
        place = settings.artifacts or info.artifacts
        if place is not None:
            prepare_root(place, artifact_stores.installation(conn))
            artifact_stores.use(conn, info.slug, place)
        elif info.makes_artifacts and settings.artifacts_beside is None:
            raise ConfigError(
                f'Flow "{info.slug}" makes artifacts, and there is no place for them', hint=NO_PLACE
            )


def session(dsn: str) -> Keeper:
    """The database during the start: the first connection must succeed, a lost one is opened again.

    What is called on it is tried for up to a minute.
    """
    keeper = Keeper(dsn, give_up_after=_PATIENCE, silence=math.inf)
    try:
        keeper.begin()
        keeper.call(fitness.check_writable)
    except BaseException:
        keeper.close()
        raise
    return keeper


def check_flows(wanted: Iterable[str] | None, found: list[FlowInfo], targets: Iterable[str]) -> None:
    """Raise FlowNotFound if a flow that was asked for is not in the targets."""
    slugs = [info.slug for info in found]
    for slug in wanted or ():
        if slug not in slugs:
            raise FlowNotFound(
                f'There is no flow "{slug}" in {", ".join(targets)}',
                hint=f"Flows there: {', '.join(slugs) or 'none'}.",
            )


def register_name(conn: Connection, name: str | None) -> None:
    """Make the name known that the worker was given, where this role may; nothing here depends on it.

    Not one made of host and process: on Supabase whatever is known is called again and again, for ever.
    """
    if not name:
        return
    with contextlib.suppress(psycopg.errors.InsufficientPrivilege):
        engine.track_worker_function(conn, name)


def compile_flows(conn: Connection, flows: list[FlowInfo], mode: Compile) -> list[str]:
    """Make the database know the flows and the code's options; lines about it.

    Raises ShapeMismatch, and FlowNotFound where our role may not create a flow.
    """
    lines: list[str] = []
    for info in flows:
        if mode == "skip":
            lines.append(f"flow {info.slug}: not checked")
            continue
        found = definitions.ensure(conn, info.slug, info.shape, queue_mode=info.queue_mode, how=mode)
        if found.status == "mismatch":
            raise definitions.mismatch(
                info.slug,
                found,
                hint="Give the changed flow a new slug, write a migration, or, where its runs may be "
                "lost, start with compile='recreate'.",
            )
        if found.status == "stored":
            role = conn.info.user
            lines.append(
                f"flow {info.slug}: served as it is stored, role {role} may not compare or change it"
            )
            continue
        if found.status != "extended":  # its notes say so, too
            lines.append(f"flow {info.slug}: {found.status}")
        lines += [f"flow {info.slug}: {text}" for text in found.notes]
    return lines


def not_for_us(flows: Iterable[FlowInfo], labels: Collection[str]) -> list[str]:
    """Lines about steps that require what a worker with these ``labels`` does not have."""
    lines: list[str] = []
    for info in flows:
        for step in msgspec.json.decode(info.shape)["steps"]:
            lacking = set(step.get("options", {}).get("requires", ())).difference(labels)
            if lacking:
                lines.append(
                    f'flow {info.slug}: step "{step["slug"]}" requires {", ".join(sorted(lacking))}, which '
                    "this worker was not said to have (--labels): its items are left to others"
                )
    return lines


def queues(conn: Connection, flows: list[FlowInfo]) -> dict[str, list[str]]:
    """The queues to read, by flow: one, or one a step."""
    found = {info.slug: definitions.queues(conn, info.slug) for info in flows}
    return {slug: names or [slug.lower()] for slug, names in found.items()}


def known_steps(conn: Connection, flows: list[FlowInfo]) -> dict[str, set[str]]:
    """The steps whose tasks are ours, by flow: the code's, and stored ones whose tasks fail for lack of it.

    Not those that came when the flow was extended, or will: the code here is older than they are.
    """
    found: dict[str, set[str]] = {}
    for info in flows:
        stored = {row[0] for row in definitions.stored_options(conn, info.slug) or ()}
        code = {step.slug for step in info.steps}
        found[info.slug] = code | stored.difference(definitions.added_steps(conn, info.slug))
    return found


def policies(conn: Connection, flows: list[FlowInfo]) -> Policies:
    """Retry options by (flow, step): those that the database decides by, else the code's."""
    found: dict[tuple[str, str], StepPolicy] = {}
    for info in flows:
        shape: dict[str, Any] = msgspec.json.decode(info.shape)
        general = shape.get("options", {})
        for step in shape["steps"]:
            options = {**general, **step.get("options", {})}
            found[info.slug, step["slug"]] = StepPolicy(
                options.get("maxAttempts", 3), options.get("baseDelay", 5)
            )
        for slug, attempts, delay in definitions.stored_options(conn, info.slug) or ():
            found[info.slug, slug] = StepPolicy(attempts, delay)
    return found
