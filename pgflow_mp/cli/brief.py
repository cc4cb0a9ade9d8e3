"""What ``--help`` says of each command: examples, and the options that matter."""

from __future__ import annotations

from typing import Final, NamedTuple


class Brief(NamedTuple):
    """Of a command: what one types (without the program), and what its main options are, at most ten."""

    examples: tuple[str, ...]
    options: dict[str, str]


GROUPS: Final = (
    ("run", ("run", "start", "work", "schedule", "replay")),
    ("look", ("status", "runs", "results", "failures", "logs", "workers", "flows", "top", "stacks")),
    ("show", ("serve", "report")),
    ("steer", ("cancel", "retry", "pause", "resume", "limits", "drain", "delete", "prune")),
    ("database", ("install", "migrate", "compile", "db", "doctor")),
)
"""Commands by what they are for; all others are told of last."""

_WHERE: Final = {"--dsn": "the PostgreSQL server, instead of the embedded one"}
_JSON: Final = {"--json": "print JSON"}
_ITEMS: Final = {
    "--input": "items: a file, folder, pattern, URL, JSON text, or -",
    "--key": "start it once under this name, and find it again",
    "--priority": "runs of the highest priority go first (0)",
}

BRIEFS: Final[dict[str, Brief]] = {
    "run": Brief(
        (
            "run flows.py --input items.jsonl --workers 8",
            "run flows.py --input 'data/*.csv' --output results.jsonl",
            "run flow.yaml --handlers app.steps --input '[1, 2]'",
            "run flows.py --resume RUN_ID",
        ),
        {name: _ITEMS[name] for name in ("--input", "--key")}
        | {
            "--output": "write the output there: .json, .jsonl, .csv or .parquet",
            "--results": "write the results of a step there, STEP=FILE",
            "--workers": "processes that run your code (one for each CPU)",
            "--timeout": "stop after so many seconds, in order",
            "--resume": "go on with a run",
            "--only": "work on nothing else (else: on this run first)",
        }
        | _JSON
        | _WHERE,
    ),
    "start": Brief(
        (
            "start flows.py --input items.jsonl --wait",
            "start my_flow --input '[1, 2]' --key nightly --after 2h",
        ),
        _ITEMS
        | {
            "--set": "NAME=VALUE, for steps that read the run's input",
            "--after": "begin with it then: 10m, 2026-11-27T03:00",
            "--wait": "until the run has ended; the exit status tells how",
            "--timeout": "wait so many seconds at most",
        }
        | _JSON
        | _WHERE,
    ),
    "work": Brief(
        (
            "work flows.py --workers 16",
            "work app.flows --max-memory-per-worker 2GB",
            "work flow.yaml --handlers app.steps,app.tools.*",
        ),
        {
            "--workers": "processes that run your code (one for each CPU)",
            "--grace": "when stopped, how long running items may go on (30)",
            "--threads": "threads of numeric libraries in a process (1)",
            "--preload": "import once what all processes then share",
            "--executor": "what runs your code: lanes, threads, inline",
            "--keep": "remove runs that ended longer ago, 30d",
            "--compile": "flows that differ: check, extend, skip, recreate",
            "--progress": "live, plain or off",
        }
        | _WHERE,
    ),
    "status": Brief(
        ("status --watch", "status RUN_ID --errors", "status --group flow"),
        {
            "--watch": "until what is shown has ended",
            "--group": "count runs by flow or status",
            "--flow": "only runs of this flow",
            "--limit": "how many runs, or failures of one run (20)",
            "--errors": "with the tracebacks of what failed",
        }
        | _JSON
        | _WHERE,
    ),
    "failures": Brief(
        ("failures RUN_ID", "failures RUN_ID STEP --json"),
        {
            "--error": "only those whose error contains this text",
            "--limit": "how many groups",
            "--all": "every item, a line each",
            "--with-input": "with whole inputs",
        }
        | _JSON
        | _WHERE,
    ),
    "top": Brief(
        ("top", "top --once", "top host-3 --interval 5"),
        {"--once": "print it once", "--interval": "seconds between two looks (2)"} | _JSON | _WHERE,
    ),
    "stacks": Brief(
        ("stacks", "stacks host-3:4711 --with-threads"),
        {
            "--answer-within": "how long workers have, seconds (5)",
            "--with-threads": "threads of the worker's own process, too",
        }
        | _JSON
        | _WHERE,
    ),
    "report": Brief(
        ("report RUN_ID --output report.html", "report RUN_ID > report.html"),
        {"--output": "the HTML file, which is replaced once it is whole"} | _WHERE,
    ),
    "results": Brief(
        (
            "results RUN_ID --output out.jsonl",
            "results RUN_ID STEP --failed --output failed.csv",
            "results RUN_ID STEP --into postgresql://host/db#table",
        ),
        {
            "--output": "write there, as its ending says; - is standard output",
            "--into": "write rows into a table instead",
            "--with-input": "with each item's input",
            "--failed": "only the items that failed, with error and input",
            "--status": "only items that are queued, completed, ...",
            "--fields": "only these members of each output, with commas",
            "--follow": "write items as they end, until the run does",
        }
        | _WHERE,
    ),
    "retry": Brief(
        ("retry RUN_ID", "retry RUN_ID --step fetch --error TimeoutError --dry-run", "retry RUN_ID --work"),
        {
            "--step": "only items of this step",
            "--index": "only items with these indexes: 7, 5-9",
            "--error": "only items whose error contains this text",
            "--failed": "only what a failed run failed of",
            "--dry-run": "only say what would be done",
            "--new-steps": "add steps that its flow has got since",
            "--work": "execute it here to its end",
            "--yes": "do not ask",
        }
        | _JSON
        | _WHERE,
    ),
    "cancel": Brief(("cancel RUN_ID --reason 'wrong input'",), {"--reason": "why"} | _JSON | _WHERE),
    "pause": Brief(
        ("pause RUN_ID --for 10m", "pause my_flow --reason maintenance"),
        {"--for": "how long: 10m, 2h, 1d", "--reason": "why"} | _JSON | _WHERE,
    ),
    "resume": Brief(("resume RUN_ID", "resume my_flow"), _JSON | _WHERE),
    "runs": Brief(
        (
            "runs --flow my_flow --since 1d",
            "runs --status failed,cancelled --tag nightly",
            "runs --status open",
        ),
        {
            "--flow": "only runs of this flow",
            "--status": "open, ended, queued, running, failed, ...",
            "--since": "started then or later: 2h, 3d, 2026-11-26",
            "--until": "started before that",
            "--tag": "only runs with this tag",
            "--limit": "how many (20)",
            "--before": "the next page, behind this run",
        }
        | _JSON
        | _WHERE,
    ),
    "workers": Brief(
        ("workers", "workers --flow my_flow --all"),
        {"--all": "those, too, that stopped or died", "--flow": "only workers of this flow"} | _JSON | _WHERE,
    ),
    "flows": Brief(("flows", "flows --json"), {"--limit": "how many (200)"} | _JSON | _WHERE),
    "logs": Brief(
        ("logs RUN_ID", "logs RUN_ID --follow --json"),
        {
            "--step": "only of this step",
            "--follow": "go on until the run ends",
            "--limit": "how many failed items to show (1000)",
        }
        | _JSON
        | _WHERE,
    ),
    "drain": Brief(
        ("drain my_flow", "drain box7:4711 --wait --timeout 5m"),
        {"--wait": "until they have stopped", "--timeout": "not longer than so"} | _JSON | _WHERE,
    ),
    "delete": Brief(("delete RUN_ID", "delete my_flow --yes"), {"--yes": "do not ask"} | _JSON | _WHERE),
    "limits": Brief(
        (
            "limits",
            "limits my_flow --at-once 8",
            "limits my_flow upload --rate 100/s",
            "limits my_flow --reset",
        ),
        {
            "--at-once": "how many items workers may hold at once, all together",
            "--rate": "how many may be handed to them: 100/s, 30/min",
            "--reset": "what the code of the flow says",
        }
        | _JSON
        | _WHERE,
    ),
    "prune": Brief(
        ("prune --keep 30d", "prune --keep 12h --flow my_flow"),
        {"--keep": "how long runs that have ended stay: 30d, 12h", "--flow": "only runs of this flow"}
        | _JSON
        | _WHERE,
    ),
    "replay": Brief(
        ("replay RUN_ID STEP 17", "replay RUN_ID STEP 17 flows.py --pdb"),
        {"--pdb": "under the debugger"} | _WHERE,
    ),
    "bench": Brief(
        ("bench", "bench noop item-times --quick", "bench --json before.json"),
        {
            "--quick": "smaller numbers, fewer rounds: all suites in about 90 s",
            "--peers": "measure other task queues and pools beside ours",
            "--storage": "how maps are stored: tasks, ranges, or both",
            "--workers": "processes that do the work (one for each CPU)",
            "--json": "write all figures to a file",
            "--html": "write a page with charts",
            "--dsn": "a server where databases may be created",
        },
    ),
    "compile": Brief(
        ("compile flows.py", "compile flows.py:flow --output flow.sql"),
        {"--output": "write it there", "--handlers": "functions that a flow file may name"},
    ),
    "install": Brief(
        ("install --dsn postgresql://user@host/database", "install --print > schema.sql"),
        {"--print": "print the SQL instead, for somebody else to run"} | _WHERE,
    ),
    "schedule": Brief(
        (
            "schedule report.py --cron '0 3 * * *' --due-as day",
            "schedule backfill report 2026-11-01..2026-11-25",
        ),
        {
            "--cron": "when: minute, hour, day, month, weekday; @daily, ...",
            "--time-zone": "whose clock that is (UTC)",
            "--input": "of its runs: JSON text, a file, or -",
            "--due-as": "the time it is for, as a member of its input",
            "--missed": "times that no worker saw: once, all, skip",
            "--as": "its name, if a flow has several",
            "--dry-run": "only show the next times",
        }
        | _JSON
        | _WHERE,
    ),
    "serve": Brief(
        (
            "serve",
            "serve --allow-actions --dsn postgresql://user@host/db",
            "serve --host 0.0.0.0 --token auto",
        ),
        {
            "--port": "where browsers find it (8470)",
            "--host": "the address to listen at (127.0.0.1: this machine only)",
            "--allow-actions": "cancel, retry, pause, delete on the page",
            "--token": "what visitors have to show; auto makes one",
            "--allowed-host": "a name of it behind a proxy",
        }
        | _WHERE,
    ),
    "db": Brief(
        ("db psql", "db size", "db dsn"),
        {"--json": "print JSON (size)"} | _WHERE,
    ),
    "doctor": Brief(("doctor", "doctor flows.py --dsn postgresql://user@host/database"), _JSON | _WHERE),
    "completion": Brief(
        (
            "completion bash > ~/.bash_completion.d/pgflow-mp",
            "completion fish > pgflow-mp.fish",
        ),
        {},
    ),
    "migrate": Brief(("migrate --dsn postgresql://user@host/database",), _JSON | _WHERE),
}
