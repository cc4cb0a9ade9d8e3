"""Who is let in, who is not, and what answers forbid a browser to do."""

from __future__ import annotations

import contextlib
import http.client
import re
import signal
import socket
from pathlib import Path

import psycopg
import pytest
from cli_harness import Cli
from web_flows import Shown
from web_harness import TOKEN, Outline, Served, serve

from pgflow_mp.db.shared_connections import SharedConnections
from pgflow_mp.errors import ConfigError
from pgflow_mp.web.guard import safe_way
from pgflow_mp.web.page_settings import PageSettings
from pgflow_mp.web.tokens import Keys


def status_of(dsn: str, run_id: str) -> str:
    with psycopg.connect(dsn) as conn:
        row = conn.execute("select status from pgflow.runs where run_id = %s", (run_id,)).fetchone()
    return "gone" if row is None else row[0]


@pytest.mark.parametrize(
    "host",
    [
        "evil.example",
        "evil.example:{port}",
        "localhost.evil.example",
        "",
        "127.0.0.1@evil.example",
        "a b",
        "[::1",
    ],
)
def test_a_name_of_somebody_else_in_the_host_header_is_refused(page: Served, host: str) -> None:
    for path in ("/", "/assets/x/page.css", "/healthz", "/live/"):
        answer = page.ask(path, headers={"Host": host.format(port=page.port)})
        assert answer.status in (400, 421), (path, answer.status)
        assert "Overview" not in answer.text


@pytest.mark.parametrize(
    "host", ["localhost:{port}", "LOCALHOST", "127.0.0.1", "[::1]:{port}", "127.0.0.1:1"]
)
def test_names_and_addresses_of_this_machine_are_taken(page: Served, host: str) -> None:
    assert page.ask("/", headers={"Host": host.format(port=page.port)}).status == 200


def test_two_host_headers_and_none_are_refused(page: Served) -> None:
    for lines in ("Host: 127.0.0.1\r\nHost: evil.example\r\n", ""):
        with socket.create_connection(("127.0.0.1", page.port), timeout=5) as conn:
            conn.sendall(f"GET / HTTP/1.1\r\n{lines}Connection: close\r\n\r\n".encode())
            assert re.match(rb"HTTP/1.1 4(00|21)", conn.recv(100))


def test_every_answer_forbids_scripts_frames_and_guesses_of_others(page: Served, shown: Shown) -> None:
    answers = [
        page.ask("/"),
        page.ask("/nix"),
        page.ask("/assets/x/page.js"),
        page.ask("/", "DELETE"),
        page.ask("/", headers={"Host": "evil.example"}),
        page.ask(f"/runs/{shown.completed}/steps/total/items.jsonl"),
    ]
    for answer in answers:
        policy = answer.headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "script-src 'self'" in policy
        assert "frame-ancestors 'none'" in policy
        assert "unsafe" not in policy
        assert "*" not in policy
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["x-frame-options"] == "DENY"
        assert answer.headers["referrer-policy"] == "same-origin"
        assert "access-control-allow-origin" not in answer.headers
        assert "server" not in answer.headers
    assert answers[0].headers["cache-control"] == "no-store"


@pytest.mark.parametrize(
    "path",
    [
        "/assets/../guard.py",
        "/assets/x/..%2f..%2fguard.py",
        "/assets/x/%2e%2e/%2e%2e/__init__.py",
        "/../../etc/passwd",
        "/%2e%2e/%2e%2e/etc/passwd",
        "//evil.example/",
        "/runs/%00",
        "/runs//",
        "/flows/<script>",
        "/flows/..%2f..",
        "/runs/00000000-0000-4000-8000-000000000000%0d%0aSet-Cookie:a=b",
        "/live/nix",
        "/live",
        "/live//evil.example",
        "/" + "a" * 3000,
    ],
)
def test_paths_lead_nowhere_but_to_pages(page: Served, path: str) -> None:
    answer = page.ask(path)
    assert answer.status in (400, 404), (path, answer.status, answer.words[:200])
    assert "root:" not in answer.text
    assert "import " not in answer.text
    assert "set-cookie" not in answer.headers


def test_a_read_only_page_changes_nothing(page: Served, shown: Shown) -> None:
    assert "<button name" not in page.ask(f"/runs/{shown.queued}").text
    for action in ("cancel", "delete", "retry", "pause"):
        answer = page.ask(f"/runs/{shown.queued}", "POST", form={"action": action, "sure": "1", "mark": ""})
        assert (answer.status, "read-only" in answer.words) == (403, True)
    assert status_of(shown.dsn, shown.queued) == "started"


@pytest.mark.parametrize("method", ["PUT", "DELETE", "OPTIONS", "TRACE", "PATCH"])
def test_other_methods_are_refused(page: Served, method: str) -> None:
    assert page.ask("/", method).status == 405


