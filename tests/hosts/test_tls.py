"""A worker and its server over TLS: with the right certificate, and not at all with another one."""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from database_server import system_bin_dirs
from pg_cluster import Cluster, initialise, place_for_clusters
from psycopg.conninfo import make_conninfo
from worker_harness import FLOWS

from pgflow_mp.db import schema

pytestmark = pytest.mark.slow


def certificate(folder: Path, name: str) -> tuple[Path, Path]:
    """A self-signed certificate for localhost, and its key."""
    program = shutil.which("openssl")
    if program is None:
        pytest.skip("no openssl here, to make certificates")
    public, key = folder / f"{name}.crt", folder / f"{name}.key"
    command = "req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=localhost"
    command += " -addext subjectAltName=DNS:localhost"
    subprocess.run(
        [program, *command.split(), "-keyout", str(key), "-out", str(public)], check=True, capture_output=True
    )
    return public, key


@pytest.fixture(scope="module")
def secured() -> Iterator[tuple[Cluster, Path, Path]]:
    """A server that lets in by TCP who speaks TLS, its certificate, and another one."""
    if not (found := system_bin_dirs()):
        pytest.skip("the server of the wheel has no TLS, and there is no other one in /usr/lib/postgresql")
    with place_for_clusters() as place:
        public, key = certificate(place, "server")
        other, _ = certificate(place, "other")
        names = {"ssl_cert_file": str(public), "ssl_key_file": str(key)}
        cluster = Cluster(place / "server", bin_dir=found[-1], ssl="on", log_connections="on", **names)
        initialise(cluster)
        cluster.own(key)
        rules = "local all all trust\nhostssl all all 127.0.0.1/32 trust\n"
        (cluster.data / "pg_hba.conf").write_text(rules)
        try:
            cluster.start()
            with psycopg.connect(cluster.dsn(host=str(cluster.home)), autocommit=True) as conn:
                schema.install(conn)
            yield cluster, public, other
        finally:
            cluster.stop(signal.SIGQUIT)


def run(cluster: Cluster, **parameters: str) -> subprocess.CompletedProcess[str]:
    """The run of a flow by a worker of its own."""
    dsn = make_conninfo(cluster.dsn(), sslmode="verify-full", hostaddr="127.0.0.1", **parameters)
    command = [
        sys.executable,
        "-m",
        "pgflow_mp",
        "run",
        f"{FLOWS}:naps",
        "--input",
        "[0, 0]",
        "--output",
        "-",
    ]
    return subprocess.run(
        [*command, "--workers", "1", "--dsn", dsn], capture_output=True, text=True, check=False, timeout=60
    )


def test_a_run_over_tls_that_checks_certificate_and_name(secured: tuple[Cluster, Path, Path]) -> None:
    cluster, public, _ = secured
    done = run(cluster, host="localhost", sslrootcert=str(public))
    assert (done.returncode, done.stdout.strip()) == (0, '{"count": 2}'), done.stderr
    said = (cluster.home / "log").read_text().splitlines()
    ours = [line for line in said if "connection authorized" in line and "pgflow_mp" in line]
    assert len(ours) >= 3
    assert [line for line in ours if "SSL enabled" not in line] == []


@pytest.mark.parametrize("wrong", ["certificate", "name"])
def test_another_certificate_or_name_is_refused(secured: tuple[Cluster, Path, Path], wrong: str) -> None:
    cluster, public, other = secured
    name = "db.example" if wrong == "name" else "localhost"
    done = run(cluster, host=name, sslrootcert=str(other if wrong == "certificate" else public))
    assert done.returncode == 3
    assert "Check sslmode, sslrootcert and the host name" in done.stderr
    assert "Traceback" not in done.stderr
