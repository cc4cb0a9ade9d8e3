"""Folders and object stores that hold artifacts: written atomically, named by content, a folder for each run.

A place is ``<root>/<installation>/<flow>/<run>``, and in it ``<sha256>/<name>``. The installation is the
database's own id, so that databases that share a root never take each other's runs for their own.
"""

from __future__ import annotations

import contextlib
import io
import os
import re
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO, Final, NamedTuple, TypeVar, cast

from pgflow_mp.errors import ArtifactError, ConfigError
from pgflow_mp.installed import pip_install

_PIECE: Final = 1 << 20
_NAME_BYTES: Final = 200
_WHOLE_PUTS: Final = ("s3", "s3a", "gs", "gcs", "az", "abfs", "abfss", "adl", "oss", "oci", "r2")
"""Object stores, in which an object is not there before all of it is."""
GONE: Final = ".gone-"
"""How the name of a folder begins that is being removed."""


def is_url(root: str) -> bool:
    """Whether it is somewhere else than in a folder of this machine."""
    return "://" in root


def normal_root(root: str) -> str:
    """A root as it is stored: an absolute path or a URL. Raises ConfigError for what can be none."""
    text = root.strip()
    if text.startswith("file://"):
        text = "/" + text.removeprefix("file://").lstrip("/")
    if not text or "\0" in text:
        raise ConfigError(
            f"{root!r} is not a place for artifacts", hint="Give a folder, or a URL like s3://bucket."
        )
    if not is_url(text):
        return os.path.abspath(os.path.expanduser(text))
    if "::" in text or "?" in text or not re.match(r"[A-Za-z][A-Za-z0-9+.-]*://", text):
        raise ConfigError(
            f"{root!r} is not a place for artifacts", hint="Give one URL, of a scheme that fsspec knows."
        )
    if re.match(r"[^/]+://[^/@]*:[^/@]*@", text):
        raise ConfigError(
            "The place for artifacts has a password in it, which every result would tell",
            hint="Give the credentials by the library's own variables, e.g. AWS_SECRET_ACCESS_KEY.",
        )
    return text.rstrip("/")


def prepare_root(root: str, installation: str) -> None:
    """See to it that artifacts can be written there, as far as that is seen from here. Raises ConfigError."""
    import importlib.util
    import tempfile

    if is_url(root):
        if importlib.util.find_spec("fsspec") is None:
            raise ConfigError(
                f"Artifacts in {root} are written with fsspec, which is not installed",
                hint=f"Install it: {pip_install('remote')}",
            )
        return
    folder = Path(root) / installation
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise ConfigError(f"Artifacts cannot be written to {root}: {error.strerror}") from None


class RunPlace(NamedTuple):
    """Where a run keeps its artifacts."""

    root: str
    installation: str
    flow: str
    run: str

    @property
    def folder(self) -> str:
        return "/".join((self.root.rstrip("/"), self.installation, self.flow, self.run))


class Stored(NamedTuple):
    """What is known of contents once they are stored."""

    url: str
    size: int
    sha256: str


class SpooledFile(io.BufferedRandom):
    """A file that is being written, wherever it will be."""

    stored: Stored | None = None


F = TypeVar("F", bound=SpooledFile)


def checked_name(name: object) -> str:
    """``name``, if a file can have it. Raises ArtifactError."""
    if not isinstance(name, str) or name in ("", ".", "..") or re.search(r"[/\x00-\x1f\x7f]", name):
        raise ArtifactError(f"{name!r} is not a name for an artifact", hint="Give a file's name: model.bin.")
    try:
        size = len(name.encode())
    except UnicodeEncodeError:
        size = _NAME_BYTES + 1
    if size > _NAME_BYTES:
        raise ArtifactError(f"The name {name[:40]!r}... is too long for an artifact, or not UTF-8")
    return name


