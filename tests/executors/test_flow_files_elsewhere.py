"""Executors of others are given what a flow file said, and the list of what it may name."""

from __future__ import annotations

from pathlib import Path

import pytest

from pgflow_mp.executors import remote
from pgflow_mp.executors.messages import decode_hello, encode
from pgflow_mp.loading import flow_files
from pgflow_mp.loading.targets import Target
from pgflow_mp.worker.settings import WorkerSettings
from pgflow_mp.worker.startup import lane_setup

FLOW = "slug: a_flow\nsteps: [{handler: 'data_handlers:length', kind: map}]\n"


@pytest.mark.parametrize("listed", [("data_handlers",), ()])
def test_a_process_elsewhere_makes_the_flow_of_what_the_file_said(
    tmp_path: Path, listed: tuple[str, ...]
) -> None:
    file = tmp_path / "flow.yaml"
    file.write_text(FLOW)
    setup = lane_setup(WorkerSettings(dsn="", targets=(str(file),), handlers=listed))
    file.unlink()
    hello = decode_hello(remote.hello(encode(setup)))
    remote.forget(encode(setup))
    if listed:
        assert ([info.slug for info in hello.flows], hello.error) == (["a_flow"], "")
        assert [code.module for code in hello.code] == ["data_handlers"]
    else:
        assert (hello.flows, "not on the list of handlers" in hello.error) == ([], True)


def test_what_was_read_already_is_not_read_again(tmp_path: Path) -> None:
    file = tmp_path / "flow.yaml"
    file.write_text(FLOW)
    target = flow_files.with_contents(Target.parse(f"{file}:a_flow"), "data_handlers")
    file.write_text("another: {")
    settings = WorkerSettings(
        dsn="", targets=(str(target),), contents=target.by_path, handlers=target.handlers
    )
    assert lane_setup(settings).contents == {str(file): FLOW.encode()}
    assert "contents" not in settings.for_handlers()
