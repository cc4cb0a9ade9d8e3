"""--from-run and --reuse: work of an earlier run that a new one takes."""

from __future__ import annotations

from typing import NamedTuple

from pgflow_mp.cli.parser import Parser, UsageError


class ReuseChoice(NamedTuple):
    """The earlier run, by its id or how that begins, and the steps whose work is to be taken from it."""

    run: str
    steps: tuple[str, ...]


def add_reuse(parser: Parser) -> None:
    """Add both options."""
    parser.option(
        "--from-run",
        env="PGFLOW_FROM_RUN",
        metavar="RUN_ID",
        help="an earlier run: what it has finished of the steps in --reuse is taken instead of done again, "
        "item by item where the input is the same",
    )
    parser.option(
        "--reuse",
        env="PGFLOW_REUSE",
        metavar="STEP",
        action="append",
        help="with --from-run: a step; several times",
    )


def choose(run: str | None, given: list[str] | str | None, key: str | None) -> ReuseChoice | None:
    """What was found. Raises UsageError for one without the other, and beside a key."""
    steps = given if isinstance(given, list) else [given] if given else []
    if run is None and not steps:
        return None
    if run is None:
        raise UsageError("--reuse is for --from-run, which is missing", hint="Name it: --from-run RUN_ID.")
    if not steps:
        raise UsageError("--from-run is for --reuse, which is missing", hint="Name the steps: --reuse STEP.")
    if key is not None:
        raise UsageError(
            "--key and --from-run cannot be used together", hint="The run of a key is what it was given."
        )
    return ReuseChoice(run, tuple(dict.fromkeys(steps)))
