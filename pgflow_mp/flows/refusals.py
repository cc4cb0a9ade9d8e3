"""Which option of a flow or a step a wrong definition is about: a flow file has a line for each."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from pgflow_mp.errors import FlowDefinitionError


@contextmanager
def about(option: str) -> Iterator[None]:
    """What is refused within, or by a function that is decorated so, is refused for this option.

    Unless the error names another. A slug and a handler are options, too.
    """
    try:
        yield
    except FlowDefinitionError as error:
        error.option = error.option or option
        raise
