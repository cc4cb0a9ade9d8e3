"""What the documentation shows of Python is right to both type checkers, where its imports are installed."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pages
import pytest
import type_checkers

MISSING = {"reportMissingImports": "none", "reportMissingModuleSource": "none"}


@pytest.fixture
def projects(tmp_path: Path) -> list[Path]:
    """A folder for each page, with its files."""
    found = []
    for page in pages.PAGES:
        python = {name: text for name, text in pages.files(page).items() if name.endswith(".py")}
        for name, text in python.items():
            path = tmp_path / "pages" / page.stem / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
        if python:
            found.append(tmp_path / "pages" / page.stem)
    assert len(found) > 25
    return found


@pytest.mark.slow
def test_examples_of_the_documentation_pass_mypy(projects: list[Path], tmp_path: Path) -> None:
    pytest.importorskip("mypy")
    options = ["--strict", "--config-file=", f"--cache-dir={tmp_path}/cache", "--ignore-missing-imports"]
    command = [sys.executable, "-m", "mypy", *options, "--explicit-package-bases", "."]
    said = {project.name: type_checkers.run(command, project) for project in projects}
    assert {page: done.stdout for page, done in said.items() if done.returncode} == {}


@pytest.mark.slow
def test_examples_of_the_documentation_pass_pyright(projects: list[Path]) -> None:
    pytest.importorskip("pyright")
    root = projects[0].parent
    roots = [{"root": project.name} for project in projects]
    (root / "pyrightconfig.json").write_text(json.dumps({"executionEnvironments": roots, **MISSING}))
    done = type_checkers.run([*type_checkers.PYRIGHT, "--pythonpath", sys.executable], root)
    assert done.returncode == 0, done.stdout
