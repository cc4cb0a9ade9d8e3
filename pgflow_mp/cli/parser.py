"""Options and their environment twins: the flag wins over PGFLOW_<NAME>, which wins over the default.

Only argparse is imported here, so that ``--help`` and errors of usage are instant.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import sys
import textwrap
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from pgflow_mp.cli.converters import boolean
from pgflow_mp.errors import ConfigError


class UsageError(ConfigError):
    """The command line cannot be understood."""


@dataclass(frozen=True, slots=True)
class Twin:
    """An option, the environment variable that stands in for it, and its default."""

    dest: str
    variable: str
    convert: Callable[[str], Any]
    default: Any
    choices: tuple[str, ...] = ()


class Parser(argparse.ArgumentParser):
    """An ArgumentParser whose options have twins, and that raises UsageError instead of exiting.

    ``passes_on``: what the words behind ``--`` are called, which are another program's.
    """

    def __init__(self, *, brief: Callable[[Parser], str] | None = None, **options: Any) -> None:
        options.setdefault("formatter_class", _Formatter)
        super().__init__(allow_abbrev=False, add_help=False, **options)
        self.twins: list[Twin] = []
        self.passes_on: str | None = None
        self.add_argument(
            "-h",
            "--help",
            action=_Help,
            text=brief or Parser.format_help,
            help="show the options that matter",
        )
        self.add_argument("--help-all", action=_Help, text=Parser.format_help, help="show all of this")

    def error(self, message: str) -> NoReturn:
        raise UsageError(_in_words(message, self), hint=f"See {self.prog} --help.")

    def option(
        self,
        *flags: str,
        env: str,
        help: str,
        group: argparse._ArgumentGroup | None = None,
        convert: Callable[[str], Any] = str,
        default: Any = None,
        choices: tuple[str, ...] = (),
        flag: bool = False,
        **options: Any,
    ) -> None:
        """Add an option with its twin ``env``; with ``flag`` it takes no value and has a ``--no-`` form."""
        assert "type" not in options, "convert= is for both, the option and its twin"  # noqa: S101
        if flag:
            options["action"] = argparse.BooleanOptionalAction
            convert = boolean
        else:
            options["type"] = convert
            if choices:
                options["choices"] = choices
        action = (group or self).add_argument(
            *flags, default=argparse.SUPPRESS, help=f"{help} [env: {env}]", **options
        )
        self.twins.append(Twin(action.dest, env.split(",")[0], convert, default, choices))

    def parse(self, arguments: list[str], env: Mapping[str, str] = os.environ) -> argparse.Namespace:
        """Parse, then fill what was not given from the environment and the defaults.

        ``given`` of the result holds the options that came from the command line. Raises UsageError
        and, naming the variable, ConfigError.
        """
        passed_on: list[str] = []
        if self.passes_on is not None and "--" in arguments:
            at = arguments.index("--")
            arguments, passed_on = arguments[:at], arguments[at + 1 :]
        found = self.parse_args(arguments)
        if self.passes_on is not None:
            setattr(found, self.passes_on, passed_on)
        found.given = {twin.dest for twin in self.twins if hasattr(found, twin.dest)}
        for twin in self.twins:
            if twin.dest not in found.given:
                setattr(found, twin.dest, _from_environment(twin, env))
        return found

    def value_flags(self) -> set[str]:
        """The flags that are followed by a value."""
        return {
            flag
            for action in self._actions
            if action.option_strings and action.nargs != 0
            for flag in action.option_strings
            if not isinstance(action, argparse.BooleanOptionalAction)
        }


class _Help(argparse.Action):
    """Prints a ``text`` that is made of the parser, and ends the program."""

    def __init__(self, *, text: Callable[[Parser], str], **options: Any) -> None:
        super().__init__(default=argparse.SUPPRESS, nargs=0, **options)
        self._text = text

    def __call__(self, parser: argparse.ArgumentParser, *_: Any) -> None:
        assert isinstance(parser, Parser)  # noqa: S101 - options are those of such parsers only
        parser._print_message(self._text(parser), sys.stdout)
        parser.exit()


def _from_environment(twin: Twin, env: Mapping[str, str]) -> Any:
    text = env.get(twin.variable)
    if text is None or (not text.strip() and twin.convert is not boolean):
        return twin.default
    try:
        value = twin.convert(text)
    except (argparse.ArgumentTypeError, ValueError) as error:
        raise ConfigError(
            f"The environment variable {twin.variable} is {text!r}: {error}",
            hint=f"Correct it, or give --{twin.dest.replace('_', '-')}, which wins over it.",
        ) from None
    if twin.choices and value not in twin.choices:
        raise ConfigError(
            f"The environment variable {twin.variable} is {text!r}, which is not one of: "
            f"{', '.join(twin.choices)}",
            hint=f"Correct it, or give --{twin.dest.replace('_', '-')}, which wins over it.",
        )
    return value


class _Formatter(argparse.RawDescriptionHelpFormatter):
    """Keeps descriptions as they are and variables in one piece; at most 100 columns wide."""

    def __init__(self, prog: str) -> None:
        width = min(shutil.get_terminal_size().columns, 100)
        super().__init__(prog, max_help_position=26, width=width - 1)

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        lines: list[str] = []
        for line in text.splitlines():
            term = re.match(r" +\S+  +", line)  # of a list: what is wrapped goes on below its text
            before = " " * (term.end() if term else len(line) - len(line.lstrip()))
            lines += textwrap.wrap(line, width, subsequent_indent=before) or [""]
        return "\n".join(indent + line for line in lines)

    def _split_lines(self, text: str, width: int) -> list[str]:
        text = re.sub(r"\[env: .*\]$", lambda match: match[0].replace(" ", "\xa0"), text)
        words = text.replace("-", "\u2011")
        lines = [line.replace("\u2011", "-") for line in super()._split_lines(words, width)]
        return [line.replace("\xa0", " ") for line in lines]


def _in_words(message: str, parser: Parser) -> str:
    if match := re.match(r"unrecognized arguments: (--[\w-]+)", message):
        import difflib

        flags = [flag for action in parser._actions for flag in action.option_strings]
        close = difflib.get_close_matches(match[1], flags, 1)
        return f"There is no option {match[1]}" + (f"; did you mean {close[0]}?" if close else "")
    if match := re.match(r"unrecognized arguments: (-[A-Za-z])\b", message):
        return f"There is no option {match[1]}"
    if match := re.match(r"unrecognized arguments: (.*)", message):
        return f"Too many arguments: {match[1]}"
    if match := re.match(r"argument (\S+): (.*)", message, re.DOTALL):
        flag = max(match[1].split("/"), key=len)
        if match[2] == "expected one argument":
            return f"{flag} needs a value"
        if choice := re.match(r"invalid choice: ('.*') \(choose from (.*)\)$", match[2], re.DOTALL):
            return f"{flag}: {choice[1]} is not one of {choice[2].replace(chr(39), '')}"
        return f"{flag}: {match[2]}"
    if match := re.match(r"the following arguments are required: (.*)", message):
        names = " and ".join(match[1].rsplit(", ", 1))
        return f"{names} {'are' if ', ' in match[1] else 'is'} missing"
    return message


def program() -> str:
    """How this program was called, for messages that name a command to type."""
    return "pgflow-mp" if Path(sys.argv[0]).name == "pgflow-mp" else "python -m pgflow_mp"


def command(*words: str) -> str:
    """A command line of ours that can be pasted into a shell."""
    import shlex

    return " ".join([program(), *(shlex.quote(word) for word in words)])


# -- groups of options that several commands share ----------------------------------------------------


def add_database(parser: Parser) -> None:
    """--dsn and --data-dir."""
    group = parser.add_argument_group("database")
    parser.option(
        "--dsn",
        env="PGFLOW_DATABASE_URL, DATABASE_URL, PGHOST ...",
        metavar="URL",
        group=group,
        help="the PostgreSQL server to use, 15 or newer: postgresql://user:password@host:5432/database",
    )
    parser.option(
        "--data-dir",
        env="PGFLOW_DATA_DIR",
        metavar="DIR",
        group=group,
        help="where the embedded PostgreSQL keeps its data; it is used where no server is named",
    )


def add_common(parser: Parser) -> None:
    """Logging and debugging."""
    group = parser.add_argument_group("messages")
    parser.option(
        "--log-level",
        env="PGFLOW_LOG_LEVEL",
        group=group,
        default="info",
        convert=str.lower,
        choices=("error", "warn", "info", "verbose", "debug"),
        metavar="LEVEL",
        help="error, warn, info (the default), verbose or debug",
    )
    parser.option(
        "--log-format",
        env="PGFLOW_LOG_FORMAT",
        group=group,
        default="text",
        convert=str.lower,
        choices=("text", "json"),
        metavar="FORMAT",
        help="text (the default) or json, one object a line",
    )
    parser.option(
        "--debug",
        env="PGFLOW_DEBUG",
        group=group,
        flag=True,
        default=False,
        help="show Python tracebacks of errors",
    )


def add_json(parser: Parser) -> None:
    """--json."""
    parser.option("--json", env="PGFLOW_JSON", flag=True, default=False, help="print JSON instead of text")
