"""Flows that a command line names: the list of what flow files may name, and what such files say."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import TYPE_CHECKING

from pgflow_mp.cli.parser import Parser

if TYPE_CHECKING:
    from pgflow_mp.loading.targets import Target


def add_handlers(parser: Parser, group: argparse._ArgumentGroup | None = None) -> None:
    """--handlers, which may be given several times."""
    parser.option(
        "--handlers",
        env="PGFLOW_HANDLERS",
        metavar="LIST",
        group=group,
        convert=_entries,
        default=(),
        action="extend",
        help="functions that a flow file may name: module, module:function, package.*; several with commas, "
        "or the option again; nothing else is imported",
    )


def flow_target(word: str, handlers: Sequence[str]) -> Target:
    """The target that a word names; of a flow file with what it says now, which is what is worked with.

    Raises FlowNotFound, FlowFileError.
    """
    from pgflow_mp.loading.flow_files import with_contents
    from pgflow_mp.loading.targets import Target

    return with_contents(Target.parse(word), handlers)


def app_targets(word: str | None, handlers: Sequence[str]) -> list[Target]:
    """The same of all targets of an app; without a word, those that the surroundings name."""
    from pgflow_mp.loading.flow_files import with_contents
    from pgflow_mp.loading.targets import resolve_app

    return [with_contents(target, handlers) for target in resolve_app(word)]


def handler_words(flow: str | None, handlers: Sequence[str]) -> list[str]:
    """What another command line needs besides ``flow`` to load it, too."""
    from pgflow_mp.loading.targets import DATA_ENDINGS

    is_file = flow is not None and flow.partition(":")[0].lower().endswith(DATA_ENDINGS)
    return ["--handlers", ",".join(handlers)] if is_file and handlers else []


def _entries(text: str) -> tuple[str, ...]:
    from pgflow_mp.errors import ConfigError
    from pgflow_mp.loading.handler_list import HandlerList

    try:
        return HandlerList.of(text).entries
    except ConfigError as error:
        raise argparse.ArgumentTypeError(f"{error}. {error.hint}") from None
