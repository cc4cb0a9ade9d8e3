"""Boxes that die, are cut off, slow, frozen, late or drained: runs end right, nothing is recorded twice."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from boxes import TAKEOVER, Box, Boxes, Site, reason_for_none
from range_harness import problems, start_in_ranges
from worker_harness import eventually, lines, output, run_row, start

pytestmark = pytest.mark.slow

NAP = 0.05
STARTS = {"tasks": start, "ranges": start_in_ranges}
PATIENCE = 90.0
"""Seconds for what may take long on a machine that is busy."""
Recorded = dict[int, tuple[str, str]]


IN_BOTH = pytest.mark.parametrize("storage", STARTS)
IN_RANGES = pytest.mark.parametrize("storage", ["ranges"])


class Job:
    """A run of naps, and the boxes that it is worked on by."""

    def __init__(self, dsn: str, storage: str, log: Path, boxes: Boxes) -> None:
        self.dsn, self.boxes, self._storage, self._log = dsn, boxes, storage, log
        self.items, self.run_id = 0, ""

    def begin(self, items: int) -> tuple[Box, Box]:
        """Start the run, and two boxes, in the midst of it."""
        self.items = items
        self.run_id = STARTS[self._storage](self.dsn, "naps", [NAP] * items)
        one, two = self.boxes.add(), self.boxes.add()
        self.begins(one)
        self.begins(two)
        return one, two

    def ran(self, box: Box) -> list[int]:
        """The items that a box has begun with, in order."""
        pids = box.pids
        begun = [line.split() for line in lines(self._log, "start")]
        return [int(index) for _, index, pid in begun if int(pid) in pids]

    def begins(self, box: Box, more_than: int = 20) -> None:
        """Wait until a box has begun with more items than that."""
        eventually(lambda: len(self.ran(box)) > more_than, PATIENCE)

    def recorded(self) -> Recorded:
        """Outputs, and who recorded them, by item."""
        with psycopg.connect(self.dsn) as conn:
            rows = conn.execute(
                "select item_index, output::text, worker_id::text from pgflow.items "
                "where run_id = %s and step_slug = 'nap' and status = 'completed'",
                (self.run_id,),
            )
            return {index: (text, worker) for index, text, worker in rows}

    def taken_over(self) -> float:
        """Wait until a box is taken for dead, and what it held is handed to others; when it was."""
        query = "select count(*) from pgflow.workers where died_at is not null"
        with psycopg.connect(self.dsn, autocommit=True) as conn:
            eventually(lambda: conn.execute(query).fetchone() == (1,), PATIENCE)
        return time.monotonic()

    def ends(self) -> float:
        """Wait for the end, and audit it; when it was, by time.monotonic()."""
        eventually(lambda: run_row(self.dsn, self.run_id).status in ("completed", "failed"), PATIENCE)
        ended = time.monotonic()
        assert output(self.dsn, self.run_id) == {"count": self.items}
        assert problems(self.dsn, self.run_id) == []
        assert {index: text for index, (text, _) in self.recorded().items()} == {
            index: str(index) for index in range(self.items)
        }
        with psycopg.connect(self.dsn) as conn:
            charged = conn.execute(
                "select distinct attempts from pgflow.items where run_id = %s", (self.run_id,)
            )
            assert charged.fetchall() == [(1,)]  # nobody's attempts paid for what became of a box
        return ended

    def times(self) -> dict[int, int]:
        """How often each item was begun with."""
        counts: dict[int, int] = {}
        for line in lines(self._log, "start"):
            index = int(line.split()[1])
            counts[index] = counts.get(index, 0) + 1
        return counts


@pytest.fixture
def job(site: Site, site_dsn: str, storage: str, log: Path) -> Iterator[Job]:
    with site.boxes(site_dsn, "naps") as boxes:
        yield Job(site_dsn, storage, log, boxes)


@IN_RANGES
def test_boxes_have_networks_of_their_own_where_that_is_possible(job: Job) -> None:
    if (why := reason_for_none()) is not None or os.environ.get("PGFLOW_TEST_BOXES") == "plain":
        pytest.skip(why or "boxes are plain processes here")
    box, other = job.begin(200)
    assert os.readlink(f"/proc/{box.process.pid}/ns/net") != os.readlink("/proc/self/ns/net")
    with psycopg.connect(job.dsn) as conn:
        seen = conn.execute(
            "select distinct host(client_addr) from pg_stat_activity where application_name like 'pgflow%' "
            "and client_addr is not null"
        ).fetchall()
        assert len(seen) == 2
        assert all(address.startswith("10.231.") for (address,) in seen)
    job.ends()
    assert [box.stop(), other.stop()] == [0, 0]


@IN_BOTH
def test_a_box_that_loses_its_power_is_taken_over(job: Job) -> None:
    one, two = job.begin(300)
    before = job.recorded()
    two.cable.cut()  # its system says goodbye to nobody either
    two.kill()
    killed = time.monotonic()
    left = (job.items - len(before)) * NAP / 2  # by one box of two lanes
    ended = job.ends()
    assert ended - killed < left * 1.25 + TAKEOVER + NAP
    again = {index for index, count in job.times().items() if count > 1}
    assert not again & set(before)
    assert one.stop() == 0


@IN_BOTH
def test_a_box_that_is_cut_off_records_nothing_that_others_took_over_and_goes_on_afterwards(job: Job) -> None:
    one, two = job.begin(600)
    two.cable.cut()
    cut = time.monotonic()
    assert job.taken_over() - cut < TAKEOVER
    meanwhile, begun = job.recorded(), len(job.ran(two))
    two.cable.mend()
    eventually(lambda: len(job.ran(two)) > begun, PATIENCE)
    job.ends()
    after = job.recorded()
    assert {index: after[index] for index in meanwhile} == meanwhile
    assert [one.stop(), two.stop()] == [0, 0]


@IN_BOTH
def test_a_frozen_box_records_nothing_that_others_took_over_and_goes_on_afterwards(job: Job) -> None:
    one, two = job.begin(600)
    two.signal(signal.SIGSTOP)
    job.taken_over()
    meanwhile, begun = job.recorded(), len(job.ran(two))
    two.signal(signal.SIGCONT)
    eventually(lambda: len(job.ran(two)) > begun, PATIENCE)
    job.ends()
    after = job.recorded()
    assert {index: after[index] for index in meanwhile} == meanwhile
    assert [one.stop(), two.stop()] == [0, 0]


@IN_RANGES
def test_a_box_with_a_slow_link_keeps_its_items_and_holds_nobody_up(job: Job) -> None:
    one, two = job.begin(300)
    two.cable.slow_down()
    job.ends()
    assert set(job.times().values()) == {1}  # slow is not dead
    assert [one.stop(60), two.stop(60)] == [0, 0]


@IN_BOTH
def test_one_box_joins_late_and_another_is_drained(job: Job) -> None:
    one, two = job.begin(500)
    three = job.boxes.add()
    drained = subprocess.run(
        [sys.executable, "-m", "pgflow_mp", "drain", one.worker, "--wait", "--dsn", job.dsn],
        capture_output=True,
        check=False,
        text=True,
        timeout=PATIENCE,
    )
    assert drained.returncode == 0, drained.stdout + drained.stderr
    assert one.process.wait(10) == 0
    done_by_one = job.ran(one)
    assert set(done_by_one) <= set(job.recorded())  # with all that it had begun with
    job.begins(three, more_than=5)
    job.ends()
    assert set(job.times().values()) == {1}
    assert [two.stop(), three.stop()] == [0, 0]
