"""Pages as a reader gets them: what stands in them, that they are well-formed, where links lead."""

from __future__ import annotations

import json
import re

import psycopg
import pytest
import web_flows
from cli_harness import Cli
from database_roles import role_with
from web_flows import ATTACK, Shown
from web_harness import Outline, Served, serve

from pgflow_mp import run

NOBODY = "00000000-0000-4000-8000-000000000000"


def paths(shown: Shown) -> list[str]:
    """Every kind of page."""
    run, failed = f"/runs/{shown.completed}", f"/runs/{shown.failed}"
    return [
        "/",
        "/runs",
        "/runs?state=failed&flow=broken",
        "/runs?since=2020-01-01T00:00&until=2020-02-01T00:00",
        *[f"/runs/{each}" for each in shown[1:]],
        f"{run}/steps/measure",
        f"{run}/steps/measure?status=failed",
        f"{run}/steps/measure/2",
        f"{run}/steps/total/0",
        f"{failed}/steps/after",
        f"{run}/failures/measure",
        f"{run}/failures/measure?error=bad",
        "/workers",
        "/workers?all=1",
        "/flows",
        "/flows/shown",
        "/flows/lonely",
        "/schedules",
    ]


def test_every_page_is_well_formed_and_its_links_lead_to_pages(page: Served, shown: Shown) -> None:
    todo, seen = paths(shown), dict[str, str]()
    while todo:
        path = todo.pop(0)
        if path in seen or path.startswith(("/assets", "/live", "#")) or len(seen) > 45:
            continue
        answer = page.ask(path)
        assert answer.status == 200, (path, answer.words)
        seen[path] = answer.text
        if path.endswith(".jsonl"):
            continue
        outline = Outline(answer.text)
        assert outline.wrong == [], path
        todo += [link for link in outline.links() if link.startswith("/")]
        ids = [given["id"] for _, given in outline.elements if "id" in given]
        assert len(ids) == len(set(ids)), path
        assert sum(tag == "h1" for tag, _ in outline.elements) == 1, path
    assert len(seen) > 40


def test_nothing_of_a_page_comes_from_elsewhere_or_runs_in_it(page: Served, shown: Shown) -> None:
    for path in paths(shown):
        for tag, given in Outline(page.ask(path).text).elements:
            assert not [name for name in given if name.startswith("on") or name == "style"], (
                path,
                tag,
                given,
            )
            for name in ("src", "href", "action"):
                assert (given.get(name) or "/").startswith(("/", "#")), (path, tag, given)
            if tag == "script":
                assert given.get("src", "").startswith("/assets/"), path  # type: ignore[union-attr]


def test_texts_of_others_are_shown_and_do_nothing(page: Served, shown: Shown) -> None:
    run = f"/runs/{shown.completed}"
    for path in (run, f"{run}/failures/measure", f"{run}/steps/measure", f"{run}/steps/measure/1", "/runs"):
        answer = page.ask(path)
        tags = {tag for tag, _ in Outline(answer.text).elements}
        assert not tags & {"iframe", "object", "embed"}
        assert 'onerror="' not in answer.text
        assert "<script>document" not in answer.text
        assert "\u202e" not in answer.text
    assert ATTACK in page.ask(f"{run}/steps/measure/2").words
    assert ATTACK in json.loads(
        page.ask(f"{run}/steps/measure/1").words.partition("Input ")[2].split(" Output")[0]
    )


def test_the_overview_says_in_words_what_nobody_works_on(page: Served) -> None:
    words = page.ask("/").words
    assert "1 run queued, no worker serves encode of lonely" in words
    assert re.search(r"Queued 1 run ", words)
    assert re.search(r"Waiting for a retry 1 item, next in 1:\d\d:\d\d", words), words
    assert "Failed 1 run of the last day" in words


