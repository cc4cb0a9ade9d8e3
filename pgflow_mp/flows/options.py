"""Every option of flows and steps, in one table, from which definition, shape, SQL and documentation are fed.

Sources: contract: worker section 6; the group *policy* is ours.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Final, Literal

FLOW: Final = "flow"
ANY_STEP: Final = ("step", "array", "map")
Storage = Literal["tasks", "ranges"]
STORAGES: Final = ("tasks", "ranges")
Nan = Literal["error", "null"]
NANS: Final = ("error", "null")
DEFAULT_STORAGE: Final[Storage] = "ranges"
"""How maps of a new flow are stored where neither they nor the flow say it; a stored flow keeps its own."""


@dataclass(frozen=True, slots=True)
class OptionSpec:
    """One option.

    ``kinds`` are where it may be given: ``flow``, ``step``, ``array``, ``map``. ``group`` says what becomes
    of it: *integers* are passed to ``add_step`` (``create_flow``), *policy* goes to ``set_step_policy``,
    *limits* to ``define_limit``, *labels* to ``set_requirements``, *conditions* and *graph* have code of
    their own; *values* stay in Python.
    What has a ``minimum`` is an integer, and is checked as one; what has ``choices`` is one of these texts.
    ``columns`` are the SQL parameters that it becomes, each with its key in the shape's ``options``. The rest
    is for people.
    """

    name: str
    kinds: tuple[str, ...]
    group: Literal["integers", "policy", "limits", "labels", "conditions", "graph", "values"]
    takes: str
    default: str
    help: str
    minimum: int | None = None
    columns: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    choices: tuple[str, ...] = ()


OPTIONS: Final = (
    OptionSpec(
        "max_attempts",
        (FLOW, *ANY_STEP),
        "integers",
        "at least 1",
        "3",
        "how often an item is tried",
        1,
        {"max_attempts": "maxAttempts"},
    ),
    OptionSpec(
        "base_delay",
        (FLOW, *ANY_STEP),
        "integers",
        "seconds, at least 1",
        "5",
        "the pause before a retry, times 2 to the power of the attempt",
        1,
        {"base_delay": "baseDelay"},
    ),
    OptionSpec(
        "timeout",
        (FLOW, *ANY_STEP),
        "integers",
        "seconds, at least 3",
        "60",
        "how long one attempt may take before its process is killed",
        3,
        {"timeout": "timeout"},
    ),
    OptionSpec(
        "start_delay",
        ANY_STEP,
        "integers",
        "seconds, at least 0",
        "0",
        "how long the step's tasks wait once it could start",
        0,
        {"start_delay": "startDelay"},
    ),
    OptionSpec("when", ANY_STEP, "conditions", "a JSON object", "none", "what the step's input must contain"),
    OptionSpec(
        "unless", ANY_STEP, "conditions", "a JSON object", "none", "what the step's input must not contain"
    ),
    OptionSpec(
        "when_unmet",
        ANY_STEP,
        "conditions",
        "`fail`, `skip` or `skip-cascade`",
        "`skip`",
        "what becomes of the step if its condition is not met",
    ),
    OptionSpec(
        "when_exhausted",
        ANY_STEP,
        "conditions",
        "`fail`, `skip` or `skip-cascade`",
        "`fail`",
        "what becomes of the step when an item has used up its attempts",
    ),
    OptionSpec(
        "depends_on",
        ("step", "array"),
        "graph",
        "steps, by function or slug",
        "none",
        "the parents, whose outputs the parameters of their names receive",
    ),
    OptionSpec(
        "over",
        ("map",),
        "graph",
        "a step, by function or slug",
        "the run's input",
        "whose array is mapped over",
    ),
    OptionSpec(
        "tolerate",
        ("map",),
        "policy",
        "a count (`10`) or a share (`0.01`)",
        "0",
        "how many items may fail for good; their outputs are null",
        columns={"tolerated_failures": "toleratedFailures", "tolerated_share": "toleratedShare"},
    ),
    OptionSpec(
        "stop_after_alike",
        ("map",),
        "policy",
        "at least 1",
        "none",
        "fail the step at once when its first so many items all fail with one error",
        1,
        {"stop_after_alike": "stopAfterAlike"},
    ),
    OptionSpec(
        "storage",
        (FLOW, "map"),
        "policy",
        "`tasks` or `ranges`",
        f"`{DEFAULT_STORAGE}`",
        "whether an item has a row of its own, or many share one ([ranges.md](ranges.md))",
        choices=STORAGES,
        columns={"storage": "storage"},
    ),
    OptionSpec(
        "batch",
        ("map",),
        "policy",
        "at least 1",
        "none",
        "how many items the function is given at once, as a list",
        1,
        columns={"batch": "batch"},
    ),
    OptionSpec(
        "barrier",
        ("map",),
        "policy",
        "`True` or `False`",
        "`True`",
        "whether a map over a map waits for all of its items, or begins with the first that are done",
        columns={"barrier": "barrier"},
    ),
    OptionSpec(
        "limit",
        (FLOW, *ANY_STEP),
        "limits",
        "at least 1",
        "none",
        "how many items all workers together may hold at once ([limits.md](limits.md)); that of a flow "
        "is for the flow as a whole",
        1,
        {"at_once": "limit"},
    ),
    OptionSpec(
        "rate",
        (FLOW, *ANY_STEP),
        "limits",
        '`"100/s"`, `"30/min"`, `"1000/h"`',
        "none",
        "how many items may be handed to all workers together in such a time",
        columns={"rate": "rate"},
    ),
    OptionSpec(
        "burst",
        (FLOW, *ANY_STEP),
        "limits",
        "at least 1",
        "a tenth of a second's",
        "how many of a rate may be handed out at one moment",
        1,
        {"burst": "burst"},
    ),
    OptionSpec(
        "requires",
        ANY_STEP,
        "labels",
        '`["gpu", "bigmem"]`',
        "none",
        "labels that a worker has to have to get items of the step ([limits.md](limits.md))",
        columns={"labels": "requires"},
    ),
    OptionSpec(
        "nan",
        (FLOW, *ANY_STEP),
        "values",
        "`error` or `null`",
        "`error`",
        "what NaN and Infinity in a result are: an error of the item, or null ([values.md](values.md))",
        choices=NANS,
    ),
    OptionSpec(
        "artifacts",
        (FLOW,),
        "values",
        "a folder or URL",
        "beside the embedded server's data",
        "where files that its steps make are kept ([artifacts.md](artifacts.md)); `--artifacts` wins over it",
    ),
)


def names(kind: str) -> list[str]:
    """The options that a flow or a kind of step has, in the table's order."""
    return [spec.name for spec in OPTIONS if kind in spec.kinds]


def _minimum(group: str) -> Mapping[str, int]:
    return {spec.name: spec.minimum for spec in OPTIONS if spec.group == group and spec.minimum is not None}


MINIMUM: Final = _minimum("integers")
"""The least value of each integer that add_step takes, in the contract's order."""

POLICY_MINIMUM: Final = _minimum("policy")
"""The least value of each integer that set_step_policy takes."""

DEFAULT_KEY: Final = "defaultStorage"
"""Key of the flow's ``options`` that says how a new flow's maps are stored that do not say it themselves."""

KEYS: Final[Mapping[str, str]] = {column: key for spec in OPTIONS for column, key in spec.columns.items()}
"""Keys of the shape's ``options`` by SQL parameter."""


def table() -> str:
    """The options as a Markdown table."""
    head = "| option | of | takes | default | what it says |\n| --- | --- | --- | --- | --- |\n"
    rows = (
        f"| `{spec.name}` | {', '.join(spec.kinds)} | {spec.takes} | {spec.default} | {spec.help} |\n"
        for spec in OPTIONS
    )
    return head + "".join(rows)
