"""README.md is one page for strangers; test_docs runs what it shows, test_reference checks what it names."""

from __future__ import annotations

import re

from pages import PAGES, README, ROOT, files, text_of

TEXT = text_of(README)


def test_the_page_is_short() -> None:
    assert len(TEXT.splitlines()) <= 150


def test_the_first_flow_has_at_most_twenty_lines() -> None:
    (first,) = files(README).values()
    assert len(first.splitlines()) <= 20 + 1, "and its name"


def test_the_set_up_takes_two_commands_and_running_and_testing_one_each() -> None:
    start = TEXT.partition("## Start")[2].partition("\n## ")[0]
    blocks = re.findall(r"^```sh\n(.*?)^```$", start, flags=re.MULTILINE | re.DOTALL)
    assert [len(block.splitlines()) for block in blocks] == [2, 1, 1]


def test_the_page_says_how_long_the_tests_take_as_the_page_for_contributors_does() -> None:
    here = re.search(r"about (\w+) minutes on two cores", TEXT)
    there = re.search(r"about (\w+) minutes on two cores", text_of(ROOT / "CONTRIBUTING.md"))
    assert here
    assert there
    assert here[1] == there[1]


def test_the_page_leads_to_every_page_on_how_to() -> None:
    pages = [page for page in PAGES if page.parent.name == "docs" and page.name != "README.md"]
    assert [page.name for page in pages if f"](docs/{page.name})" not in TEXT] == []
