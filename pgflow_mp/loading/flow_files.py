"""Flow files: JSON or YAML that describes one flow (docs/flow-files.md).

Processes are given what a file said when the command was started, so that all of them have one flow even
where the file changes meanwhile.
"""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Final

from pgflow_mp.errors import (
    ConfigError,
    FlowDefinitionError,
    FlowFileError,
    FlowNotFound,
    InputError,
    PgflowError,
)
from pgflow_mp.flows import exporting
from pgflow_mp.flows.flow import Flow
from pgflow_mp.installed import pip_install
from pgflow_mp.loading import flow_data
from pgflow_mp.loading.handler_list import HandlerList
from pgflow_mp.loading.importing import no_file
from pgflow_mp.loading.targets import DATA_ENDINGS, Target, here
from pgflow_mp.values import datatexts, yamltext
from pgflow_mp.values.foundtext import without_mark

LIMIT: Final = 4 << 20
"""Bytes that a flow file may have."""


def read(file: str) -> bytes:
    """The contents of a flow file. Raises FlowNotFound, FlowFileError."""
    data: bytes | None = None
    try:
        with open(file, "rb", opener=_opener) as opened:
            if stat.S_ISREG(os.fstat(opened.fileno()).st_mode):
                data = opened.read(LIMIT + 1)
    except (FileNotFoundError, NotADirectoryError):
        raise no_file(Path(file)) from None
    except IsADirectoryError:
        raise FlowNotFound(f"{file} is a directory", hint="Name a file in it.") from None
    except OSError as error:
        raise FlowNotFound(f"File {file} cannot be read: {error.strerror}") from None
    except ValueError:
        raise FlowNotFound(f"No file can be called {file!r}") from None
    if data is None:
        raise FlowFileError(f"{file} is not a file", hint="A pipe or a device cannot be a flow file.")
    if len(data) > LIMIT:
        raise FlowFileError(f"{file} has more than {LIMIT >> 20} MiB, which is too much for a flow file")
    return data


def with_contents(target: Target, handlers: Iterable[str] | str | None = None) -> Target:
    """The target as it is passed on: of a flow file with what it says now, and with what it may name.

    Raises FlowNotFound, FlowFileError, and ConfigError for the list.
    """
    allowed = HandlerList.of(handlers).entries
    if not target.is_data or target.file is None or target.contents is not None:
        return target
    return replace(target, contents=read(target.file), handlers=allowed)


def contents_of(targets: Iterable[Target], known: Mapping[str, bytes]) -> dict[str, bytes]:
    """What the flow files among the targets say, by path; ``known`` are those that were read already."""
    files = [target.file for target in targets if target.is_data and target.file is not None]
    return {file: known[file] if file in known else read(file) for file in files}


def load(target: Target) -> Flow:
    """The flow of a flow file. Raises FlowNotFound, FlowFileError with file and line, ConfigError."""
    file = target.file or ""
    data = read(file) if target.contents is None else target.contents
    document = _parse(file, data)
    handlers = HandlerList.of(target.handlers)
    try:
        flow = flow_data.flow_of(document.value, handlers)
    except flow_data.Misplaced as misplaced:
        raise _placed(misplaced.error, file, document.line_of(misplaced.place)) from misplaced.error.__cause__
    flow.file = file
    return flow


def of_shape(shape: object, handlers: Iterable[str] | str | None) -> Flow:
    """The flow that a mapping describes. Raises FlowDefinitionError, FlowNotFound, ConfigError."""
    try:
        flow = flow_data.flow_of(shape, HandlerList.of(handlers))
    except flow_data.Misplaced as misplaced:
        raise misplaced.error from misplaced.error.__cause__
    flow.is_data = True
    return flow


def of_file(file: str | os.PathLike[str], handlers: Iterable[str] | str | None) -> Flow:
    """The flow that a file describes. Raises FlowNotFound, FlowFileError, ConfigError."""
    name: object = os.fspath(file) if isinstance(file, os.PathLike) else file
    if not isinstance(name, str):
        text = f"{repr(file)[:80]} is not the path of a flow file"
        raise FlowNotFound(text, hint="Give a text or a Path.")
    target = Target.parse(name)
    if not target.is_data or target.flow is not None:
        raise FlowNotFound(f"{file} is not a flow file", hint=f"Its name ends in {', '.join(DATA_ENDINGS)}.")
    flow = load(with_contents(target, handlers))
    flow.is_data = True
    return flow


def target_of(flow: Flow) -> Target | None:
    """What another process makes the same flow of, if it was made of data and has import paths."""
    if not flow.is_data:
        return None
    try:
        data = exporting.data_of(flow)
    except FlowDefinitionError:  # of functions that were given as such
        return None
    paths = tuple(dict.fromkeys(part["handler"] for part in [*data["steps"], *data.get("on_start", ())]))
    text = json.dumps(data, ensure_ascii=False).encode()
    return Target(file=f"<{flow.slug}>.json", flow=flow.slug, directory=here(), contents=text, handlers=paths)


def _parse(file: str, data: bytes) -> datatexts.Document:
    try:
        text = without_mark(data, file).decode()
    except InputError as error:
        raise FlowFileError(str(error), hint=error.hint) from None
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise FlowFileError(
            f"{_place(file, line)}: it is not UTF-8 (byte {data[error.start]:#04x})",
            hint="Save it as UTF-8, or convert it: iconv -f latin1 -t utf-8",
        ) from None
    if not text.strip():
        raise FlowFileError(f"{file} is empty", hint="A flow file has a slug and steps.")
    try:
        if file.lower().endswith(".json"):
            return datatexts.read_json(text)
        return yamltext.read_yaml(text)
    except yamltext.NoYamlReader:
        raise ConfigError(
            f"PyYAML is not installed, which reads {file}",
            hint=f"Write the flow as JSON, or install it: {pip_install('yaml')}",
        ) from None
    except datatexts.Unreadable as error:
        raise FlowFileError(f"{_place(file, error.line)}: {error}", hint=error.hint) from None


def _placed(error: PgflowError, file: str, line: int | None) -> PgflowError:
    """The error with the place in the file; a wrong definition is one of the file."""
    kind = FlowFileError if isinstance(error, FlowDefinitionError) else type(error)
    return kind(f"{_place(file, line)}: {error}", hint=error.hint)


def _place(file: str, line: int | None) -> str:
    return f"{file}, line {line}" if line else file


def _opener(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NONBLOCK | os.O_CLOEXEC)  # a pipe without a writer is not waited for