@contextlib.contextmanager
def writing(place: RunPlace, name: str, kind: type[F]) -> Iterator[F]:
    """A file to write and read, of class ``kind``; when the block ends well, it is stored, and says so.

    A process that is killed leaves nothing outside of the run's folder. Raises ArtifactError.
    """
    name = checked_name(name)
    kept = re.sub(r"[^\w.\- ]", "_", name)
    of_block: BaseException | None = None
    try:
        with (_in_store if is_url(place.root) else _in_folder)(place, kept, kind) as file:
            try:
                yield file
            except BaseException as error:
                of_block = error
                raise
    except (OSError, NotImplementedError) as error:
        if error is of_block:
            raise
        reason = getattr(error, "strerror", None) or str(error)
        raise ArtifactError(f"Artifact {name!r} cannot be stored in {place.root}: {reason}") from error


@contextlib.contextmanager
def _in_folder(place: RunPlace, name: str, kind: type[F]) -> Iterator[F]:
    folder = Path(place.folder)
    folder.mkdir(parents=True, exist_ok=True)
    temporary = folder / f".{uuid.uuid4().hex}.{name}"
    try:
        with kind(io.FileIO(temporary, "x+")) as file:
            yield file
            stored = _measured(file)
            os.fsync(file.fileno())
            target = folder / stored.sha256 / name
            for again in (True, False):  # whoever removes what is left of a run may remove the empty folder
                target.parent.mkdir(parents=True, exist_ok=True)
                try:
                    os.replace(temporary, target)
                    break
                except FileNotFoundError:
                    if not again or not temporary.exists():
                        raise
            for directory in (target.parent, folder, folder.parent):
                _sync(directory)
            file.stored = stored._replace(url=str(target))
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def _in_store(place: RunPlace, name: str, kind: type[F]) -> Iterator[F]:
    import shutil
    import tempfile

    files, folder = _opened(place.folder)
    with tempfile.TemporaryFile() as nameless:  # of which nothing stays, whatever becomes of us
        spool = os.dup(nameless.fileno())
    with kind(io.FileIO(spool, "r+")) as file:
        yield file
        stored = _measured(file)
        file.seek(0)
        target = f"{folder}/{stored.sha256}/{name}"
        files.makedirs(f"{folder}/{stored.sha256}", exist_ok=True)
        whole = place.root.partition("://")[0] in _WHOLE_PUTS
        written = target if whole else f"{folder}/.{uuid.uuid4().hex}.part"
        with files.open(written, "wb") as out:
            shutil.copyfileobj(file, out, _PIECE)
        if not whole:
            files.mv(written, target)
        file.stored = stored._replace(url=f"{place.folder}/{stored.sha256}/{name}")


def _measured(file: SpooledFile) -> Stored:
    import hashlib

    file.flush()
    file.seek(0)
    sha256 = hashlib.file_digest(cast(Any, file), "sha256").hexdigest()
    return Stored("", file.tell(), sha256)