def test_sums_of_the_run_s_page_are_those_of_the_database(page: Served, shown: Shown) -> None:
    words = page.ask(f"/runs/{shown.completed}").words
    with psycopg.connect(shown.dsn) as conn:
        rows = conn.execute(
            "select step_slug, count(*), count(*) filter (where status = 'failed'), sum(attempts)"
            " from pgflow.items where run_id = %s group by step_slug",
            (shown.completed,),
        ).fetchall()
    items, failed, attempts = (sum(row[n] for row in rows) for n in (1, 2, 3))
    assert f"{items} of {items} items done, {failed} failed (tolerated)" in words
    assert f"Attempts {attempts}" in words
    for step, count, wrong, tried in rows:
        numbers = f"{count} {wrong} {tried}" if wrong else f"{count} {tried}"
        stated = rf"{step} (map )?(completed|completed with failures) {numbers} "
        assert re.search(stated, words), (stated, words)


def test_failures_lead_down_to_the_item_its_traceback_and_the_command_to_replay_it(
    page: Served, shown: Shown
) -> None:
    run = page.ask(f"/runs/{shown.completed}")
    assert "13 items in 2 groups of alike errors" in run.words
    group = next(link for link in Outline(run.text).links() if "error=" in link and "bad" in link)
    items = page.ask(group.replace("&amp;", "&"))
    found = [link for link in Outline(items.text).links() if re.search(r"/steps/measure/\d+$", link)]
    assert len(found) == 12
    item = page.ask(found[0]).words
    assert "Traceback (most recent call last)" in item
    assert f"python -m pgflow_mp replay {shown.completed} measure 3 FLOW" in item
    assert "Attempts 1" in item


def test_lists_go_on_by_pages_and_every_item_is_in_one(page: Served, shown: Shown) -> None:
    path: str | None = f"/runs/{shown.completed}/steps/measure"
    found: list[int] = []
    while path:
        outline = Outline(page.ask(path).text)
        found += [int(n) for link in outline.links() for n in re.findall(r"/steps/measure/(\d+)$", link)]
        path = next(
            (given["href"] for tag, given in outline.elements if tag == "a" and given.get("rel") == "next"),
            None,
        )
    assert found == list(range(135))


def test_filters_choose_runs(page: Served, shown: Shown) -> None:
    def runs(query: str) -> set[str]:
        links = Outline(page.ask(f"/runs?{query}").text).links()
        return {link.rpartition("/")[2] for link in links if re.fullmatch(r"/runs/[0-9a-f-]{36}", link)}

    assert runs("") == set(shown[1:])
    assert runs("flow=broken") == {shown.failed}
    assert runs("state=waiting") == {shown.waiting}
    assert runs("state=queued") == {shown.queued}
    assert runs("state=completed_with_failures") == {shown.completed}
    assert runs("key=%22%3E%3Csvg+onload%3Ddocument.title%3D%60attacked%60%3E") == {shown.completed}
    assert runs("tag=nix") == runs("until=2020-01-01T00:00") == set()


def test_a_step_is_downloaded_as_lines_of_json(page: Served, shown: Shown) -> None:
    answer = page.ask(f"/runs/{shown.completed}/steps/measure/items.jsonl")
    lines = [json.loads(line) for line in answer.text.splitlines()]
    assert (
        answer.headers["content-disposition"] == f'attachment; filename="measure-{shown.completed[:8]}.jsonl"'
    )
    assert [line["index"] for line in lines] == list(range(135))
    assert (lines[1]["input"], lines[1]["output"]["text"]) == (ATTACK, ATTACK)
    assert lines[2]["status"] == "failed"
    assert ATTACK in lines[2]["error"]


