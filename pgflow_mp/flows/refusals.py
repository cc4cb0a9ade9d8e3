"""Which option of a flow or a step a wrong definition is about: a flow file has a line for each."""

from __future__ import annotations

from contextlib import ContextDecorator

from pgflow_mp.errors import FlowDefinitionError


class about(ContextDecorator):
    """What is refused within, or by a function that is decorated so, is refused for this option.

    Unless the error names another. A slug and a handler are options, too. It holds nothing of one use: many
    may be within at once.
    """

    __slots__ = ("_option",)

    def __init__(self, option: str) -> None:
        self._option = option

    def __enter__(self) -> None:
        return None

    def __exit__(self, _kind: object, error: BaseException | None, _trace: object) -> None:
        if isinstance(error, FlowDefinitionError):
            error.option = error.option or self._option
