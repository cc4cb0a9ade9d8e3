"""Puts what the site is made of into one folder: pages with their links rewritten, and what these lead to.

Pages link to each other as GitHub shows them, relative to where they lie in the repository. In the site docs/
is the top, README.md the home page; a link to any other file leads to a page that shows the file.
"""

from __future__ import annotations

import posixpath
import re
import shutil
from collections.abc import Callable
from pathlib import Path

from docsite.navigation import INDEX, Entry, Group, Part

HOME = "README.md"
PROJECT = {
    HOME: "index.md",
    INDEX: "pages.md",
    "CONTRIBUTING.md": "contributing.md",
    "CHANGELOG.md": "changelog.md",
    "SECURITY.md": "security.md",
}
"""Pages that do not keep the place they have in docs/."""
LANGUAGES = {
    ".py": "python",
    ".sql": "sql",
    ".yaml": "yaml",
    ".yml": "yaml",
    ".toml": "toml",
    ".json": "json",
    ".sh": "sh",
    ".service": "ini",
    ".sbatch": "sh",
}
PICTURES = (".png", ".jpg", ".jpeg", ".svg", ".gif", ".webp")
_FENCE = re.compile(r"^ *(`{3,}|~{3,})")
_LINK = re.compile(r"(\]\()([^)\s]+)(\))")


class Stage:
    """The folder that Sphinx reads. ``shown`` are the files outside of the pages that links lead to."""

    def __init__(self, root: Path, folder: Path) -> None:
        self.root = root
        self.folder = folder
        self.shown: set[str] = set()
        self.lost: list[str] = []
        """Links that lead nowhere, with where they stand."""

    def write(self, place: str, text: str) -> None:
        """Write a page of the site."""
        target = self.folder / place
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text, encoding="utf-8")

    def page(self, path: str, below: str = "") -> None:
        """Stage a page of the repository, with ``below`` at its end."""
        text = (self.root / path).read_text(encoding="utf-8")
        place = site_place(path)
        self.write(place, self.with_links(text, path, place) + below)

    def with_links(self, text: str, path: str, place: str) -> str:
        """A text of ``path`` whose links lead to where things are in the site, seen from ``place``."""

        def rewritten(line: str, number: int) -> str:
            return _LINK.sub(
                lambda found: found[1] + self._leads_to(found[2], path, place, number) + found[3], line
            )

        return outside_of_code(text, rewritten)

    def _leads_to(self, link: str, path: str, here: str, number: int) -> str:
        if re.match(r"[a-z]+:", link) or link.startswith("#"):
            return link
        target, hash_, anchor = link.partition("#")
        repository = posixpath.normpath(posixpath.join(posixpath.dirname(path), target))
        if repository.startswith("..") or not (self.root / repository).exists():
            self.lost.append(f"{path}:{number}: there is no {repository}")
            return link
        if repository.endswith(PICTURES):
            return posixpath.relpath(self._picture(repository), posixpath.dirname(here) or ".")
        if not is_page(repository):
            self.shown.add(repository)
        goal = site_place(repository)
        return posixpath.relpath(goal, posixpath.dirname(here) or ".") + hash_ + anchor

    def _picture(self, path: str) -> str:
        place = path.removeprefix("docs/")
        (self.folder / place).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(self.root / path, self.folder / place)
        return place

    def group(self, part: Part, group: Group) -> str:
        """Write the page of a group; its place."""
        place = f"{Group(part.title).slug}/{group.slug}.md"
        rows = "\n".join(
            f"| [{entry.title}]({_from_docs(entry.path)}) | {entry.answers} |" for entry in group.entries
        )
        table = f"| page | {part.title[:1].lower()}{part.title[1:]} |\n| --- | --- |\n{rows}\n"
        text = self.with_links(f"# {group.title}\n\n{table}", INDEX, place)
        self.write(place, text + toctree([leaf(entry, place) for entry in group.entries], hidden=True))
        return place

    def sources(self) -> None:
        """Write a page for each file that is shown, and for what folders among them hold."""
        done: set[str] = set()
        while waiting := self.shown - done:
            path = min(waiting)
            done.add(path)
            self.write(site_place(path), self._source(path))

    def _source(self, path: str) -> str:
        file, here = self.root / path, site_place(path)
        if file.is_dir():
            found = sorted(item for item in file.rglob("*") if item.is_file() and item.suffix != ".pyc")
            names = [item.relative_to(self.root).as_posix() for item in found]
            self.shown |= {name for name in names if not is_page(name)}
            goals = [posixpath.relpath(site_place(name), posixpath.dirname(here)) for name in names]
            rows = "".join(f"- [{name}]({goal})\n" for name, goal in zip(names, goals, strict=True))
            return f"---\norphan: true\n---\n\n# `{path}/`\n\n{rows}"
        text = file.read_text(encoding="utf-8").rstrip()
        language = LANGUAGES.get(file.suffix, "docker" if file.name == "Dockerfile" else "text")
        return f"---\norphan: true\n---\n\n# `{path}`\n\n`````{language}\n{text}\n`````\n"


def outside_of_code(text: str, change: Callable[[str, int], str]) -> str:
    """The text with ``change(line, number)`` for every line that is in no block of code."""
    fence = ""
    lines = []
    for number, line in enumerate(text.split("\n"), 1):
        mark = _FENCE.match(line)
        lines.append(line if fence or mark else change(line, number))
        if mark and not fence:
            fence = mark[1]
        elif mark and line.strip().startswith(fence) and not line.strip().strip(fence[0]):
            fence = ""
    return "\n".join(lines)


def is_page(path: str) -> bool:
    """Whether a file of the repository is a page of the site by itself."""
    return path in PROJECT or (path.startswith("docs/") and path.endswith(".md"))


def site_place(path: str) -> str:
    """Where a file or folder of the repository is in the site: as itself, or as a page that shows it."""
    if path in PROJECT:
        return PROJECT[path]
    return path.removeprefix("docs/") if is_page(path) else f"sources/{path}.md"


def _from_docs(path: str) -> str:
    return posixpath.relpath(path, "docs")


def leaf(entry: Entry, here: str = "index.md") -> str:
    """An entry as a line of a toctree in the page ``here``."""
    document = "/" + site_place(entry.path).removesuffix(".md")
    return document if entry.title.endswith(".md") else f"{entry.title} <{document}>"


def toctree(lines: list[str], *, caption: str = "", hidden: bool = False) -> str:
    """A toctree directive."""
    options = (f":caption: {caption}\n" if caption else "") + (":hidden:\n" if hidden else "")
    return "\n```{toctree}\n" + options + "\n" + "\n".join(lines) + "\n```\n"
