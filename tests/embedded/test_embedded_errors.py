"""Why an embedded server cannot start: one screen that says what, where and what to do."""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

import psycopg
import pytest

from pgflow_mp.embedded import lease
from pgflow_mp.embedded.server import EmbeddedServer
from pgflow_mp.errors import EmbeddedServerError

from .embedded_clients import Client, is_quiet, postmasters, wait_until


def refusal(base: Path, **options: object) -> EmbeddedServerError:
    with pytest.raises(EmbeddedServerError) as caught:
        EmbeddedServer(base, **options).start()  # type: ignore[arg-type]
    assert caught.value.hint
    return caught.value


def mounted(directory: Path, options: str, then: str = "") -> Sequence[str]:
    """A command prefix under which a small file system of its own is mounted on ``directory``."""
    directory.mkdir(exist_ok=True)
    script = f'mount -t tmpfs -o {options} tmpfs "{directory}" && {then or "true"} && exec "$@"'
    probe = ["unshare", "--mount", "sh", "-c", f'mount -t tmpfs -o size=1m tmpfs "{directory}"']
    if os.geteuid() != 0 or subprocess.run(probe, check=False, capture_output=True).returncode != 0:
        pytest.skip("file systems cannot be mounted here")
    return ["unshare", "--mount", "sh", "-c", script, "sh"]


def test_a_read_only_file_system_is_named_as_such(tmp_path: Path) -> None:
    with Client(tmp_path / "disk", prefix=mounted(tmp_path / "disk", "ro,size=1m")) as client:
        assert f"Cannot use the data directory {tmp_path}/disk/postgres-18" in client.report["error"]
        assert "read-only" in client.report["error"]
        assert "--data-dir" in client.report["hint"]


@pytest.mark.slow
def test_a_file_system_that_became_read_only_is_named_as_such(base: Path) -> None:
    then = f'cp -a "{base}/." "{base}.disk" && mount -o remount,ro "{base}.disk"'
    disk = Path(f"{base}.disk")
    with Client(disk, prefix=mounted(disk, "size=200m", then)) as client:
        assert "read-only" in client.report["error"]
        assert "--data-dir" in client.report["hint"]


@pytest.mark.parametrize(
    ("options", "then"), [("size=20m", ""), ("size=1m", "dd if=/dev/zero bs=1k of={}/x || true")]
)
def test_a_full_disk_is_named_as_such_and_nothing_half_made_stays(
    tmp_path: Path, options: str, then: str
) -> None:
    disk = tmp_path / "disk"
    with Client(disk, prefix=mounted(disk, options, then.format(disk))) as client:
        inside = Path(f"/proc/{client.process.pid}/root{disk}")
        error = client.report["error"]
        assert "no space left on the disk" in error
        assert str(disk / "postgres-18") in error
        assert "Free some space" in client.report["hint"]
        assert list(inside.glob("postgres-18/initdb-*")) == []


def test_a_path_through_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert "a part of the path is a file" in str(refusal(tmp_path / "file"))


def test_a_path_that_is_too_long_is_refused(tmp_path: Path) -> None:
    assert "the path is too long" in str(refusal(tmp_path / ("x" * 300)))


def test_a_directory_that_is_no_cluster_is_refused_and_left_alone(tmp_path: Path) -> None:
    data = tmp_path / "postgres-18" / "data"
    data.mkdir(parents=True)
    (data / "diary.txt").write_text("dear diary")
    error = refusal(tmp_path)
    assert f"{data} is not a PostgreSQL data directory" in str(error)
    assert [path.name for path in data.iterdir()] == ["diary.txt"]


def test_a_cluster_of_another_version_is_refused(base: Path) -> None:
    (base / "postgres-18" / "data" / "PG_VERSION").write_text("16\n")
    error = refusal(base)
    assert "belongs to PostgreSQL 16, but the binaries here are version 18" in str(error)
    assert "pg_dump" in error.hint


