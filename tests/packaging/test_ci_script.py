"""What .ci/run says of processes that a stage leaves behind. It is not in the sdist."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parents[2] / ".ci" / "run"
STAGES = """
set -euo pipefail
WORK=$1 ONLY= SUMMARY=() FAILED=0 STARTED=0
export PGFLOW_CI_MARK=$WORK
. "$WORK/functions.sh"
trap clean_up EXIT
leave() { env PYTEST_CURRENT_TEST="tests/test_it.py::test_it (call)" sleep 4321 & }
leave_something_short() { sleep 1.5 & }
stage "careless" leave
stage "slow to end" leave_something_short
stage "late" test -z "$(left_behind)"
stage "no process is left" nothing_left
finish
exit "$FAILED"
"""


@pytest.mark.slow
@pytest.mark.skipif(not SCRIPT.exists(), reason="a checkout has it")
def test_a_process_that_a_stage_leaves_is_told_with_its_stage_and_test_and_ended(tmp_path: Path) -> None:
    text = SCRIPT.read_text()
    functions = text[text.index("# -- what stages are made of") : text.index("# -- the run --")]
    (tmp_path / "functions.sh").write_text(functions)
    command = ["bash", "-c", STAGES, "stages", str(tmp_path)]
    found = subprocess.run(command, check=False, capture_output=True, text=True, timeout=60)
    assert (found.returncode, found.stderr) == (1, "")
    told = re.compile(
        r'still running after the stage "careless":\n'
        r"  (\d+), child of \d+, state S, \d s old: sleep 4321 \n"
        r"    begun in tests/test_it.py::test_it \(call\)\n"
    )
    at_once, at_the_end = told.finditer(found.stdout)
    assert at_once[1] == at_the_end[1]
    assert "slow to end" not in found.stdout.partition("==== summary")[0].replace("==== slow to end", "")
    assert re.findall(r"^(passed|FAILED) .* s  (.*)$", found.stdout, flags=re.MULTILINE) == [
        ("passed", "careless"),
        ("passed", "slow to end"),
        ("passed", "late"),
        ("FAILED", "no process is left (status 1)"),
    ]
    assert not Path(f"/proc/{at_once[1]}").exists()
    assert not tmp_path.exists()
