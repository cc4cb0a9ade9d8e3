#!/usr/bin/env python3
"""Release what is checked out: check, build sdist and wheel into dist/, tag the commit, say what to upload.

    scripts/release.py --prepare 0.2.0   write the version, give it what is unreleased in CHANGELOG.md
    scripts/release.py --dry-run         check and build, keep nothing
    scripts/release.py                   the same, and keep dist/ and the tag; nothing leaves this machine

Exit status 1 tells that something is not as it should be, each on a line of its own.
"""

from __future__ import annotations

import _needed  # noqa: F401  # isort: skip
import argparse
import hashlib
import re
import shutil
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Iterator
from datetime import date
from pathlib import Path

import _changelog
import _distributions
import lock

ROOT = Path(__file__).resolve().parent.parent
_VERSION = re.compile(r'^__version__ = "([^"]+)"$', flags=re.MULTILINE)


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    choice = parser.add_mutually_exclusive_group()
    choice.add_argument("--prepare", metavar="VERSION", type=a_version, help="write VERSION and its changes")
    choice.add_argument("--dry-run", action="store_true", help="check and build, keep nothing")
    options = parser.parse_args()
    try:
        if options.prepare:
            found = list(prepare(ROOT, options.prepare, date.today()))
        else:
            found = release(ROOT, date.today(), dry_run=options.dry_run)
    except OSError as error:  # a file, or git, is missing, or may not be read
        found = [f"{error.filename}: {error.strerror}"]
    for problem in found:
        print(f"problem: {problem}", file=sys.stderr)
    return 1 if found else 0


