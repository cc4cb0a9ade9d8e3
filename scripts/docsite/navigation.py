"""What belongs where: the lists of docs/README.md are the navigation of the site.

A second-level heading is a part of the sidebar; a third-level one is a group of pages below it. Each row
``| [Title](page.md) | what it answers |`` is a page. ``[page.md](page.md)`` takes the page's own title.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

INDEX = "docs/README.md"
_ROW = re.compile(r"^\| \[([^]]+)\]\(([^)\s]+)\) \| (.+) \|$")


@dataclass
class Entry:
    """A page in the navigation: its path in the repository, and the row that names it."""

    path: str
    title: str
    answers: str


@dataclass
class Group:
    """Pages below one heading; ``title`` is empty for those that stand directly in a part."""

    title: str
    entries: list[Entry] = field(default_factory=list)

    @property
    def slug(self) -> str:
        return re.sub(r"\W+", "-", self.title.lower()).strip("-")


@dataclass
class Part:
    """A part of the sidebar."""

    title: str
    groups: list[Group] = field(default_factory=list)

    def entries(self) -> Iterator[Entry]:
        for group in self.groups:
            yield from group.entries


def read(root: Path) -> list[Part]:
    """The parts of the site in order."""
    parts: list[Part] = []
    for line in (root / INDEX).read_text(encoding="utf-8").splitlines():
        if line.startswith("## "):
            parts.append(Part(line[3:].strip(), [Group("")]))
        elif line.startswith("### "):
            parts[-1].groups.append(Group(line[4:].strip()))
        elif parts and (row := _ROW.match(line)):
            title, link, answers = row.groups()
            path = posixpath.normpath(posixpath.join("docs", link))
            parts[-1].groups[-1].entries.append(Entry(path, title, answers))
    return parts


def complaints(root: Path, parts: list[Part]) -> list[str]:
    """What is wrong with the lists: pages that are missing, listed twice, or not there."""
    listed = [entry.path for part in parts for entry in part.entries()]
    wrong = [
        f"{path} is on no list: add a row `| [Title]({path.removeprefix('docs/')}) | what it answers |` "
        f"to the part of {INDEX} where readers would look for it"
        for path in pages(root)
        if path not in listed
    ]
    wrong += [f"{INDEX} lists {path}, which does not exist" for path in listed if not (root / path).is_file()]
    wrong += [
        f"{INDEX} lists {path} more than once" for path in sorted(set(listed)) if listed.count(path) > 1
    ]
    return wrong


def pages(root: Path) -> list[str]:
    """The pages that have to be on a list: all of docs/ but the index itself."""
    found = sorted(path.relative_to(root).as_posix() for path in (root / "docs").rglob("*.md"))
    return [path for path in found if path != INDEX]
