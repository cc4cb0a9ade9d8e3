"""Every lane imports the target as a process of a multiprocessing pool would: itself, and as who it is."""

from __future__ import annotations

import json
import subprocess
import sys
from multiprocessing import get_context
from pathlib import Path

import pytest
from lane_harness import Harness, lanes, text

from pgflow_mp.executors.lanes import pool, roster

FLOW = """
import os, random, sys, tempfile, time, uuid
from pathlib import Path
from typing import Any
from pgflow_mp import Flow

try:
    from numpy.random import default_rng
except ImportError:
    default_rng = random.Random
drawn = [random.random(), random.Random().random(), default_rng().random(), uuid.uuid4().hex]
pid, began = os.getpid(), time.time_ns()
scratch = tempfile.mkdtemp(dir={scratch!r})
argv, path, name, cwd = list(sys.argv), list(sys.path), __name__, os.getcwd()
flags = [sys.flags.optimize, sys.flags.dev_mode, sys.warnoptions]
file, spec = __file__, __spec__ and __spec__.name
main = sys.modules["__main__"].__dict__ is globals()
flow = Flow("who")

@flow.map
def tell(order: str) -> Any:
    if order == "end":
        os._exit(1)
    if order == "pid":
        return os.getpid()
    return globals()[order]
"""


def ask(harness: Harness, order: str, lane: int = 0) -> object:
    seq = harness.submit([order], lane=lane, flow="who", step="tell")
    harness.until(lambda: seq in harness.done)
    answer = text(harness.of(seq)[0])
    return json.loads(answer) if order != "end" else answer


def write(tmp_path: Path, name: str = "who.py") -> str:
    (tmp_path / "scratch").mkdir(exist_ok=True)
    target = tmp_path / name
    target.write_text(FLOW.format(scratch=str(tmp_path / "scratch")))
    return str(target)


def test_every_lane_and_its_replacement_imports_the_target_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", ["scale.py", "--factor", "10"])
    monkeypatch.chdir(tmp_path)
    with lanes(2, target=write(tmp_path)) as harness:
        own = ("pid", "drawn", "scratch", "began")
        before = [[ask(harness, what, lane) for lane in (0, 1)] for what in own]
        assert ask(harness, "pid", 0) == ask(harness, "pid")
        assert "exit code 1" in str(ask(harness, "end"))
        for what, known in zip(own, before, strict=True):
            three = [*known, ask(harness, what)]
            values = [three] if what != "drawn" else list(zip(*three, strict=True))
            assert [len(set(value)) for value in values] == [3] * len(values), what
        assert ask(harness, "argv") == ["scale.py", "--factor", "10"]
        assert ask(harness, "cwd") == str(tmp_path)
        assert ask(harness, "name") == ask(harness, "spec") == "who"
        assert ask(harness, "file") == str(tmp_path / "who.py")
        assert ask(harness, "main") is False


def test_a_script_is_main_in_a_lane_as_in_a_spawned_process(tmp_path: Path) -> None:
    script = write(tmp_path)
    with lanes(1, target="__main__:who", setup={"main_path": script}) as harness:
        told = {what: ask(harness, what) for what in ("name", "file", "spec", "main", "path", "flags")}
    assert told["name"] == "__mp_main__"
    assert told["file"] == script
    assert told["spec"] is None
    assert told["main"] is True
    assert told["path"] == sys.path
    assert told["flags"] == [sys.flags.optimize, sys.flags.dev_mode, sys.warnoptions]
    assert list(tmp_path.glob("__pycache__")) == []