def a_version(text: str) -> str:
    """A version as given on the command line."""
    try:
        _changelog.order(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
    return text


def release(root: Path, today: date, *, dry_run: bool) -> list[str]:
    """All of it; returns what is wrong, and then has left nothing behind."""
    version = version_of(root)
    if found := [
        *unclean(root),
        *wrong_version(root, version),
        *wrong_changes(root, version, today),
        *unlocked(root),
    ]:
        return found
    commit = git(root, "rev-parse", "HEAD")
    with tempfile.TemporaryDirectory(prefix="pgflow-release-") as name:
        print(f"building {version} of {commit[:12]}")
        built = _distributions.build(Path(name) / "dist")
        if found := [*wrong_builds(built, version, Path(name))]:
            return found
        for path in built:
            digest = hashlib.sha256(path.read_bytes()).hexdigest()
            print(f"  {path.name}  {path.stat().st_size / 1e6:.1f} MB  sha256 {digest}")
        if dry_run:
            print(f"nothing was kept; without --dry-run: tag v{version}, and these in dist/")
            return []
        tag(root, version)
        try:
            keep(built, root / "dist")
        except BaseException:
            git(root, "tag", "--delete", f"v{version}")
            raise
    print(f"tagged {commit[:12]} as v{version}\n\nUpload, once .ci/run has passed for this commit:")
    print(f"  python -m twine upload {' '.join(f'dist/{path.name}' for path in built)}")
    print(f"  git push REMOTE HEAD v{version}")
    print("Then have the next upgrade tested from here:")
    print(f"  git rev-parse --short v{version}^{{commit}} >> tests/upgrade/last_release.txt")
    print("and, where sql/migrations has a new folder NNNN, its SQL into tests/db/landed (CONTRIBUTING.md)")
    return []


def keep(built: list[Path], place: Path) -> None:
    """Copy what was built there, all of it or none."""
    place.mkdir(exist_ok=True)
    copies: list[Path] = []
    try:
        for path in built:
            copies.append(place / path.name)
            shutil.copy(path, copies[-1])
    except BaseException:
        for copy in copies:
            copy.unlink(missing_ok=True)
        raise


def prepare(root: Path, version: str, today: date) -> Iterator[str]:
    """Write the version where it stands, and the changelog; yields what keeps it from that."""
    if found := [*unclean(root), *wrong_version(root, version)]:
        yield from found
        return
    changelog, package = root / "CHANGELOG.md", root / "pgflow_mp" / "__init__.py"
    try:
        changes = _changelog.with_release(changelog.read_text(encoding="utf-8"), version, today)
    except ValueError as error:
        yield str(error)
        return
    changelog.write_text(changes, encoding="utf-8")
    text = package.read_text(encoding="utf-8")
    package.write_text(_VERSION.sub(f'__version__ = "{version}"', text), encoding="utf-8")
    print(f"wrote {version} into pgflow_mp/__init__.py and CHANGELOG.md: look at them, commit, run .ci/run,")
    print("then scripts/release.py --dry-run")


def version_of(root: Path) -> str:
    """The one place that has it."""
    found = _VERSION.search((root / "pgflow_mp" / "__init__.py").read_text(encoding="utf-8"))
    if not found:
        sys.exit('pgflow_mp/__init__.py has no line __version__ = "..."')
    return found[1]


def released(root: Path) -> list[str]:
    """The versions that have tags, oldest first."""
    tags = (name.removeprefix("v") for name in git(root, "tag", "--list", "v*").splitlines())
    return sorted(
        (tag for tag in tags if re.fullmatch(r"\d+\.\d+\.\d+((a|b|rc)\d+)?", tag)), key=_changelog.order
    )


def unclean(root: Path) -> Iterator[str]:
    """Files that are changed, or not under version control, would not be in the tag."""
    for line in git(root, "status", "--porcelain").splitlines():
        yield f"{line[3:]} is not committed"


def wrong_version(root: Path, version: str) -> Iterator[str]:
    """A version that was there already, or goes back; changed migrations of the last one."""
    try:
        _changelog.order(version)
    except ValueError as error:
        yield str(error)
        return
    tags = released(root)
    if version in tags:
        yield f"{version} is released, as tag v{version}: scripts/release.py --prepare writes the next one"
    elif tags and _changelog.order(version) <= _changelog.order(tags[-1]):
        yield f"{version} is before {tags[-1]}, which is released"
    if tags:
        changed = git(
            root, "diff", "--name-status", "--no-renames", f"v{tags[-1]}", "HEAD", "--", "sql/migrations"
        )
        for line in changed.splitlines():
            state, _, path = line.partition("\t")
            if state != "A":
                yield f"{path} is in {tags[-1]}, and released migrations are never changed"


def wrong_changes(root: Path, version: str, today: date) -> Iterator[str]:
    """The changelog has to be in form, have this version first, and nothing left over."""
    text = (root / "CHANGELOG.md").read_text(encoding="utf-8")
    yield from (f"CHANGELOG.md: {problem}" for problem in _changelog.problems(text))
    releases = _changelog.read(text)
    if releases and releases[0].version == _changelog.UNRELEASED and (rest := releases[0].entries):
        yield (
            f"CHANGELOG.md: {len(rest)} entries are unreleased, the first is {rest[0][:60]!r}: "
            f"scripts/release.py --prepare {version} gives them to {version}"
        )
    newest = next((each for each in releases if each.version != _changelog.UNRELEASED), None)
    if newest is None or newest.version != version:
        yield f"CHANGELOG.md: the newest release is not {version}: scripts/release.py --prepare {version}"
    elif (newest.day or "") > today.isoformat():
        yield f"CHANGELOG.md: {version} is of {newest.day}, and today is {today.isoformat()}"


def unlocked(root: Path) -> Iterator[str]:
    """The lock file has to satisfy pyproject.toml."""
    try:
        project = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["project"]
        project["dependencies"], project["optional-dependencies"][lock.EXTRA]
    except (tomllib.TOMLDecodeError, KeyError) as error:
        yield f"pyproject.toml does not say what is needed: {error}"
        return
    yield from lock.problems((root / lock.LOCK.name).read_text(encoding="utf-8"), project)


def wrong_builds(built: list[Path], version: str, place: Path) -> Iterator[str]:
    """What is not as it should be with sdist and wheel; the second is built of the first once more."""
    wanted = {f"pgflow_mp-{version}-py3-none-any.whl", f"pgflow_mp-{version}.tar.gz"}
    if {path.name for path in built} != wanted:
        yield f"built were {', '.join(path.name for path in built)}, not {', '.join(sorted(wanted))}"
        return
    for path in built:
        wheel = path.suffix == ".whl"
        found = _distributions.problems_of_wheel(path) if wheel else _distributions.problems_of_sdist(path)
        yield from (f"{path.name}: {problem}" for problem in found)
    sdist, wheel_ = sorted(built, key=lambda path: path.suffix)
    yield from _distributions.differences(wheel_, _distributions.wheel_of_sdist(sdist, place / "elsewhere"))
    command = [sys.executable, "-m", "twine", "check", "--strict", *map(str, built)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        yield f"twine check: {done.stdout}{done.stderr}"


def tag(root: Path, version: str) -> None:
    """An annotated tag with the version's changes."""
    changes = next(
        each
        for each in _changelog.read((root / "CHANGELOG.md").read_text("utf-8"))
        if each.version == version
    )
    message = f"pgflow_mp {version}\n\n{changes.text()}"
    git(root, "tag", "--annotate", "--cleanup=verbatim", "--file=-", f"v{version}", said=message)


def git(root: Path, *arguments: str, said: str = "") -> str:
    """What git answers. Exits where it fails."""
    command = ["git", *arguments]
    done = subprocess.run(command, cwd=root, input=said, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"{' '.join(command)} failed: {done.stderr.strip()}")
    return done.stdout.rstrip()


if __name__ == "__main__":
    sys.exit(main())
