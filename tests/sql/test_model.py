"""Random flows and random calls against a plain-Python model: states are compared after every call.

One or two runs of a random flow (maps, empty arrays, conditions, skips) are worked by two workers, one
by one and in batches, with retries, hand-backs, late, duplicate and stale calls.
"""

from __future__ import annotations

import json
import uuid
from dataclasses import dataclass
from typing import Any

import psycopg
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from . import helpers
from .helpers import Db
from .model import SQL_NULL, Model, StepDef

WORKERS = [uuid.UUID(int=1), uuid.UUID(int=2)]
MAX_STEPS = 12
ACTIONS = 40

values = st.sampled_from(
    [0, 1, "x", True, None, {}, {"k": 1}, {"k": 0}, [1], [], [{"k": 1}, 2], [None, [1], 3]]
)
arrays = st.lists(st.sampled_from([0, 1, None, {"k": 1}, [2]]), max_size=3)
wanted = st.sampled_from([{}, {"k": 1}, 1, [1], None, True])
modes = st.sampled_from(["skip", "skip", "skip", "skip-cascade", "skip-cascade", "fail"])


@st.composite
def patterns(draw: st.DrawFn, deps: tuple[str, ...]) -> dict[str, Any] | None:
    if draw(st.integers(0, 5)) < 5:
        return None
    names = st.sampled_from(deps) if deps else st.just("k")
    return draw(st.dictionaries(names, wanted, max_size=2))


@st.composite
def flows(draw: st.DrawFn) -> list[StepDef]:
    count = draw(st.integers(1, MAX_STEPS))
    slugs = draw(st.permutations([f"s{i}" for i in range(count)]))
    steps: list[StepDef] = []
    for i, slug in enumerate(slugs):
        is_map = draw(st.booleans())
        most = min(i, 1 if is_map else 4)
        deps = tuple(draw(st.lists(st.sampled_from(slugs[:i]), unique=True, max_size=most))) if i else ()
        steps.append(
            StepDef(
                slug=slug,
                is_map=is_map,
                deps=deps,
                required=draw(patterns(deps)),
                forbidden=draw(patterns(deps)),
                when_unmet=draw(modes),
                when_exhausted=draw(modes),
                max_attempts=draw(st.integers(0, 3)),
            )
        )
    return steps


def dumps(value: Any) -> str | None:
    """Canonical JSON text (in which 1, 1.0 and true differ), or None for SQL NULL."""
    return None if value is SQL_NULL else json.dumps(value, sort_keys=True)


def compile_flow(db: Db, steps: list[StepDef]) -> None:
    """Flow ``f`` of these steps, with both workers registered."""
    helpers.flow(
        db,
        "f",
        *[
            helpers.step(
                s.slug,
                *s.deps,
                step_type="map" if s.is_map else "single",
                required_input_pattern=s.required,
                forbidden_input_pattern=s.forbidden,
                when_unmet=s.when_unmet,
                when_exhausted=s.when_exhausted,
                max_attempts=s.max_attempts,
            )
            for s in steps
        ],
        base_delay=0,
    )
    for worker_id in WORKERS:
        helpers.worker(db, "f", worker_id)


def claim(pairs: list[Pair], worker: int, qty: int, one_round_trip: bool) -> None:
    """Claim from the queue that all runs of the flow share."""
    db = pairs[0].db
    could = {(pair.run, slug, i) for pair in pairs for slug, i in pair.model.claimable()}
    if one_round_trip:
        given: list[Any] = [WORKERS[worker], qty]
        source = "pgflow.claim_tasks('f', %s, %s)"
    else:
        given = [helpers.read(db, "f", qty, 60), WORKERS[worker]]
        source = "pgflow.start_tasks('f', %s::bigint[], %s)"
    rows = db.rows(
        "select run_id, step_slug, task_index, input::text as input, flow_input::text as flow_input"
        f" from {source}",
        *given,
    )
    got = {(r.run_id, r.step_slug, r.task_index) for r in rows}
    logs = [pair.log for pair in pairs]
    assert len(rows) == len(got) == min(qty, len(could)), (got, could, logs)
    assert got <= could, (got - could, logs)
    for row in rows:
        (pair,) = (p for p in pairs if p.run == row.run_id)
        pair.log.append(f"claim worker={worker} {row.step_slug}[{row.task_index}]")
        expected = pair.model.task_input(row.step_slug, row.task_index)
        found = (canonical(row.input), canonical(row.flow_input))
        assert found == (dumps(expected[0]), dumps(expected[1])), (row, expected, logs)
        pair.model.claim(row.step_slug, row.task_index, worker)
    for pair in pairs:
        pair.compare()


