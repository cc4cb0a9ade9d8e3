"""The lists of docs/README.md are the site's navigation: whole, and nothing twice."""

from __future__ import annotations

from pathlib import Path

import pytest
from docsite import navigation, staging
from docsite.navigation import Group
from pages import ROOT


def a_checkout(folder: Path, index: str, **pages: str) -> Path:
    """A repository of just an index and pages."""
    (folder / "docs").mkdir()
    (folder / "docs" / "README.md").write_text(index)
    for name, text in pages.items():
        (folder / "docs" / f"{name}.md").write_text(text)
    return folder


def test_every_page_has_its_place() -> None:
    assert navigation.complaints(ROOT, navigation.read(ROOT)) == []


def test_parts_groups_and_titles_are_those_of_the_lists(tmp_path: Path) -> None:
    index = "## One\n\n| [First](a.md) | how |\n\n## Two\n\n### Sub group\n\n| [b.md](b.md) | what |\n"
    one, two = navigation.read(a_checkout(tmp_path, index, a="", b=""))
    assert [entry.path for entry in one.entries()] == ["docs/a.md"]
    assert [group.title for group in two.groups] == ["", "Sub group"]
    assert two.groups[1].slug == "sub-group"
    first, second = [*one.entries(), *two.entries()]
    assert staging.leaf(first) == "First </a>"
    assert staging.leaf(second) == "/b", "a file's name is no title: the page has one"


def test_a_page_on_no_list_is_refused_in_words_that_say_where_it_belongs(tmp_path: Path) -> None:
    root = a_checkout(
        tmp_path, "## One\n\n| [A](a.md) | how |\n| [A](a.md) | how |\n| [C](c.md) | x |\n", a="", b=""
    )
    row = "add a row `| [Title](b.md) | what it answers |` to the part of docs/README.md"
    assert navigation.complaints(root, navigation.read(root)) == [
        f"docs/b.md is on no list: {row} where readers would look for it",
        "docs/README.md lists docs/c.md, which does not exist",
        "docs/README.md lists docs/a.md more than once",
    ]


def test_links_lead_to_where_pages_are_in_the_site(tmp_path: Path) -> None:
    root = a_checkout(tmp_path, "", a="")
    (root / "docs" / "deep").mkdir()
    (root / "docs" / "deep" / "b.md").write_text("")
    (root / "README.md").write_text(
        "[a](docs/a.md#x) [up](https://example.org) [here](#y)\n\n```\n[no](link.md)\n```\n"
    )
    (root / "code.py").write_text("pass\n")
    stage = staging.Stage(root, tmp_path / "stage")
    stage.page("README.md")
    told = (tmp_path / "stage" / "index.md").read_text()
    assert told == "[a](a.md#x) [up](https://example.org) [here](#y)\n\n```\n[no](link.md)\n```\n"
    assert stage.with_links(
        "[home](../../README.md) [code](../../code.py)", "docs/deep/b.md", "deep/b.md"
    ) == ("[home](../index.md) [code](../sources/code.py.md)")
    stage.sources()
    assert "`````python\npass\n`````" in (tmp_path / "stage" / "sources" / "code.py.md").read_text()
    assert stage.lost == []
    stage.with_links("one\n[gone](gone.md)", "docs/a.md", "a.md")
    assert stage.lost == ["docs/a.md:2: there is no docs/gone.md"]


@pytest.mark.parametrize("title", ["Write a flow", "How do I ...", "Comparisons, limits"])
def test_groups_are_named_in_addresses_without_signs(title: str) -> None:
    assert Group(title).slug.replace("-", "").isalpha()
