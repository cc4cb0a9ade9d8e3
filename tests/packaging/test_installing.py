"""docs/installing.md says what pyproject.toml and the installed packages do, and beginning stays cheap."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import Any

import _footprint
import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from pgflow_mp import installed
from pgflow_mp.installed import pip_install

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "installing.md").read_text(encoding="utf-8")
PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
EXTRAS: dict[str, list[str]] = PROJECT["optional-dependencies"]
OURS = "pgflow-mp"
BEFORE_313 = {"typing-extensions"}


def rows(heading: str) -> list[list[str]]:
    """The cells of the rows of the first table below a heading of PAGE."""
    text = PAGE.partition(f"## {heading}\n")[2].partition("\n## ")[0]
    lines = [line for line in text.splitlines() if line.startswith("| ")]
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines[2:]]


def named(cell: str) -> set[str]:
    return set(re.findall(r"`([^`]+)`", cell))


def direct(extra: str) -> set[str]:
    """What an extra asks for by itself, without what it takes from other extras of ours."""
    found = {canonicalize_name(Requirement(each).name) for each in EXTRAS[extra]}
    return {str(name) for name in found} - {OURS}


def borrowed(extra: str) -> set[str]:
    """The extras of ours that an extra takes in."""
    wanted = [Requirement(each) for each in EXTRAS[extra]]
    return {name for each in wanted if canonicalize_name(each.name) == OURS for name in each.extras}


def test_the_table_of_extras_is_that_of_pyproject() -> None:
    table = {name.strip("`"): (gives, installs) for name, gives, installs in rows("Extras")}
    assert sorted(table) == sorted(EXTRAS)
    assert {name: named(installs) for name, (_, installs) in table.items()} == {
        name: direct(name) for name in EXTRAS
    }
    for name in EXTRAS:
        assert borrowed(name) <= named(table[name][0]), name


def test_every_extra_that_is_advised_exists() -> None:
    advised: dict[str, str] = {}
    for path in [*(ROOT / "pgflow_mp").rglob("*.py"), *(ROOT / "docs").rglob("*.md"), ROOT / "README.md"]:
        for names in re.findall(r"pgflow[-_]mp\[([\w, ]+)\]", path.read_text(encoding="utf-8")):
            advised |= {name.strip(): path.name for name in names.split(",")}
    assert {name: place for name, place in advised.items() if name not in EXTRAS} == {}


def closure(name: str, extras: frozenset[str] = frozenset()) -> Iterator[tuple[str, frozenset[str]]]:
    """The packages that pip installs for one, and theirs, as the installed ones say; not that one itself."""
    for line in metadata.requires(name) or ():
        wanted = Requirement(line)
        environments = [{"extra": extra} for extra in extras or {""}]
        if wanted.marker is None or any(wanted.marker.evaluate(each) for each in environments):
            yield str(canonicalize_name(wanted.name)), frozenset(wanted.extras)


def minimal() -> set[str]:
    """Every package that an installation without extras brings, ours among them."""
    found: set[tuple[str, frozenset[str]]] = set()
    open_ = [(OURS, frozenset[str]())]
    while open_:
        each = open_.pop()
        if each not in found:
            found.add(each)
            open_ += closure(*each)
    return {name for name, _ in found}


def test_what_is_there_without_extras_is_told_and_no_more_than_meant() -> None:
    installed = minimal()
    told = set[str]().union(*(named(packages) for packages, _ in rows("What is there without extras?")))
    assert told | {OURS} == installed | (BEFORE_313 if sys.version_info >= (3, 13) else set())
    assert len(installed) <= _footprint.PACKAGES
    text = " ".join(PAGE.split())
    assert f"{_footprint.PACKAGES} packages, some 75 MB on disk" in text
    assert f"more than {_footprint.PACKAGES} packages or {_footprint.MEGABYTES} MB" in text


def loaded(code: str) -> set[str]:
    """The modules that a new interpreter has loaded after ``code``."""
    code = f"import sys\n{code}\nprint('\\n'.join(sys.modules), file=sys.stderr)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(done.stderr.split())


@pytest.fixture(scope="module")
def empty() -> set[str]:
    return loaded("")


COMMAND = """
from pgflow_mp.cli.main import main
sys.argv = ['pgflow-mp', '--version']
try:
    main()
