"""Whatever an item changes of its process, the next one finds as it was; or it runs in another process."""

from __future__ import annotations

import json
import os
import pickle
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import lane_mischief
import pytest
from lane_harness import Harness, chunk_of, kinds, lanes, range_of, text

TARGET = str(Path(lane_mischief.__file__))


@pytest.fixture(scope="module", params=[chunk_of, range_of], ids=["tasks", "ranges"])
def lane(request: pytest.FixtureRequest) -> Iterator[Harness]:
    with lanes(1, target=TARGET, make=request.param) as harness:
        yield harness


def run(harness: Harness, *orders: list[str]) -> list[str]:
    seq = harness.submit(list(orders), flow="mischief", step="act")
    harness.until(lambda: seq in harness.done)
    assert kinds(harness.of(seq)) == [0] * len(orders), [text(outcome) for outcome in harness.of(seq)]
    return [text(outcome) for outcome in harness.of(seq)]


@pytest.mark.parametrize("what", lane_mischief.MISCHIEF)
def test_the_next_item_finds_it_as_it_was(lane: Harness, what: str) -> None:
    if what == "nice" and os.geteuid() != 0:
        pytest.skip("only root can be less nice again: others get another process")
    before, _, after = run(lane, [what, "look"], [what, "do"], [what, "look"])
    assert after == before
    assert lane.deaths == []


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give rights up")
@pytest.mark.parametrize("what", lane_mischief.CANNOT)
def test_a_process_that_cannot_be_what_it_was_is_replaced(what: str) -> None:
    with lanes(1, target=TARGET) as harness:
        seq = harness.submit([[what, "do"], [what, "look"]], flow="mischief", step="act")
        harness.until(lambda: seq in harness.done)
        assert kinds(harness.of(seq)) == [0, 3]  # done, and not begun: nobody is charged
        assert [death.verdict for death in harness.deaths] == [None]
        assert run(harness, [what, "look"])


def test_the_seed_of_one_item_is_not_that_of_the_next(lane: Harness) -> None:
    drawn = run(lane, *[["", how] for how in ("seed", "draw", "seed", "draw")])
    assert drawn[0] == drawn[2]
    assert len({drawn[0], drawn[1], drawn[3]}) == 3


DECIMALS = """
import decimal
from pgflow_mp import Flow
flow = Flow("sums")
decimal.getcontext().prec = 50

@flow.map
def act(precision: int) -> list[int]:
    found = decimal.getcontext().prec
    if precision:
        decimal.getcontext().prec = precision
        decimal.DefaultContext.prec = precision
    return [found, decimal.getcontext().prec, decimal.DefaultContext.prec]
"""


@pytest.mark.parametrize("own", [True, False])
def test_items_share_the_context_of_decimals_that_the_target_has_set_and_none_that_items_have(
    tmp_path: Path, own: bool
) -> None:
    target = tmp_path / "sums.py"
    target.write_text(DECIMALS if own else DECIMALS.replace("decimal.getcontext().prec = 50", ""))
    expected = 50 if own else 28
    with lanes(1, target=str(target), make=range_of) as harness:
        asked = {"flow": "sums", "step": "act"}
        found = [json.loads(text(o)) for o in harness.run([0, 7, 0], **asked)]  # type: ignore[arg-type]
        assert [first for first, _, _ in found] == [expected] * 3
        assert found[1][1:] == [7, 7]
        time.sleep(0.06)  # after which everything is looked at
        (after,) = harness.run([0], **asked)  # type: ignore[arg-type]
        assert json.loads(text(after)) == [expected, expected, 28]


def test_what_is_listened_to_is_what_it_was_for_everybody_else() -> None:
    program = """
import inspect, os, pickle, random, resource, signal, sys
from pgflow_mp.executors.lanes import listening
before = os.umask
listening.begin(); listening.begin()
assert listening.original("os", "umask") is before and os.umask is not before
assert pickle.loads(pickle.dumps(os.umask)) is os.umask
assert os.umask.__name__ == "umask" and repr(os.umask) == repr(before) and callable(os.umask)
assert inspect.signature(os.umask) == inspect.signature(before)
class Holder:
    limits = resource.setrlimit
    def set(self):
        self.limits(resource.RLIMIT_CORE, resource.getrlimit(resource.RLIMIT_CORE))
Holder().set()
assert listening.heard.anything and not listening.heard.seeded
random.seed(1)
assert listening.heard.seeded
assert signal.signal(signal.SIGALRM, signal.SIG_DFL) == signal.SIG_DFL
os.environ["A"] = "b"
assert os.getenv("A") == "b" and os.system('test "$A" = b') == 0
"""
    subprocess.run([sys.executable, "-W", "error", "-c", program], check=True, timeout=30)
    assert pickle.loads(pickle.dumps(os.umask)) is os.umask
    assert signal.getsignal(signal.SIGALRM) == signal.SIG_DFL
