"""Whole runs on executors other than lanes, from Python."""

from __future__ import annotations

import multiprocessing
import os
from concurrent.futures import Executor, ProcessPoolExecutor, ThreadPoolExecutor

import pytest
from worker_harness import FLOWS

from pgflow_mp.errors import ConfigError, PgflowError, RunFailed
from pgflow_mp.flows.flow import Flow
from pgflow_mp.loading.finding import load_flows
from pgflow_mp.runner import resume, run


def flow_of(slug: str) -> Flow:
    (found,) = [flow for flow in load_flows(str(FLOWS)) if flow.slug == slug]
    return found


def processes() -> Executor:
    return ProcessPoolExecutor(2, mp_context=multiprocessing.get_context("spawn"))


class Told:
    """Keeps the messages of a run; ignores the rest."""

    def __init__(self) -> None:
        self.messages: list[str] = []

    def on_message(self, level: str, text: str) -> None:
        self.messages.append(f"{level}: {text}")

    def __getattr__(self, name: str) -> object:
        return lambda *_arguments: None


def test_a_run_on_threads_inline_and_on_processes_gives_what_lanes_give(dsn: str) -> None:
    told = Told()
    with ThreadPoolExecutor(3) as pool:
        output = run(flow_of("chain"), [1, 2, 3], dsn=dsn, executor=pool, observer=told)  # type: ignore[call-overload]
        assert output == {"joined": "#2 #4 #6"}
        assert pool.submit(os.getpid).result() == os.getpid()  # it is still its owner's
    said = [text for text in told.messages if text.startswith("warn: executor ThreadPoolExecutor: ")]
    assert len(said) == 1
    assert "a step's timeout is not enforced" in said[0]
    assert run(flow_of("chain"), [5] * 300, dsn=dsn, executor="inline") == {"joined": " ".join(["#10"] * 300)}
    with processes() as pool:
        assert run(flow_of("chain"), [1], dsn=dsn, executor=pool) == {"joined": "#2"}


@pytest.mark.slow
def test_an_item_that_kills_its_process_fails_alone_where_the_executor_can_be_made_anew(dsn: str) -> None:
    orders = [["echo", 1], ["segfault", 0], ["echo", 2]]
    with pytest.raises(RunFailed, match="quarantined after 2 crashes") as caught:
        run(flow_of("mischief"), orders, dsn=dsn, executor=processes)
    assert caught.value.run_id


@pytest.mark.slow
def test_a_broken_executor_that_is_not_ours_ends_the_worker_and_the_run_can_go_on(dsn: str) -> None:
    run_id = "6a0c38c5-19be-4d1c-a1a5-8b4ac6b0d6c4"
    pool = ProcessPoolExecutor(2, mp_context=multiprocessing.get_context("spawn"))
    with pytest.raises(PgflowError, match="Executor ProcessPoolExecutor is broken") as caught:
        run(flow_of("mischief"), [["echo", 1], ["segfault", 0]], dsn=dsn, executor=pool, run_id=run_id)
    assert "made anew" in caught.value.hint
    with pytest.raises(RunFailed, match="quarantined"):
        resume(flow_of("mischief"), run_id, dsn=dsn, executor=processes)


def test_what_is_no_executor_is_refused_before_there_is_a_run(dsn: str) -> None:
    with pytest.raises(ConfigError, match="here is no executor 'dusk'"):
        run(flow_of("chain"), [1], dsn=dsn, executor="dusk")
