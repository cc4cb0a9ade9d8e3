"""Rules of the house that a reader would otherwise have to check by eye."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest

from pgflow_mp.cli.main import VERBS

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "pgflow_mp"
SCRIPTS = sorted(path for path in (ROOT / "scripts").glob("*.py") if not path.name.startswith("_"))
LONGEST = 350
LONGEST_EXCEPTION = 480
EXCEPTIONS: set[str] = set()
"""Files of one subject that is better not cut in two."""
OF_A_VERB = {("bench", "cli/bench.py")}
"""Modules of a command's verb, which is the name of what it works with."""
LONGEST_TEST = 620
TOP_LEVEL = {"pyproject.toml", "pgflow_mp", "sql", "tests", "benchmarks", "scripts", "docs"}
TOP_LEVEL |= {
    "README.md",
    "CHANGELOG.md",
    "CONTRIBUTING.md",
    "LICENSE",
    "SECURITY.md",
    "requirements-dev.txt",
}


def lines_of(path: Path) -> int:
    return len(path.read_text(encoding="utf-8").splitlines())


def test_files_are_short_enough_to_read() -> None:
    files = [*PACKAGE.rglob("*.py"), *(ROOT / "sql").rglob("*.sql"), *SCRIPTS]
    lengths = {path.relative_to(ROOT).as_posix(): lines_of(path) for path in files}
    limits = {name: LONGEST_EXCEPTION if name in EXCEPTIONS else LONGEST for name in lengths}
    assert {name: length for name, length in lengths.items() if length > limits[name]} == {}


def test_test_files_are_short_enough_to_read() -> None:
    lengths = {path.relative_to(ROOT).as_posix(): lines_of(path) for path in (ROOT / "tests").rglob("*.py")}
    assert {name: length for name, length in lengths.items() if length > LONGEST_TEST} == {}


def test_the_list_of_exceptions_is_short_and_names_real_files() -> None:
    assert len(EXCEPTIONS) <= 8
    assert [name for name in EXCEPTIONS if not (ROOT / name).is_file()] == []


def test_nothing_is_left_to_be_done() -> None:
    marks = re.compile(r"\b(TO" + r"DO|FIX" + r"ME|X" + r"XX)\b")
    files = [
        *PACKAGE.rglob("*.py"),
        *(ROOT / "sql").rglob("*.sql"),
        *(ROOT / "tests").rglob("*.py"),
        *SCRIPTS,
    ]
    found = [str(path) for path in files if marks.search(path.read_text(encoding="utf-8"))]
    assert found == []


def test_no_file_has_the_marks_of_a_merge() -> None:
    marks = re.compile(rf"^(?:{'<' * 7}|{'>' * 7}) ", flags=re.MULTILINE)
    suffixes = {".md", ".py", ".sql", ".toml", ".txt", ".yaml"}
    folders = [ROOT / name for name in sorted(TOP_LEVEL) if (ROOT / name).is_dir()]
    files = [
        path
        for folder in (ROOT, *folders)
        for path in (folder.glob if folder == ROOT else folder.rglob)("*.*")
    ]
    texts = {path: path.read_text(encoding="utf-8") for path in files if path.suffix in suffixes}
    assert [path.name for path, text in texts.items() if marks.search(text)] == []
    assert len(texts) > 500


