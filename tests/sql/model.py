"""A plain-Python model of one run, written from the contract (sections 6 to 11), for comparison.

It knows nothing of SQL, locks or messages ids: only which state each call must leave behind.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any, Literal


class SqlNull:
    """SQL NULL, as opposed to JSON null (Python ``None``)."""

    def __repr__(self) -> str:
        return "SQL NULL"


SQL_NULL = SqlNull()

Status = Literal["created", "started", "completed", "failed", "skipped"]


def same_scalar(left: Any, right: Any) -> bool:
    """Equality of JSON scalars: ``true`` is not ``1``."""
    return isinstance(left, bool) == isinstance(right, bool) and bool(left == right)


def contains(left: Any, right: Any) -> bool:
    """The ``@>`` of jsonb for an object on the right-hand side (and what it recurses into)."""
    if isinstance(right, dict):
        return isinstance(left, dict) and all(k in left and contains(left[k], v) for k, v in right.items())
    if isinstance(right, list):
        return isinstance(left, list) and all(any(contains(x, y) for x in left) for y in right)
    return not isinstance(left, dict | list) and same_scalar(left, right)


@dataclass(frozen=True)
class StepDef:
    """One step of a flow, in definition order."""

    slug: str
    is_map: bool = False
    deps: tuple[str, ...] = ()
    required: dict[str, Any] | None = None
    forbidden: dict[str, Any] | None = None
    when_unmet: str = "skip"
    when_exhausted: str = "fail"
    max_attempts: int = 3


@dataclass
class Task:
    status: Literal["queued", "started", "completed", "failed", "skipped", "cancelled"] = "queued"
    attempts: int = 0
    output: Any = SQL_NULL
    error: str | None = None
    live: bool = True
    """Whether the message is still in the queue (else archived)."""
    worker: int | None = None


@dataclass
class State:
    status: Status = "created"
    initial: int | None = None
    remaining: int | None = None
    deps: int = 0
    output: Any = SQL_NULL
    reason: str | None = None
    error: str | None = None
    tasks: list[Task] = field(default_factory=list)


class Model:
    """One run of a flow. Every method is one call of the engine."""

    def __init__(self, steps: list[StepDef], run_input: Any) -> None:
        self.defs = {s.slug: s for s in steps}
        self.children: dict[str, list[StepDef]] = {
            s.slug: [c for c in steps if s.slug in c.deps] for s in steps
        }
        self.input = run_input
        self.status: Literal["started", "completed", "failed"] = "started"
        self.remaining = len(steps)
        self.output: Any = SQL_NULL
        self.events: Counter[str] = Counter({"run:started": 1})
        self.states = {
            s.slug: State(
                deps=len(s.deps),
                initial=1 if not s.is_map else (len(run_input) if not s.deps else None),
            )
            for s in steps
        }
        self._advance()

    # -- calls -----------------------------------------------------------------------------------------

    def claimable(self) -> set[tuple[str, int]]:
        """Tasks that a claim may return now (no backoff, no start delay)."""
        if self.status != "started":
            return set()
        return {
            (slug, i)
            for slug, state in self.states.items()
            if state.status == "started"
            for i, task in enumerate(state.tasks)
            if task.status == "queued"
        }

    def task_input(self, slug: str, index: int) -> tuple[Any, Any]:
        """(input, flow_input) of a claimed task (section 7)."""
        step = self.defs[slug]
        if not step.is_map:
            return ({}, self.input) if not step.deps else (self._evaluated(step), SQL_NULL)
        if not step.deps:
            return self.input[index], SQL_NULL
        element = self.states[step.deps[0]].output[index]
        return element, SQL_NULL

    def claim(self, slug: str, index: int, worker: int) -> None:
        task = self.states[slug].tasks[index]
        task.status, task.worker = "started", worker
        task.attempts += 1

    def release(self, slug: str, index: int) -> None:
        task = self.states[slug].tasks[index]
        task.status, task.worker = "queued", None
        task.attempts -= 1

    def complete(self, slug: str, index: int, output: Any) -> None:
        if self.status == "failed" or (task := self._task(slug, index)) is None:
            return
        state, step = self.states[slug], self.defs[slug]
        if state.status != "started":
            task.live = False
            return
        if task.status != "started":
            return
        if not step.is_map and not isinstance(output, list):
            waiting = [
                c.slug for c in self.children[slug] if c.is_map and self.states[c.slug].initial is None
            ]
            if waiting:
                self._violate(slug, task, output, waiting[0])
                return
        task.status, task.output, task.live = "completed", output, False
        self._count_done(slug, 1, output)

    def complete_batch(self, slug: str, outputs: dict[int, Any]) -> None:
        """Many tasks of a map at once: the same state as one by one."""
        for index, output in outputs.items():
            self.complete(slug, index, output)

    def fail(self, slug: str, index: int, error: str, *, permanent: bool = False) -> None:
        task = self._task(slug, index)
        if task is None:
            return
        if self.status == "failed":
            task.live = False
            return
        state, step = self.states[slug], self.defs[slug]
        if state.status != "started":
            task.live = False
            return
        if task.status != "started":
            return
        task.error = error
        if task.attempts < step.max_attempts and not permanent:
            task.status = "queued"
            return
        task.status, task.live = "failed", False
        if step.when_exhausted == "fail":
            self._fail_step(slug, error)
            return
        state.error = error
        self._skip(slug, "handler_failed")
        if step.when_exhausted == "skip-cascade":
            self._skip_descendants(slug)
            self._maybe_complete()
        else:
            self._release_children_of_skipped([slug])
            self._advance()

    # -- rules -----------------------------------------------------------------------------------------

    def _task(self, slug: str, index: int) -> Task | None:
        tasks = self.states[slug].tasks if slug in self.states else []
        return tasks[index] if 0 <= index < len(tasks) else None

    def _evaluated(self, step: StepDef) -> Any:
        if not step.deps:
            return self.input
        parents = {d: self.states[d] for d in step.deps}
        return {
            d: None if p.output is SQL_NULL else p.output
            for d, p in parents.items()
            if p.status == "completed"
        }

    def _met(self, step: StepDef) -> bool:
        value = self._evaluated(step)
        if step.required is not None and not contains(value, step.required):
            return False
        return step.forbidden is None or not contains(value, step.forbidden)

    def _ready(self) -> list[StepDef]:
        return [
            s
            for s in self.defs.values()
            if self.states[s.slug].status == "created" and self.states[s.slug].deps == 0
        ]

    def _advance(self) -> None:
        while True:
            self._resolve_conditions()
            if self.status == "failed":
                return
            if not self._complete_taskless():
                break
        for step in self._ready():
            state = self.states[step.slug]
            if state.initial:
                state.status, state.remaining = "started", state.initial
                state.tasks = [Task() for _ in range(state.initial)]
                self.events[f"step:{step.slug}:started"] += 1
        self._maybe_complete()

    def _resolve_conditions(self) -> None:
        while True:
            unmet = [s for s in self._ready() if not self._met(s)]
            failing = [s for s in unmet if s.when_unmet == "fail"]
            if failing:
                self._fail_step(failing[0].slug, "Condition not met")
                return
            skipped = [s.slug for s in unmet if s.when_unmet == "skip"]
            for slug in skipped:
                self._skip(slug, "condition_unmet")
            self._release_children_of_skipped(skipped)
            for step in [s for s in self._ready() if not self._met(s) and s.when_unmet == "skip-cascade"]:
                if self.states[step.slug].status == "created":
                    self._skip(step.slug, "condition_unmet")
                    self._skip_descendants(step.slug)
            if not skipped:
                return

    def _complete_taskless(self) -> int:
        total = 0
        while wave := [s for s in self._ready() if self.states[s.slug].initial == 0 and self._met(s)]:
            for step in wave:
                state = self.states[step.slug]
                state.status, state.remaining, state.output = "completed", 0, []
                self.events[f"step:{step.slug}:completed"] += 1
                self.remaining -= 1
            for step in wave:
                for child in self.children[step.slug]:
                    self.states[child.slug].deps -= 1
                    if child.is_map:
                        self.states[child.slug].initial = 0
            total += len(wave)
        return total

    def _count_done(self, slug: str, done: int, output: Any) -> None:
        state, step = self.states[slug], self.defs[slug]
        assert state.remaining is not None
        state.remaining -= done
        if state.remaining:
            return
        state.status = "completed"
        state.output = (
            [None if t.output is SQL_NULL else t.output for t in state.tasks] if step.is_map else output
        )
        self.remaining -= 1
        self.events[f"step:{slug}:completed"] += 1
        for child in self.children[slug]:
            other = self.states[child.slug]
            other.deps -= 1
            if child.is_map and other.initial is None:
                other.initial = len(state.output)
        self._advance()

    def _skip(self, slug: str, reason: str) -> None:
        state = self.states[slug]
        state.status, state.reason, state.remaining = "skipped", reason, None
        self.remaining -= 1
        self.events[f"step:{slug}:skipped"] += 1
        self._end_open(slug, "skipped")

    def _skip_descendants(self, slug: str) -> None:
        for child in self.children[slug]:
            if self.states[child.slug].status in ("created", "started"):
                self._skip(child.slug, "dependency_skipped")
            self._skip_descendants(child.slug)

    def _release_children_of_skipped(self, slugs: list[str]) -> None:
        for slug in slugs:
            for child in self.children[slug]:
                self.states[child.slug].deps -= 1
                if child.is_map:
                    self.states[child.slug].initial = 0

    def _end_open(self, slug: str, status: Literal["skipped", "cancelled"]) -> None:
        for task in self.states[slug].tasks:
            if task.status in ("queued", "started"):
                task.status, task.live = status, False

    def _fail_step(self, slug: str, error: str) -> None:
        state = self.states[slug]
        state.status, state.error, self.status = "failed", error, "failed"
        self.events[f"step:{slug}:failed"] += 1
        self.events["run:failed"] += 1
        for other in self.states:
            self._end_open(other, "cancelled")

    def _violate(self, slug: str, task: Task, output: Any, child: str) -> None:
        kind = json_type(output)
        task.status, task.output, task.live = "failed", output, False
        task.error = f"[TYPE_VIOLATION] Produced {kind} instead of array"
        self._fail_step(
            slug,
            f"[TYPE_VIOLATION] Map step {child} expects array input but dependency {slug} produced {kind}",
        )

    def _maybe_complete(self) -> None:
        if self.remaining or self.status != "started":
            return
        self.status = "completed"
        leaves = {
            slug: None if state.output is SQL_NULL else state.output
            for slug, state in self.states.items()
            if state.status == "completed" and not self.children[slug]
        }
        self.output = leaves or SQL_NULL
        self.events["run:completed"] += 1


def json_type(value: Any) -> str:
    """``jsonb_typeof``, and ``null`` for SQL NULL too."""
    if value is None or value is SQL_NULL:
        return "null"
    names = {bool: "boolean", int: "number", float: "number", str: "string", list: "array", dict: "object"}
    return names[type(value)]
