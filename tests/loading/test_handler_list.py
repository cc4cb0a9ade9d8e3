"""The list of functions that flow files may name: what is not on it is neither imported nor looked for."""

from __future__ import annotations

import importlib.abc
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import data_handlers
import pytest

from pgflow_mp.errors import ConfigError, FlowDefinitionError, FlowNotFound
from pgflow_mp.loading.handler_list import HandlerList


class _Finder(importlib.abc.MetaPathFinder):
    """Notes every module that is looked for."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> None:
        self.asked.append(name)


@pytest.fixture
def asked() -> Iterator[list[str]]:
    finder = _Finder()
    sys.meta_path.insert(0, finder)
    yield finder.asked
    sys.meta_path.remove(finder)


def load(path: object, *entries: str) -> Any:
    return HandlerList.of(entries).load(path, "Handler")


@pytest.mark.parametrize("entry", ["data_handlers", "data_handlers:length", "data_handlers.*"])
def test_a_function_is_found_by_each_form_of_entry(entry: str) -> None:
    assert load("data_handlers:length", entry) is data_handlers.length


@pytest.mark.parametrize(
    "path",
    [
        "os:system",
        "data_handlers_too:length",
        "data_handlers.below:length",
        "Data_handlers:length",
        "never_seen.module:f",
        "pgflow_mp.cli.main:main",
    ],
)
def test_what_is_not_listed_is_refused_before_anything_is_looked_for(path: str, asked: list[str]) -> None:
    with pytest.raises(FlowDefinitionError, match="not on the list of handlers") as caught:
        load(path, "data_handlers", "data_handlers:length", "package.*")
    assert "It has data_handlers, data_handlers:length, package.*." in caught.value.hint
    assert asked == []
    with pytest.raises(FlowDefinitionError, match="not on the list"):
        load(path)
    assert asked == []


@pytest.mark.parametrize(
    "path",
    [
        *("", ":", "os", "os:", ":system", "os:system:x", "os.system", "../os:system", "/etc/passwd:x"),
        *("data_handlers:os.system", "data_handlers/../os:system", "data_handlers:length\n", " os:system"),
        *(
            "data_handlers..os:system",
            "a" * 600 + ":f",
            "os\0:system",
            "\uff4f\uff53:system",
            "data_handlers:*",
        ),
        *(None, 3, ["os:system"], {"os": "system"}, True),
    ],
)
def test_what_is_no_import_path_is_refused(path: object, asked: list[str]) -> None:
    with pytest.raises(FlowDefinitionError, match=r"is not an import path|must be an import path"):
        load(path, "data_handlers", "os.*")
    assert asked == []


@pytest.mark.parametrize("module", ["__main__", "__mp_main__"])
def test_the_script_that_runs_has_no_import_path(module: str) -> None:
    with pytest.raises(FlowDefinitionError, match="another module in each process"):
        load(f"{module}:f", module)


def test_a_listed_module_stands_for_what_it_defines() -> None:
    """Not for what it has imported, which may be os.system."""
    with pytest.raises(FlowDefinitionError, match="has from posix") as caught:
        load("data_handlers:system", "data_handlers")
    assert caught.value.hint.endswith("name it: data_handlers:system.")
    assert load("data_handlers:system", "data_handlers:system") is os.system
    assert load("data_handlers:system", "data_handlers", "posix") is os.system
    with pytest.raises(FlowDefinitionError, match="begins with an underscore"):
        load("data_handlers:_hidden", "data_handlers")
    assert load("data_handlers:_hidden", "data_handlers:_hidden") is data_handlers._hidden
    with pytest.raises(FlowDefinitionError, match="has from functools"):
        load("data_handlers:partial", "data_handlers.*")
    assert load("data_handlers:partial", "data_handlers:partial") is data_handlers.partial


def test_what_is_not_there_is_said_with_what_may_be_meant() -> None:
    with pytest.raises(FlowNotFound, match='has no "lenght"') as caught:
        load("data_handlers:lenght", "data_handlers")
    assert caught.value.hint == "Did you mean length?"
    with pytest.raises(FlowDefinitionError, match="which is not a function"):
        load("data_handlers:no_function", "data_handlers")
    with pytest.raises(FlowNotFound, match=r'There is no module "data_handlers\.below"'):
        load("data_handlers.below:f", "data_handlers.*")


def test_a_module_that_fails_is_said_as_of_any_target(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "fails_at_once.py").write_text("1 / 0\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(FlowNotFound, match="ZeroDivisionError"):
        load("fails_at_once:f", "fails_at_once")


def test_a_module_that_makes_names_up_is_not_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "makes_up.py").write_text("def __getattr__(name):\n    raise SystemExit(7)\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(FlowNotFound, match='has no "f"'):
        load("makes_up:f", "makes_up:f")


@pytest.mark.parametrize("entry", ["*", "", "a b", "a.", ".a", "a:*", "a.*.b", "a*", "a:b:c", "a-b", "../a"])
def test_what_cannot_be_on_the_list(entry: str) -> None:
    with pytest.raises(ConfigError, match="cannot be on the list of handlers"):
        HandlerList.of([entry])


def test_a_text_holds_several_entries() -> None:
    assert HandlerList.of(" a, b:c ,d.*,a,").entries == ("a", "b:c", "d.*")
    assert HandlerList.of(None).entries == HandlerList.of("").entries == ()
