"""The release script refuses what is not ready to be released, and releases what is."""

from __future__ import annotations

import errno
import shutil
import subprocess
import sys
import tarfile
from datetime import date
from pathlib import Path

import lock
import pytest
import release

ROOT = Path(__file__).resolve().parents[2]
TODAY = date(2026, 12, 24)
CHANGES = """# Changelog

## [Unreleased]

### Added

- Something new.

## [0.1.0] - 2026-11-26

The first one.

### Added

- All of it.
"""
RELEASED = CHANGES.replace("- Something new.\n\n", "")


def git(root: Path, *arguments: str) -> str:
    command = ["git", "-c", "user.name=T", "-c", "user.email=t@example.org", *arguments]
    return subprocess.run(command, cwd=root, capture_output=True, text=True, check=True).stdout


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A repository with version 0.1.0, ready to be released."""
    for name in ("NAME", "EMAIL"):
        monkeypatch.setenv(f"GIT_COMMITTER_{name}", "t@example.org")
    for name in ("pgflow_mp", "sql/migrations/0001"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "pgflow_mp" / "__init__.py").write_text('"""It."""\n\n__version__ = "0.1.0"\n')
    (tmp_path / "sql" / "migrations" / "0001" / "0010_tables.sql").write_text("select 1;\n")
    (tmp_path / "CHANGELOG.md").write_text(RELEASED)
    for name in ("pyproject.toml", lock.LOCK.name):
        shutil.copy(ROOT / name, tmp_path)
    git(tmp_path, "init", "-q")
    commit(tmp_path)
    return tmp_path


def commit(root: Path) -> None:
    git(root, "add", "-A")
    git(root, "commit", "-qm", "More")


def refused(root: Path) -> str:
    """Why it is not released; nothing may be built then, which would fail here."""
    return "\n".join(release.release(root, TODAY, dry_run=False))


def test_what_is_not_committed_is_refused(root: Path) -> None:
    (root / "notes.txt").write_text("")
    (root / "pyproject.toml").write_text((ROOT / "pyproject.toml").read_text() + "\n")
    assert refused(root) == "pyproject.toml is not committed\nnotes.txt is not committed"


def test_what_is_unreleased_has_to_be_given_to_the_version(root: Path) -> None:
    (root / "CHANGELOG.md").write_text(CHANGES)
    commit(root)
    assert (
        "1 entries are unreleased, the first is 'Something new.': scripts/release.py --prepare 0.1.0"
        in refused(root)
    )
    assert list(release.prepare(root, "0.1.0", TODAY)) == []
    assert "## [0.1.0] - 2026-12-24" in (root / "CHANGELOG.md").read_text()
    commit(root)
    assert [*release.wrong_changes(root, "0.1.0", TODAY)] == []


def test_a_version_without_a_section_or_of_a_later_day_is_refused(root: Path) -> None:
    (root / "pgflow_mp" / "__init__.py").write_text('__version__ = "0.2.0"\n')
    commit(root)
    assert (
        refused(root) == "CHANGELOG.md: the newest release is not 0.2.0: scripts/release.py --prepare 0.2.0"
    )
    assert [*release.wrong_changes(root, "0.1.0", date(2026, 11, 25))] == [
        "CHANGELOG.md: 0.1.0 is of 2026-11-26, and today is 2026-11-25"
    ]


def test_a_changelog_out_of_form_is_refused(root: Path) -> None:
    (root / "CHANGELOG.md").write_text(RELEASED.replace("### Added\n\n- All", "### New\n\n- All"))
    commit(root)
    assert "has a section 'New'" in refused(root)


@pytest.mark.parametrize("fails", ["tag", "copy"])
def test_what_fails_at_the_end_leaves_neither_copies_nor_a_tag(
    root: Path, monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory, fails: str
) -> None:
    built = [tmp_path_factory.mktemp("built") / name for name in ("one.whl", "two.tar.gz")]
    for path in built:
        path.write_bytes(b"made")
    monkeypatch.setattr("_distributions.build", lambda _place: built)
    monkeypatch.setattr(release, "wrong_builds", lambda *_given: [])
    if fails == "tag":
        (root / ".git" / "refs" / "tags" / "v0.1.0").mkdir(parents=True)  # in the way
        (root / ".git" / "refs" / "tags" / "v0.1.0" / "x.lock").touch()
        with pytest.raises(SystemExit, match=r"git tag .* failed"):
            release.release(root, TODAY, dry_run=False)
    else:
        copy = shutil.copy

        def fill(source: Path, place: Path) -> None:
            copy(source, place)
            if source == built[1]:
                raise OSError(errno.ENOSPC, "No space left on device", str(place))

        monkeypatch.setattr(shutil, "copy", fill)
        with pytest.raises(OSError, match="No space left"):
            release.release(root, TODAY, dry_run=False)
        assert git(root, "tag") == ""
    assert not [*(root / "dist").glob("*")]


def test_files_that_are_missing_are_named(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(release, "ROOT", root)
    monkeypatch.setattr(sys, "argv", ["release.py", "--dry-run"])
    told: list[str] = []
    monkeypatch.setattr("builtins.print", lambda *words, **_how: told.extend(map(str, words)))
    for name in ("CHANGELOG.md", lock.LOCK.name, "pyproject.toml", "pgflow_mp/__init__.py"):
        kept = (root / name).read_bytes()
        (root / name).unlink()
        commit(root)
        assert release.main() == 1
        assert any(name in line for line in told), told
        told.clear()
        (root / name).write_bytes(kept)
        commit(root)
    (root / "pyproject.toml").write_text("[project")
    commit(root)
    assert release.main() == 1
    assert "pyproject.toml does not say what is needed" in told[0]


def test_a_lock_that_does_not_fit_is_refused(root: Path) -> None:
    text = (root / "pyproject.toml").read_text()
    (root / "pyproject.toml").write_text(text.replace('"rich>=13.7"', '"rich>=999"'))
    commit(root)
    assert refused(root).startswith("requirements-dev.txt has no version that satisfies rich>=999")


def test_what_is_released_stays_as_it_is_and_versions_go_up(root: Path) -> None:
    release.tag(root, "0.1.0")
    assert git(root, "tag", "-l", "--format=%(contents)", "v0.1.0").strip() == (
        "pgflow_mp 0.1.0\n\nThe first one.\n\n### Added\n\n- All of it."
    )
    assert refused(root).startswith("0.1.0 is released, as tag v0.1.0")
    assert [*release.wrong_version(root, "0.0.9")] == ["0.0.9 is before 0.1.0, which is released"]
    assert [*release.wrong_version(root, "0.1.0rc1")] == ["0.1.0rc1 is before 0.1.0, which is released"]
    assert [*release.wrong_version(root, "0.1.1")] == []
    (root / "sql" / "migrations" / "0001" / "0010_tables.sql").write_text("select 2;\n")
    (root / "sql" / "migrations" / "0002").mkdir()
    (root / "sql" / "migrations" / "0002" / "0010_more.sql").write_text("select 3;\n")
    commit(root)
    assert [*release.wrong_version(root, "0.1.1")] == [
        "sql/migrations/0001/0010_tables.sql is in 0.1.0, and released migrations are never changed"
    ]


def test_the_next_version_is_prepared(root: Path) -> None:
    assert [*release.prepare(root, "0.2.0", TODAY)] == [
        "CHANGELOG.md has nothing under Unreleased that 0.2.0 could be"
    ]
    assert release.version_of(root) == "0.1.0"
    (root / "CHANGELOG.md").write_text(CHANGES)
    assert [*release.prepare(root, "0.2.0", TODAY)] == ["CHANGELOG.md is not committed"]
    commit(root)
    release.tag(root, "0.1.0")
    assert [*release.prepare(root, "0.1.0", TODAY)] == [
        "0.1.0 is released, as tag v0.1.0: scripts/release.py --prepare writes the next one"
    ]
    assert [*release.prepare(root, "0.2.0", TODAY)] == []
    assert release.version_of(root) == "0.2.0"
    assert (root / "CHANGELOG.md").read_text().count(
        "## [0.2.0] - 2026-12-24\n\n### Added\n\n- Something new.\n"
    ) == 1


def test_what_is_no_version_is_bad_usage() -> None:
    command = [sys.executable, str(ROOT / "scripts" / "release.py"), "--prepare", "v1"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "'v1' is no version: MAJOR.MINOR.PATCH" in done.stderr


@pytest.mark.slow
def test_a_release_from_beginning_to_end(tmp_path: Path) -> None:
    """Builds, which takes packages from a registry."""
    copy = tmp_path / "copy"
    git(tmp_path, "clone", "-q", str(ROOT), str(copy))
    git(copy, "config", "user.name", "T")
    git(copy, "config", "user.email", "t@example.org")
    (copy / "CHANGELOG.md").write_text(
        RELEASED.replace("0.1.0", "99.0.0").replace("2026-11-26", "2020-01-01")
    )
    package = copy / "pgflow_mp" / "__init__.py"
    package.write_text(package.read_text().replace(f'"{release.version_of(copy)}"', '"99.0.0"'))
    commit(copy)

    def run(*options: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "scripts/release.py", *options]
        return subprocess.run(command, cwd=copy, capture_output=True, text=True, check=False)

    tried = run("--dry-run")
    assert (tried.returncode, tried.stderr) == (0, "")
    assert "nothing was kept" in tried.stdout
    assert not (copy / "dist").exists()
    assert release.released(copy) == []
    done = run()
    assert (done.returncode, done.stderr) == (0, "")
    names = ["pgflow_mp-99.0.0-py3-none-any.whl", "pgflow_mp-99.0.0.tar.gz"]
    assert sorted(path.name for path in (copy / "dist").iterdir()) == names
    assert f"python -m twine upload dist/{names[0]} dist/{names[1]}" in done.stdout
    digests = [line.split("  sha256 ")[1] for line in tried.stdout.splitlines() if "  sha256 " in line]
    assert all(digest in done.stdout for digest in digests), "the same both times"
    assert release.released(copy) == ["99.0.0"]
    with tarfile.open(copy / "dist" / names[1]) as archive:
        assert "pgflow_mp-99.0.0/LICENSE" in archive.getnames()
    again = run()
    assert again.returncode == 1
    assert again.stderr.startswith("problem: 99.0.0 is released, as tag v99.0.0")
