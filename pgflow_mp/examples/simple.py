"""Three steps in a row: double a number, add ten, put it into words.

    python -m pgflow_mp run simple
    python -m pgflow_mp run simple --input '{"value": 21}'

A root step receives the run's input. A step that depends on others names them as parameters and
receives their outputs. Type annotations are all that it takes to get checked, typed values.
"""

from __future__ import annotations

from dataclasses import dataclass

from pgflow_mp import Flow

DEFAULT_INPUT = {"value": 16}


@dataclass
class Start:
    """Input of the run."""

    value: int


flow = Flow("simple")


@flow.step("rootStep")
def root_step(start: Start) -> int:
    """Double the value."""
    return start.value * 2


@flow.step("normalStep", depends_on=["rootStep"])
def normal_step(rootStep: int) -> int:
    """Add ten. The parameter is named after the parent, so it receives the parent's output."""
    return rootStep + 10


@flow.step("thirdStep", depends_on=["rootStep", "normalStep"])
def third_step(rootStep: int, normalStep: int) -> str:
    """Use both parents' outputs. Nothing depends on this step: its output is the run's output."""
    return f"{rootStep} + 10 = {normalStep}"
