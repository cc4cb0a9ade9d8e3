"""The kernel's own OOM killer, in a control group with little memory: it costs the hungry item only."""

from __future__ import annotations

import contextlib
import os
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import msgspec
import psycopg
import pytest
from worker_harness import Tasks, adapted, process, run_row

from pgflow_mp.db import engine
from pgflow_mp.loading.finding import load_flows
from pgflow_mp.testing import audit_run

V1, V2 = Path("/sys/fs/cgroup/memory"), Path("/sys/fs/cgroup")
LIMIT = 300 << 20
ITEMS = 60

FLOW = """
from pgflow_mp import Flow
hungry = Flow("hungry", max_attempts=3, base_delay=1)
@hungry.map(tolerate=1)
def eat(megabytes: int) -> int:
    hoard = [bytearray(b"x") * (1 << 20) for _ in range(megabytes)]
    return len(hoard)
"""


@pytest.fixture
def small_group() -> Iterator[Path]:
    """A control group with a memory limit, version 1 or 2; skips where none can be made."""
    name = f"pgflow-test-{uuid.uuid4().hex[:8]}"
    group = (V1 if V1.is_dir() else V2) / name
    try:
        group.mkdir()
    except OSError:
        pytest.skip("no control group can be made here")
    try:
        limits = [group / "memory.limit_in_bytes", group / "memory.max"]
        written = False
        for limit in limits:
            with contextlib.suppress(OSError):
                if limit.exists():
                    limit.write_text(str(LIMIT))
                    written = True
        if not written:
            pytest.skip("this control group has no memory limit")
        with contextlib.suppress(OSError):
            (group / "memory.swap.max").write_text("0")
        yield group
    finally:
        deadline = time.monotonic() + 5
        while time.monotonic() < deadline:
            try:
                group.rmdir()
            except OSError:
                time.sleep(0.1)
            else:
                break


def kills(group: Path) -> int:
    """How many processes of the group the kernel has killed for lack of memory."""
    for name in ("memory.oom_control", "memory.events"):
        with contextlib.suppress(OSError):
            for line in (group / name).read_text().splitlines():
                if line.startswith("oom_kill "):
                    return int(line.split()[1])
    return 0


@pytest.mark.slow
def test_the_kernel_s_oom_killer_costs_the_hungry_item_and_no_other(
    small_group: Path, dsn: str, tmp_path: Path
) -> None:
    file = tmp_path / "hungry.py"
    file.write_text(FLOW)
    (flow,) = load_flows(str(file))
    hungry = 7
    with adapted(dsn) as conn:
        engine.ensure_flow_compiled(conn, "hungry", msgspec.json.encode(flow.shape()))
        amounts = [2000 if index == hungry else 1 for index in range(ITEMS)]
        run_id = engine.start_flow(conn, "hungry", msgspec.json.encode(amounts))
    # The worker has to be in the group from its first moment: it starts there, from us.
    ours = (V1 if V1.is_dir() else V2) / own_group().lstrip("/") / "cgroup.procs"
    (small_group / "cgroup.procs").write_text(str(os.getpid()))
    try:
        worker = process(dsn, "hungry", run_id, targets=[str(file)])
    finally:
        ours.write_text(str(os.getpid()))
    said, _ = worker.communicate(timeout=90)
    assert worker.returncode == 0, said
    struck = kills(small_group)
    tasks = Tasks(dsn, run_id)
    assert run_row(dsn, run_id).status == "completed"
    assert tasks.statuses("eat") == {"completed": ITEMS - 1, "failed": 1}
    error = tasks.error("eat", hungry)
    assert "SIGKILL" in error
    assert "memory" in error
    assert tasks.attempts("eat", hungry) == 2, error  # the budget of crashes
    assert {tasks.attempts("eat", index) for index in range(ITEMS) if index != hungry} == {1}
    assert struck == 2
    with psycopg.connect(dsn) as conn:
        assert audit_run(conn, run_id) == []


def own_group() -> str:
    """This process's control group of the memory controller."""
    for line in Path("/proc/self/cgroup").read_text().splitlines():
        _, controllers, path = line.split(":", 2)
        if (V1.is_dir() and "memory" in controllers.split(",")) or (not V1.is_dir() and not controllers):
            return path
    return "/"
