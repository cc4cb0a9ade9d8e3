"""What README.md and the pages under docs/ show: their blocks, and running these as a reader would."""

from __future__ import annotations

import os
import re
import shlex
import signal
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

import warm_python

ROOT = Path(__file__).resolve().parent.parent
README = ROOT / "README.md"
PAGES = sorted((ROOT / "docs").rglob("*.md"))
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", flags=re.MULTILINE | re.DOTALL)
_RUN_ID = re.compile(r"\b[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}\b")
_STATUS = re.compile(r"\s*# exit status (\d+)$")


def name_of(page: Path) -> str:
    """The page's path, as docs/flows.md."""
    return page.relative_to(ROOT).as_posix()


def text_of(page: Path) -> str:
    return page.read_text(encoding="utf-8")


def prose_of(page: Path) -> str:
    """The page without its blocks."""
    return BLOCK.sub("", text_of(page))


def blocks(page: Path) -> list[tuple[str, str]]:
    """(language, text) of a page's blocks, in order; without README's set-up, which CI runs."""
    return BLOCK.findall(re.sub(r"^## Start\n.*?(?=^## )", "", text_of(page), flags=re.MULTILINE | re.DOTALL))


def files(page: Path) -> dict[str, str]:
    """The contents of the page's files, Python and YAML, by the names in their first lines."""
    return {
        name[1]: text
        for language, text in blocks(page)
        if language in ("python", "yaml") and (name := re.match(r"# ([\w/]+\.\w+)\n", text))
    }


def patched(project: Path, text: str) -> None:
    """Change a file as a ``diff`` block says: its lines without a mark and with ``-`` are there once."""
    path = project / re.findall(r"^--- (.+)$", text, flags=re.MULTILINE)[0]
    lines = [line for line in text.splitlines() if not line.startswith(("--- ", "+++ ", "@@"))]
    before, after = ("\n".join(line[1:] for line in lines if line[:1] != other) for other in "+-")
    found = path.read_text(encoding="utf-8")
    assert found.count(f"\n{before}\n") == 1, f"{path.name} has not these lines, or more than once:\n{before}"
    path.write_text(found.replace(f"\n{before}\n", f"\n{after}\n"), encoding="utf-8")


@dataclass
class Reader:
    """Somebody who types what a page shows, in a directory that has the page's files."""

    project: Path
    dsn: str
    run_id: str = "RUN_ID"
    """The id that was printed last; commands with RUN_ID mean it."""
    _behind: list[tuple[str, subprocess.Popen[str]]] = field(default_factory=list)

    def types(self, line: str) -> str:
        """Run a command line; what it prints. ``&`` puts it into the background until :meth:`leaves`.

        The exit status is 0, or the one that a comment ``# exit status 1`` tells.
        """
        told = _STATUS.search(line)
        words = shlex.split(_STATUS.sub("", line).replace("RUN_ID", self.run_id), comments=True)
        assert words[0] == "python", f"only python can be run here: {line}"
        behind = words[-1] == "&"
        if words[1] == "-m" and not behind:
            here = {"PGFLOW_DATABASE_URL": self.dsn, "COLUMNS": "100"}
            done = warm_python.said(words[2], *words[3:], cwd=self.project, timeout=300, **here)
            return self._ended(line, told, done.returncode, done.stdout, done.stderr)
        kind = warm_python.Process if words[1] == "-m" else subprocess.Popen
        command = [sys.executable, *(words[1:-1] if behind else words[1:])]
        environment = {**os.environ, "PGFLOW_DATABASE_URL": self.dsn, "COLUMNS": "100"}
        process = kind(
            command,
            cwd=self.project,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        if behind:
            self._behind.append((line, process))
            return ""
        try:
            out, err = process.communicate(timeout=300)
        finally:
            process.kill()
        return self._ended(line, told, process.returncode, out, err)

    def _ended(self, line: str, told: re.Match[str] | None, code: int, out: str, err: str) -> str:
        assert code == (int(told[1]) if told else 0), f"{line}\n{out}{err}"
        if ids := _RUN_ID.findall(out) or _RUN_ID.findall(err):
            self.run_id = ids[-1]
        return out

    def leaves(self) -> list[str]:
        """Stop what runs in the background, by SIGTERM; the complaints of what did not end with 0."""
        for _, process in self._behind:
            process.send_signal(signal.SIGTERM)
        ends = [(line, process, process.communicate(timeout=60)[1]) for line, process in self._behind]
        return [f"{line}: {err}" for line, process, err in ends if process.returncode != 0]


def shape_of(text: str) -> list[str]:
    """What does not vary from run to run: without ids, seconds, rates, places and the widths of tables."""
    text = re.sub(r"\b\d+(\.\d+)? s\b", "N s", _RUN_ID.sub("ID", text))
    text = text.replace(", 1 too late to count", "")  # what was under way when a run failed
    text = re.sub(r'File ".*/', 'File "', text)
    lines = [line.rstrip() for line in text.strip().splitlines()]
    lines = [line.split(maxsplit=1)[0] if re.match(r"  (work|state)  ", line) else line for line in lines]
    return [re.sub(r"(?<=\S) +", " ", line) for line in lines if line]
