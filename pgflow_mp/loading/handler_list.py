"""The list of functions that flows which are data may name, and the functions themselves.

Importing a module executes it. So a name is compared with the list before anything is imported for it, or
even looked for; and a module that is on the list stands for what it defines, not for what it has imported.
The list comes with how a process was started, never from a database, and never with a flow.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Final

from pgflow_mp.errors import ConfigError, FlowDefinitionError, FlowNotFound
from pgflow_mp.loading.importing import import_target
from pgflow_mp.loading.targets import Target, here

FORMS: Final = "module, module:function or package.*"
_NAME: Final = r"[^\W\d]\w*"
_MODULE: Final = rf"{_NAME}(?:\.{_NAME})*"
_HANDLER: Final = re.compile(rf"({_MODULE}):({_NAME})", re.ASCII)
_ENTRY: Final = re.compile(rf"{_MODULE}(?::{_NAME}|\.\*)?", re.ASCII)
_SHOWN: Final = 10
_LONGEST: Final = 500


@dataclass(frozen=True, slots=True)
class HandlerList:
    """What may be named: ``module`` (what it defines, but for names with an underscore in front),
    ``module:function``, ``package.*`` (the package and all modules below it). Empty: nothing.
    """

    entries: tuple[str, ...] = ()

    @classmethod
    def of(cls, given: Iterable[str] | str | None) -> HandlerList:
        """The list of these entries, of a text those between commas. Raises ConfigError."""
        if given is None:
            return cls()
        if isinstance(given, str):
            given = [part.strip() for part in given.split(",") if part.strip()]
        if not isinstance(given, Iterable):
            raise ConfigError(f"{given!r} cannot be a list of handlers", hint=f"Its entries are {FORMS}.")
        entries: list[str] = []
        for entry in given:
            if not isinstance(entry, str) or not _ENTRY.fullmatch(entry):
                raise ConfigError(
                    f"{entry!r} cannot be on the list of handlers", hint=f"Its entries are {FORMS}."
                )
            entries.append(entry)
        return cls(tuple(dict.fromkeys(entries)))

    def check(self, path: object, what: str) -> None:
        """Whether it is an import path that is on the list; ``what`` names it in errors: ``Handler of ...``.

        Imports nothing, and looks for nothing. Raises FlowDefinitionError.
        """
        module, name = _parts(path, what)
        if path not in self.entries and not self._has_module(module):
            raise self._not_listed(f"{module}:{name}", what)
        if path not in self.entries and name.startswith("_"):
            raise FlowDefinitionError(
                f"{what} is {path}, whose name begins with an underscore",
                hint=f"The list of handlers has to name it then: {path}.",
            )

    def load(self, path: object, what: str) -> Callable[..., Any]:
        """The function at ``module:function``. Raises as check() does; FlowNotFound if it is not there."""
        self.check(path, what)
        module, name = _parts(path, what)
        return self._function(module, name, what, by_name=path in self.entries)

    def _has_module(self, module: str) -> bool:
        packages = [entry[:-2] for entry in self.entries if entry.endswith(".*")]
        return module in self.entries or any(f"{module}.".startswith(f"{each}.") for each in packages)

    def _function(self, module: str, name: str, what: str, *, by_name: bool) -> Callable[..., Any]:
        names = vars(import_target(Target(module=module, directory=here())))
        if name not in names:
            import difflib

            functions = [each for each, value in names.items() if callable(value) and each[0] != "_"]
            close = difflib.get_close_matches(name, functions, 1)
            raise FlowNotFound(
                f'{what} is {module}:{name}, and module "{module}" has no "{name}"',
                hint=f"Did you mean {close[0]}?" if close else "",
            )
        function = names[name]
        if not callable(function):
            raise FlowDefinitionError(f"{what} is {module}:{name}, which is not a function")
        origin = getattr(function, "__module__", None)
        if not by_name and origin != module and not (isinstance(origin, str) and self._has_module(origin)):
            raise FlowDefinitionError(
                f'{what} is {module}:{name}, which module "{module}" has from {origin or "elsewhere"}',
                hint=f"On the list of handlers a module stands for what it defines; to allow this, too, "
                f"name it: {module}:{name}.",
            )
        found: Callable[..., Any] = function
        return found

    def _not_listed(self, path: str, what: str) -> FlowDefinitionError:
        more = ", ..." if len(self.entries) > _SHOWN else ""
        has = f"It has {', '.join(self.entries[:_SHOWN])}{more}." if self.entries else "It is empty."
        return FlowDefinitionError(
            f"{what} is {path}, which is not on the list of handlers that this process was started with",
            hint=f"{has} Nothing else is imported. To allow it: --handlers {path}, PGFLOW_HANDLERS, or "
            f'handlers=["{path}"] in Python.',
        )


def _parts(path: object, what: str) -> tuple[str, str]:
    if not isinstance(path, str):
        kind = "nothing" if path is None else f"a {type(path).__name__}"
        raise FlowDefinitionError(f"{what} must be an import path, not {kind}", hint=_FOR_EXAMPLE)
    match = _HANDLER.fullmatch(path) if len(path) <= _LONGEST else None
    if match is None:
        shown = path if len(path) <= _LONGEST else f"{path[:60]}..."
        raise FlowDefinitionError(f"{what} is not an import path: {shown!r}", hint=_FOR_EXAMPLE)
    if match[1] in ("__main__", "__mp_main__"):
        raise FlowDefinitionError(
            f"{what} is in {match[1]}, which is another module in each process",
            hint="Put the function into a module of its own, and name that.",
        )
    return match[1], match[2]


_FOR_EXAMPLE: Final = "It is module:function. For example: app.steps:count"
