"""``ensure_workers`` and its cron jobs, against stand-ins for Supabase (contract section 15)."""

from __future__ import annotations

import pytest

from .helpers import LOCAL_SECRET, Db, Row


def ensure(db: Db) -> list[Row]:
    return db.rows("select * from pgflow.ensure_workers()")


def local(db: Db) -> None:
    db.do("select set_config('app.settings.jwt_secret', %s, true)", LOCAL_SECRET)


def secret(db: Db, **secrets: str) -> None:
    for name, value in secrets.items():
        db.do("select vault.create_secret(%s, %s)", value, name)


def credentials(db: Db) -> None:
    secret(db, supabase_project_id="proj", supabase_service_role_key="role-key")


def track(db: Db, *names: str) -> None:
    for name in names:
        db.do("select pgflow.track_worker_function(%s)", name)


def alive(db: Db, function: str) -> None:
    db.do(
        "insert into pgflow.workers (worker_id, queue_name, function_name)"
        " values (gen_random_uuid(), 'q', %s)",
        function,
    )


def requests(db: Db) -> list[Row]:
    return db.rows("select * from net.http_request_queue order by id")


def test_locally_every_enabled_function_is_called_without_credentials(supabase_db: Db) -> None:
    db = supabase_db
    local(db)
    track(db, "my-worker", "other")
    found = ensure(db)
    assert [(f.function_name, f.invoked) for f in found] == [("my-worker", True), ("other", True)]
    sent = requests(db)
    assert [r.url for r in sent] == [
        "http://kong:8000/functions/v1/my-worker",
        "http://kong:8000/functions/v1/other",
    ]
    assert [r.headers for r in sent] == [{}, {}]
    assert [r.body for r in sent] == [{}, {}]
    assert [f.request_id for f in found] == [r.id for r in sent]
    assert len({f.request_id for f in found}) == 2
    assert all(f.request_id > 0 for f in found)


def test_locally_debounce_and_live_workers_do_not_matter(supabase_db: Db) -> None:
    db = supabase_db
    local(db)
    track(db, "w")
    db.do("update pgflow.worker_functions set last_invoked_at = now()")
    alive(db, "w")
    assert len(ensure(db)) == 1
    assert len(ensure(db)) == 1


def test_a_disabled_function_is_left_alone(supabase_db: Db) -> None:
    db = supabase_db
    local(db)
    track(db, "w")
    db.do("update pgflow.worker_functions set enabled = false")
    assert ensure(db) == []
    assert db.value("select last_invoked_at is null from pgflow.worker_functions")


def test_hosted_the_project_and_a_bearer_token_are_used(supabase_db: Db) -> None:
    db = supabase_db
    credentials(db)
    track(db, "my-worker")
    assert [f.function_name for f in ensure(db)] == ["my-worker"]
    (sent,) = requests(db)
    assert sent.url == "https://proj.supabase.co/functions/v1/my-worker"
    assert sent.headers["Authorization"] == "Bearer role-key"


@pytest.mark.parametrize(("own", "expected"), [("own-key", "own-key"), ("", "role-key")])
def test_the_own_secret_wins_unless_it_is_empty(supabase_db: Db, own: str, expected: str) -> None:
    db = supabase_db
    credentials(db)
    secret(db, pgflow_auth_secret=own)
    track(db, "w")
    ensure(db)
    assert requests(db)[0].headers["Authorization"] == f"Bearer {expected}"


@pytest.mark.parametrize(
    "secrets",
    [
        {},
        {"supabase_project_id": "proj"},
        {"supabase_service_role_key": "key"},
        {"pgflow_auth_secret": "key"},
        {"supabase_project_id": "", "supabase_service_role_key": "key"},
        {"supabase_project_id": "proj", "supabase_service_role_key": ""},
        {"supabase_project_id": "proj", "supabase_service_role_key": "", "pgflow_auth_secret": ""},
    ],
)
def test_without_complete_credentials_nothing_happens(supabase_db: Db, secrets: dict[str, str]) -> None:
    db = supabase_db
    secret(db, **secrets)
    track(db, "w")
    assert ensure(db) == []
    assert requests(db) == []
    assert db.value("select last_invoked_at is null from pgflow.worker_functions")


def test_an_own_secret_alone_is_enough_beside_the_project(supabase_db: Db) -> None:
    secret(supabase_db, supabase_project_id="proj", pgflow_auth_secret="key")
    track(supabase_db, "w")
    assert len(ensure(supabase_db)) == 1


@pytest.mark.parametrize(
    ("debounce", "ago", "called"),
    [
        ("6 seconds", None, True),
        ("6 seconds", "5 seconds", False),
        ("6 seconds", "7 seconds", True),
        ("1 minute", "30 seconds", False),
        ("1 minute", "61 seconds", True),
    ],
)
def test_hosted_the_function_s_own_debounce_is_kept(
    supabase_db: Db, debounce: str, ago: str | None, called: bool
) -> None:
    db = supabase_db
    credentials(db)
    track(db, "w")
    db.do(
        "update pgflow.worker_functions set debounce = %s::interval, last_invoked_at = now() - %s::interval",
        debounce,
        ago,
    )
    assert len(ensure(db)) == int(called)