class Pair:
    """One run in the engine and in the model, driven by the same calls."""

    def __init__(self, db: Db, steps: list[StepDef], run_input: Any, number: int) -> None:
        self.db = db
        # a fixed id, because among runs that began together the claim goes by id: shrinking needs it
        self.run = uuid.UUID(int=number + 1)
        db.do("select pgflow.start_flow('f', %s::jsonb, %s)", json.dumps(run_input), self.run)
        self.model = Model(steps, run_input)
        self.log: list[str] = [f"{steps} input={run_input}"]
        self.compare()

    # -- calls -----------------------------------------------------------------------------------------

    def complete(self, slug: str, index: int, output: Any) -> None:
        self.log.append(f"complete {slug}[{index}] {output!r}")
        rows = self.db.rows(
            "select status from pgflow.complete_task(%s, %s, %s, %s::text::jsonb)",
            self.run,
            slug,
            index,
            dumps(output),
        )
        self.model.complete(slug, index, output)
        self.compare_answer(rows, slug, index)
        self.compare()

    def fail(self, slug: str, index: int, error: str) -> None:
        self.log.append(f"fail {slug}[{index}]")
        call = "select status from pgflow.fail_task(%s, %s, %s, %s)"
        rows = self.db.rows(call, self.run, slug, index, error)
        self.model.fail(slug, index, error)
        self.compare_answer(rows, slug, index)
        self.compare()

    def fail_for_good(self, slug: str, index: int, worker: int) -> None:
        self.log.append(f"fail for good {slug}[{index}]")
        attempt = self.model.states[slug].tasks[index].attempts
        self.db.do(
            "select pgflow.fail_tasks(%s, %s, array[%s]::int[], array['final'], %s,"
            " array[%s]::int[], array[true])",
            self.run,
            slug,
            index,
            WORKERS[worker],
            attempt,
        )
        self.model.fail(slug, index, "final", permanent=True)
        self.compare()

    def complete_batch(self, slug: str, outputs: dict[int, Any], worker: int) -> None:
        self.log.append(f"complete batch {slug} {outputs}")
        tasks = self.model.states[slug].tasks
        self.db.do(
            "select pgflow.complete_tasks(%s, %s, %s::int[], %s::text[]::jsonb[], %s, %s::int[])",
            self.run,
            slug,
            list(outputs),
            [dumps(o) for o in outputs.values()],
            WORKERS[worker],
            [tasks[i].attempts for i in outputs],
        )
        self.model.complete_batch(slug, outputs)
        self.compare()

    def stale(self, slug: str, index: int, worker: int, attempt: int) -> None:
        """A fenced result of another worker or attempt: no change but for its late message."""
        self.log.append(f"stale {slug}[{index}] worker={worker} attempt={attempt}")
        accepted = self.db.value(
            "select accepted from pgflow.complete_tasks(%s, %s, array[%s]::int[], array['[9]']::jsonb[], %s,"
            " array[%s]::int[])",
            self.run,
            slug,
            index,
            WORKERS[worker],
            attempt,
        )
        assert accepted == 0, self.log
        if self.model.status != "failed" and self.model.states[slug].status != "started":
            self.model.states[slug].tasks[index].live = False
        self.compare()

    def release(self, slug: str, index: int, worker: int) -> None:
        self.log.append(f"release {slug}[{index}] worker={worker}")
        msg_id = self.db.value(
            "select message_id from pgflow.step_tasks where run_id = %s and step_slug = %s and"
            " task_index = %s",
            self.run,
            slug,
            index,
        )
        call = "select pgflow.release_tasks('f', %s, array[%s]::bigint[])"
        assert self.db.value(call, WORKERS[worker], msg_id) == 1
        self.model.release(slug, index)
        self.compare()

    # -- comparison ------------------------------------------------------------------------------------

    def compare_answer(self, rows: list[helpers.Row], slug: str, index: int) -> None:
        tasks = self.model.states[slug].tasks if slug in self.model.states else []
        expected = [tasks[index].status] if 0 <= index < len(tasks) else []
        assert [r.status for r in rows] == expected, self.log

    def compare(self) -> None:
        found, expected = self.stored(), self.expected()
        assert found == expected, "\n".join(
            ["after:", *self.log, *[f"{k}: found {found[k]}\n expected {v}" for k, v in expected.items()]]
        )

    def stored(self) -> dict[str, Any]:
        row = self.db.row(
            """
            select r.status, r.remaining_steps, r.output::text as output,
              (select json_agg(json_build_array(ss.step_slug, ss.status, ss.initial_tasks, ss.remaining_tasks,
                 case when ss.status in ('created', 'started') then ss.remaining_deps end,
                 ss.output::text, ss.skip_reason, ss.error_message) order by ss.step_slug)
               from pgflow.step_states ss where ss.run_id = r.run_id) as steps,
              (select json_agg(json_build_array(t.step_slug, t.task_index, t.status, t.attempts_count,
                 t.output::text, t.error_message, q.msg_id is not null, a.msg_id is not null)
                 order by t.step_slug, t.task_index)
               from pgflow.step_tasks t
               left join pgmq.q_f q on q.msg_id = t.message_id
               left join pgmq.a_f a on a.msg_id = t.message_id
               where t.run_id = r.run_id) as tasks,
              (select json_agg(event order by event) from realtime.messages
               where payload->>'run_id' = r.run_id::text) as events
            from pgflow.runs r where r.run_id = %s
            """,
            self.run,
        )
        return {
            "run": [row.status, row.remaining_steps, canonical(row.output)],
            "steps": [[*s[:5], canonical(s[5]), *s[6:]] for s in row.steps],
            "tasks": [[*t[:4], canonical(t[4]), *t[5:]] for t in row.tasks or []],
            "events": row.events,
        }

    def expected(self) -> dict[str, Any]:
        model = self.model
        states = sorted(model.states.items())
        return {
            "run": [model.status, model.remaining, dumps(model.output)],
            "steps": [
                [
                    slug,
                    s.status,
                    s.initial,
                    s.remaining,
                    s.deps if s.status in ("created", "started") else None,
                    dumps(s.output),
                    s.reason,
                    s.error,
                ]
                for slug, s in states
            ],
            "tasks": [
                [slug, i, t.status, t.attempts, dumps(t.output), t.error, t.live, not t.live]
                for slug, s in states
                for i, t in enumerate(s.tasks)
            ],
            "events": sorted(model.events.elements()),
        }


