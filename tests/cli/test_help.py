"""``--help``: examples and the options that matter, on one screen; what is said there is true."""

from __future__ import annotations

import os
import shlex

import pytest

from pgflow_mp.cli import main as cli_main
from pgflow_mp.cli.brief import BRIEFS, GROUPS
from pgflow_mp.cli.main import VERBS, main
from pgflow_mp.cli.parser import Parser


@pytest.fixture(autouse=True)
def _clean(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.startswith("PGFLOW_"):
            monkeypatch.delenv(name)


def parser_of(verb: str) -> Parser:
    return cli_main._parser(verb, cli_main._module(verb))


@pytest.mark.parametrize("verb", [*VERBS, ""])
def test_help_is_one_screen(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([verb, "--help"] if verb else ["--help"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) <= 24
    assert max(map(len, lines)) <= 79
    assert any(line.startswith("  python -m pgflow_mp ") for line in lines), "examples"
    assert any("--help-all" in line for line in lines)


@pytest.mark.parametrize("verb", VERBS)
def test_what_help_shows_can_be_typed(verb: str) -> None:
    brief = BRIEFS[verb]
    parser = parser_of(verb)
    known = {flag for action in parser._actions for flag in action.option_strings}
    assert [flag for flag in brief.options if flag not in known] == []
    assert len(brief.options) <= 11
    for example in brief.examples:
        words = shlex.split(example.partition(" > ")[0])
        used, rest = cli_main._split(words)
        assert used == verb
        parser_of(verb).parse(rest, env={})


def test_every_command_is_in_one_group_and_the_overview_names_all(capsys: pytest.CaptureFixture[str]) -> None:
    members = [verb for _, verbs in GROUPS for verb in verbs]
    assert len(members) == len(set(members))
    main(["--help"])
    text = capsys.readouterr().out.replace(",", " ").split()
    assert [verb for verb in VERBS if verb not in text] == []


def test_help_lists_the_commands_and_tells_of_one(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["help"]) == 0
    text = " ".join(capsys.readouterr().out.split())
    for name, verb in VERBS.items():
        assert f"{name} {verb.help}" in text
    assert main(["help", "prune"]) == 0
    told = capsys.readouterr().out
    assert main(["prune", "--help"]) == 0
    assert capsys.readouterr().out == told


def test_the_worker_has_a_page_of_its_own(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["work", "--help"]) == 0
    assert "--max-memory-per-worker" in capsys.readouterr().out
