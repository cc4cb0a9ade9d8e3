"""From what lanes report to what is recorded: groups for the settler, crashes, items that come back."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Final, cast

from pgflow_mp.db.engine import ClaimedTask
from pgflow_mp.executors.events import Cause, LaneDied, Outcomes
from pgflow_mp.executors.messages import Chunk, Item, Kind, Outcome
from pgflow_mp.executors.verdicts import CrashBudget, deaths_error
from pgflow_mp.observe.glimpse import named
from pgflow_mp.observe.observer import FailedAttempt, Observer
from pgflow_mp.worker.batches import AnyBatch, Batch, Flight, input_of
from pgflow_mp.worker.chunks import Stretch, as_spans
from pgflow_mp.worker.corner import Corner
from pgflow_mp.worker.crew import Crew
from pgflow_mp.worker.dispatch import Dispatcher
from pgflow_mp.worker.groups import Group
from pgflow_mp.worker.parking import Parked, Parking
from pgflow_mp.worker.range_outcomes import RangeCollector
from pgflow_mp.worker.ranges import RangeBatch
from pgflow_mp.worker.retries import Retries
from pgflow_mp.worker.settle import MIDST
from pgflow_mp.worker.startup import Policies, StepPolicy
from pgflow_mp.worker.stats import Stats
from pgflow_mp.worker.work_record import WorkRecord

_ONE_LOSS: Final = 0.2  # seconds within which lanes that lost their parent lost the same one


class Collector:
    """Takes the lanes' reports. ``hand_back`` gets items of a batch that did not run. After a crash
    the upkeep is asked for the ``policies`` as they are then; judge() is to follow.

    ``run`` and ``step`` of a chunk's item point into the lists of the chunk, which may be others than
    those of the batch that it was cut from, and of a batch's item into those of the batch.

    A final crash (the crash budget or the attempts are used up) is parked (parking.py).
    """

    def __init__(
        self,
        dispatcher: Dispatcher,
        crew: Crew,
        stats: Stats,
        observer: Observer,
        policies: Policies,
        hand_back: Callable[[AnyBatch, Sequence[Stretch], int], None],
        crash_budget: int,
        record: WorkRecord | None = None,
    ) -> None:
        self._dispatcher = dispatcher
        self._record = record = record or WorkRecord(1, time.monotonic())
        self._settler = crew.settler
        self._stats = stats
        self._observer = observer
        self._ask_policies = crew.upkeep.ask_policies
        self._policies = policies
        self._unjudged: list[Parked] = []
        self._hand_back = hand_back
        self._budget = CrashBudget(crash_budget)
        self.corner = Corner(dispatcher, self._park)
        self._lost_at = float("-inf")
        self._lost: set[int] = set()  # lanes, with the parent that went last
        self.parking = Parking()
        self.retries = Retries()
        self.ranges = RangeCollector(dispatcher, crew.settler, stats, self, self.give_back, record)
        self.steps: dict[tuple[str, str], list[int]] = {}
        """Items by (flow, step): [completed, failed for good]."""

    # -- outcomes ----------------------------------------------------------------------------------

    def outcomes(self, event: Outcomes) -> None:
        """Items of a chunk ended."""
        flight = self._dispatcher.flights.get(event.seq)
        if flight is None:
            return
        if event.done:
            del self._dispatcher.flights[event.seq]
        if event.outcomes:
            self._some_ended(flight, event)
        if event.done:
            self._record.spans.ended(flight, time.monotonic())

    def _some_ended(self, flight: Flight, event: Outcomes) -> None:
        chunk, batch = cast(Chunk, flight.chunk), cast(Batch, flight.batch)
        if self.corner:
            self.corner.ended(flight, event.outcomes)
        if (
            len(chunk.runs) == 1
            and len(chunk.steps) == 1
            and not any(outcome.kind for outcome in event.outcomes)
        ):
            self._all_completed(flight, chunk, batch, event.outcomes)
        else:
            self._mixed(flight, chunk, batch, event.outcomes)
        self._finish(flight, event.outcomes)

    def _all_completed(self, flight: Flight, chunk: Chunk, batch: Batch, outcomes: list[Outcome]) -> None:
        """Completed items of one step of one run: the path of nearly all items."""
        items = chunk.items
        if len(outcomes) != len(items):
            items = [items[outcome.position] for outcome in outcomes]
        bodies = [outcome.body for outcome in outcomes]
        times = [outcome.seconds for outcome in outcomes]
        seconds = sum(times)
        group = Group(
            chunk.runs[0],
            chunk.steps[0],
            batch.worker_id,
            False,
            [item.index for item in items],
            [item.attempt for item in items],
            bodies,
            msg_ids=[item.msg_id for item in items],
        )
        size = sum(map(len, bodies))
        self._dispatcher.times.observe(chunk.flow, chunk.steps[0], seconds, len(outcomes), size)
        self._stats.busy += seconds
        self._record.completed(flight, chunk.runs[0], chunk.steps[0], times, group.indexes, time.monotonic())
        self.count(chunk.flow, chunk.steps[0], 0, len(outcomes))
        self._settler.add([group], size, MIDST)

    def _mixed(self, flight: Flight, chunk: Chunk, batch: Batch, outcomes: list[Outcome]) -> None:
        groups: dict[tuple[int, int, bool], Group] = {}
        times: dict[int, list[float]] = {}
        back: list[int] = []
        size, now, record = 0, time.monotonic(), self._record
        for outcome in outcomes:
            item = chunk.items[outcome.position]
            if outcome.kind == Kind.NOT_RUN:
                back.append(flight.start + outcome.position)
                continue
            failed = outcome.kind != Kind.COMPLETED
            key = (item.run, item.step, failed)
            group = groups.get(key)
            if group is None:
                group = Group(chunk.runs[item.run], chunk.steps[item.step], batch.worker_id, failed)
                groups[key] = group
            group.indexes.append(item.index)
            group.attempts.append(item.attempt)
            group.msg_ids.append(item.msg_id)
            group.bodies.append(outcome.body)
            size += len(outcome.body)
            if failed:
                permanent = outcome.kind == Kind.FAILED_FOR_GOOD
                group.permanent.append(permanent)
                given = partial(input_of, item)
                self.note_failure(chunk.flow, group.run, group.step, item, outcome, permanent, given)
                record.failed(flight, group.run, group.step, item.index, outcome.seconds, now)
            else:
                self.count(chunk.flow, group.step, 0, 1)
                record.completed(flight, group.run, group.step, [outcome.seconds], [item.index], now)
            spent = times.setdefault(item.step, [0.0, 0.0])
            spent[0] += outcome.seconds
            spent[1] += 1
        for step, (seconds, count) in times.items():
            self._dispatcher.times.observe(chunk.flow, chunk.steps[step], seconds, int(count))
            self._stats.busy += seconds
        if groups:
            self._settler.add(list(groups.values()), size)
        if back:
            self._stats.handed_back += len(back)
            self.give_back(flight, as_spans(back))

    def give_back(self, flight: Flight, stretches: list[Stretch]) -> None:
        """Items of a flight's batch did not run: of a batch that may be to blame, halves are to run."""
        if flight.suspects is None:
            self._hand_back(flight.batch, stretches, 0)
            return
        position, count = flight.suspects
        first, end = flight.start + position, flight.start + position + count
        inside = [(max(a, first), min(b, end)) for a, b in stretches if a < end and b > first]
        outside = [(a, min(b, first)) for a, b in stretches if a < first]
        outside += [(max(a, end), b) for a, b in stretches if b > end]
        self._hand_back(flight.batch, outside, 0)
        self._hand_back(flight.batch, inside, max(1, count // 2))

    def _finish(self, flight: Flight, outcomes: list[Outcome]) -> None:
        first, last, start = outcomes[0].position, outcomes[-1].position, flight.start
        if last - first + 1 == len(outcomes):
            self._dispatcher.finish(flight.batch, start + first, start + last)
            return
        for outcome in outcomes:
            self._dispatcher.finish(flight.batch, start + outcome.position, start + outcome.position)

    def count(self, flow: str, step: str, what: int, items: int) -> None:
        """Note how many items of a step ended: 0 completed, 1 failed for good."""
        self.steps.setdefault((flow, step), [0, 0])[what] += items

    # -- failures ----------------------------------------------------------------------------------

    def lane_died(self, event: LaneDied) -> None:
        """A lane's process ended; the item it was running is charged if the event says so."""
        self._tell(event)
        if event.suspect is not None:
            self.corner.lost(*event.suspect)
        flight = self._dispatcher.flights.get(event.seq) if event.seq is not None else None
        if flight is not None:
            flight.suspects = event.suspects
        if flight is None or event.verdict is None:
            return
        batch, outcome = flight.batch, event.verdict
        position = flight.start + outcome.position
        item = batch.item(position)
        run, step = batch.runs[item.run], batch.steps[item.step]
        self.corner.clear((run, step, item.index))
        self._dispatcher.times.observe(batch.flow, step, outcome.seconds, 1)
        self._stats.busy += outcome.seconds
        self._record.failed(flight, run, step, item.index, outcome.seconds, time.monotonic())
        self._record.spans.died(flight)
        charged = Parked(batch, position, item, run, step, outcome)
        if event.cause.is_crash:
            self._stats.crashed += 1
            self._unjudged.append(charged)
            self._ask_policies()
            return
        self._settle_failure(charged)

    def judge(self, policies: Policies | None = None) -> None:
        """Record or park crashes, now that we know how many attempts their steps have, which may change."""
        self._policies = self._policies if policies is None else policies
        crashes, self._unjudged = self._unjudged, []
        for crash in crashes:
            judged = replace(crash, outcome=self._charge(crash))
            if judged.outcome.kind == Kind.FAILED_FOR_GOOD:
                self._park(judged)
            else:
                self._settle_failure(judged)

    def _tell(self, event: LaneDied) -> None:
        if event.cause is Cause.LOST:  # and so did all others
            before, self._lost_at = self._lost_at, time.monotonic()
            if event.lane in self._lost or self._lost_at - before > _ONE_LOSS:
                self._lost.clear()
                text = "the lanes' parent process is gone, and all lanes with it: they are started again"
                self._observer.on_message("warn", text)
            self._lost.add(event.lane)
        elif event.cause not in (Cause.STOPPED, Cause.CANCELLED):
            self._observer.on_message("warn", f"lane {event.lane} ended: {event.cause}, {event.exit}")

    def condemned(self, batch: Batch) -> None:
        """Park tasks that are to be failed for the workers that died with them."""
        self._dispatcher.keep(batch)
        for position, item in enumerate(batch.items):
            run, step = batch.runs[item.run], batch.steps[item.step]
            text = deaths_error(step, item.index, batch.deaths[item.msg_id])
            outcome = Outcome(position, Kind.FAILED_FOR_GOOD, text.encode(), 0.0)
            self._park(Parked(batch, position, item, run, step, outcome))

    def _park(self, parked: Parked) -> None:
        self.parking.add(parked, time.monotonic())
        name = named(parked.step, parked.item.index, parked.batch.input(parked.position))
        self._observer.on_message("warn", f"{name} is quarantined; its failure is recorded last")

    def refused(self, flow: str, worker_id: str, task: ClaimedTask, text: str) -> None:
        """A task was claimed that cannot be run: its input cannot be had."""
        body = text.encode()
        item = Item(task.task_index, task.attempt, task.msg_id, 0, 0, b"", None)
        outcome = Outcome(0, Kind.FAILED_FOR_GOOD, body, 0.0)
        self.note_failure(flow, task.run_id, task.step_slug, item, outcome, True, bytes)
        indexes, attempts = [task.task_index], [task.attempt]
        group = Group(
            *(task.run_id, task.step_slug, worker_id, True, indexes, attempts, [body], [True], [task.msg_id])
        )
        self._settler.add([group], len(body))

    def _charge(self, crash: Parked) -> Outcome:
        item, key = crash.item, (crash.run, crash.step, crash.item.index)
        outcome = self._budget.charge(key, crash.outcome)
        last = self._policy(crash.batch.flow, crash.step).max_attempts
        if outcome.kind == Kind.FAILED and item.attempt >= last:
            self._budget.forget(key)
            body = f"quarantined, its last attempt ({item.attempt} of {last}) crashed: ".encode()
            return Outcome(outcome.position, Kind.FAILED_FOR_GOOD, body + outcome.body, outcome.seconds)
        return outcome

    def _settle_failure(self, failed: Parked) -> None:
        batch, position, outcome = failed.batch, failed.position, failed.outcome
        permanent = outcome.kind == Kind.FAILED_FOR_GOOD
        given = partial(batch.input, position)
        self.note_failure(batch.flow, failed.run, failed.step, failed.item, outcome, permanent, given)
        self._settler.add([batch.failed(position, outcome.body, permanent)], len(outcome.body))
        self._dispatcher.finish(batch, position, position)

    def note_failure(
        self,
        flow: str,
        run: str,
        step: str,
        item: Item,
        outcome: Outcome,
        permanent: bool,
        given: Callable[[], bytes | memoryview],
    ) -> None:
        """An item failed, for good if ``permanent`` or without attempts left; ``given`` finds its input."""
        policy = self._policy(flow, step)
        final = permanent or item.attempt >= policy.max_attempts
        if final:
            self.count(flow, step, 1, 1)
            self._stats.failed += 1
        else:
            self._stats.retried += 1
            self.retries.add(flow, policy.base_delay, item.attempt, time.monotonic())
        text = outcome.body.decode("utf-8", "replace")
        self._observer.on_failure(
            FailedAttempt(run, step, item.index, item.attempt, text, final, given, flow)
        )

    def _policy(self, flow: str, step: str) -> StepPolicy:
        return self._policies.get((flow, step), StepPolicy())

    # -- parked ones -------------------------------------------------------------------------------

    def unpark(self, run: str) -> None:
        """Record the parked failures of a run."""
        for parked in self.parking.take(run):
            self._settle_failure(parked)

    def hand_back_parked(self) -> None:
        """The worker stops: give parked items, and those set aside, back as if they had not run."""
        for part in self.corner.take_all():
            self._hand_back(part, [(0, len(part))], 0)
        for parked in self.parking.take_all():
            self._dispatcher.finish(parked.batch, parked.position, parked.position)
            self._hand_back(parked.batch, [(parked.position, parked.position + 1)], 0)

    def drop_parked(self, unwanted: Callable[[Parked], bool]) -> None:
        """Forget parked items that are not wanted any more; of a lease they are handed back."""
        for parked in self.parking.take_all(unwanted):
            self._dispatcher.finish(parked.batch, parked.position, parked.position)
            if isinstance(parked.batch, RangeBatch):
                self._hand_back(parked.batch, [(parked.position, parked.position + 1)], 0)
