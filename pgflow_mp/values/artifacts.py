"""Large binary results: bytes in a folder or an object store, a small object about them in the output."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import threading
import typing
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import BinaryIO, Final, NamedTuple

import msgspec

from pgflow_mp.errors import ArtifactError, PermanentError
from pgflow_mp.values import stores
from pgflow_mp.values.stores import RunPlace

_PIECE: Final = 1 << 20
NO_PLACE: Final = (
    "Give the worker --artifacts with a folder or a URL (PGFLOW_ARTIFACTS), or the flow artifacts=."
)


class Artifact(msgspec.Struct, frozen=True):
    """A file that a handler has made, in the place that the flow or the worker has for such.

    Made by ``from_bytes``, ``from_file`` and ``Context.artifact``, returned like any value, and received by
    who annotates Artifact. ``url`` is an absolute path, or a URL that fsspec understands; ``name`` is for
    people and their programs, ``sha256`` is that of its ``size`` bytes.
    """

    url: str
    name: str
    size: int
    sha256: str
    media_type: str = "application/octet-stream"

    @classmethod
    def from_bytes(
        cls, data: bytes | bytearray | memoryview, name: str, *, media_type: str | None = None
    ) -> Artifact:
        """Store bytes. In a handler only; raises ArtifactError where it cannot be done."""
        with writing(here(), name, media_type) as file:
            file.write(data)
        return file.artifact

    @classmethod
    def from_file(
        cls, path: str | os.PathLike[str], name: str | None = None, *, media_type: str | None = None
    ) -> Artifact:
        """Store a copy of a file, which may go then; under its own name unless another is given."""
        import shutil

        source = Path(path)
        with source.open("rb") as data, writing(here(), name or source.name, media_type) as file:
            shutil.copyfileobj(data, file, _PIECE)
        return file.artifact

    def open(self) -> BinaryIO:
        """A file to read, from its beginning. Raises ArtifactError if it is not there."""
        return stores.opened(self.url)

    def read(self) -> bytes:
        """All of it. Raises ArtifactError if it is not there, or not what was stored."""
        import hashlib

        with self.open() as file:
            data = file.read()
        if len(data) != self.size or hashlib.sha256(data).hexdigest() != self.sha256:
            raise ArtifactError(
                f"Artifact {self.url} is not what was stored: {len(data):,} bytes of {self.size:,}"
            )
        return data

    @property
    def path(self) -> Path:
        """Where it is in the file system: itself, or a copy of what an object store has, while we live."""
        import shutil

        if not stores.is_url(self.url):
            if not os.path.exists(self.url):
                self.open().close()  # says what is wrong
            return Path(self.url)
        copy = _copies() / self.sha256 / stores.checked_name(os.path.basename(self.url))
        if not copy.exists():
            copy.parent.mkdir(exist_ok=True)
            part = copy.with_name(f".{os.getpid()}.{threading.get_ident()}")
            with self.open() as data, part.open("wb") as file:
                shutil.copyfileobj(data, file, _PIECE)
            part.replace(copy)
        return copy


class ArtifactFile(stores.SpooledFile):
    """A file that becomes an artifact when its block ends."""

    made: Artifact | None = None

    @property
    def artifact(self) -> Artifact:
        """What is to be returned; once the block has ended."""
        if self.made is None:
            raise ArtifactError("An artifact is stored when its block ends: return it after that")
        return self.made


@contextlib.contextmanager
def writing(place: RunPlace, name: str, media_type: str | None = None) -> Iterator[ArtifactFile]:
    """A file to write, which is stored when the block ends well. Raises ArtifactError."""
    with stores.writing(place, name, ArtifactFile) as file:
        yield file
    if file.stored is not None:
        import mimetypes

        kind = media_type or mimetypes.guess_type(name)[0] or "application/octet-stream"
        file.made = Artifact(file.stored.url, name, file.stored.size, file.stored.sha256, kind)


# -- whose artifacts they are ------------------------------------------------------------------------


class Roots(NamedTuple):
    """Where a process may keep artifacts: ``given`` to the worker, else as a flow says, else ``beside``."""

    given: str | None = None
    flows: Mapping[str, str] = {}
    beside: str | None = None
    installation: str = "local"

    def of(self, flow: str) -> str | None:
        """The root for a flow's artifacts; None if there is none."""
        return self.given or self.flows.get(flow) or self.beside

    def place(self, flow: str, run: str) -> RunPlace:
        """Where a run keeps them. Raises PermanentError."""
        root = self.of(flow)
        if root is None:
            raise PermanentError("There is no place for artifacts here", hint=NO_PLACE)
        return RunPlace(root, self.installation, flow, run)


_Item = tuple[Roots, str, str]
_running: Final[dict[int, _Item]] = {}
"""By thread, whose item it runs: roots, flow, run."""


def enter(roots: Roots, flow: str, run: str) -> None:
    """What this thread makes from now on is of this run; quick, for it is done for every item of tasks."""
    _running[threading.get_ident()] = (roots, flow, run)


def leave() -> None:
    """This thread runs nothing any more."""
    _running.pop(threading.get_ident(), None)


def here() -> RunPlace:
    """Where the item keeps its artifacts that this thread runs, or, for a thread of a handler's, its process.

    Raises PermanentError.
    """
    found = _running.get(threading.get_ident())
    if found is None:
        others = {(item[1:], id(item[0])): item for item in list(_running.values())}
        if len(others) != 1:
            raise PermanentError(
                "Artifacts are made in handlers, and here none runs",
                hint="In a process of your own, or where several items run at once: ctx.artifact(name).",
            )
        (found,) = others.values()
    roots, flow, run = found
    return roots.place(flow, run)


def throwaway() -> Roots:
    """For runs of which nothing is kept: a folder that goes when this process ends."""
    return Roots(beside=str(_copies() / "runs"))


_folders: Final[dict[int, Path]] = {}


def _copies() -> Path:
    """A folder of this process."""
    import atexit
    import tempfile

    known = _folders.get(os.getpid())
    if known is None or not known.exists():
        known = _folders[os.getpid()] = Path(tempfile.mkdtemp(prefix="pgflow-artifacts-"))
        atexit.register(_remove, os.getpid(), known)
    return known


def _remove(owner: int, folder: Path) -> None:
    import shutil

    if os.getpid() == owner:
        shutil.rmtree(folder, ignore_errors=True)


def mentions(annotation: object, seen: frozenset[int] = frozenset()) -> bool:
    """Whether a type is Artifact, or holds some, as far as that can be told."""
    if annotation is Artifact:
        return True
    inside = list(typing.get_args(annotation))
    is_record = isinstance(annotation, type) and (
        issubclass(annotation, msgspec.Struct)
        or dataclasses.is_dataclass(annotation)
        or typing.is_typeddict(annotation)
        or any(hasattr(annotation, name) for name in ("_fields", "__attrs_attrs__", "model_fields"))
    )
    if is_record and id(annotation) not in seen:
        with contextlib.suppress(Exception):
            inside += typing.get_type_hints(annotation).values()
    return any(mentions(each, seen | {id(annotation)}) for each in inside)
