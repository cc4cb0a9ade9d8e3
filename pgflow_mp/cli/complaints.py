"""Every error as one screen: what, where, what to do. A traceback only when asked for."""

from __future__ import annotations

import os
import re
import shutil
import sys
import textwrap
from typing import Final, TextIO

from pgflow_mp.errors import ConfigError, FlowDefinitionError, InputError, PgflowError
from pgflow_mp.redaction import printable, redact

OK: Final = 0
RUN_FAILED: Final = 1
USAGE: Final = 2
DATABASE: Final = 3
TIMED_OUT: Final = 124
BUG: Final = 70
STOPPED: Final = 75
INTERRUPTED: Final = 130
TERMINATED: Final = 143

EXIT_CODES: Final = """\
exit status:
  0    done
  1    the run failed or was deleted, its output could not be written, or a worker gave no answer
  2    the command line, the flow or the input is wrong; nothing was started
  3    trouble with the database
  124  --timeout was over before the run ended; it can be resumed, or (start --wait) goes on
  70   a bug in this program
  75   run: an operator stopped it (its worker was deprecated), or the executor is lost; it can be resumed
  130  stopped by Ctrl-C (143: by SIGTERM); an unfinished run can be resumed"""

_OURS: Final = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
_OPENINGS: Final = """
a an the there this these those no not neither nothing nobody only one some all cannot could standard
impossible time role sql another too it
"""
"""Words that messages of ours begin with; others may be the name of a file."""
_COMMAND: Final = re.compile(r"(?<=: )((?:python -m|pgflow-mp|pip|select|alter|grant|revoke) (?:(?!: ).)*)$")
"""What the last words of a line are that can be pasted."""
_LONGEST: Final = 24  # lines; the rest of a long message says little more
_LONGEST_WORD: Final = 500  # characters; paths and commands are shorter


def exit_code(error: BaseException) -> int:
    """The exit status for an error."""
    if isinstance(error, KeyboardInterrupt):
        return INTERRUPTED
    if isinstance(error, FlowDefinitionError):
        return USAGE
    if isinstance(error, PgflowError):
        return error.exit_code
    return BUG


def explain(error: BaseException) -> BaseException:
    """An error of ours for what PostgreSQL or the system said; the same error if there is none."""
    if isinstance(error, PgflowError):
        return error
    if "psycopg" in sys.modules:
        import psycopg

        if isinstance(error, psycopg.Error):
            from pgflow_mp.db.public_errors import explained

            return explained(error)[0]
    if isinstance(error, MemoryError):
        return PgflowError("There is not enough memory", hint="Use fewer --workers, or smaller inputs.")
    if isinstance(error, FileNotFoundError) and "No usable temporary directory" in str(error):
        return ConfigError(
            "There is no directory for sockets and temporary files: none of the usual ones can be written",
            hint="Set TMPDIR to a directory that can be written and has a short path.",
        )
    if isinstance(error, UnicodeEncodeError) and 0xDC80 <= (code := ord(error.object[error.start])) <= 0xDCFF:
        return InputError(  # so the system hands over bytes of the command line and the environment
            f"{redact(error.object)[:200]}: byte 0x{code - 0xDC00:x} is not UTF-8",
            hint="Names, values and connection strings are texts: type them in a UTF-8 locale.",
        )
    if isinstance(error, OSError) and error.filename is not None:
        return PgflowError(f"{os.fsdecode(error.filename)}: {error.strerror}")
    return error


def report(error: BaseException, *, debug: bool = False, stream: TextIO | None = None) -> int:
    """Print the error, and return the exit status for it."""
    stream = stream or sys.stderr
    if debug:
        _print_traceback(error, stream)
    if isinstance(error, KeyboardInterrupt):
        print(*getattr(error, "__notes__", ()), "Interrupted.", sep="\n", file=stream)
        return INTERRUPTED
    error = explain(error)
    if isinstance(error, PgflowError):
        _print(str(error), error.hint.replace("compile='recreate'", "--compile recreate"), stream)
    else:
        text = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
        _print(
            f"Unexpected {text}{_place(error)}",
            ""
            if debug
            else "This is a bug in pgflow_mp. Run the command again with --debug, and report what it prints.",
            stream,
        )
    return exit_code(error)


