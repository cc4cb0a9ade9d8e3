#!/usr/bin/env python3
"""Lock what is installed for development: requirements-dev.txt, for pip, with hashes, for all Pythons.

scripts/lock.py             keep what is pinned, add and drop what pyproject.toml has added and dropped
scripts/lock.py --upgrade   pin the newest of everything
scripts/lock.py --check     only say whether it satisfies pyproject.toml, without a network
"""

from __future__ import annotations

import _needed  # noqa: F401  # isort: skip
import argparse
import importlib.util
import re
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parent.parent
LOCK = ROOT / "requirements-dev.txt"
EXTRA = "dev"
HEAD = """\
# What is installed for development and in CI: scripts/lock.py wrote it of pyproject.toml's extra dev.
#   pip install --require-hashes -r requirements-dev.txt && pip install --no-deps -e .
"""
PYTHONS = ("3.11.2", "3.11.9", "3.12.9", "3.13.9", "3.14.9")
"""Versions for which the lock is compared with pyproject.toml."""


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    choice = parser.add_mutually_exclusive_group()
    choice.add_argument("--upgrade", action="store_true", help="pin the newest of everything")
    choice.add_argument(
        "--check", action="store_true", help="write nothing; exit status 1 if it does not fit"
    )
    options = parser.parse_args()
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    if not options.check:
        write(upgrade=options.upgrade)
    text = LOCK.read_text(encoding="utf-8") if LOCK.exists() else ""
    found = list(problems(text, project))
    print("\n".join(found), file=sys.stderr, end="\n" if found else "")
    if found and options.check:
        print("scripts/lock.py writes it anew", file=sys.stderr)
    return 1 if found else 0


def write(*, upgrade: bool) -> None:
    """Have uv resolve for every Python and platform, beginning with what is pinned."""
    if importlib.util.find_spec("uv") is None:
        sys.exit("uv is not installed: pip install uv, or the extra dev")
    with tempfile.TemporaryDirectory(prefix="pgflow-lock-") as name:
        made = Path(name) / "lock.txt"
        if LOCK.exists() and not upgrade:
            made.write_bytes(LOCK.read_bytes())
        command = [
            sys.executable,
            "-m",
            "uv",
            "pip",
            "compile",
            "--quiet",
            "--universal",
            "--generate-hashes",
        ]
        command += ["--python-version", "3.11", "--no-header", "--no-annotate", "--no-emit-index-url"]
        command += ["--no-emit-find-links", "--extra", EXTRA, "--output-file", str(made), "pyproject.toml"]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
        if done.returncode:
            sys.exit(f"uv finds no set of versions:\n{done.stderr}")
        LOCK.write_text(HEAD + made.read_text(encoding="utf-8"), encoding="utf-8")


def pins(text: str) -> Iterator[tuple[Requirement, list[str]]]:
    """The requirements of a lock with their hashes. Raises InvalidRequirement for what is none."""
    lines = re.sub(r"\\\n", " ", re.sub(r"^#.*\n", "", text, flags=re.MULTILINE)).splitlines()
    for line in filter(str.strip, lines):
        requirement, *hashes = re.split(r"\s--hash=", line)
        yield Requirement(requirement.strip()), [each.strip() for each in hashes]


def wanted(project: dict[str, Any], extra: str = "") -> Iterator[Requirement]:
    """What the project needs by itself, and with an extra, those of ours that it takes in followed."""
    if not extra:
        yield from map(Requirement, project["dependencies"])
        return
    for line in project["optional-dependencies"][extra]:
        each = Requirement(line)
        if canonicalize_name(each.name) == canonicalize_name(project["name"]):
            for other in sorted(each.extras):
                yield from wanted(project, other)
        else:
            yield each


def problems(text: str, project: dict[str, Any]) -> Iterator[str]:
    """Where a lock does not satisfy pyproject.toml, or is not what pip can check and anybody can use."""
    name = LOCK.name
    if not text:
        yield f"{name} is missing"
        return
    if found := re.search(r"https?://|--(?:extra-)?index-url|--find-links|--trusted-host", text):
        yield f"{name} names a place to install from ({found[0]}), which is for each user to choose"
    try:
        locked = list(pins(text))
    except InvalidRequirement as error:
        yield f"{name}: {error}"
        return
    for pin, hashes in locked:
        if [spec.operator for spec in pin.specifier] != ["=="]:
            yield f"{name}: {pin} is not pinned to one version"
        if not hashes or not all(re.fullmatch(r"sha256:[0-9a-f]{64}", each) for each in hashes):
            yield f"{name}: {pin.name} has no hashes of sha256"
    missing: dict[str, list[str]] = {}
    for need in [*wanted(project), *wanted(project, EXTRA)]:
        for python in PYTHONS:
            if need.marker is None or need.marker.evaluate(_environment(python)):
                fitting = [pin for pin, _ in locked if _fits(pin, need, python)]
                if len(fitting) != 1:
                    missing.setdefault(str(need), []).append(python)
    for each, pythons in missing.items():
        yield f"{name} has no version that satisfies {each} for Python {', '.join(pythons)}"


def _fits(pin: Requirement, need: Requirement, python: str) -> bool:
    if canonicalize_name(pin.name) != canonicalize_name(need.name):
        return False
    if pin.marker is not None and not pin.marker.evaluate(_environment(python)):
        return False
    versions = [spec.version for spec in pin.specifier]
    return all(need.specifier.contains(version, prereleases=True) for version in versions)


def _environment(python: str) -> dict[str, str]:
    return {"python_version": python.rpartition(".")[0], "python_full_version": python, "extra": ""}


if __name__ == "__main__":
    sys.exit(main())
