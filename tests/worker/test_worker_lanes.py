"""What becomes of a worker whose processes do not start any more."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from pgflow_mp import FlowDefinitionError
from pgflow_mp.client.state import open_state
from pgflow_mp.executors.lanes import roster
from pgflow_mp.loading.targets import Target
from pgflow_mp.run_request import RunRequest
from pgflow_mp.runner import execute

FLOW = """
import os
from pathlib import Path
from pgflow_mp import Flow

seen = Path(__file__ + ".seen")
if seen.exists():
    raise LookupError("only once")
seen.touch()
flow = Flow("one_import").map("end", lambda n: os._exit(3))
"""


@pytest.mark.slow
def test_a_worker_none_of_whose_processes_starts_any_more_ends_with_the_reason(
    tmp_path: Path, dsn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(roster, "_FIRST_RETRY", 0.01)
    file = tmp_path / "one_import.py"
    file.write_text(FLOW)
    began = time.monotonic()
    with (
        open_state(dsn) as database,
        pytest.raises(FlowDefinitionError, match=r"No process of this worker starts any more.*only once"),
    ):
        execute(database, RunRequest(Target.parse(str(file)), "one_import", b"[1]", settings={"workers": 1}))
    assert time.monotonic() - began < 20
