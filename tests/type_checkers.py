"""The type checkers that users have, mypy and pyright, over files of users' code, and what each is to say.

A line that is wrong says what each checker calls it, mypy first; a line without such a comment is right:

    first("x")  # error: arg-type | reportArgumentType
    again("x")  # error: arg-type | -          (pyright says nothing here)
    third("x")  # error: call-overload, misc | reportCallIssue

What both say, in full, of files that one is writing:

    python tests/type_checkers.py FILE...
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Final, NamedTuple

CHECKERS: Final = ("mypy", "pyright")
PYRIGHT: Final = (sys.executable, "-m", "pyright")
LONGEST: Final = 300
"""Seconds, on a machine that is busy with other tests."""
_FOLLOWS: Final = ("untyped-decorator", "reportUntypedFunctionDecorator")
"""What is said of a function once its decorator is wrong."""


class Said(NamedTuple):
    """An error in a file, by the checker's own name for its kind. Lines count from 1."""

    file: str
    line: int
    kind: str


class Report(NamedTuple):
    """What a checker found: its errors, and its own words for people."""

    errors: frozenset[Said]
    words: str


def check(checker: str, files: Sequence[Path], cache: Path) -> Report:
    """Let a checker, started once, look at copies of files where no checkout is: a user's, with us installed.

    mypy is strict; pyright is where a file says so (``# pyright: strict``), and as an editor is elsewhere.
    """
    with tempfile.TemporaryDirectory() as folder:
        for file in files:
            shutil.copy(file, folder)
        names = [file.name for file in files]
        return (_mypy if checker == "mypy" else _pyright)(names, folder, cache)


def expected(checker: str, files: Sequence[Path]) -> frozenset[Said]:
    """What the comments of the files have this checker say."""
    found = []
    for file in files:
        for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), 1):
            if mark := re.search(r"# error: ([^|]+) \| (.+)$", line):
                kinds = mark[1 + CHECKERS.index(checker)].split(",")
                found += [Said(file.name, number, kind.strip()) for kind in kinds if kind.strip() != "-"]
    return frozenset(found)


def compared(checker: str, files: Sequence[Path], cache: Path) -> str:
    """What the checker says but should not, and does not say but should; nothing where all is right."""
    report, wanted = check(checker, files, cache), expected(checker, files)
    more = sorted(said for said in report.errors - wanted if said.kind not in _FOLLOWS)
    less = sorted(wanted - report.errors)
    if not more and not less:
        return ""
    lines = [f"{said.file}:{said.line}: {checker} says {said.kind}, which is not expected" for said in more]
    lines += [f"{said.file}:{said.line}: {checker} does not say {said.kind}" for said in less]
    return "\n".join([*lines, "", report.words])


def _mypy(names: list[str], folder: str, cache: Path) -> Report:
    command = ["-m", "mypy", "--strict", "--config-file=", f"--cache-dir={cache}", "--output=json"]
    done = run([sys.executable, *command, *names], folder)
    if done.returncode not in (0, 1):
        raise RuntimeError(f"mypy could not look: {done.stdout}{done.stderr}")
    errors, words = set(), []
    for line in done.stdout.splitlines():
        if not line.startswith("{"):
            continue
        found = json.loads(line)
        words.append(f"{found['file']}:{found['line']}: {found['message']}  [{found['code']}]")
        if found["severity"] == "error":
            errors.add(Said(found["file"], found["line"], found["code"]))
    return Report(frozenset(errors), "\n".join(words))


def _pyright(names: list[str], folder: str, _cache: Path) -> Report:
    done = run([*PYRIGHT, "--pythonpath", sys.executable, "--outputjson", *names], folder)
    if done.returncode not in (0, 1):
        raise RuntimeError(f"pyright could not look: {done.stdout}{done.stderr}")
    errors, words = set(), []
    for found in json.loads(done.stdout)["generalDiagnostics"]:
        name, line = Path(found["file"]).name, found["range"]["start"]["line"] + 1
        kind = found.get("rule", "syntax")
        words.append(f"{name}:{line}: {found['message']}  [{kind}]")
        if found["severity"] == "error":
            errors.add(Said(name, line, kind))
    return Report(frozenset(errors), "\n".join(words))


def verify_types(package: str) -> str:
    """What pyright tells of the types of a package that is installed, in JSON."""
    with tempfile.TemporaryDirectory() as folder:
        return run([*PYRIGHT, "--verifytypes", package, "--ignoreexternal", "--outputjson"], folder).stdout


def run(command: list[str], folder: str | Path) -> subprocess.CompletedProcess[str]:
    offline = {
        "PYRIGHT_PYTHON_IGNORE_WARNINGS": "1",  # does not ask for a newer version of itself
        "PYRIGHT_PYTHON_GLOBAL_NODE": "0",  # the Node of its extra
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}",  # our Python first
    }
    return subprocess.run(
        command,
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
        timeout=LONGEST,
        env=os.environ | offline,
    )


if __name__ == "__main__":
    for each in CHECKERS:
        with tempfile.TemporaryDirectory() as made:
            print(f"{each}:\n{check(each, [Path(name) for name in sys.argv[1:]], Path(made)).words}\n")