def test_the_top_level_holds_only_what_belongs_there() -> None:
    command = ["git", "ls-files"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if listed.returncode:
        pytest.skip("this is no git checkout")
    names = {line.partition("/")[0] for line in listed.stdout.splitlines()}
    assert {name for name in names if not name.startswith(".")} <= TOP_LEVEL


def test_every_module_says_what_it_is_for() -> None:
    silent = []
    for path in PACKAGE.rglob("*.py"):
        text = path.read_text(encoding="utf-8")
        if text.strip() and not ast.get_docstring(ast.parse(text)):
            silent.append(path.relative_to(ROOT).as_posix())
    assert silent == []


def test_modules_that_start_threads_say_who_may_call_what() -> None:
    silent = []
    for path in PACKAGE.rglob("*.py"):
        text = path.read_text(encoding="utf-8")
        if re.search(r"\b(Thread|ThreadPoolExecutor)\(", text) and "Threads:" not in text:
            silent.append(path.relative_to(ROOT).as_posix())
    assert silent == []


def _named_by(paths: list[Path]) -> Iterator[tuple[str, str]]:
    """Classes and type aliases, which are written in camel case, with the module that has them."""
    for path in paths:
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            name = ""
            if isinstance(node, ast.ClassDef):
                name = node.name
            elif isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
                name = node.targets[0].id
            if re.fullmatch(r"[A-Z]\w*[a-z]\w*", name):
                yield name, path.relative_to(PACKAGE).as_posix()


def _several(names: Iterable[tuple[str, str]]) -> dict[str, list[str]]:
    """What more than one place has, with the places."""
    places: dict[str, list[str]] = {}
    for name, place in names:
        places.setdefault(name, []).append(place)
    return {name: found for name, found in places.items() if len(found) > 1}


def _modules() -> list[Path]:
    paths = [path for path in sorted(PACKAGE.rglob("*.py")) if path.name != "__init__.py"]
    return [path for path in paths if path.parent.name != "examples"]


def test_no_two_classes_have_one_name() -> None:
    assert _several(_named_by(_modules())) == {}


def test_no_two_modules_have_one_name_nor_a_package_and_a_module_of_another() -> None:
    modules = {(path.stem, path.relative_to(PACKAGE).as_posix()) for path in _modules()}
    packages = [
        (path.parent.name, path.parent.relative_to(PACKAGE).as_posix())
        for path in sorted(PACKAGE.rglob("*/__init__.py"))
    ]
    own = {(name, f"{place}/{name}.py") for name, place in packages}  # the module that a package is there for
    assert _several([*(modules - own - OF_A_VERB), *packages]) == {}


MAKES_DATA = "cli/command_line.py"
ARGPARSE_RESULT = {("cli/parser.py", "parse")}
"""Where it is made."""


def test_no_two_modules_of_tests_have_one_name() -> None:
    """Outside packages pytest imports them by their name alone, in one process."""
    files = [path for path in (ROOT / "tests").rglob("*.py") if not (path.parent / "__init__.py").exists()]
    names = [path.name for path in files if path.name != "conftest.py"]
    assert sorted(names) == sorted(set(names))


def test_the_command_line_s_arguments_do_not_travel_past_it() -> None:
    """What argparse found is for the verbs' execute(), and for what makes plain data of it."""
    verbs = {f"cli/{verb.module}.py" for verb in VERBS.values()}
    travelling = []
    for path in sorted(PACKAGE.rglob("*.py")):
        place = path.relative_to(PACKAGE).as_posix()
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                parameters = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
                written = [each.annotation for each in parameters] + [node.returns]
                takes = place.startswith("cli/") and any(each.arg == "args" for each in parameters)
                if place == MAKES_DATA or (place in verbs and node.name == "execute"):
                    continue
            elif isinstance(node, ast.AnnAssign):  # of a class, or a variable
                written, takes = [node.annotation], False
            else:
                continue
            if takes or any("argparse.Namespace" in ast.unparse(each) for each in written if each):
                travelling.append((place, getattr(node, "name", ast.unparse(node))))
    assert set(travelling) == ARGPARSE_RESULT


def test_sql_files_are_numbered_and_never_twice() -> None:
    names = [path.name for path in (ROOT / "sql" / "functions").glob("*.sql")]
    assert [name for name in names if not re.fullmatch(r"\d{4}_[a-z_]+\.sql", name)] == []
    numbers = [name[:4] for name in names]
    assert len(numbers) == len(set(numbers))


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_every_script_has_help(script: Path) -> None:
    done = subprocess.run(
        [sys.executable, str(script), "--help"], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert "usage:" in done.stdout.lower()
    assert os.access(script, os.X_OK), "a script can be executed"


def test_every_sql_file_says_which_rule_it_is() -> None:
    silent = []
    for path in (ROOT / "sql" / "functions").glob("*.sql"):
        header = " ".join(path.read_text(encoding="utf-8").splitlines()[:4])
        if not re.search(r"\(contract|\bOurs\b|contract section", header):
            silent.append(path.name)
    assert silent == []


def test_what_tests_are_called_is_the_same_in_every_process() -> None:
    """Workers of pytest-xdist that find other parameters, by the second or at random, run nothing."""
    found = []
    for path in (ROOT / "tests").rglob("test_*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            for decorator in getattr(node, "decorator_list", []):
                for call in (each for each in ast.walk(decorator) if isinstance(each, ast.Call)):
                    name = ast.unparse(call.func)
                    varies = name == "gzip.compress" and not any(k.arg == "mtime" for k in call.keywords)
                    if varies or re.fullmatch(
                        r"(time|secrets)\.\w+|uuid\.uuid\d|random\.[a-z]\w+|os\.getpid|\w+\.now", name
                    ):
                        found.append(f"{path.name}:{call.lineno} {name}")
    assert found == []