def test_huge_requests_are_refused(acting: Served, page: Served) -> None:
    assert page.ask("/runs?flow=" + "a" * 5000).status == 414
    assert acting.ask("/runs", "POST", form={"mark": "x" * 300_000}).status == 413
    with contextlib.suppress(http.client.HTTPException, OSError):  # cut off, or answered with 400
        assert page.ask("/", headers={"X-Long": "x" * 100_000}).status in (400, 431)


# -- tokens ------------------------------------------------------------------------------------------------


def test_strangers_are_asked_for_the_token(acting: Served, shown: Shown) -> None:
    stranger = Served(acting.process, acting.url, acting.port, acting.said)
    for path in (
        "/",
        f"/runs/{shown.completed}",
        "/live/",
        f"/runs/{shown.completed}/steps/total/items.jsonl",
    ):
        answer = stranger.ask(path)
        assert answer.status == 303
        assert answer.headers["location"].startswith("/enter?then=%2F")
        assert stranger.ask(path, headers={"Accept": "*/*"}).status == 401
    entrance = stranger.ask("/enter?then=%2Fruns")
    assert "Token" in entrance.words
    assert Outline(entrance.text).wrong == []
    form = {"token": TOKEN[:-1], "then": "/runs"}
    assert stranger.ask("/enter", "POST", form=form).status == 403
    assert stranger.cookies == {}
    answer = stranger.ask("/enter", "POST", form={"token": TOKEN, "then": "/runs"})
    assert (answer.status, answer.headers["location"]) == (303, "/runs")
    cookie = answer.headers["set-cookie"].lower()
    assert all(word in cookie for word in ("httponly", "samesite=strict", "path=/"))
    assert TOKEN not in cookie
    assert stranger.ask("/runs").status == 200


def test_the_link_with_the_token_leads_in_and_leaves_no_trace(acting: Served) -> None:
    visitor = Served(acting.process, acting.url, acting.port, acting.said)
    assert visitor.ask("/enter?token=wrong-wrong-wrong-wrong").status == 403
    answer = visitor.ask(f"/enter?token={TOKEN}")
    assert (answer.status, answer.headers["location"]) == (303, "/")
    assert TOKEN not in visitor.follow(answer).text


def test_a_cookie_that_was_made_up_is_none(acting: Served) -> None:
    name, value = next(iter(acting.cookies.items()))
    nonce, _, signature = value.partition(".")
    for made_up in (
        "",
        ".",
        f"{nonce}.",
        f"{nonce[::-1]}.{signature}",
        f"{nonce}.{signature[::-1]}",
        "é" * 40,
    ):
        headers = {"Cookie": f"{name}={made_up}".encode().decode("latin-1"), "Accept": "*/*"}
        assert acting.ask("/", headers=headers).status == 401, made_up


def test_programs_show_the_token_itself(acting: Served, shown: Shown) -> None:
    program = Served(acting.process, acting.url, acting.port, acting.said)
    plain = {"Accept": "*/*", "Sec-Fetch-Site": None}
    assert program.ask("/", headers={**plain, "Authorization": f"Bearer {TOKEN}"}).status == 200
    assert program.ask("/", headers={**plain, "Authorization": f"Bearer {TOKEN}x"}).status == 401
    assert program.ask("/", headers={**plain, "Authorization": f"Basic {TOKEN}"}).status == 401


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "http://evil.example"},
        {"Origin": "null"},
        {"Origin": None, "Sec-Fetch-Site": None},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
        {"Origin": "http://127.0.0.1:1"},
        {"Content-Type": "text/plain"},
        {"Content-Type": "application/json"},
        {"Content-Type": "multipart/form-data; boundary=x"},
    ],
    ids=str,
)
def test_forms_of_other_sites_do_nothing(
    acting: Served, shown: Shown, headers: dict[str, str | None]
) -> None:
    mark = re.search(r'name="mark" value="([0-9a-f]+)"', acting.ask("/runs").text)
    assert mark
    form = {"mark": mark[1], "action": "cancel", "sure": "1"}
    answer = acting.ask(f"/runs/{shown.queued}", "POST", form=form, headers=headers)
    assert answer.status in (403, 415)
    assert status_of(shown.dsn, shown.queued) == "started"


def test_forms_without_the_mark_of_this_browser_do_nothing(acting: Served, shown: Shown) -> None:
    other = Served(acting.process, acting.url, acting.port, acting.said)
    other.enter()
    theirs = re.search(r'name="mark" value="([0-9a-f]+)"', other.ask("/runs").text)
    assert theirs
    for mark in ("", "0" * 64, theirs[1]):
        form = {"mark": mark, "action": "cancel", "sure": "1"}
        assert acting.ask(f"/runs/{shown.queued}", "POST", form=form).status == 403
    answer = acting.ask(f"/runs/{shown.queued}?action=cancel&sure=1&mark={theirs[1]}")
    assert answer.status == 200
    assert status_of(shown.dsn, shown.queued) == "started"