except SystemExit:
    pass
"""


@pytest.mark.parametrize(
    ("code", "most"),
    [
        ("import pgflow_mp", _footprint.IMPORT_MODULES),
        (COMMAND, _footprint.COMMAND_MODULES),
        (COMMAND.replace("--version", "--help"), _footprint.COMMAND_MODULES),
        (COMMAND.replace("'--version'", "'run', '--help'"), _footprint.COMMAND_MODULES),
    ],
    ids=["import", "version", "help", "run-help"],
)
def test_beginning_loads_few_modules_and_none_of_others(empty: set[str], code: str, most: int) -> None:
    found = loaded(code) - empty
    assert len(found) <= most
    tops = {name.partition(".")[0] for name in found}
    assert {"psycopg", "msgspec", "rich", "psutil", "platformdirs", "pgmq", "shtab"} & tops == set()


def test_a_command_on_windows_says_that_it_does_not_run_there() -> None:
    code = "import sys; from pgflow_mp.cli.main import main; sys.platform = 'win32'; sys.exit(main(['runs']))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert "pgflow_mp does not run on Windows" in done.stderr
    assert "WSL" in done.stderr


def measured(**changes: Any) -> dict[str, Any]:
    good = {
        "packages": [f"p{n}" for n in range(_footprint.PACKAGES)],
        "bytes": 75_000_000,
        "empty": {"modules": 33, "seconds": 0.010},
        "import": {"modules": 61, "seconds": 0.020},
        "command": {"modules": 125, "seconds": 0.055},
    }
    return {**good, **changes}


def test_a_footprint_within_its_bars_is_told() -> None:
    assert list(_footprint.problems(measured())) == []
    assert _footprint.told(measured()).startswith(
        f"without extras: {_footprint.PACKAGES} packages, 75 MB; import"
    )


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"packages": [f"p{n}" for n in range(_footprint.PACKAGES + 1)]}, "packages are installed"),
        ({"bytes": 91_000_000}, "91 MB are installed"),
        ({"import": {"modules": 33 + 99, "seconds": 0.02}}, "import: 99 modules"),
        ({"import": {"modules": 61, "seconds": 0.05}}, "import: 5.0 times"),
        ({"command": {"modules": 125, "seconds": 0.2}}, "command: 20.0 times"),
        ({"command": {"modules": 333, "seconds": 0.05}}, "command: 300 modules"),
    ],
)
def test_what_is_past_its_bar_is_said(changes: dict[str, Any], problem: str) -> None:
    assert [problem in each for each in _footprint.problems(measured(**changes))] == [True]


def test_what_is_lacking_is_installed_beside_a_checkout_or_the_package(tmp_path: Path) -> None:
    assert pip_install("web", place=str(tmp_path)) == "pip install 'pgflow-mp[web]'"
    (tmp_path / "pyproject.toml").touch()
    assert pip_install("web", place=str(tmp_path)) == f"pip install -e '{tmp_path}[web]'"
    again = pip_install("ray", "--force-reinstall", place=str(tmp_path))
    assert again == f"pip install --force-reinstall -e '{tmp_path}[ray]'"


def test_hints_name_no_extra_by_themselves() -> None:
    place = Path(installed.__file__)
    help_of_a_command = place.parent / "cli" / "serve.py"
    found = {
        path
        for path in place.parent.rglob("*.py")
        if re.search(r"pip install [^\"]*pgflow-mp\[", path.read_text(encoding="utf-8"))
    }
    assert found <= {place, help_of_a_command}
