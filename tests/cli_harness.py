"""Running the command line as a user does, in a process of its own."""

from __future__ import annotations

import json
import os
import pty
import re
import select
import signal
import subprocess
import sys
import termios
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import warm_python

FLOWS = Path(__file__).with_name("cli_flows.py")
WIDTH = 80
_ANSI = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]|\x1b[()][A-Z0-9]")


def environment(home: Path, **extra: str) -> dict[str, str]:
    """This process's environment without anything that options or libpq would listen to."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("PGFLOW_", "PG", "XDG_")) or name == "PGFLOW_TEST_SESSION"
    }
    kept.pop("DATABASE_URL", None)
    return {**kept, "XDG_DATA_HOME": str(home), "COLUMNS": str(WIDTH), "NO_COLOR": "1", **extra}


def _kind(variables: dict[str, str]) -> type[subprocess.Popen[str]]:
    return warm_python.Process if warm_python.can_run(variables) else subprocess.Popen


@dataclass
class Done:
    """A command that has ended."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


class Cli:
    """Calls ``python -m pgflow_mp`` in ``cwd``."""

    def __init__(self, cwd: Path, dsn: str | None = None) -> None:
        self.cwd = cwd
        self.dsn = dsn
        self.started: list[subprocess.Popen[str]] = []

    def command(self, *arguments: str) -> list[str]:
        named = ["--dsn", self.dsn] if self.dsn is not None else []
        return [sys.executable, "-m", "pgflow_mp", *arguments, *named]

    def __call__(self, *arguments: str, stdin: str = "", prefix: tuple[str, ...] = (), **env: str) -> Done:
        variables = environment(self.cwd, **env)
        if not prefix and warm_python.can_run(variables):
            _, _, module, *rest = self.command(*arguments)
            done = warm_python.run(module, rest, cwd=self.cwd, env=variables, input=stdin.encode())
        else:
            done = subprocess.run(
                [*prefix, *self.command(*arguments)],
                cwd=self.cwd,
                env=variables,
                input=stdin.encode(),
                capture_output=True,
                timeout=60,
                check=False,
            )
        return Done(done.returncode, done.stdout.decode(), done.stderr.decode())

    def start(self, *arguments: str, **env: str) -> subprocess.Popen[str]:
        """Start a command and leave it running."""
        variables = environment(self.cwd, **env)
        process = _kind(variables)(
            self.command(*arguments),
            cwd=self.cwd,
            env=variables,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.started.append(process)
        return process

    def kill_all(self) -> None:
        """End what a failed test has left running."""
        for process in self.started:
            if process.poll() is None:
                process.kill()
            process.communicate()


def finish(process: subprocess.Popen[str], timeout: float = 30.0) -> Done:
    """Wait for a started command."""
    out, err = process.communicate(timeout=timeout)
    return Done(process.returncode, out, err)


class OnTerminal:
    """A command whose three streams are one terminal of 80 x 24."""

    def __init__(self, cli: Cli, *arguments: str, size: tuple[int, int] = (24, 80), **env: str) -> None:
        self._terminal, theirs = pty.openpty()
        termios.tcsetwinsize(theirs, size)
        os.set_blocking(self._terminal, False)
        variables = {**environment(cli.cwd), "TERM": "xterm-256color", "LINES": "24", **env}
        self.process: subprocess.Popen[str] = _kind(variables)(
            cli.command(*arguments),
            cwd=cli.cwd,
            env=variables,
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            text=True,
            start_new_session=True,
        )
        os.close(theirs)
        cli.started.append(self.process)
        self.raw = ""

    @property
    def text(self) -> str:
        """What was written so far, without escape sequences."""
        return _ANSI.sub("", self.raw)

    def wait_for(self, pattern: str, timeout: float = 20.0) -> None:
        """Read until ``pattern`` has been written."""
        deadline = time.monotonic() + timeout
        while not re.search(pattern, self.text):
            assert time.monotonic() < deadline, f"no {pattern!r} in:\n{self.text}"
            self._read(0.1)

    def type(self, text: str) -> None:
        """Type it on the keyboard."""
        os.write(self._terminal, text.encode())

    def interrupt(self) -> None:
        """Press Ctrl-C."""
        os.killpg(self.process.pid, signal.SIGINT)

    def finish(self, timeout: float = 30.0) -> Done:
        deadline = time.monotonic() + timeout
        while self.process.poll() is None:
            assert time.monotonic() < deadline, f"still running:\n{self.text}"
            self._read(0.1)
        while self._read(0.1):
            pass
        os.close(self._terminal)
        return Done(self.process.returncode, self.text, "")

    def _read(self, timeout: float) -> bool:
        if not select.select([self._terminal], [], [], timeout)[0]:
            return False
        try:
            data = os.read(self._terminal, 65536)
        except OSError:
            return False
        self.raw += data.decode("utf-8", "replace")
        return bool(data)


def assert_one_screen(done: Done, code: int, *parts: str) -> None:
    """The command failed with ``code``, and said why, where and what to do in a few narrow lines."""
    assert done.code == code, done
    assert done.out == ""
    assert "Traceback" not in done.err, done.err
    lines = done.err.splitlines()
    assert len(lines) <= 24, done.err
    unbroken = [line for line in lines if len(line) >= WIDTH and len(line.split()[-1]) < 40]
    assert not unbroken, unbroken
    said = " ".join(done.err.split())
    for part in parts:
        assert part in said, f"{part!r} not in {said!r}"
    assert "error: " in said
