"""What is stored can be gone on with: the command for that, and errors that name it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from pgflow_mp.cli.flow_targets import handler_words
from pgflow_mp.cli.parser import command
from pgflow_mp.errors import PgflowError, RunDeleted

if TYPE_CHECKING:
    from pgflow_mp.cli.command_line import RunOrder


def resume_of(order: RunOrder, run_id: str, options: Sequence[str]) -> str:
    """The command that goes on with a run which was ordered so; ``options`` name its database."""
    flow = [order.flow] if order.flow is not None else []
    handlers = handler_words(order.flow, order.work.settings["handlers"])
    return command("run", *flow, "--resume", run_id, *handlers, *options)


@contextlib.contextmanager
def naming(words: str, kind: type[PgflowError] = PgflowError) -> Iterator[None]:
    """Have errors of a kind end in these words, about a run that is stored; not where it was deleted."""
    from pgflow_mp.db.public_errors import public_errors

    try:
        with public_errors():
            yield
    except RunDeleted:
        raise
    except kind as error:
        if words.rpartition(": ")[2] not in error.hint:
            error.hint = f"{error.hint}\n{words}".lstrip()
        raise


@contextlib.contextmanager
def going_on(order: RunOrder, run_id: str, options: Sequence[str]) -> Iterator[None]:
    """Have errors name the command that goes on with the run, and Ctrl-C, too."""
    words = f"Go on with it: {resume_of(order, run_id, options)}"
    try:
        with naming(words):
            yield
    except KeyboardInterrupt as error:
        error.add_note(words)
        raise