def test_the_time_of_the_call_is_the_statement_s_and_debounces_the_next(supabase_db: Db) -> None:
    db = supabase_db
    credentials(db)
    track(db, "w")
    db.do("select pg_sleep(0.02)")
    assert len(ensure(db)) == 1
    assert db.value("select last_invoked_at > now() from pgflow.worker_functions")
    assert ensure(db) == []


@pytest.mark.parametrize(
    ("change", "called"),
    [
        ("last_heartbeat_at = clock_timestamp()", False),
        ("last_heartbeat_at = clock_timestamp() - interval '5 seconds'", False),
        ("last_heartbeat_at = clock_timestamp() - interval '7 seconds'", True),
        ("stopped_at = now()", True),
        ("deprecated_at = now()", True),
        ("function_name = 'another'", True),
    ],
)
def test_hosted_a_live_worker_needs_no_call(supabase_db: Db, change: str, called: bool) -> None:
    db = supabase_db
    credentials(db)
    track(db, "w")
    alive(db, "w")
    db.do(f"update pgflow.workers set {change}")
    assert bool(ensure(db)) is called


def test_of_two_workers_one_alive_is_enough(supabase_db: Db) -> None:
    db = supabase_db
    credentials(db)
    track(db, "w")
    db.do(
        "insert into pgflow.workers (worker_id, queue_name, function_name, stopped_at)"
        " values (gen_random_uuid(), 'q', 'w', now()), (gen_random_uuid(), 'q', 'w', null)"
    )
    assert ensure(db) == []


def test_without_functions_there_is_nothing_to_do(supabase_db: Db) -> None:
    local(supabase_db)
    assert ensure(supabase_db) == []


def test_without_pg_net_it_says_so(plain_db: Db) -> None:
    track(plain_db, "w")
    refusal = plain_db.refused("select * from pgflow.ensure_workers()")
    assert "pg_net" in refusal.message


# -- cron --------------------------------------------------------------------------------------------------


def jobs(db: Db) -> dict[str, tuple[str, str]]:
    return {j.jobname: (j.schedule, j.command) for j in db.rows("select * from cron.job")}


@pytest.mark.parametrize(("call", "schedule"), [("", "1 second"), ("'5 seconds'", "5 seconds")])
def test_both_jobs_are_scheduled(supabase_db: Db, call: str, schedule: str) -> None:
    text = supabase_db.value(f"select pgflow.setup_ensure_workers_cron({call})")
    assert "pgflow_ensure_workers" in text
    found = jobs(supabase_db)
    assert set(found) == {"pgflow_ensure_workers", "pgflow_cleanup_logs"}
    assert found["pgflow_ensure_workers"][0] == schedule
    assert "pgflow.ensure_workers()" in found["pgflow_ensure_workers"][1]
    assert found["pgflow_cleanup_logs"][0] == "0 * * * *"
    assert "pgflow.cleanup_ensure_workers_logs()" in found["pgflow_cleanup_logs"][1]


def test_scheduling_again_replaces_both_jobs(supabase_db: Db) -> None:
    supabase_db.do("select pgflow.setup_ensure_workers_cron()")
    supabase_db.do("select pgflow.setup_ensure_workers_cron(cron_interval => '10 seconds')")
    assert len(jobs(supabase_db)) == 2
    assert jobs(supabase_db)["pgflow_ensure_workers"][0] == "10 seconds"


def test_the_jobs_commands_run(supabase_db: Db) -> None:
    supabase_db.do("select pgflow.setup_ensure_workers_cron()")
    for _, command in jobs(supabase_db).values():
        supabase_db.do(command)


def test_without_pg_cron_the_set_up_says_so(plain_db: Db) -> None:
    assert "pg_cron" in plain_db.refused("select pgflow.setup_ensure_workers_cron()").message
    assert "pg_cron" in plain_db.refused("select * from pgflow.cleanup_ensure_workers_logs()").message


@pytest.mark.parametrize(("call", "deleted"), [("", 2), ("retention_hours => 72", 1), ("1", 3), ("1000", 0)])
def test_old_log_rows_are_deleted_and_counted(supabase_db: Db, call: str, deleted: int) -> None:
    db = supabase_db
    for hours in (0, 2, 25, 100):
        db.do(
            "insert into cron.job_run_details (jobid, end_time) values (1, now() -"
            " make_interval(hours => %s))",
            hours,
        )
    db.do("insert into cron.job_run_details (jobid, end_time) values (1, null)")
    found = db.row(f"select * from pgflow.cleanup_ensure_workers_logs({call})")
    assert found == Row(cron_deleted=deleted)
    assert db.value("select count(*) from cron.job_run_details") == 5 - deleted