def test_a_preloaded_target_has_our_arguments_and_global_generators_differ(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", ["scale.py", "--factor", "10"])
    target = tmp_path / "who.py"
    body = "import random, sys\nfrom pgflow_mp import Flow\nflow, argv = Flow('who'), list(sys.argv)\n"
    body += "@flow.map\ndef tell(order: str) -> object:\n"
    body += "    return argv if order == 'argv' else random.random()\n"
    target.write_text(body)
    with lanes(2, target=str(target), preload=["flow"]) as harness:
        assert ask(harness, "argv") == ["scale.py", "--factor", "10"]
        assert ask(harness, "random", 0) != ask(harness, "random", 1)


def test_named_modules_are_imported_once_and_the_target_in_every_lane(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "heavy_one.py").write_text("import os\npid = os.getpid()\n")
    target = tmp_path / "who.py"
    body = "import heavy_one, os\nfrom pgflow_mp import Flow\nflow, pid = Flow('who'), os.getpid()\n"
    body += "@flow.map\ndef tell(order: str) -> list[int]:\n    return [heavy_one.pid, pid, os.getpid()]\n"
    target.write_text(body)
    with lanes(2, target=str(target), setup={"sys_path": [str(tmp_path)]}, preload=["heavy_one"]) as harness:
        answers = [ask(harness, "x", lane) for lane in (0, 1)]
        server = harness.pool.server_pid
    assert [a[0] for a in answers] == [server] * 2  # type: ignore[index]
    assert all(a[1] == a[2] for a in answers)  # type: ignore[index]


def test_lanes_find_us_where_only_the_path_of_the_program_leads(tmp_path: Path) -> None:
    """As after pip install --target vendored, and sys.path.insert in the script."""
    (tmp_path / "vendored").mkdir()
    (tmp_path / "vendored" / "pgflow_mp").symlink_to(Path(pool.__file__).parents[2])
    site = [path for path in sys.path if path.endswith("site-packages")]
    script = tmp_path / "vendoring.py"
    script.write_text(f"""
import sys
sys.path[:0] = [{str(tmp_path / "vendored")!r}, *{site!r}]
import queue, pgflow_mp
assert pgflow_mp.__file__.startswith({str(tmp_path)!r})
from pgflow_mp.executors.lanes.pool import LanePool
from pgflow_mp.executors.messages import Setup
flow = pgflow_mp.Flow("vendored").map("same", lambda x: x)
if __name__ == "__main__":
    pool = LanePool(Setup(target="__main__:vendored", main_path=__file__), 1, queue.SimpleQueue().put)
    print([flow.slug for flow in pool.start()])
    pool.abort()
""")
    command = [sys.executable, "-S", str(script)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=30)
    assert done.stdout == "['vendored']\n", done.stderr


def test_a_pool_none_of_whose_lanes_starts_any_more_says_so_and_stops_trying(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(roster, "_FIRST_RETRY", 0.005)
    target = write(tmp_path)
    with lanes(1, target=target) as harness:
        Path(target).write_text("from pgflow_mp import no_such_name\n")
        assert "exit code 1" in str(ask(harness, "end"))
        harness.until(lambda: harness.failed and harness.failed[-1].fatal)
        assert len(harness.failed) == 5
        error = harness.failed[-1].fatal
        assert error is not None
        assert error.exit_code == 2 or isinstance(error, ValueError)
        assert "No process of this worker starts any more" in str(error)
        assert "no_such_name" in str(error)


def test_what_is_right_is_what_a_pool_of_multiprocessing_gives(tmp_path: Path) -> None:
    """Where the values come from that the first tests expect: __name__, __file__, __spec__, sys.argv."""
    script = tmp_path / "plain.py"
    script.write_text(
        "import multiprocessing as m, sys\n"
        "def tell(_):\n    return [__name__, __file__, __spec__, sys.argv[1:]]\n"
        "if __name__ == '__main__':\n"
        "    with m.get_context('forkserver').Pool(1) as pool:\n        print(pool.map(tell, [0])[0])\n"
    )
    done = subprocess.run(
        [sys.executable, str(script), "--factor"], capture_output=True, text=True, check=True, timeout=30
    )
    assert done.stdout == f"{['__mp_main__', str(script), None, ['--factor']]}\n"
    assert get_context("forkserver").get_start_method() == "forkserver"