@pytest.mark.parametrize(
    ("path", "status", "words"),
    [
        ("/nix", 404, "There is no such page"),
        (f"/runs/{NOBODY}", 404, f"There is no run {NOBODY}"),
        ("/runs/1", 404, "no such page"),
        ("/flows/nix", 404, 'There is no flow "nix"'),
        (f"/workers/{NOBODY}", 404, "There is no worker"),
        ("/runs?state=odd", 400, "state is 'odd'"),
        ("/runs?since=yesterday", 400, "not a time like"),
        ("/runs?flow=%00", 400, "not text"),
        ("/runs?flow=%ff", 400, "cannot be read"),
        ("/runs?after=2026-01-01", 400, "lacks a part"),
        ("/runs?tag=" + "x" * 600, 400, "too long"),
    ],
)
def test_wrong_addresses_are_told_what_is_wrong(page: Served, path: str, status: int, words: str) -> None:
    answer = page.ask(path)
    assert answer.status == status
    assert words in answer.words
    assert "Traceback" not in answer.text
    assert Outline(answer.text).wrong == []


def test_a_page_of_a_run_or_step_that_is_not_there_is_not_found(page: Served, shown: Shown) -> None:
    run = f"/runs/{shown.completed}"
    for path in (
        f"{run}/steps/nix",
        f"{run}/steps/measure/999",
        f"{run}/failures/nix",
        f"{run}/steps/nix/items.jsonl",
    ):
        assert page.ask(path).status in (400, 404), path


def test_roles_see_what_they_may(shown: Shown, tmp_path_factory: pytest.TempPathFactory) -> None:
    with role_with(shown.dsn, "starter") as dsn, psycopg.connect(shown.dsn, autocommit=True) as conn:
        cli = Cli(tmp_path_factory.mktemp("role"), dsn)
        role = re.search(r"role_\w+", dsn)
        assert role
        try:
            served = serve(cli)
            for path in paths(shown):
                assert served.ask(path).status == 200, path
            conn.execute("select pgflow.grant_access(%s, 'starter', array['broken'])", (role[0],))
            assert "shown" not in served.ask("/flows").words
            assert served.ask(f"/runs/{shown.completed}").status == 404
            assert served.ask(f"/runs/{shown.completed}/steps/measure/items.jsonl").status == 404
            assert served.ask(f"/runs/{shown.failed}").status == 200
            assert set(re.findall(r"/runs/([0-9a-f-]{36})", served.ask("/runs").text)) == {shown.failed}
        finally:
            cli.kill_all()


def test_what_a_worker_told_is_drawn(page: Served, shown: Shown) -> None:
    wanted = "0000000b-0000-4000-8000-000000000000"
    run(web_flows.shown, ["one", *map(str, range(20))], dsn=shown.dsn, run_id=wanted, workers=1)
    answer = page.ask(f"/runs/{wanted}")
    assert "Lanes over time 1 lane, in use for" in answer.words
    assert re.search(r"measure 21 \S+ \S+s \S+ \S+s", answer.words), answer.words
    assert "Slowest items Took measure #" in answer.words or "Slowest items Took total" in answer.words
    log = answer.words.partition("Log the latest first")[2]
    assert re.search(r"the run completed .* step measure (completed|started)", log), log
    assert Outline(answer.text).wrong == []
    workers = Outline(page.ask("/workers?all=1").text).links()
    found = [link for link in workers if re.fullmatch("/workers/[0-9a-f-]{36}", link)]
    assert any("Executor lanes" in page.ask(link).words for link in found)


def test_prometheus_and_whoever_restarts_are_answered(page: Served) -> None:
    answer = page.ask("/metrics")
    assert (answer.status, "pgflow_database_up 1" in answer.text) == (200, True)
    assert page.ask("/healthz").text == "ok\n"


def test_assets_are_kept_and_change_their_names_when_they_change(page: Served) -> None:
    outline = Outline(page.ask("/").text)
    assets = [
        value
        for _, given in outline.elements
        for value in given.values()
        if (value or "").startswith("/assets/")
    ]
    assert len({value.rpartition("/")[2] for value in assets if value}) == 3
    for path in assets:
        answer = page.ask(path or "")
        assert (answer.status, "immutable" in answer.headers["cache-control"]) == (200, True)
    assert page.ask("/assets/x/base.html").status == page.ask("/assets/x/..%2fguard.py").status == 404
