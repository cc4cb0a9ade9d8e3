"""on_start functions, whatever runs the items: the same tests for every executor."""

from __future__ import annotations

from pathlib import Path

import engine_clusters
import pytest
import start_flows
from executor_owner import KINDS, Owner, kinds
from lane_harness import FLOWS, eventually

from pgflow_mp.errors import OnStartFailed
from pgflow_mp.executors import start_failures
from pgflow_mp.executors.events import LaneFailedToStart
from pgflow_mp.executors.messages import Kind


@pytest.mark.parametrize("kind", KINDS)
def test_on_start_functions_run_once_in_each_process_and_hand_back_what_cannot_start(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = Path(engine_clusters.NOTES) if kind in engine_clusters.ENGINES else tmp_path / "notes"
    path.unlink(missing_ok=True)
    monkeypatch.setenv(start_flows.NOTES, str(path))
    monkeypatch.setattr(start_failures, "FIRST_PAUSE", 0.05)
    order = Path(f"{path}.order")
    order.write_text("raise")
    owner = Owner(kind, str(Path(FLOWS).with_name("start_flows.py")))
    failed: list[LaneFailedToStart] = []
    monkeypatch.setattr(owner, "on_failed", failed.append)
    owner.executor.start()
    try:
        assert not path.exists()
        assert kinds(owner.run("a", "b", flow="starts")) == [Kind.NOT_RUN, Kind.NOT_RUN]
        owner.until(lambda: failed)
        (first,) = failed
        words = 'on_start function "model" of flow "starts" failed: FileNotFoundError: weights.bin'
        assert (first.error, first.fatal) == (words, None)
        order.write_text("")
        seqs = [owner.submit("pid", "pid", flow="starts") for _ in range(12)]
        owner.until(lambda: owner.done >= set(seqs))
        found = [outcome for seq in seqs for outcome in owner.of(seq)]
        assert {outcome.kind for outcome in found} == {Kind.COMPLETED}
        notes = [line.rpartition(" ")[::2] for line in path.read_text().splitlines()]
        served = {pid for note, pid in notes if note == "begin well"}
        assert served == {outcome.body.decode() for outcome in found}
        assert len(served) == len([note for note, _ in notes if note == "begin well"])
    finally:
        assert owner.executor.stop(5.0)
    wanted = 0 if kind in ("processes", "mpi") else len(served)  # a pool that is not ours goes on
    assert eventually(lambda: path.read_text().count("\nend ") == wanted)
    assert len(failed) == 1


@pytest.mark.parametrize("kind", ["threads", "lanes"])
def test_on_start_functions_that_go_on_failing_end_the_work(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "notes"
    monkeypatch.setenv(start_flows.NOTES, str(path))
    monkeypatch.setattr(start_failures, "FIRST_PAUSE", 0.05)
    Path(f"{path}.order").write_text("raise")
    owner = Owner(kind, str(Path(FLOWS).with_name("start_flows.py")))
    failed: list[LaneFailedToStart] = []
    monkeypatch.setattr(owner, "on_failed", failed.append)
    owner.executor.start()
    try:
        while not failed or failed[-1].fatal is None:
            assert len(failed) < 12
            assert kinds(owner.run("a", flow="starts")) == [Kind.NOT_RUN]
            owner.collect()
        assert type(failed[-1].fatal) is OnStartFailed
        assert len(failed) >= start_failures.ROUNDS
    finally:
        owner.executor.abort()
