#!/usr/bin/env python3
"""Build the wheel, look into it, install it where no checkout is in sight, and run the main job from it.

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
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
FOREIGN = ("tests/", "benchmarks/", "scripts/", "sql/", "_sql/")
USABLE = "import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))"


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--wheel", type=Path, help="check this wheel instead of building one")
    parser.add_argument("--keep", type=Path, metavar="DIR", help="leave the built wheel in this directory")
    parser.add_argument("--user", help="install and run as this user (needs root)")
    parser.add_argument("--python", help="interpreter of the virtual environment (default: one USER can run)")
    parser.add_argument("--files", type=int, metavar="N", help="measure only N files (default: all of them)")
    parser.add_argument("--no-run", action="store_true", help="only look into the wheel")
    options = parser.parse_args()

    with tempfile.TemporaryDirectory(prefix="pgflow-wheel-") as name:
        place = Path(name)
        wheel = options.wheel or build(place / "dist")
        problems = list(look_into(wheel))
        for problem in problems:
            print(f"{wheel.name}: {problem}", file=sys.stderr)
        if problems:
            return 1
        print(f"{wheel.name}: {wheel.stat().st_size / 1024:.0f} KiB, complete")
        if options.keep:
            options.keep.mkdir(parents=True, exist_ok=True)
            shutil.copy(wheel, options.keep)
        if options.no_run:
            return 0
        account = pwd.getpwnam(options.user) if options.user else None
        return Installation(place, account, options.python).check(wheel, options.files)


def build(directory: Path) -> Path:
    """Build the wheel of this checkout; returns its path."""
    command = [sys.executable, "-m", "build", "--wheel", "--outdir", str(directory), str(ROOT)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"The wheel cannot be built:\n{done.stdout}{done.stderr}")
    return next(directory.glob("*.whl"))


def look_into(wheel: Path) -> Iterator[str]:
    """What is wrong with the contents of the wheel."""
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        for source in sorted((ROOT / "sql").rglob("*.sql")):
            packed = f"pgflow_mp/_sql/{source.relative_to(ROOT / 'sql').as_posix()}"
            if packed not in names:
                yield f"{packed} is missing"
            elif archive.read(packed) != source.read_bytes():
                yield f"{packed} differs from {source.relative_to(ROOT)}"
        modules = [path for path in (ROOT / "pgflow_mp").rglob("*.py") if "_sql" not in path.parts]
        web = ROOT / "pgflow_mp" / "web"
        pages = [path for part in ("assets", "templates") for path in (web / part).rglob("*.*")]
        for module in [*modules, *pages, ROOT / "pgflow_mp" / "py.typed"]:
            if (packed := module.relative_to(ROOT).as_posix()) not in names:
                yield f"{packed} is missing"
        for name in sorted(names):
            if name.startswith(FOREIGN) or "/tests/" in name or "__pycache__" in name:
                yield f"{name} does not belong there"
        if not any(name.endswith("licenses/LICENSE") for name in names):
            yield "the licence is missing"
        entry_points = [name for name in names if name.endswith(".dist-info/entry_points.txt")]
        if not entry_points or b"pgflow-mp = pgflow_mp.cli.main:main" not in archive.read(entry_points[0]):
            yield "the command pgflow-mp is missing"


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

    def check(self, wheel: Path, files: int | None) -> int:
        """Install the wheel and run the main job; returns the exit status."""
        venv = self.place / "venv"
        copy = self.place / wheel.name
        shutil.copy(wheel, copy)
        copy.chmod(0o644)
        self.run([self.python, "-m", "venv", str(venv)])
        self.run([str(venv / "bin" / "pip"), "install", "--quiet", str(copy)])
        found = self.run([str(venv / "bin" / "python"), "-c", "import pgflow_mp; print(pgflow_mp.__file__)"])
        if not found.strip().startswith(str(venv.resolve())):
            sys.exit(f"pgflow_mp was imported from {found.strip()}, not from the wheel")

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
