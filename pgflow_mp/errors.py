"""Every exception that pgflow_mp raises on purpose.

Each message names what went wrong, where, and what to do. ``hint`` holds the last part, so that
the command line can print it on its own line; in tracebacks it is a note.
Nothing here imports anything else of the package.
"""

from __future__ import annotations

_NOTE = "hint: "
WHY_NO_RUN = "It was deleted or pruned, or it is in another database."
"""What to say where a run that is named is not there, and nothing better is known."""
WHICH_FLOWS = "A flow comes in when it is first run, served or started: check the slug, and the database."
"""The same of a flow."""


class PgflowError(Exception):
    """Base of all errors of this package.

    ``exit_code`` is the process exit status that the command line uses for it.
    """

    exit_code: int = 1
    _hint: str = ""

    def __init__(self, message: str = "", *, hint: str = "") -> None:
        super().__init__(message or (self.__doc__ or "").strip().splitlines()[0])
        self.hint = hint

    @property
    def hint(self) -> str:
        """What to do about it; may be empty. It is one of the error's notes, so that tracebacks show it."""
        return self._hint

    @hint.setter
    def hint(self, hint: str) -> None:
        notes: list[str] = getattr(self, "__notes__", [])
        if self._hint and (note := _NOTE + self._hint) in notes:
            notes.remove(note)
        self._hint = hint
        if hint:
            self.add_note(_NOTE + hint)


class ConfigError(PgflowError):
    """A setting, option or environment variable has an unusable value."""

    exit_code = 2


class ExecutorGone(PgflowError):
    """What runs the items is lost: nothing is, what ran was handed back and can be gone on with."""

    exit_code = 75


class FlowDefinitionError(PgflowError, ValueError):
    """A flow or step is defined wrongly (contract: worker section 6).

    ``option`` is what is wrong of it, where it is one thing: an option, its slug or its handler; else "".
    """

    def __init__(self, message: str = "", *, hint: str = "", option: str = "") -> None:
        super().__init__(message, hint=hint)
        self.option = option


class FlowFileError(FlowDefinitionError):
    """A flow file cannot be read, or what it describes is wrong."""

    exit_code = 2


class FlowNotFound(PgflowError):
    """A module, file, flow or step that was named does not exist."""

    exit_code = 2


class InputError(PgflowError, ValueError):
    """The input of a run cannot be read or does not fit the flow."""

    exit_code = 2


class DatabaseError(PgflowError):
    """The database refused, failed or cannot be reached."""

    exit_code = 3


class DatabaseUnavailable(DatabaseError):
    """No PostgreSQL answers where one was expected."""


class UnfitDatabase(DatabaseError):
    """The database cannot be used as it is: nothing may be written there, or not every text."""

    exit_code = 2


class EmbeddedServerError(DatabaseError):
    """The embedded PostgreSQL cannot be started, reused or stopped."""


class SchemaError(DatabaseError):
    """The pgflow schema is missing, older, newer or not ours."""


class ShapeMismatch(SchemaError):
    """The flow in the database differs from the flow in the code.

    ``differences`` are the contract's texts (sql section 4.4).
    """

    def __init__(self, message: str, differences: list[str], *, hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.differences = differences


class PermanentError(PgflowError):
    """Raise this in a handler to fail the task at once, without a retry."""


class ArtifactError(PgflowError):
    """An artifact cannot be stored, or read."""


class OnStartFailed(PgflowError):
    """A function that a flow runs once in each process (on_start) failed."""


class RunFailed(PgflowError):
    """A run that was waited for has failed. ``run_id`` is None for one without a database."""

    def __init__(self, message: str = "", *, run_id: str | None = None, hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.run_id = run_id


class RunNotFound(PgflowError):
    """No run with this id exists in the database."""

    exit_code = 2


class ScheduleNotFound(PgflowError):
    """No schedule of this flow has this name."""

    exit_code = 2


class RunDeleted(PgflowError):
    """The run was deleted while it was being worked on: nothing of it is left, and nothing can be resumed."""

    exit_code = 1

    def __init__(self, run_id: str, flow: str) -> None:
        super().__init__(
            f'Run {run_id} of flow "{flow}" was deleted while it was being worked on',
            hint="Somebody deleted the flow, or pruned its runs. Nothing is left of it: start a new one.",
        )


class WaitTimeout(PgflowError, TimeoutError):
    """The run did not reach the wanted status in time."""