def test_after_the_entrance_nobody_is_sent_elsewhere() -> None:
    for then in (
        "//evil.example",
        "https://evil.example/",
        "/\\evil.example",
        "\\\\evil",
        "javascript:1",
        "",
        "/a\nb",
    ):
        assert safe_way(then) == "/"
    assert safe_way("/runs?flow=a&b=%2F%2F") == "/runs?flow=a&b=%2F%2F"


def test_marks_fit_one_token_and_one_session() -> None:
    one, other = Keys("a" * 20), Keys("b" * 20)
    session = one.new_session()
    assert one.is_session(session)
    assert not other.is_session(session)
    assert one.is_form_mark(one.form_mark(session), session)
    assert not one.is_form_mark(one.form_mark(session), one.new_session())
    assert not one.is_session(one.form_mark(session))


def test_a_name_that_was_allowed_is_taken(cli: Cli) -> None:
    served = serve(cli, "--allowed-host", "runs.example.org", "--allowed-host", "other.example.org")
    for name, status in (("runs.example.org", 200), ("OTHER.example.org:443", 200), ("example.org", 421)):
        assert served.ask("/", headers={"Host": name}).status == status
    with psycopg.connect(cli.dsn or "", autocommit=True) as conn:
        query = "select pg_terminate_backend(pid) from pg_stat_activity where pid <> pg_backend_pid()"
        conn.execute(f"{query} and datname = current_database()".encode())
    assert served.ask("/").status == 200, "a lost connection is opened again"


def test_connections_that_read_cannot_write(dsn: str) -> None:
    shared = SharedConnections(dsn, most=1)
    shared.open()
    try:
        with shared.lent() as conn, pytest.raises(psycopg.errors.ReadOnlySqlTransaction):
            conn.execute("delete from pgflow.runs")
    finally:
        shared.close()


# -- how it is started -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "complaint"),
    [
        ({"host": "0.0.0.0"}, "lets others in"),
        ({"host": "::"}, "lets others in"),
        ({"host": "example.org"}, "lets others in"),
        ({"token": "short"}, "can be guessed"),
        ({"token": "with a space in it all"}, "without spaces"),
        ({"token": "ümlaut-ümlaut-ümlaut"}, "ASCII"),
        ({"allowed_hosts": ("http://runs.example.org",)}, "not the name of a host"),
        ({"allowed_hosts": ("runs.example.org:80",)}, "not the name of a host"),
        ({"without_token": True, "token": "a" * 20}, "cannot be used together"),
        ({"without_token": True, "allow_actions": True}, "cannot be used together"),
    ],
)
def test_what_is_not_safe_is_refused(given: dict[str, object], complaint: str) -> None:
    with pytest.raises(ConfigError, match=complaint):
        PageSettings(**given).checked()  # type: ignore[arg-type]


def test_actions_and_auto_get_a_token_of_their_own() -> None:
    for settings in (PageSettings(allow_actions=True), PageSettings(host="0.0.0.0", token="auto")):
        tokens = {settings.checked().token for _ in range(2)}
        assert len(tokens) == 2
        assert all(len(token or "") >= 32 for token in tokens)
    assert PageSettings().checked().token is None
    assert PageSettings(host="0.0.0.0", without_token=True).checked().token is None


def test_a_port_that_is_taken_is_told_and_the_database_is_not_asked(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        done = Cli(tmp_path, "postgresql://nobody@127.0.0.1:1/x")(
            "serve", "--port", str(taken.getsockname()[1])
        )
    assert done.code == 2
    assert "cannot listen at 127.0.0.1 port" in " ".join(done.err.split())
    assert "--port 0" in done.err


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 0), (signal.SIGINT, 130)])
def test_a_signal_ends_it_while_somebody_looks_on(cli: Cli, number: int, code: int) -> None:
    served = serve(cli, "--token", "auto")
    assert TOKEN not in served.said
    served.enter()
    cookie = "; ".join(f"{name}={value}" for name, value in served.cookies.items())
    with socket.create_connection(("127.0.0.1", served.port), timeout=10) as conn:
        lines = f"GET /live/ HTTP/1.1\r\nHost: 127.0.0.1\r\nCookie: {cookie}\r\n\r\n"
        conn.sendall(lines.encode())
        assert b"200 OK" in conn.recv(200)
        done = served.stop(number)
    assert done.code == code, done.err
    assert "Traceback" not in done.err