def canonical(text: str | None) -> str | None:
    return None if text is None else dumps(json.loads(text))


@dataclass(frozen=True)
class Action:
    """A random call, drawn without a look at the state (so that failures shrink); ``act`` fits it in."""

    what: int
    worker: int
    run: int
    pick: int
    qty: int
    one_round_trip: bool
    array: list[Any]
    value: Any
    rare: int


actions = st.lists(
    st.builds(
        Action,
        what=st.integers(0, 99),
        worker=st.integers(0, 1),
        run=st.integers(0, 1),
        pick=st.integers(0, 99),
        qty=st.integers(1, 4),
        one_round_trip=st.booleans(),
        array=arrays,
        value=values,
        rare=st.integers(0, 19),
    ),
    min_size=25,
    max_size=ACTIONS,
)


def act(pairs: list[Pair], action: Action) -> None:
    """The call where it fits the state, else a late, duplicate or stale one."""
    pair = pairs[action.run % len(pairs)]
    model, what = pair.model, action.what
    all_tasks = [(slug, i) for slug, s in sorted(model.states.items()) for i in range(len(s.tasks))]
    held = [(slug, i) for slug, i in all_tasks if model.states[slug].tasks[i].status == "started"]
    if what < 30 or not all_tasks:
        claim(pairs, action.worker, action.qty, action.one_round_trip)
    elif what < 80 and held:
        slug, i = held[action.pick % len(held)]
        act_on_held(pair, slug, i, held, action)
    else:
        slug, i = all_tasks[action.pick % len(all_tasks)]
        task = model.states[slug].tasks[i]
        if what % 4 == 0:
            pair.complete(slug, i + 100, 1)
        elif what % 4 == 1:
            pair.stale(slug, i, action.worker, task.attempts + 1)
        elif what % 4 == 2:
            pair.complete(slug, i, [1])
        else:
            pair.fail(slug, i, "late")


