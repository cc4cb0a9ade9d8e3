"""Whether processes elsewhere have the code that is here: this package's, and the modules of the flows.

Code reaches them by import path, so each has what was there when it imported it. Both ends name a version: of
this package its number and a digest of its sources, of a module a digest of its file as it was imported.
"""

from __future__ import annotations

import functools
import hashlib
import importlib.machinery
import inspect
import os
import socket
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from pgflow_mp import __version__
from pgflow_mp.errors import PgflowError
from pgflow_mp.executors.messages import CodeFile, Setup
from pgflow_mp.flows.flow import Flow
from pgflow_mp.loading.importing import FILE_PREFIX
from pgflow_mp.loading.targets import Target

HINT: Final = (
    "Every worker of the engine needs the same code: install or copy it there, and restart those workers "
    "that have imported an older one."
)
_HERE: Final = Path(__file__).resolve().parent.parent
_MAINS: Final = ("__main__", "__mp_main__")
_SHORT: Final = 12
_imported: Final[dict[str, CodeFile]] = {}
"""What this process has imported, as it was when it was looked at first: right after the import."""


class DifferentCode(PgflowError):
    """A process elsewhere has another version of the code."""

    exit_code = 2


@functools.cache
def own_version() -> str:
    """This package as it is here, e.g. ``0.1.0 (sha256 12ab34cd56ef)``."""
    digest = hashlib.sha256()
    for path in sorted(_HERE.rglob("*.py")):
        digest.update(str(path.relative_to(_HERE)).encode() + b"\0" + path.read_bytes() + b"\0")
    return f"{__version__} (sha256 {digest.hexdigest()[:_SHORT]})"


def host() -> str:
    """This process, as messages name it."""
    return f"{socket.gethostname()}, process {os.getpid()}"


def code_of(flows: Iterable[Flow]) -> list[CodeFile]:
    """The modules that define the flows and their functions, but for those of this package."""
    found: dict[str, CodeFile] = {}
    for flow in flows:
        functions = [step.handler for step in flow.steps.values()]
        modules = [flow.module, *(inspect.unwrap(function).__module__ for function in functions)]
        for name in modules:
            if name is None or f"{name}.".startswith("pgflow_mp."):
                continue
            if name not in _imported and (file := _code_file(name)) is not None:
                _imported[name] = file
            if name in _imported:
                found[name] = _imported[name]
    return list(found.values())


def differences(here: str, wanted: dict[str, str], found: Iterable[CodeFile]) -> str:
    """What is another one here than ``wanted`` (module: digest); empty where nothing is."""
    for file in found:
        digest = wanted.get(file.module)
        if digest is not None and digest != file.digest:
            return (
                f"module {file.module} is another one on {here} than where the run was started: "
                f"{file.path} has sha256 {file.digest[:_SHORT]} there, {digest[:_SHORT]} here"
            )
    return ""


def other_version(there: str, where: str, here: str) -> str:
    """That this package is another one elsewhere."""
    return f"pgflow_mp is {there} on {where}, and {here} here"


def digests_here(found: Iterable[CodeFile], setup: Setup) -> dict[str, str]:
    """The digests of the same modules here, by name, without importing any; of those that are files here."""
    digests: dict[str, str] = {}
    for file in found:
        place = _place_here(file, setup)
        if place is not None and (digest := _digest(place)) is not None:
            digests[file.module] = digest
    return digests


def _place_here(file: CodeFile, setup: Setup) -> str | None:
    name = file.module
    if name in _MAINS:
        return setup.main_path
    if name.startswith(FILE_PREFIX):  # loaded by its path, which is the same at both ends
        return file.path
    targets = map(Target.parse, setup.target.splitlines())
    beside = [path for target in targets for path in target.sys_path]
    where: list[str] | None = [*setup.sys_path, *beside, *sys.path]
    spec = None
    parts = name.split(".")
    for count in range(1, len(parts) + 1):
        spec = importlib.machinery.PathFinder.find_spec(".".join(parts[:count]), where)
        if spec is None:
            return file.path  # if that is a file here
        where = None if spec.submodule_search_locations is None else list(spec.submodule_search_locations)
    return None if spec is None else spec.origin


def _code_file(name: str) -> CodeFile | None:
    path = getattr(sys.modules.get(name), "__file__", None)
    if path is None or (digest := _digest(path)) is None:
        return None
    return CodeFile(name, os.path.abspath(path), digest)


def _digest(path: str) -> str | None:
    try:
        return hashlib.sha256(Path(path).read_bytes()).hexdigest()
    except OSError:  # in an archive, or deleted
        return None
