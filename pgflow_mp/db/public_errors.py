"""What users get where the driver raises an error of its own: an error of ours, with what to do about it.

The rule for all errors that users see: a refusal that was foreseen (a name that there is not, a value that
does not fit, a right that is missing) says all there is to say, and is raised ``from None``. What has failed
otherwise keeps the driver's error as its cause: the server's context and SQLSTATE, and the statement where
the connection was lost, tell more.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterator
from typing import Final

import psycopg

from pgflow_mp.db import connection
from pgflow_mp.db.rights import ACCESS
from pgflow_mp.errors import DatabaseError, DatabaseUnavailable, InputError, PgflowError
from pgflow_mp.redaction import redact

_EXCERPT: Final = re.compile(r"\nLINE \d+:.*(?:\n *\^)?")
"""What the server quotes of a statement, which is ours."""
_LIMITS: Final = {
    "53100": "Free some space where the server has its data, then try again: what was recorded is not lost.",
    "53200": "Give the server more memory, or let items and workers be fewer.",
    "53300": "End idle clients or other workers, or raise max_connections at the server.",
}
_DRIVER: Final = (os.path.dirname(psycopg.__file__), contextlib.__file__)
_OURS: Final = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))


class AccessRefused(DatabaseError, psycopg.errors.InsufficientPrivilege):
    """The role may not do this; also psycopg's error, for those who wait for that."""


@contextlib.contextmanager
def public_errors() -> Iterator[None]:
    """Raise an error of ours for each of psycopg's that a statement of ours has led to.

    Those of others, such as of an iterator that reads items from a database, are raised as they are.
    """
    try:
        yield
    except psycopg.Error as error:
        if isinstance(error, PgflowError) or not _is_ours(error):
            raise
        told, foreseen = explained(error)
        raise told from None if foreseen else error


def explained(error: psycopg.Error) -> tuple[PgflowError, bool]:
    """Our error for it, and whether that says all there is to say."""
    text = _EXCERPT.sub("", redact(str(error).strip()).partition("\nCONTEXT:")[0])
    state = error.sqlstate or ""
    if connection.is_connection_lost(error):
        hint = "Nothing that was recorded is lost. Look at the server's log, then try again."
        return DatabaseUnavailable(f"The connection to the database was lost: {text}", hint=hint), False
    if state == "42501":
        return AccessRefused(f"The database refuses: {text}", hint=_who_may(text)), True
    if state in _LIMITS:
        return DatabaseError(f"The database is at a limit: {text}", hint=_LIMITS[state]), False
    if state.startswith(("22", "54")):
        hint = "Let the input name the files or ranges to work on, and read the data in the steps."
        hint = hint if "maximum of" in text else ""
        return InputError(f"PostgreSQL cannot store this value: {text}", hint=hint), True
    text = f"The database reports: {text}" + (f" (SQLSTATE {state})" if state else "")
    return DatabaseError(text, hint="Look at the server's log for what led to it."), False


def _is_ours(error: psycopg.Error) -> bool:
    """Whether the driver was called by us: the innermost frame outside of it is ours."""
    caller, trace = "", error.__traceback__
    while trace is not None:
        file = trace.tb_frame.f_code.co_filename
        caller = caller if file.startswith(_DRIVER) else file
        trace = trace.tb_next
    return caller.startswith(_OURS)


def _who_may(refusal: str) -> str:
    if re.search(r"for (schema pgflow|table|view|sequence)\b", refusal):
        return (
            "Connect as a role with more rights. An administrator can give them; to start runs, too, "
            "'starter' instead of 'reader', to steer them 'operator', to work on them 'worker': "
            "select pgflow.grant_access('some_role', 'reader');"
        )
    found = re.search(r"for function (\w+)", refusal)
    if found is None:
        return "Connect as a role with more rights."
    access = ACCESS.get(found[1])
    if access is None:
        return "Connect as the owner of the schema pgflow: nobody else may do this."
    return (
        "Connect as a role with more rights. An administrator can give them: "
        f"select pgflow.grant_access('some_role', '{access}');"
    )
