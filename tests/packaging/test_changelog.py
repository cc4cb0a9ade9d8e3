"""CHANGELOG.md is in the form of Keep a Changelog, and the release script can take it further."""

from __future__ import annotations

from datetime import date
from pathlib import Path

import _changelog
import pytest

import pgflow_mp

ROOT = Path(__file__).resolve().parents[2]
GOOD = """# Changelog

What changes.

## [Unreleased]

### Added

- Something new,
  on two lines.

### Changed

### Fixed

- A fault.

## [0.2.0] - 2026-03-01

### Security

- A hole less.

## [0.1.0] - 2026-02-01

The first one.

### Added

#### Of one subject

- All of it.
"""


def test_it_has_the_form_of_keep_a_changelog() -> None:
    assert list(_changelog.problems((ROOT / "CHANGELOG.md").read_text(encoding="utf-8"))) == []


def test_the_newest_release_is_the_version_of_the_package_or_before_it() -> None:
    releases = _changelog.read((ROOT / "CHANGELOG.md").read_text(encoding="utf-8"))
    newest = next(release.version for release in releases if release.version != _changelog.UNRELEASED)
    assert _changelog.order(newest) <= _changelog.order(pgflow_mp.__version__)


def test_a_good_one_is_read_as_it_stands() -> None:
    assert list(_changelog.problems(GOOD)) == []
    unreleased, second, first = _changelog.read(GOOD)
    assert (unreleased.version, unreleased.entries) == ("Unreleased", ["Something new,", "A fault."])
    assert (second.version, second.day, second.entries) == ("0.2.0", "2026-03-01", ["A hole less."])
    assert first.text() == "The first one.\n\n### Added\n\n#### Of one subject\n\n- All of it.\n\n"


@pytest.mark.parametrize(
    ("before", "after", "problem"),
    [
        ("# Changelog", "# Changes", "the title is"),
        ("## [Unreleased]", "## [0.3.0] - 2026-04-01", "the first section is"),
        ("## [0.2.0] - 2026-03-01", "## 0.2.0 (2026-03-01)", "a release is"),
        ("## [0.2.0] - 2026-03-01", "## [0.2.0]", "has no date"),
        ("## [0.2.0] - 2026-03-01", "## [0.2.0] - 2026-02-30", "has no date"),
        ("## [0.2.0] - 2026-03-01", "## [two] - 2026-03-01", "is no version"),
        ("## [0.2.0] - 2026-03-01", "## [0.1.0] - 2026-03-01", "is not older"),
        ("## [0.2.0] - 2026-03-01", "## [0.2.0] - 2026-01-01", "is of a later day"),
        ("### Security\n\n- A hole less.", "### Security", "has nothing below 'Security'"),
        ("### Security\n\n", "", "has entries above its first section"),
        ("### Security\n\n- A hole less.", "Nothing.", "has no entries"),
        ("### Security", "### Safety", "has a section 'Safety'"),
        ("### Changed\n", "### Added\n", "twice"),
        ("### Changed\n", "### Security\n", "another order"),
        ("- A hole less.", "A hole less.", "is no entry"),
        ("- A hole less.", f"- {'A hole less. ' * 11}", "longer than"),
    ],
)
def test_what_is_not_so_is_said(before: str, after: str, problem: str) -> None:
    assert before in GOOD
    found = list(_changelog.problems(GOOD.replace(before, after, 1)))
    assert problem in "\n".join(found)


def test_a_release_gets_what_is_unreleased() -> None:
    done = _changelog.with_release(GOOD, "0.3.0", date(2026, 4, 1))
    assert list(_changelog.problems(done)) == []
    added, fixed = "### Added\n\n- Something new,\n  on two lines.\n\n", "### Fixed\n\n- A fault.\n"
    empty = "### Added\n\n### Changed\n\n### Fixed\n"
    former = f"## [Unreleased]\n\n{added}### Changed\n\n{fixed}"
    assert former in GOOD
    assert done == GOOD.replace(
        former, f"## [Unreleased]\n\n{empty}\n## [0.3.0] - 2026-04-01\n\n{added}{fixed}"
    )


def test_a_release_that_is_there_already_gets_the_rest_and_keeps_what_it_has() -> None:
    done = _changelog.with_release(GOOD, "0.2.0", date(2026, 4, 1))
    assert list(_changelog.problems(done)) == []
    unreleased, second, first = _changelog.read(done)
    assert (unreleased.entries, first.entries) == ([], ["All of it."])
    assert (second.day, second.entries) == ("2026-04-01", ["Something new,", "A fault.", "A hole less."])


def test_a_release_of_nothing_is_refused() -> None:
    empty = GOOD.replace("- Something new,\n  on two lines.\n", "").replace("- A fault.\n", "")
    with pytest.raises(ValueError, match=r"nothing under Unreleased that 0\.3\.0"):
        _changelog.with_release(empty, "0.3.0", date(2026, 4, 1))


@pytest.mark.parametrize("wrong", ["1.0", "01.0.0", "v1.0.0", "1.0.0-rc1", "1.0.0rc", ""])
def test_what_is_no_version_is_refused(wrong: str) -> None:
    with pytest.raises(ValueError, match="is no version"):
        _changelog.order(wrong)


def test_versions_are_in_order() -> None:
    versions = ["0.9.0", "0.10.0", "1.0.0a1", "1.0.0b1", "1.0.0rc1", "1.0.0rc2", "1.0.0", "1.0.1"]
    assert sorted(set(versions), key=_changelog.order) == versions
