"""``limits``: shown and set from the command line."""

from __future__ import annotations

from pathlib import Path

from cli_harness import FLOWS, Cli, assert_one_screen


def test_limits_are_set_kept_shown_and_reset(cli: Cli) -> None:
    assert cli("limits").out == "No limits.\n"
    cli("start", f"{FLOWS}:slow", "--input", "[0]")
    assert cli("limits", "slow").out == "No limits.\n"
    done = cli("limits", "slow", "--at-once", "8")
    assert (done.code, done.err) == (0, "")
    assert [line.split() for line in done.out.splitlines()] == [
        ["flow", "step", "at", "once", "held", "rate", "burst", "said", "by"],
        ["slow", "-", "8", "0", "-", "-", "limits", "(code:", "none)"],
    ]
    step = cli("limits", "slow", "--rate", "30/min", "--burst", "2", "--json").json
    assert step == [
        {
            "flow": "slow", "step": None, "at_once": 8, "rate": 0.5, "burst": 2, "held": 0, "is_set": True,
            "code": {"at_once": None, "rate": None, "burst": None},
        }
    ]  # fmt: skip
    assert "30/min" in cli("limits").out
    again = cli("limits", "slow", "--at-once", "none", "--rate", "100", "--json").json
    assert (again[0]["at_once"], again[0]["rate"], again[0]["burst"]) == (None, 100.0, 10)
    assert cli("limits", "slow", "--reset").out == "No limits.\n"


def test_what_cannot_be_a_limit_is_one_screen(cli: Cli, tmp_path: Path) -> None:
    cli("start", f"{FLOWS}:slow", "--input", "[0]")
    for arguments, says in (
        (("nope",), 'There is no flow "nope"'),
        (("nope", "--at-once", "1"), 'There is no flow "nope"'),
        (("slow", "nope", "--at-once", "1"), 'Step "nope" does not exist in flow "slow"'),
        (("--at-once", "1"), "Limits of which flow?"),
        (("slow", "--at-once", "0"), "'0' is not a whole number of at least 1"),
        (("slow", "--rate", "fast"), "'fast' is not a rate like 100/s, 30/min or 1000/h"),
        (("slow", "--burst", "3"), "there is no rate"),
        (("slow", "--reset", "--at-once", "1"), "--reset and --at-once cannot be used together"),
    ):
        assert_one_screen(cli("limits", *arguments), 2, says)
    assert_one_screen(Cli(tmp_path)("limits", "slow"), 2, "nothing was ever started here")
    assert Cli(tmp_path)("limits", "--json").json == []