def test_the_data_directory_of_somebody_elses_server_is_no_base(base: Path) -> None:
    error = refusal(base / "postgres-18" / "data")
    assert "is the data directory of another PostgreSQL server" in str(error)
    assert "--dsn" in error.hint


def test_missing_binaries_are_named(tmp_path: Path) -> None:
    error = refusal(tmp_path, bin_dir=tmp_path)
    assert f"No postgres and no initdb in {tmp_path}" in str(error)
    assert "--dsn" in error.hint


def test_binaries_of_another_platform_are_recognised(tmp_path: Path) -> None:
    for name in ("postgres", "initdb"):
        (tmp_path / name).write_bytes(b"\x7fELF" + bytes(200))
        (tmp_path / name).chmod(0o755)
    error = refusal(tmp_path, bin_dir=tmp_path)
    assert f"{tmp_path / 'postgres'} does not run here" in str(error)
    assert "Exec format error" in str(error)


def test_a_wrong_setting_is_named_with_the_last_lines_of_the_log(base: Path) -> None:
    error = refusal(base, settings={"shared_buffers": "plenty"})
    assert "a setting is wrong" in str(error)
    assert 'invalid value for parameter "shared_buffers"' in str(error)
    assert f"{base}/postgres-18/server.log" in str(error)
    with EmbeddedServer(base) as server, psycopg.connect(server.dsn) as conn:
        assert conn.execute("select answer from public.kept").fetchone() == (42,)


def test_the_reason_is_that_of_this_start_not_of_an_earlier_one(base: Path) -> None:
    log = base / "postgres-18" / "server.log"
    log.write_text(log.read_text() + "PANIC: No space left on device\n")
    assert "a setting is wrong" in str(refusal(base, settings={"port": "99999"}))


def test_a_damaged_cluster_is_named_as_such(base: Path) -> None:
    (base / "postgres-18" / "data" / "global" / "pg_control").write_bytes(bytes(8192))
    error = refusal(base)
    assert "the cluster is damaged" in str(error)
    assert "Restore" in error.hint


@pytest.mark.slow
def test_a_missing_part_of_a_cluster_is_reported_with_the_log(base: Path) -> None:
    shutil.rmtree(base / "postgres-18" / "data" / "global")
    assert "pg_control" in str(refusal(base))


def test_a_server_started_by_hand_on_the_same_cluster_is_not_touched(base: Path, tmp_path: Path) -> None:
    home = base / "postgres-18"
    with EmbeddedServer(base) as server:
        binary = postmasters(home)[0].exe()
        version = server.dsn
    command = [binary, "-D", str(home / "data"), "-c", "listen_addresses=", "-k", "/tmp", "-p", "54997"]
    if os.geteuid() == 0:
        command = ["unshare", "--user", "--map-user=1000", "--map-group=1000", *command]
    log = tmp_path / "by-hand.log"
    with log.open("wb") as output:
        by_hand = subprocess.Popen(command, stdout=output, stderr=output, env={"LC_ALL": "C"})
    try:
        wait_until(lambda: "ready to accept" in log.read_text())
        error = refusal(base)
        assert "another server, not started by pgflow_mp, uses this data directory" in str(error)
        assert by_hand.poll() is None
    finally:
        by_hand.terminate()
        by_hand.wait()
    with EmbeddedServer(base) as server:
        assert server.dsn == version


@pytest.mark.slow
def test_a_server_that_cannot_be_reached_from_here_is_reported(
    base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lease, "BUSY_LIMIT", 0.5)
    with (base / "postgres-18" / "supervisor.lock").open("r+") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        error = refusal(base)
    assert "in use by a server that cannot be reached from here" in str(error)
    assert "container" in error.hint
    wait_until(lambda: is_quiet(base / "postgres-18"))


@pytest.mark.slow
def test_a_failed_throwaway_server_leaves_no_files(tmp_path: Path) -> None:
    refusal(tmp_path, throwaway=True, settings={"shared_buffers": "plenty"})
    assert list(tmp_path.iterdir()) == []
