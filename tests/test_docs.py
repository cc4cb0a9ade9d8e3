"""The pages under docs/ tell the truth: files run, commands print what is shown, links lead somewhere.

A ``python`` block that begins with ``# name.py`` is a file of the page's project. The commands of a ``sh``
block run in it, in order, with a database; where a block without a language follows, it is what the last of
them prints. The statements of ``sql`` blocks run in a transaction that is rolled back.
"""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import psycopg
import pytest

ROOT = Path(__file__).resolve().parent.parent
PAGES = sorted((ROOT / "docs").rglob("*.md"))
_BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", flags=re.MULTILINE | re.DOTALL)


def blocks(page: Path) -> list[tuple[str, str]]:
    """(language, text) of a page's blocks, in order."""
    return _BLOCK.findall(page.read_text(encoding="utf-8"))


def name_of(page: Path) -> str:
    return page.relative_to(ROOT / "docs").as_posix()


RUN = [page for page in PAGES if any(language in ("sh", "sql") for language, _ in blocks(page))]


def run_command(line: str, project: Path, dsn: str) -> str:
    words = shlex.split(line)
    assert words[0] == "python", f"only python can be run here: {line}"
    done = subprocess.run(
        [sys.executable, *words[1:]],
        cwd=project,
        env={**os.environ, "PGFLOW_DATABASE_URL": dsn, "COLUMNS": "100"},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, f"{line}\n{done.stderr}"
    return done.stdout


@pytest.mark.parametrize("page", RUN, ids=name_of)
def test_what_a_page_shows_runs(page: Path, tmp_path: Path, dsn: str) -> None:
    found = blocks(page)
    for language, text in found:
        if language == "python" and (name := re.match(r"# ([\w/]+\.\w+)\n", text)):
            (tmp_path / name[1]).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name[1]).write_text(text)
    for index, (language, text) in enumerate(found):
        if language == "sh":
            lines = [line for line in text.replace("\\\n", " ").splitlines() if line.strip()]
            printed = [run_command(line, tmp_path, dsn) for line in lines][-1]
            if index + 1 < len(found) and found[index + 1][0] == "":
                assert shape_of(printed) == shape_of(found[index + 1][1])
        elif language == "sql":
            with psycopg.connect(dsn) as conn:
                conn.execute(text.encode())
                conn.rollback()


def shape_of(text: str) -> list[str]:
    """What does not vary from run to run: ids, numbers of seconds, rates and places are left out."""
    text = re.sub(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", "ID", text)
    lines = [line.rstrip() for line in text.strip().splitlines()]
    return [line.split(maxsplit=1)[0] if re.match(r"  (work|state)  ", line) else line for line in lines]


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_links_and_paths_of_a_page_lead_somewhere(page: Path) -> None:
    text = _BLOCK.sub("", page.read_text(encoding="utf-8"))
    links = [link.partition("#")[0] for link in re.findall(r"\]\(([^)\s]+)\)", text) if "://" not in link]
    assert [link for link in links if link and not (page.parent / link).exists()] == []
    paths = re.findall(r"`((?:pgflow_mp|tests|sql|benchmarks|scripts|docs)/[\w./-]*)`", text)
    assert [path for path in paths if not (ROOT / path).exists()] == []


def test_the_index_names_every_page() -> None:
    index = (ROOT / "docs" / "README.md").read_text(encoding="utf-8")
    assert [name_of(page) for page in PAGES if f"({name_of(page)})" not in index] == ["README.md"]


def test_references_to_the_contract_lead_to_a_section_of_it() -> None:
    headings = {
        page.stem: set(
            re.findall(r"^#+ (\d+(?:\.\d+)*)", page.read_text(encoding="utf-8"), flags=re.MULTILINE)
        )
        for page in (ROOT / "docs" / "contract").glob("*.md")
    }
    lost, seen = [], 0
    for folder in ("pgflow_mp", "sql", "tests"):
        for path in (ROOT / folder).rglob("*.*"):
            if path.suffix not in (".py", ".sql"):
                continue
            for text in re.findall(r"\(contract:? ([^)]*)\)", path.read_text(encoding="utf-8")):
                book = "worker" if text.startswith("worker") else "sql-0.17" if "0.17" in text else "sql"
                for number in re.findall(r"(?<![\w.])\d+(?:\.\d+)*", text.replace("0.17", "")):
                    seen += 1
                    if number not in headings[book]:
                        lost.append(f"{path.relative_to(ROOT)}: {text}")
    assert lost == []
    assert seen > 60