def _print_traceback(error: BaseException, stream: TextIO) -> None:
    """The traceback, without the note that holds the hint: it follows below."""
    import traceback

    hint = error.hint if isinstance(error, PgflowError) else ""
    if isinstance(error, PgflowError):
        error.hint = ""
    stream.write(printable("".join(traceback.format_exception(error))))
    if isinstance(error, PgflowError):
        error.hint = hint


def _place(error: BaseException) -> str:
    place, trace = "", error.__traceback__
    while trace is not None:
        file = trace.tb_frame.f_code.co_filename
        if file.startswith(_OURS) or not place:
            place = f" (at {file}, line {trace.tb_lineno})"
        trace = trace.tb_next
    return place


def _print(message: str, hint: str, stream: TextIO) -> None:
    red, bold, end = ("\x1b[1;31m", "\x1b[1m", "\x1b[0m") if has_color(stream) else ("", "", "")
    message, hint = _sentence(printable(message)), _capital(printable(hint))
    print(f"{red}error:{end} {_on_screen(message)}", file=stream)
    if hint:
        print(f" {bold}hint:{end} {_on_screen(hint)}", file=stream)
    stream.flush()


def _on_screen(text: str) -> str:
    """Its lines as they follow ``error: `` or `` hint: ``; longer than a screen is cut, so are words."""
    text = re.sub(rf"\S{{{_LONGEST_WORD + 1},}}", lambda word: _cut(word[0]), text)
    lines = _wrap(text, len("error: "))
    if len(lines) > _LONGEST:
        lines = [*lines[: _LONGEST - 1], f"       ... ({len(lines) - _LONGEST + 1} more lines)"]
    return "\n".join(lines).lstrip()


def _cut(word: str) -> str:
    return f"{word[: _LONGEST_WORD // 2]}... ({len(word):,} characters)"


def _sentence(text: str) -> str:
    """A message of ours begins with a capital letter; a path or a name that it begins with stays as it is."""
    return _capital(text) if text.partition(" ")[0] in _OPENINGS.split() else text


def _capital(text: str) -> str:
    """A sentence begins with a capital letter, unless it begins with a name, or with a command to type."""
    return text[:1].upper() + text[1:] if re.match(r"(?!python |pip )[a-z]+ ", text) else text


def _wrap(text: str, indent: int) -> list[str]:
    """Lines no longer than the terminal; what is laid out already (indented) stays so.

    A command that fits into a line has one of its own where it would be broken: it is there to be pasted.
    """
    width = max(40, min(shutil.get_terminal_size().columns, 100) - 1)
    lines: list[str] = []
    for number, line in enumerate(_commands_apart(text, width - indent) or [""]):
        if number and (line.startswith(" ") or len(line) + indent <= width):
            lines.append(" " * indent + line)
        else:
            lines += textwrap.wrap(
                line,
                width,
                initial_indent=" " * indent,
                subsequent_indent=" " * indent,
                break_long_words=False,
                break_on_hyphens=False,
            ) or [""]
    return lines


def _commands_apart(text: str, room: int) -> list[str]:
    lines: list[str] = []
    for line in text.splitlines():
        match = _COMMAND.search(line)
        apart = match is not None and len(line) > room >= len(match[1])
        lines += [line[: match.start(1)].rstrip(), match[1]] if match and apart else [line]
    return lines


def has_color(stream: TextIO) -> bool:
    """Whether to write colours to ``stream``: a terminal, and NO_COLOR and TERM do not forbid it."""
    return stream.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"
