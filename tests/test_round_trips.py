"""Values of all types through the database, of steps and of maps in either storage, come back equal."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from pgflow_mp import Artifact, Context
from pgflow_mp.flows.context import Runtime
from pgflow_mp.loading.finding import load_flows
from pgflow_mp.runner import run
from pgflow_mp.values.artifacts import Roots

FLOWS = Path(__file__).with_name("value_flows.py")
ARTIFACTS = Path(__file__).with_name("artifact_flows.py")
LIBRARIES = ("attrs", "numpy", "pandas", "polars", "pyarrow", "pydantic")


@pytest.mark.parametrize("slug", ["values_of_steps", "values_of_ranges", "values_of_tasks"])
def test_what_one_step_gives_is_what_the_next_one_takes(slug: str, dsn: str) -> None:
    for library in LIBRARIES:
        pytest.importorskip(library)
    (flow,) = [flow for flow in load_flows(str(FLOWS)) if flow.slug == slug]
    found = run(flow, [1], dsn=dsn, executor="inline")
    assert found is not None
    assert len(found) > 30
    assert [name for name, same in found.items() if same is not True] == []


def test_artifacts_of_a_run_that_is_not_kept_are_there_until_its_end(dsn: str, tmp_path: Path) -> None:
    (flow,) = [flow for flow in load_flows(str(ARTIFACTS)) if flow.slug == "slow"]
    place = str(tmp_path / "place")
    contents = []
    for item in flow.imap([0, 0], dsn=dsn, executor="inline", keep=False, artifacts=place):
        assert isinstance(item.output, Artifact)
        contents.append(item.output.read())
    assert contents == [b"done", b"done"]
    assert [path for path in Path(place).rglob("*") if path.is_file()] == []
    found = run(flow, [0], dsn=dsn, executor="inline", artifacts=place, output="wait")
    assert isinstance(found, list)
    (kept,) = found
    assert kept.read() == b"done"


def test_the_same_content_of_many_writers_is_one_file(tmp_path: Path) -> None:
    context = Context("r", "f", runtime=Runtime(artifacts=Roots(str(tmp_path), installation="id")))
    failed: list[Exception] = []

    def write() -> None:
        try:
            for _ in range(20):
                with context.artifact("same.bin") as file:
                    file.write(b"x" * 1000)
                assert file.artifact.read() == b"x" * 1000
        except Exception as error:
            failed.append(error)

    threads = [threading.Thread(target=write) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert failed == []
    assert len([path for path in tmp_path.rglob("*") if path.is_file()]) == 1
