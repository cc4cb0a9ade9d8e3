"""The sdist and the wheel: made, compared with what should be in them, and with each other."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Iterable, Iterator
from email.message import Message
from email.parser import BytesParser
from pathlib import Path, PurePosixPath

ROOT = Path(__file__).resolve().parent.parent
META = {"METADATA", "WHEEL", "RECORD", "entry_points.txt", "licenses/LICENSE"}
"""What is below NAME-VERSION.dist-info of our wheel."""
NOT_IN_SDIST = (".ci/", ".pre-commit-config.yaml")
"""What is of this repository, and nothing for those who build from an archive."""
MADE = {"__pycache__", "build", "dist", "site", "PKG-INFO"}
"""What is made of a checkout and no part of it, where no git tells."""
LIMITS = {".whl": 2.5, ".gz": 6.0}
"""Megabytes (1e6) of each at most: what goes beyond was not meant to be in it."""
FIELDS = ("Name", "Version", "Summary", "License-Expression", "Requires-Python", "Author", "Description")


def build(directory: Path, what: Iterable[str] = ("sdist", "wheel")) -> list[Path]:
    """Build this checkout into ``directory``, which is empty; returns what was built, by name."""
    command = [sys.executable, "-m", "build", *(f"--{each}" for each in what), "--outdir", str(directory)]
    _run([*command, str(ROOT)], "The checkout cannot be built")
    return sorted(directory.iterdir())


def wheel_of_sdist(sdist: Path, place: Path) -> Path:
    """The wheel that pip builds from the sdist, in ``place``, with this checkout out of sight."""
    place.mkdir()
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-cache-dir"]
    _run(
        [*command, "--wheel-dir", str(place), str(sdist.resolve())], "pip builds no wheel of the sdist", place
    )
    return next(place.glob("*.whl"))


def unpack(sdist: Path, place: Path) -> Path:
    """The sdist's tree below ``place``."""
    with tarfile.open(sdist) as archive:
        archive.extractall(place, filter="data")
    return next(path for path in place.iterdir() if path.is_dir())


def problems_of_wheel(wheel: Path) -> Iterator[str]:
    """What is missing in the wheel, what is too much, what differs from this checkout; its metadata."""
    with zipfile.ZipFile(wheel) as archive:
        contents = {name: archive.read(name) for name in archive.namelist()}
    info = f"{'-'.join(wheel.name.split('-')[:2])}.dist-info/"
    wanted = {packed: ROOT / source for source in _sources() if (packed := _packed(source))}
    yield from _differences(
        {name: data for name, data in contents.items() if not name.startswith(info)}, wanted
    )
    meta = {name.removeprefix(info) for name in contents if name.startswith(info)}
    yield from (f"{info}{name} is missing" for name in sorted(META - meta))
    yield from (f"{info}{name} does not belong there" for name in sorted(meta - META))
    if meta >= META:
        if b"pgflow-mp = pgflow_mp.cli.main:main" not in contents[f"{info}entry_points.txt"]:
            yield "the command pgflow-mp is missing"
        if contents[f"{info}licenses/LICENSE"] != (ROOT / "LICENSE").read_bytes():
            yield "the licence is another one"
        yield from problems_of_metadata(contents[f"{info}METADATA"])
    yield from _too_large(wheel)


def problems_of_sdist(sdist: Path) -> Iterator[str]:
    """The same of the sdist, which is this checkout without what is of the repository, and PKG-INFO."""
    with tarfile.open(sdist) as archive:
        files = {
            member.name: archive.extractfile(member) for member in archive.getmembers() if member.isfile()
        }
        contents = {name.partition("/")[2]: file.read() for name, file in files.items() if file}
    tops = {name.partition("/")[0] for name in files}
    if tops != {sdist.name.removesuffix(".tar.gz")}:
        yield f"its files are below {', '.join(sorted(tops))}"
    metadata = contents.pop("PKG-INFO", b"")
    wanted = {source: ROOT / source for source in _sources() if not source.startswith(NOT_IN_SDIST)}
    yield from _differences(contents, wanted)
    yield from problems_of_metadata(metadata)
    yield from _too_large(sdist)


