"""The built site is whole: every link and anchor leads somewhere, and nothing is fetched from elsewhere."""

from __future__ import annotations

import posixpath
from collections.abc import Iterator
from functools import cache
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest
from docsite.building import BuildFailed, build, replace
from pages import ROOT

pytestmark = pytest.mark.slow
FETCHED = {"link": "href", "script": "src", "img": "src", "source": "src", "iframe": "src", "video": "src"}


class Page(HTMLParser):
    """What a page links to, loads, and can be linked to at."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.links: list[str] = []
        self.fetched: list[str] = []
        self.anchors: set[str] = {""}
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = dict(attrs)
        self.anchors |= {name for name in (found.get("id"), found.get("name")) if name}
        if tag == "a" and (href := found.get("href")):
            self.links.append(href)
        if (name := FETCHED.get(tag)) and (address := found.get(name)):
            self.fetched.append(address)


@cache
def page(path: Path) -> Page:
    return Page(path)


def lost(site: Path) -> Iterator[str]:
    """Links of all pages that lead nowhere."""
    files = {path.as_posix() for path in site.rglob("*")}
    for path in sorted(site.rglob("*.html")):
        for link in {*page(path).links, *page(path).fetched}:
            parts = urlsplit(link)
            if parts.scheme or parts.netloc:
                continue
            target = led_to(path, link)
            if target not in files:
                yield f"{path.relative_to(site)}: {link}"
            elif target.endswith(".html") and unquote(parts.fragment) not in page(Path(target)).anchors:
                yield f"{path.relative_to(site)}: {link} (no such anchor)"


def led_to(path: Path, link: str) -> str:
    """The file that a link of a page leads to."""
    place = unquote(urlsplit(link).path)
    return posixpath.normpath(posixpath.join(path.parent.as_posix(), place)) if place else path.as_posix()


def test_every_link_and_anchor_of_the_site_leads_somewhere(site: Path) -> None:
    assert list(lost(site)) == []


def test_nothing_is_fetched_from_elsewhere(site: Path) -> None:
    away = [
        f"{path.relative_to(site)}: {address}"
        for path in site.rglob("*.html")
        for address in page(path).fetched
        if urlsplit(address).scheme not in ("", "data") or urlsplit(address).netloc
    ]
    assert away == []
    styles = "".join(path.read_text(encoding="utf-8") for path in site.rglob("*.css"))
    assert "url(http" not in styles
    assert "@import" not in styles


def test_every_page_is_linked_to(site: Path) -> None:
    every = {path.as_posix() for path in site.rglob("*.html")}
    linked = {
        led_to(path, link)
        for path in site.rglob("*.html")
        for link in page(path).links
        if urlsplit(link).path and not urlsplit(link).scheme
    }
    assert every - linked - {(site / "search.html").as_posix()} == set()


def test_a_folder_that_is_no_site_is_not_replaced(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("years of work")
    with pytest.raises(BuildFailed, match="is no site"):
        replace(tmp_path / "mine", tmp_path / "made")
    assert (tmp_path / "mine" / "thesis.txt").read_text() == "years of work"


def test_a_site_stays_where_the_new_one_cannot_be_put(tmp_path: Path) -> None:
    site = tmp_path / "site"
    site.mkdir()
    (site / "searchindex.js").write_text("of before")
    with pytest.raises(BuildFailed, match=f"{site} cannot be written: .*No such file"):
        replace(site, tmp_path / "what was made is gone")
    assert {path: path.read_text() for path in tmp_path.rglob("*.*")} == {
        site / "searchindex.js": "of before"
    }
    assert [*tmp_path.iterdir()] == [site]


def test_a_new_site_takes_the_place_of_all_of_the_old_one(tmp_path: Path) -> None:
    site, made = tmp_path / "site", tmp_path / "html"
    for folder, name in ((site, "old.html"), (made, "new.html")):
        folder.mkdir()
        (folder / "searchindex.js").touch()
        (folder / name).touch()
    replace(site, made)
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["new.html", "searchindex.js", "site"]


@pytest.mark.filterwarnings("ignore:.*Sphinx API")  # MyST-Parser calls what will go
def test_a_link_that_leads_nowhere_fails_the_build_with_its_place(tmp_path: Path) -> None:
    for path in ROOT.iterdir():
        if path.name not in ("README.md", "site") and not path.name.startswith("."):
            (tmp_path / path.name).symlink_to(path)
    (tmp_path / "README.md").write_text(
        "# Home\n\n[gone](docs/gone.md)\n[no such place](docs/flows.md#nowhere)\n"
    )
    with pytest.raises(BuildFailed, match=r"README.md:3: there is no docs/gone.md"):
        build(tmp_path, tmp_path / "site")
    (tmp_path / "README.md").write_text("# Home\n\n[no such place](docs/flows.md#nowhere)\n")
    with pytest.raises(
        BuildFailed, match=r"README.md:3: WARNING: local id not found in doc 'flows': 'nowhere'"
    ):
        build(tmp_path, tmp_path / "site")
    assert not (tmp_path / "site").exists()
