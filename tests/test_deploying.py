"""docs/deploy: what is to be copied names commands, options, pages and times that fit."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from pgflow_mp.cli import main as cli_main
from pgflow_mp.cli.converters import seconds

DEPLOY = Path(__file__).resolve().parent.parent / "docs" / "deploy"
MANIFESTS = sorted((DEPLOY / "kubernetes").glob("*.yaml"))


def documents() -> Iterator[dict[str, Any]]:
    for file in MANIFESTS:
        yield from yaml.safe_load_all(file.read_text())


def pods() -> Iterator[tuple[str, dict[str, Any]]]:
    """The pods that are made, by the name of what makes them."""
    for document in documents():
        if "template" in document.get("spec", {}):
            yield document["metadata"]["name"], document["spec"]["template"]["spec"]


def command_lines() -> dict[str, list[str]]:
    """The arguments of the program, by where they are said."""
    found = {f"kubernetes {name}": [*map(str, pod["containers"][0]["args"])] for name, pod in pods()}
    services = yaml.safe_load((DEPLOY / "compose.yaml").read_text())["services"]
    found |= {f"compose {name}": each["command"] for name, each in services.items() if "command" in each}
    last = re.findall(r"^CMD \[(.*)\]$", (DEPLOY / "Dockerfile").read_text(), re.MULTILINE)
    found["Dockerfile"] = re.findall(r'"([^"]*)"', last[0])
    unit = re.findall(r"^ExecStart=.* -m pgflow_mp (.*)$", (DEPLOY / "pgflow-mp@.service").read_text(), re.M)
    found["systemd"] = shlex.split(unit[0].replace("%i", "app.flows"))
    script = (DEPLOY / "workers.sbatch").read_text()
    batch = re.findall(r"-m pgflow_mp (.*)$", script, re.MULTILINE)
    found["slurm"] = shlex.split(batch[0].replace("${SLURM_CPUS_PER_TASK:-auto}", "32"))
    return found


@pytest.mark.parametrize("place", command_lines())
def test_every_command_can_be_typed(place: str) -> None:
    verb, rest = cli_main._split(command_lines()[place])
    cli_main._parser(verb, cli_main._module(verb)).parse(rest, env={})


def test_whoever_stops_a_worker_waits_longer_than_its_grace() -> None:
    def grace(arguments: list[str]) -> float:
        return seconds(arguments[arguments.index("--grace") + 1]) if "--grace" in arguments else 30

    lines = command_lines()
    for name, pod in pods():
        if "livenessProbe" in pod["containers"][0] or name == "jobs-run":
            assert pod["terminationGracePeriodSeconds"] >= grace(lines[f"kubernetes {name}"]) + 10
    services = yaml.safe_load((DEPLOY / "compose.yaml").read_text())["services"]
    assert seconds(services["worker"]["stop_grace_period"]) >= grace(lines["compose worker"]) + 10
    unit = (DEPLOY / "pgflow-mp@.service").read_text()
    assert float(re.findall(r"TimeoutStopSec=(\d+)", unit)[0]) >= grace(lines["systemd"]) + 10
    told = float(re.findall(r"--signal=TERM@(\d+)", (DEPLOY / "workers.sbatch").read_text())[0])
    assert told >= grace(lines["slurm"]) + 10


def test_probes_ask_for_pages_that_there_are() -> None:
    page = (DEPLOY.parent / "monitoring.md").read_text()
    for _, pod in pods():
        for container in pod["containers"]:
            ports = {port["name"]: str(port["containerPort"]) for port in container.get("ports", ())}
            for name in ("startupProbe", "livenessProbe", "readinessProbe"):
                if name in container:
                    asked = container[name]["httpGet"]
                    assert f"| `{asked['path']}` |" in page
                    at = container["args"].index("--metrics-port") + 1
                    assert ports[asked["port"]] == container["args"][at]


def test_no_password_and_no_root_is_in_what_is_copied() -> None:
    for name, pod in pods():
        (container,) = pod["containers"]
        urls = [each for each in container["env"] if each["name"] == "PGFLOW_DATABASE_URL"]
        assert ["secretKeyRef" in each["valueFrom"] for each in urls] == [True], name
    assert re.search(r"^USER \d+$", (DEPLOY / "Dockerfile").read_text(), re.MULTILINE)


def tool(name: str) -> str:
    """A program of this environment or of the path; skips where there is none."""
    beside = Path(sys.executable).with_name(name)
    found = str(beside) if beside.exists() else shutil.which(name)
    return found or pytest.skip(f"no {name} here")


@pytest.mark.slow
def test_linters_have_nothing_to_say(tmp_path: Path) -> None:
    files = [str(file) for file in MANIFESTS if file.name != "kustomization.yaml"]  # no resource of a server
    unit = tmp_path / "pgflow-mp@app.service"
    text = (DEPLOY / "pgflow-mp@.service").read_text()
    unit.write_text(text.replace("/srv/app/.venv/bin/python", "/bin/true").replace("User=pgflow\n", ""))
    commands = [
        [tool("hadolint"), str(DEPLOY / "Dockerfile")],
        [tool("shellcheck"), str(DEPLOY / "workers.sbatch")],
        [tool("kubernetes-validate"), "--strict", *files],
    ]
    if (verify := shutil.which("systemd-analyze")) is not None:
        commands.append([verify, "verify", str(unit)])
    if (compose := shutil.which("docker-compose")) is not None:
        commands.append([compose, "--file", str(DEPLOY / "compose.yaml"), "config", "--quiet"])
    for command in commands:
        done = subprocess.run(
            command,
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
            env={"PATH": "/usr/bin:/bin", "POSTGRES_PASSWORD": "x", "HOME": str(tmp_path)},
        )
        assert done.returncode == 0, [*command, done.stdout, done.stderr]
