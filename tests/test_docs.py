"""README.md and the pages under docs/ tell the truth: files run, commands print what is shown, links lead on.

A ``python`` or ``yaml`` block begins with ``# name.py`` and is a file of the page's project. The commands of
a ``sh`` block run in it, in order, with a database: to the exit status that a comment tells (``# exit status
1``), else 0; ``RUN_ID`` is the id that was printed last; what ends with ``&`` runs until the end of the page,
where it has to heed SIGTERM. Where a block without a language follows, it is what the last command prints.
The statements of ``sql`` blocks run in a transaction that is rolled back. A ``diff`` block changes a file. A
page that shows ``install`` begins without the schema. What cannot be run has another language (``text``,
``ini``, ``toml``). Tutorials are slow; those that need heavy packages (the extra ``tutorials``) run where
these are.
"""

from __future__ import annotations

import ast
import re
import time
from pathlib import Path

import psycopg
import pytest
from pages import PAGES, README, ROOT, Reader, blocks, files, name_of, patched, prose_of, shape_of, text_of

SHOWN = [README, *PAGES]
READ = [*(ROOT / name for name in ("CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md")), *SHOWN]
RUN = [page for page in SHOWN if any(language in ("sh", "sql") for language, _ in blocks(page))]
LANGUAGES = {"python", "yaml", "sh", "sql", "diff", "", "text", "ini", "toml"}
BOOKS = [page for page in PAGES if page.parent.name == "contract" or page.name == "design.md"]
"""What is read, and shows no code to copy."""


INSTALLED = {"PIL", "identify", "magika", "numpy", "pandas", "polars", "pyarrow", "skimage"}
"""Packages that a user has to install first."""
LONG = (
    "changing.md",
    "client.md",
    "failures.md",
    "flows.md",
    "items.md",
    "per-process.md",
    "python.md",
    "ranges.md",
    "results.md",
    "running.md",
    "server.md",
    "start.md",
)
"""Pages that take many seconds."""
RUN_OR_SLOW = [
    pytest.param(page, marks=pytest.mark.slow)
    if page.name in LONG or page.parent.name == "tutorials"
    else page
    for page in RUN
]


