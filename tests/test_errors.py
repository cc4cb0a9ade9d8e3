"""Errors of the package: hints that are seen wherever the error is, and only once."""

from __future__ import annotations

import io
import pickle
import re
import traceback
from pathlib import Path

from pgflow_mp import ConfigError, PermanentError, RunFailed, errors
from pgflow_mp.cli.complaints import report
from pgflow_mp.flows.failures import describe_exception


def shown(error: BaseException) -> str:
    return "".join(traceback.format_exception(error))


def test_a_hint_is_part_of_the_traceback_as_it_stands_last() -> None:
    error = ConfigError("it is wrong", hint="First thought.")
    error.add_note("a note of others")
    error.hint = "Second thought."
    assert str(error) == "it is wrong"
    assert shown(error).endswith("ConfigError: it is wrong\na note of others\nhint: Second thought.\n")
    again = pickle.loads(pickle.dumps(error))
    assert (again.hint, shown(again)) == (error.hint, shown(error))
    error.hint = ""
    assert "hint" not in shown(error)


def test_the_hint_of_an_error_in_a_handler_is_stored() -> None:
    assert b"PermanentError: no\nhint: Ask." in describe_exception(PermanentError("no", hint="Ask."))


def test_the_command_line_shows_a_hint_once() -> None:
    for debug in (False, True):
        stream = io.StringIO()
        error = ConfigError("it is wrong", hint="Correct it.")
        assert report(error, debug=debug, stream=stream) == 2
        assert stream.getvalue().count("Correct it.") == 1
        assert ("ConfigError: it is wrong" in stream.getvalue()) is debug
        assert error.hint == "Correct it."


def test_a_subclass_with_an_init_of_its_own_has_an_empty_hint() -> None:
    class Refused(PermanentError):
        def __init__(self, code: int) -> None:
            self.code = code

    assert Refused(3).hint == ""


def test_a_failed_run_has_its_id() -> None:
    assert RunFailed("it failed", run_id="1-2").run_id == "1-2"
    assert RunFailed("it failed").run_id is None


def test_every_error_is_raised_somewhere_or_is_for_users_to_raise() -> None:
    sources = [path.read_text(encoding="utf-8") for path in Path(errors.__file__).parent.rglob("*.py")]
    kinds = [
        kind
        for kind in vars(errors).values()
        if isinstance(kind, type) and kind.__module__ == errors.__name__
    ]
    unused = {
        kind.__name__
        for kind in kinds
        if not any(re.search(rf"(?<!class )\b{kind.__name__}\(", source) for source in sources)
    }
    assert unused <= {"PermanentError"}