def problems_of_metadata(metadata: bytes) -> Iterator[str]:
    """What METADATA or PKG-INFO, in the form of mails, lacks for those who look for a package."""
    fields: Message = BytesParser().parsebytes(metadata)
    for name in FIELDS:
        value = str(fields.get_payload()) if name == "Description" else fields.get(name)
        if not value:
            yield f"the metadata has no {name}"
    classifiers = fields.get_all("Classifier", [])
    lowest = str(fields.get("Requires-Python", "")).removeprefix(">=")
    if f"Programming Language :: Python :: {lowest}" not in classifiers:
        yield f"no classifier names Python {lowest}, which Requires-Python does"
    if fields.get("Description-Content-Type") != "text/markdown":
        yield "the description is not said to be Markdown"
    if "LICENSE" not in fields.get_all("License-File", []):
        yield "the metadata names no License-File"


def differences(one: Path, other: Path) -> Iterator[str]:
    """In which files two wheels differ; nothing where they are the same to the byte."""
    if _digest(one.read_bytes()) == _digest(other.read_bytes()):
        return
    with zipfile.ZipFile(one) as first, zipfile.ZipFile(other) as second:
        names = {name: first.read(name) for name in first.namelist()}
        others = {name: second.read(name) for name in second.namelist()}
    found = sorted(name for name in {*names, *others} if names.get(name) != others.get(name))
    yield from (f"{name} differs between {one.name} and that of the sdist" for name in found)
    if not found:
        yield "the wheel of the sdist has the same files, but is another archive"


def needs_of(wheel: Path) -> list[str]:
    """What the wheel asks for without extras, as pip reads it."""
    with zipfile.ZipFile(wheel) as archive:
        name = next(name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
        fields: Message = BytesParser().parsebytes(archive.read(name))
    return [need for need in fields.get_all("Requires-Dist", []) if "extra ==" not in need]


def _sources() -> list[str]:
    """The files of this checkout that are under version control or will be, or all of an unpacked sdist."""
    if (ROOT / ".git").exists() and shutil.which("git"):
        command = ["git", "-c", "safe.directory=*", "ls-files", "--cached", "--others", "--exclude-standard"]
        listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
        return [name for name in listed.stdout.splitlines() if (ROOT / name).is_file()]
    found: list[str] = []
    for folder, folders, files in os.walk(ROOT):
        place = PurePosixPath(Path(folder).relative_to(ROOT).as_posix())
        folders[:] = [name for name in folders if name[0] != "." and name not in MADE]
        found += [str(place / name) for name in files if str(place / name) not in MADE]
    return sorted(found)


def _packed(source: str) -> str | None:
    """Where a file is in the wheel, or None."""
    path = PurePosixPath(source)
    if path.parts[0] == "pgflow_mp":
        return source
    return f"pgflow_mp/_sql/{path.relative_to('sql')}" if path.parts[0] == "sql" else None


def _differences(contents: dict[str, bytes], wanted: dict[str, Path]) -> Iterator[str]:
    yield from (f"{name} is missing" for name in sorted({*wanted} - {*contents}))
    yield from (f"{name} does not belong there" for name in sorted({*contents} - {*wanted}))
    for name in sorted({*wanted} & {*contents}):
        if _digest(contents[name]) != _digest(wanted[name].read_bytes()):
            yield f"{name} differs from {wanted[name].relative_to(ROOT)}"


def _too_large(path: Path) -> Iterator[str]:
    size, limit = path.stat().st_size / 1e6, LIMITS[path.suffix]
    if size > limit:
        yield f"it has {size:.1f} MB, {limit} at most are meant to be"


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _run(command: list[str], failing: str, place: Path | None = None) -> None:
    with tempfile.TemporaryDirectory(prefix="pgflow-build-") as empty:
        done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=place or empty)
    if done.returncode:
        sys.exit(f"{failing}:\n{done.stdout}{done.stderr}")