@pytest.mark.parametrize("page", RUN_OR_SLOW, ids=name_of)
def test_what_a_page_shows_runs(page: Path, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    for library in libraries(page):
        pytest.importorskip(library)
    installs = any("pgflow_mp install" in text for language, text in blocks(page) if language == "sh")
    dsn = request.getfixturevalue("empty_dsn" if installs else "dsn")
    for name, text in files(page).items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    reader, found = Reader(tmp_path, dsn), blocks(page)
    try:
        for index, (language, text) in enumerate(found):
            if language == "sh":
                lines = [line for line in text.replace("\\\n", " ").splitlines() if line.strip()]
                printed = [reader.types(line) for line in lines][-1]
                if index + 1 < len(found) and found[index + 1][0] == "":
                    assert shape_of(printed) == shape_of(found[index + 1][1])
            elif language == "sql":
                with psycopg.connect(dsn) as conn:
                    conn.execute(text.encode())
                    conn.rollback()
            elif language == "diff":
                patched(tmp_path, text)
    finally:
        complaints = reader.leaves()
    assert complaints == []


def python_files(page: Path) -> list[str]:
    return [text for name, text in files(page).items() if name.endswith(".py")]


def libraries(page: Path) -> set[str]:
    """What the files of a page import that a user has to install first."""
    found = [node for text in python_files(page) for node in ast.walk(ast.parse(text))]
    names = {alias.name for node in found if isinstance(node, ast.Import) for alias in node.names}
    names |= {node.module or "" for node in found if isinstance(node, ast.ImportFrom)}
    return {name.partition(".")[0] for name in names} & INSTALLED


@pytest.mark.slow
def test_the_commands_for_several_boxes_share_a_run(tmp_path: Path, dsn: str) -> None:
    page = ROOT / "docs" / "server.md"
    section = text_of(page).partition("## How do several boxes")[2]
    work, start, _, status = section.partition("```sh\n")[2].partition("\n```")[0].splitlines()
    for name, text in files(page).items():
        (tmp_path / name).write_text(text)
    boxes = Reader(tmp_path, dsn)
    try:
        boxes.types(work)
        boxes.types(work)
        boxes.types(start)
        deadline = time.monotonic() + 60
        while "completed" not in (told := boxes.types(status)):
            assert time.monotonic() < deadline, told
    finally:
        complaints = boxes.leaves()
    assert complaints == []


@pytest.mark.parametrize("page", [page for page in SHOWN if page not in BOOKS], ids=name_of)
def test_no_code_of_a_page_escapes_the_tests(page: Path) -> None:
    found = blocks(page)
    assert {language for language, _ in found} <= LANGUAGES
    nameless = [text for language, text in found if language == "python" and text not in files(page).values()]
    assert nameless == []
    before = ["", *(language for language, _ in found)]
    unprinted = [
        text for last, (language, text) in zip(before, found, strict=False) if not language and last != "sh"
    ]
    assert unprinted == []
    for text in python_files(page):
        ast.parse(text)


def test_what_pages_show_can_be_tried_with_one_database_and_in_one_folder() -> None:
    """A flow of this name with other steps would be refused, and a file of this name replaced."""
    flow = re.compile(r"""\bFlow(?:\[.*?\])?\(\s*["'](\w+)["']|^slug: (\w+)$""", flags=re.MULTILINE)
    pages: dict[str, set[str]] = {}
    for path in (ROOT / "pgflow_mp" / "examples").glob("*.py"):
        for found in flow.finditer(path.read_text(encoding="utf-8")):
            pages.setdefault(f"flow {found[1]}", set()).add(f"examples/{path.name}")
    for page in (page for page in SHOWN if page not in BOOKS):
        for name, text in files(page).items():
            pages.setdefault(f"file {name}", set()).add(name_of(page))
            for found in flow.finditer(text):
                pages.setdefault(f"flow {found[1] or found[2]}", set()).add(name_of(page))
    assert len(pages) > 100
    assert {name: on for name, on in pages.items() if len(on) > 1} == {}


@pytest.mark.parametrize("page", READ, ids=name_of)
def test_links_and_paths_of_a_page_lead_somewhere(page: Path) -> None:
    text = prose_of(page)
    links = [link.partition("#") for link in re.findall(r"\]\(([^)\s]+)\)", text) if "://" not in link]
    assert [link for link, _, _ in links if link and not (page.parent / link).exists()] == []
    lost = [f"{link}#{anchor}" for link, _, anchor in links if anchor and anchor not in anchors(page, link)]
    assert lost == []
    paths = re.findall(r"`((?:pgflow_mp|tests|sql|benchmarks|scripts|docs)/[\w./-]*)`", text)
    assert [path for path in paths if not (ROOT / path.partition("NNNN")[0]).exists()] == []


def anchors(page: Path, link: str) -> list[str]:
    """What can follow ``#`` in a link to a page: its headings as web pages name them."""
    target = page.parent / link if link else page
    headings = re.findall(r"^#+ (.+)$", target.read_text(encoding="utf-8"), flags=re.MULTILINE)
    return [re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings]


def test_pictures_are_small_are_used_have_texts_and_load_nothing() -> None:
    shown = {
        (page.parent / target).resolve(): words
        for page in SHOWN
        for words, target in re.findall(r"!\[([^\]]*)\]\(([^)\s]+)\)", prose_of(page))
    }
    linked = {
        (page.parent / target).resolve()
        for page in SHOWN
        for target in re.findall(r"\]\(([^)\s]+\.(?:png|svg|jpg))\)", prose_of(page))
    }
    there = set((ROOT / "docs" / "pictures").iterdir())
    assert there == linked
    assert sum(path.stat().st_size for path in there) < 1_500_000
    assert [path.name for path, words in shown.items() if len(words.split()) < 8] == []
    drawn = [path.read_text(encoding="utf-8") for path in there if path.suffix == ".svg"]
    assert [text for text in drawn if re.search(r"(?:url|href|src)\W+https?:|@import", text)] == []


def test_the_index_names_every_page() -> None:
    index = text_of(ROOT / "docs" / "README.md")
    names = [page.relative_to(ROOT / "docs").as_posix() for page in PAGES]
    assert [name for name in names if f"]({name})" not in index] == ["README.md"]


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
                for reference in re.split(r"(?=addendum)", text):  # that is what 0.15 to 0.17 changed
                    later = "addendum" in reference or "0.17" in reference
                    book = "worker" if reference.startswith("worker") else "sql-0.17" if later else "sql"
                    for number in re.findall(r"(?<![\w.])\d+(?:\.\d+)*", reference.replace("0.17", "")):
                        seen += 1
                        if number not in headings[book]:
                            lost.append(f"{path.relative_to(ROOT)}: {text}")
    assert lost == []
    assert seen > 60