def _sync(directory: Path) -> None:
    handle = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def opened(url: str) -> BinaryIO:
    """What is stored there, to be read. Raises ArtifactError."""
    try:
        if not is_url(url):
            return open(url, "rb")
        files, path = _opened(url)
        return cast(BinaryIO, files.open(path, "rb"))
    except FileNotFoundError:
        raise ArtifactError(
            f"There is no artifact {url}",
            hint="It goes with its run, or is in a folder of another machine: workers on several machines "
            "need a place that all of them see.",
        ) from None
    except (OSError, ValueError, ImportError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise ArtifactError(f"Artifact {url} cannot be read: {reason}") from error


def _opened(url: str) -> tuple[Any, str]:
    try:
        import fsspec
    except ImportError:
        raise ConfigError(
            f"{url} is read and written with fsspec, which is not installed",
            hint=f"Install it: {pip_install('remote')}",
        ) from None
    try:
        files, path = fsspec.core.url_to_fs(url)
    except (ImportError, ValueError) as error:
        raise ArtifactError(f"{url} cannot be used: {error}") from None
    return files, str(path).rstrip("/")


# -- removing --------------------------------------------------------------------------------------


class RemovedFiles(NamedTuple):
    """How many runs' artifacts are gone, and how much that was."""

    runs: int = 0
    files: int = 0
    size: int = 0

    def __add__(self, other: Any) -> RemovedFiles:
        return RemovedFiles(*(one + another for one, another in zip(self, other, strict=True)))


class Folders:
    """The folders of runs below a root, of one installation.

    Whoever may register a root must not lead a removal to folders of others. Raises OSError and its like,
    ConfigError or ArtifactError for what is no place.
    """

    def __init__(self, root: str, installation: str) -> None:
        if normal_root(root) != (root.rstrip("/") or root):
            raise ArtifactError(f"{root!r} is not a place for artifacts: workers keep none in such")
        self._base = f"{root.rstrip('/')}/{installation}"
        self._files: Any = None
        self._path = self._base
        if is_url(root):
            self._files, self._path = _opened(self._base)
            if not self._path.endswith(f"/{installation}"):
                raise ArtifactError(f"{root} is not a place for artifacts: it leads to {self._path}")
            self._files.invalidate_cache()
        elif os.path.islink(self._path):
            raise ArtifactError(f"{self._path} leads to another folder")

    def exist(self) -> bool:
        """Whether this is the place: a worker that keeps artifacts in a folder makes ours in it."""
        return self._files is not None or os.path.isdir(self._path)

    def flows(self) -> list[str]:
        """The flows that have any."""
        return [name for name in self._names(self._path) if re.fullmatch(r"\w+", name)]

    def runs(self, flow: str) -> dict[str, list[str]]:
        """Names of folders by run: more than one where a removal was interrupted."""
        found: dict[str, list[str]] = {}
        for name in self._names(f"{self._path}/{flow}"):
            text = name.removeprefix(GONE)[:36]
            with contextlib.suppress(ValueError):
                if str(uuid.UUID(text)) == text:
                    found.setdefault(text, []).append(name)
        return found

    def _names(self, path: str) -> list[str]:
        if self._files is not None:
            if not self._files.exists(path):
                return []
            entries = self._files.ls(path, detail=True)
            return [e["name"].rstrip("/").rpartition("/")[2] for e in entries if e["type"] == "directory"]
        if not os.path.isdir(path):
            return []
        with os.scandir(path) as entries:
            return [entry.name for entry in entries if entry.is_dir(follow_symlinks=False)]

    def set_aside(self, flow: str, name: str) -> str:
        """Give the folder another name, by which nobody finds it, in one go; stores cannot do that."""
        if self._files is not None or name.startswith(GONE):
            return name
        aside = f"{GONE}{name}-{uuid.uuid4().hex[:8]}"
        os.rename(f"{self._path}/{flow}/{name}", f"{self._path}/{flow}/{aside}")
        return aside

    def put_back(self, flow: str, aside: str) -> None:
        """The folder is wanted after all."""
        import shutil

        run = aside.removeprefix(GONE)[:36]
        if self._files is not None or aside == run:
            return
        source, target = Path(f"{self._path}/{flow}/{aside}"), Path(f"{self._path}/{flow}/{run}")
        for file in [file for file in source.rglob("*") if file.is_file()]:
            new = target / file.relative_to(source)
            new.parent.mkdir(parents=True, exist_ok=True)
            os.replace(file, new)
        shutil.rmtree(source, ignore_errors=True)

    def remove(self, flow: str, name: str) -> RemovedFiles:
        """Remove the folder."""
        import shutil

        path = f"{self._path}/{flow}/{name}"
        if self._files is not None:
            sizes = self._files.find(path, detail=True).values()
            removed = RemovedFiles(0, len(sizes), sum(int(each.get("size") or 0) for each in sizes))
            self._files.rm(path, recursive=True)
            return removed
        found = [entry.stat() for entry in Path(path).rglob("*") if entry.is_file()]
        shutil.rmtree(path)
        return RemovedFiles(0, len(found), sum(status.st_size for status in found))