def act_on_held(pair: Pair, slug: str, i: int, held: list[tuple[str, int]], action: Action) -> None:
    """Settle or hand back a task that some worker holds."""
    model, what = pair.model, action.what
    task = model.states[slug].tasks[i]
    holder = task.worker
    assert holder is not None
    wants_array = any(c.is_map for c in model.children[slug]) and not model.defs[slug].is_map
    output = action.array if wants_array and action.rare > 1 else action.value
    if what < 55:
        pair.complete(slug, i, SQL_NULL if action.rare == 0 else output)
    elif what < 65:
        mine = [j for s, j in held if s == slug and model.states[s].tasks[j].worker == holder]
        pair.complete_batch(slug, dict.fromkeys(mine if model.defs[slug].is_map else [i], output), holder)
    elif what < 75:
        pair.fail(slug, i, f"error {what}")
    elif what < 77:
        pair.fail_for_good(slug, i, holder)
    elif what < 79:
        pair.release(slug, i, holder)
    else:
        pair.stale(slug, i, 1 - holder, task.attempts)


def finish(pairs: list[Pair]) -> None:
    """Whatever has happened, every run ends when its tasks are worked off."""
    for _ in range(200):
        running = [pair for pair in pairs if pair.model.status == "started"]
        if not running:
            return
        for pair in running:
            for slug, state in pair.model.states.items():
                for i, task in enumerate(state.tasks):
                    if state.status == task.status == "started":
                        pair.complete(slug, i, [1])
        claimable = [pair for pair in running if pair.model.claimable()]
        stuck = [pair.log for pair in running if pair.model.status == "started" and pair not in claimable]
        assert not stuck, ("runs are stuck", stuck)
        if claimable:
            claim(pairs, 0, 50, True)
    raise AssertionError(("runs do not end", [pair.log for pair in pairs]))


@dataclass(frozen=True)
class Case:
    """A flow, the inputs of its runs, and the calls to make."""

    steps: list[StepDef]
    inputs: list[Any]
    actions: list[Action]


@st.composite
def cases(draw: st.DrawFn) -> Case:
    steps = draw(flows())
    root_map = any(s.is_map and not s.deps for s in steps)
    inputs = arrays if root_map else st.sampled_from([{}, {"k": 1}, {"k": 0, "x": []}, [1]])
    return Case(steps, draw(st.lists(inputs, min_size=1, max_size=2)), draw(actions))


def check(conn: psycopg.Connection[Any], case: Case) -> None:
    conn.rollback()
    db = Db(conn)
    db.do(helpers.REALTIME)
    compile_flow(db, case.steps)
    pairs = [Pair(db, case.steps, run_input, n) for n, run_input in enumerate(case.inputs)]
    late = 5
    for action in case.actions:
        if all(pair.model.status != "started" for pair in pairs):
            late -= 1
            if late < 0:
                break
        act(pairs, action)
    finish(pairs)


SETTINGS = settings(
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=list(HealthCheck),
    phases=[Phase.generate, Phase.shrink],
)


@settings(SETTINGS, max_examples=10)
@given(case=cases())
def test_random_flows_go_as_the_model_says(tx: psycopg.Connection[Any], case: Case) -> None:
    check(tx, case)


@pytest.mark.slow
@settings(SETTINGS, max_examples=2000, derandomize=False)
@given(case=cases())
def test_two_thousand_flows_go_as_the_model_says(tx: psycopg.Connection[Any], case: Case) -> None:
    check(tx, case)


def test_json_null_and_sql_null_are_told_apart_by_the_comparison() -> None:
    assert canonical("null") == dumps(None) == "null"
    assert canonical(None) == dumps(SQL_NULL) is None
    assert dumps(1) != dumps(True)
