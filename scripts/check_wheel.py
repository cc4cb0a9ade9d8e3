#!/usr/bin/env python3
"""Build sdist and wheel, look into both, install the wheel out of sight of the checkout, run the main job.

The wheel that is built from the sdist, elsewhere, has to be the same to the byte. What an installation
without extras brings and costs is measured and compared with its bars (scripts/_footprint.py).

Everything happens in a temporary directory: a new virtual environment, an empty working directory, a
home and a data directory of its own. Exit status 0 means that all of it worked.
"""

from __future__ import annotations

import argparse
import json
import os
import pwd
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import _distributions
import _footprint

USABLE = "import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))"


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--wheel", type=Path, help="check this wheel, build nothing")
    parser.add_argument("--keep", type=Path, metavar="DIR", help="leave what was built in this directory")
    parser.add_argument("--user", help="install and run as this user (needs root)")
    parser.add_argument("--python", help="interpreter of the virtual environment (default: one USER can run)")
    parser.add_argument(
        "--bare", metavar="PACKAGE", help="install PACKAGE without what it asks for, which has no wheel here"
    )
    parser.add_argument("--files", type=int, metavar="N", help="measure only N files (default: all of them)")
    parser.add_argument("--no-run", action="store_true", help="only look into what was built")
    options = parser.parse_args()

    with tempfile.TemporaryDirectory(prefix="pgflow-wheel-") as name:
        place = Path(name)
        wheel, sdist = (options.wheel, None) if options.wheel else build(place)
        complain(wheel, _distributions.problems_of_wheel(wheel))
        print(f"{wheel.name}: {wheel.stat().st_size / 1024:.0f} KiB, complete")
        if options.keep:
            options.keep.mkdir(parents=True, exist_ok=True)
            for built in filter(None, (wheel, sdist)):
                shutil.copy(built, options.keep)
        if options.no_run:
            return 0
        account = pwd.getpwnam(options.user) if options.user else None
        return Installation(place, account, options.python).check(wheel, options.files, options.bare)


def build(place: Path) -> tuple[Path, Path]:
    """Build both in ``place``; returns wheel and sdist. Exits where they are not as they should be."""
    print("building sdist and wheel, and a wheel of the sdist")
    sdist, wheel = sorted(_distributions.build(place / "dist"), key=lambda path: path.suffix)
    complain(sdist, _distributions.problems_of_sdist(sdist))
    other = _distributions.wheel_of_sdist(sdist, place / "elsewhere")
    complain(sdist, _distributions.differences(wheel, other))
    print(f"{sdist.name}: {sdist.stat().st_size / 1024:.0f} KiB, complete; the wheel of it is the same")
    return wheel, sdist


def complain(about: Path, problems: Iterable[str]) -> None:
    """Exit where there are problems."""
    found = [f"{about.name}: {problem}" for problem in problems]
    if found:
        sys.exit("\n".join(found))


class Installation:
    """A virtual environment outside of the checkout, and the user that works in it."""

    def __init__(self, place: Path, account: pwd.struct_passwd | None, python: str | None) -> None:
        self.place = place / "installed"
        self.account = account
        place.chmod(0o755)
        for directory in (self.place, self.place / "home", self.place / "empty"):
            directory.mkdir(mode=0o755)
            if account is not None:
                os.chown(directory, account.pw_uid, account.pw_gid)
        self.python = python or self._find_python()

    def check(self, wheel: Path, files: int | None, bare: str | None) -> int:
        """Install the wheel and run the main job; returns the exit status."""
        venv = self.place / "venv"
        copy = self.place / wheel.name
        shutil.copy(wheel, copy)
        copy.chmod(0o644)
        self.run([self.python, "-m", "venv", str(venv)])
        pip = [str(venv / "bin" / "pip"), "install", "--quiet"]
        if bare is None:
            self.run([*pip, str(copy)])
        else:
            needs = [need for need in _distributions.needs_of(wheel) if not need.startswith(bare)]
            self.run([*pip, "--only-binary", ":all:", *needs])
            self.run([*pip, "--no-deps", bare, str(copy)])
        found = self.run([str(venv / "bin" / "python"), "-c", "import pgflow_mp; print(pgflow_mp.__file__)"])
        if not found.strip().startswith(str(venv.resolve())):
            sys.exit(f"pgflow_mp was imported from {found.strip()}, not from the wheel")
        self.check_footprint(venv)

        output = self.place / "empty" / "report.json"
        command = [str(venv / "bin" / "python"), "-m", "pgflow_mp", "run", "code_metrics"]
        command += ["--data-dir", str(self.place / "home" / "data"), "--output", str(output)]
        if files is not None:
            command += ["--input", json.dumps({"limit": files})]
        started = time.monotonic()
        print(self.run(command), end="")
        seconds = time.monotonic() - started
        report: Any = json.loads(output.read_text())
        report = report.get("report", report)
        who = self.account.pw_name if self.account else f"user {os.getuid()}"
        print(f"As {who}: {report['files']} files, {report['lines']} lines measured in {seconds:.1f} s")
        if files is None and report["files"] < 1500:
            print(f"Only {report['files']} files were found, at least 1500 were expected", file=sys.stderr)
            return 1
        return 0

    def check_footprint(self, venv: Path) -> None:
        """Measure what is installed, and what it takes to begin; exits where that is past its bars."""
        measured = json.loads(self.run([str(venv / "bin" / "python"), "-c", _footprint.MEASURE]))
        print(_footprint.told(measured))
        if problems := list(_footprint.problems(measured)):
            sys.exit("\n".join(problems))

    def run(self, command: list[str]) -> str:
        """Run a command to its end in the empty directory; returns its standard output, or exits."""
        kept = {
            key: value for key, value in os.environ.items() if not key.startswith(("PYTHON", "VIRTUAL_ENV"))
        }
        home = str(self.place / "home")
        environment = {**kept, "HOME": home}
        who: dict[str, Any] = {}
        if self.account is not None:
            environment |= {"USER": self.account.pw_name, "LOGNAME": self.account.pw_name}
            environment["XDG_CACHE_HOME"] = f"{home}/.cache"
            who = {"user": self.account.pw_uid, "group": self.account.pw_gid, "extra_groups": []}
        done = subprocess.run(
            command,
            cwd=self.place / "empty",
            env=environment,
            text=True,
            capture_output=True,
            check=False,
            **who,
        )
        if done.returncode:
            sys.exit(f"{' '.join(command)}\nexited with {done.returncode}\n{done.stdout}{done.stderr}")
        return str(done.stdout)

    def _find_python(self) -> str:
        """An interpreter that is new enough and that the user can run: ours may lie in root's home."""
        ours = os.path.realpath(os.path.join(sys.base_prefix, "bin", f"python3.{sys.version_info.minor}"))
        if self.account is None:
            return ours
        for python in (ours, "/usr/local/bin/python3", "/usr/bin/python3"):
            command = ["/usr/bin/env", python, "-c", USABLE]
            who: dict[str, Any] = {"user": self.account.pw_uid, "group": self.account.pw_gid}
            done = subprocess.run(command, check=False, capture_output=True, cwd="/", extra_groups=[], **who)
            if done.returncode == 0:
                return python
        sys.exit(f"{self.account.pw_name} can run no Python 3.11 or newer that has venv")


if __name__ == "__main__":
    sys.exit(main())
