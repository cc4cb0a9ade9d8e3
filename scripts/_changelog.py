"""CHANGELOG.md as data, and whether it has the form of Keep a Changelog 1.1.0."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import date
from itertools import pairwise

KINDS = ("Added", "Changed", "Deprecated", "Removed", "Fixed", "Security")
UNRELEASED = "Unreleased"
WIDEST = 130
STUBS = "".join(f"### {kind}\n\n" for kind in ("Added", "Changed", "Fixed"))
"""What stands below "Unreleased" while nothing does: so that two branches' lines meet below a heading."""
_HEADING = re.compile(r"## \[(?P<version>[^]]+)\](?: - (?P<day>\S+))?")
_VERSION = re.compile(r"(0|[1-9]\d*)\.(0|[1-9]\d*)\.(0|[1-9]\d*)(?:(a|b|rc)(\d+))?")


@dataclass
class Release:
    """A section of the second level: its version or "Unreleased", lines before any kind, and of each."""

    version: str
    line: int
    day: str | None = None
    opening: list[str] = field(default_factory=list)
    kinds: dict[str, list[str]] = field(default_factory=dict)

    @property
    def entries(self) -> list[str]:
        """The first line of each entry, of whatever kind."""
        return [line[2:] for lines in self.kinds.values() for line in lines if line.startswith("- ")]

    def text(self) -> str:
        """What there is of it, kinds in order; kinds without entries left out. Ends with an empty line."""
        parts = ["\n".join(self.opening).strip()]
        for kind in sorted(self.kinds, key=KINDS.index):
            if body := "\n".join(self.kinds[kind]).strip():
                parts.append(f"### {kind}\n\n{body}")
        return "".join(f"{part}\n\n" for part in parts if part)


def read(text: str) -> list[Release]:
    """The releases, newest first, as they stand there; "Unreleased" is one of them."""
    releases: list[Release] = []
    lines: list[str] = []
    for number, line in enumerate(text.splitlines(), 1):
        if line.startswith("## "):
            found = _HEADING.fullmatch(line)
            version, day = (found["version"], found["day"]) if found else (line.removeprefix("## "), None)
            releases.append(Release(version, number, day))
            lines = releases[-1].opening
        elif line.startswith("### ") and releases:
            lines = releases[-1].kinds.setdefault(line.removeprefix("### "), [])
        else:
            lines.append(line)
    return releases


def problems(text: str) -> Iterator[str]:
    """What is not as Keep a Changelog has it, each with its line."""
    lines = text.splitlines()
    if lines[:1] != ["# Changelog"]:
        yield "line 1: the title is '# Changelog'"
    for number, line in enumerate(lines, 1):
        if line.startswith("## ") and not _HEADING.fullmatch(line):
            yield f"line {number}: a release is '## [VERSION] - YYYY-MM-DD'"
        if len(line) > WIDEST:
            yield f"line {number}: longer than {WIDEST} characters"
    releases = read(text)
    if [release.version for release in releases[:1]] != [UNRELEASED]:
        yield "the first section is '## [Unreleased]'"
    for release in releases:
        yield from _of_one(release, _kinds_twice(lines, release))
    yield from _out_of_order([release for release in releases if release.version != UNRELEASED])


def order(version: str) -> tuple[int, int, int, int, int]:
    """Sorts versions: 1.0.0rc1 is before 1.0.0. Raises ValueError for what is no version."""
    found = _VERSION.fullmatch(version)
    if not found:
        raise ValueError(f"{version!r} is no version: MAJOR.MINOR.PATCH, or that with a1, b1 or rc1")
    major, minor, patch, stage, number = found.groups()
    return int(major), int(minor), int(patch), ("a", "b", "rc", None).index(stage), int(number or 0)


def with_release(text: str, version: str, day: date) -> str:
    """The changelog with what is unreleased given to ``version``.

    Where the newest release there is ``version`` already, it gets what is unreleased besides what it has.
    Raises ValueError where that leaves it without an entry.
    """
    releases = read(text)
    unreleased = releases[0]
    body = Release(version, 0, None, unreleased.opening, dict(unreleased.kinds))
    after = releases[1:]
    if after and after[0].version == version:
        former, after = after[0], after[1:]
        body.opening = [*former.opening, *unreleased.opening]
        for kind, lines in former.kinds.items():
            body.kinds[kind] = [*lines, *_without_empty(unreleased.kinds.get(kind, []))]
    if not body.entries:
        raise ValueError(f"CHANGELOG.md has nothing under Unreleased that {version} could be")
    head = text.splitlines(keepends=True)[: unreleased.line]
    rest = "".join(text.splitlines(keepends=True)[after[0].line - 1 :]) if after else ""
    found = f"{''.join(head)}\n{STUBS}## [{version}] - {day.isoformat()}\n\n{body.text()}{rest}"
    return found.rstrip() + "\n"


def _without_empty(lines: list[str]) -> list[str]:
    return [line for line in lines if line]


def _kinds_twice(lines: list[str], release: Release) -> set[str]:
    seen: set[str] = set()
    twice: set[str] = set()
    for line in lines[release.line :]:
        if line.startswith("## "):
            break
        if line.startswith("### "):
            (twice if line in seen else seen).add(line)
    return twice


def _of_one(release: Release, twice: set[str]) -> Iterator[str]:
    place = f"line {release.line}: [{release.version}]"
    known = [kind for kind in release.kinds if kind in KINDS]
    for kind in release.kinds:
        if kind not in KINDS:
            yield f"{place} has a section {kind!r}; there are {', '.join(KINDS)}"
    for heading in sorted(twice):
        yield f"{place} has {heading!r} twice"
    if known != sorted(known, key=KINDS.index):
        yield f"{place} has its sections in another order than {', '.join(KINDS)}"
    if any(line.startswith("- ") for line in release.opening):
        yield f"{place} has entries above its first section: each goes below one, ### {', ### '.join(KINDS)}"
    for kind, lines in release.kinds.items():
        for line in lines:
            if line and not line.startswith(("- ", "  ", "#### ")):
                yield f"{place}, {kind}: {line[:40]!r} is no entry ('- ...'), nor the rest of one"
    if release.version == UNRELEASED:
        return
    for kind, lines in release.kinds.items():
        if not any(line.startswith("- ") for line in lines):
            yield f"{place} has nothing below {kind!r}"
    if not release.kinds:
        yield f"{place} has no entries"
    try:
        date.fromisoformat(release.day or "")
    except ValueError:
        yield f"{place} has no date, YYYY-MM-DD"


def _out_of_order(releases: list[Release]) -> Iterator[str]:
    for release in releases:
        try:
            order(release.version)
        except ValueError as error:
            yield f"line {release.line}: {error}"
            return
    for newer, older in pairwise(releases):
        if order(newer.version) <= order(older.version):
            yield f"line {older.line}: [{older.version}] is not older than [{newer.version}] above it"
        if (newer.day or "") < (older.day or ""):
            yield f"line {older.line}: [{older.version}] is of a later day than [{newer.version}] above it"
