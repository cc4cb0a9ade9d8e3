"""What an installation without extras brings, and what it takes to begin: measured, and its bars.

The figures stand in docs/installing.md. Times are ratios to an empty program of the same interpreter in the
same minute, the best of several each, so that a busy machine makes both slow.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

PACKAGES = 19
"""Packages that pip installs, ours among them, at most."""
MEGABYTES = 90
"""Megabytes (1e6) of these on disk, compiled modules included, at most."""
IMPORT_MODULES, COMMAND_MODULES = 45, 130
"""Modules that ``import pgflow_mp`` and ``pgflow-mp --version`` load besides an empty program's, at most."""
IMPORT_RATIO, COMMAND_RATIO = 4.0, 12.0
"""How often the time of an empty program they may take, the start of Python included."""

MEASURE = r"""
import importlib.metadata, json, os, subprocess, sys, time
OURS = {"pip", "setuptools", "wheel", "distribute"}
found = {"packages": [], "bytes": 0}
for each in importlib.metadata.distributions():
    if each.metadata["Name"].lower() in OURS:
        continue
    found["packages"].append(each.metadata["Name"])
    for file in each.files or ():
        try:
            found["bytes"] += os.stat(each.locate_file(file)).st_size
        except OSError:
            pass
found["packages"].sort(key=str.lower)
count = "import sys; print(len(sys.modules))"
version = "import sys, io; from pgflow_mp.cli.main import main; sys.argv = ['pgflow-mp', '--version']\n"
version += "try: main()\nexcept SystemExit: pass\nprint(len(sys.modules))"
cases = {"empty": count, "import": "import pgflow_mp; " + count, "command": version}
command = os.path.join(os.path.dirname(sys.executable), "pgflow-mp")
for name, code in cases.items():
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    found[name] = {"modules": int(done.stdout.split()[-1]), "seconds": 60.0}
cases = {
    "empty": [sys.executable, "-c", "pass"],
    "import": [sys.executable, "-c", "import pgflow_mp"],
    "command": [command, "--version"],
}
for _ in range(15):
    for name, line in cases.items():
        begun = time.perf_counter()
        subprocess.run(line, check=True, stdout=subprocess.DEVNULL)
        found[name]["seconds"] = min(found[name]["seconds"], time.perf_counter() - begun)
print(json.dumps(found))
"""
"""A program for the installation's interpreter: prints what ``problems`` and ``told`` read, as JSON."""


def ratio(measured: dict[str, Any], what: str) -> float:
    """How often the time of an empty program ``what`` takes."""
    return float(measured[what]["seconds"]) / float(measured["empty"]["seconds"])


def modules(measured: dict[str, Any], what: str) -> int:
    """How many modules ``what`` loads that an empty program does not."""
    return int(measured[what]["modules"]) - int(measured["empty"]["modules"])


def told(measured: dict[str, Any]) -> str:
    """The measurement in a line."""
    return (
        f"without extras: {len(measured['packages'])} packages, {measured['bytes'] / 1e6:.0f} MB; "
        f"import pgflow_mp takes {ratio(measured, 'import'):.1f} times as long as an empty program, "
        f"{modules(measured, 'import')} modules; pgflow-mp --version "
        f"{ratio(measured, 'command'):.1f} times, {modules(measured, 'command')} modules"
    )


def problems(measured: dict[str, Any]) -> Iterator[str]:
    """What is past its bar."""
    if len(measured["packages"]) > PACKAGES:
        names = ", ".join(measured["packages"])
        yield f"{len(measured['packages'])} packages are installed, {PACKAGES} at most: {names}"
    if measured["bytes"] > MEGABYTES * 1e6:
        yield f"{measured['bytes'] / 1e6:.0f} MB are installed, {MEGABYTES} at most"
    for what, most, longest in (
        ("import", IMPORT_MODULES, IMPORT_RATIO),
        ("command", COMMAND_MODULES, COMMAND_RATIO),
    ):
        if modules(measured, what) > most:
            yield f"{what}: {modules(measured, what)} modules are loaded, {most} at most"
        if ratio(measured, what) > longest:
            yield f"{what}: {ratio(measured, what):.1f} times the time of an empty program, {longest} at most"
