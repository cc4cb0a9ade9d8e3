"""PgBouncer in front of a server."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from open_folders import open_to_others
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from tcp_proxy import TcpProxy
from worker_harness import eventually


@contextlib.contextmanager
def pooled(dsn: str, folder: Path, mode: str = "transaction", size: int = 3) -> Iterator[str]:
    """A database through a pooler of ``size`` connections; it may not run as root, nor see the socket."""
    if (program := shutil.which("pgbouncer")) is None:
        pytest.skip("no pgbouncer here")
    at = conninfo_to_dict(dsn)
    with TcpProxy(dsn) as proxy, (folder / "log").open("w") as log:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        settings = folder / "pgbouncer.ini"
        settings.write_text(
            f"[databases]\n{at['dbname']} = host=127.0.0.1 port={proxy.port} user={at['user']}\n"
            f"[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {port}\nunix_socket_dir =\n"
            f"auth_type = any\npool_mode = {mode}\ndefault_pool_size = {size}\nquery_wait_timeout = 5\n"
        )
        command = [program, str(settings)]
        if os.geteuid() == 0:
            open_to_others(folder)
            command[1:1] = ["-u", "nobody"]
        pooler = subprocess.Popen(command, stdout=log, stderr=log)
        try:
            through = make_conninfo(host="127.0.0.1", port=port, dbname=at["dbname"], user=at["user"])
            eventually(lambda: _answers(through))
            yield through
        finally:
            pooler.kill()
            pooler.wait()


def _answers(dsn: str) -> bool:
    try:
        psycopg.connect(dsn, connect_timeout=6).close()
    except psycopg.OperationalError:
        return False
    return True
