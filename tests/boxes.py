"""Boxes: workers on hosts of their own, and one PostgreSQL that they reach by TCP.

Where network namespaces can be had (root, Debian's iproute2), the server and each box live in one, joined by
veth pairs: a cable that is pulled says nothing to either end. Elsewhere, or with PGFLOW_TEST_BOXES=plain, a
box is a process with a data path of its own, and a proxy is its cable.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import psutil
from database_server import DatabaseServer
from pg_cluster import Cluster, initialise, place_for_clusters
from psycopg.conninfo import make_conninfo
from tcp_proxy import TcpProxy
from worker_harness import FLOWS

HEARTBEAT = 0.5
DEAD_AFTER = 3.0
TAKEOVER = HEARTBEAT + DEAD_AFTER + 8.0
"""Seconds in which a box that fell silent is noticed, and what it held handed to others: docs/server.md."""
_NETWORK = "10.231"
_numbers = itertools.count(1)


def ip(*arguments: str) -> None:
    """Run ``ip``; its message is the error's."""
    done = subprocess.run(["ip", *arguments], capture_output=True, text=True, check=False)
    if done.returncode:
        raise OSError(f"ip {' '.join(arguments)}: {done.stderr.strip()}")


@contextlib.contextmanager
def network(name: str) -> Iterator[list[str]]:
    """A network namespace, as the command that runs another one in it."""
    ip("netns", "add", name)
    try:
        ip("-n", name, "link", "set", "lo", "up")
        yield ["ip", "netns", "exec", name]
    finally:
        ip("netns", "del", name)


def reason_for_none() -> str | None:
    """Why there are no network namespaces here; None if there are."""
    if os.geteuid() != 0:
        return "only root makes network namespaces"
    if not (shutil.which("ip") and shutil.which("unshare")):
        return "iproute2 or unshare is not installed"
    name = f"pgflow-{uuid.uuid4().hex[:8]}"
    try:
        with network(name):
            ip("link", "add", "one", "netns", name, "type", "veth", "peer", "name", "two", "netns", name)
    except OSError as error:
        return str(error)
    return None


class Cable:
    """What a box reaches the server by."""

    dsn: str
    within: list[str]

    def cut(self) -> None:
        """Let nothing through, and tell nobody."""
        raise NotImplementedError

    def mend(self) -> None:
        """Let everything through again."""
        raise NotImplementedError

    def slow_down(self) -> None:
        """Make it a bad one."""
        raise NotImplementedError


class VethCable(Cable):
    """A pair of interfaces between the server's namespace and the box's."""

    def __init__(self, server: str, box: str, within: list[str], dsn: str) -> None:
        number = next(_numbers)
        self.within = within
        self._server, self._box, self._end = server, box, f"to{number}"
        net = f"{_NETWORK}.{number}"
        ip("link", "add", "cable", "netns", box, "type", "veth", "peer", "name", self._end, "netns", server)
        for place, interface, address in ((server, self._end, 1), (box, "cable", 2)):
            ip("-n", place, "address", "add", f"{net}.{address}/24", "dev", interface)
            ip("-n", place, "link", "set", interface, "up")
        self.dsn = make_conninfo(dsn, host=f"{net}.1")

    def cut(self) -> None:
        ip("-n", self._server, "link", "set", self._end, "down")

    def mend(self) -> None:
        ip("-n", self._server, "link", "set", self._end, "up")

    def slow_down(self) -> None:
        """A delay of 200 ms, or where the kernel has none, 200 kbit/s."""
        for how in ("netem delay 100ms", "tbf rate 200kbit burst 4kb latency 5s"):
            ways = [(self._server, self._end), (self._box, "cable")]
            commands = [["tc", "-n", p, *f"qdisc add dev {d} root {how}".split()] for p, d in ways]
            if not any(subprocess.run(c, capture_output=True, check=False).returncode for c in commands):
                return
        raise OSError("tc knows neither netem nor tbf")


class ProxyCable(Cable):
    """A proxy in this process."""

    def __init__(self, proxy: TcpProxy) -> None:
        self._proxy = proxy
        self.dsn, self.within = proxy.dsn, []

    def cut(self) -> None:
        self._proxy.mode = "swallow"

    def mend(self) -> None:
        self._proxy.cut()
        self._proxy.mode = "pass"

    def slow_down(self) -> None:
        self._proxy.delay = 0.01  # of each packet, one after the other


class Box:
    """A host with a worker of two lanes for one flow of worker_flows.py."""

    def __init__(self, name: str, home: Path, cable: Cable, flow: str, *options: str) -> None:
        self.name, self.cable = name, cable
        home.mkdir()
        own = {"HOME": str(home), "PGFLOW_DATA_DIR": str(home / "data"), "XDG_RUNTIME_DIR": str(home)}
        command = [sys.executable, "-m", "pgflow_mp", f"{FLOWS}:{flow}", "--dsn", cable.dsn, "--workers", "2"]
        command += ["--heartbeat-interval", str(HEARTBEAT), "--dead-after", str(DEAD_AFTER), *options]
        if cable.within:
            named = ["unshare", "--uts", "sh", "-c", 'hostname "$0" && exec "$@"', name]
            command = [*cable.within, *named, *command]
        self.log = home / "log"
        with self.log.open("w") as log:
            self.process = subprocess.Popen(
                command, stdout=log, stderr=log, cwd=home, env={**os.environ, **own}, start_new_session=True
            )
        self._all: set[psutil.Process] = set()

    @property
    def worker(self) -> str:
        """The worker's name, as ``drain`` takes it."""
        return f"{self.name if self.cable.within else socket.gethostname()}:{self.process.pid}"

    def processes(self) -> set[psutil.Process]:
        """All of its processes that have been seen."""
        with contextlib.suppress(psutil.Error):
            parent = psutil.Process(self.process.pid)
            self._all |= {parent, *parent.children(recursive=True)}
        return self._all

    @property
    def pids(self) -> set[int]:
        """Their ids."""
        return {process.pid for process in self.processes()}

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to all of its processes."""
        for process in self.processes():
            with contextlib.suppress(psutil.Error):
                process.send_signal(number)

    def kill(self) -> None:
        """End all of it at once."""
        self.signal(signal.SIGSTOP)  # so that none sees another die
        self.signal(signal.SIGKILL)
        self.process.wait(10)

    def stop(self, timeout: float = 30.0) -> int:
        """End it in order; its exit status."""
        self.process.terminate()
        return self.process.wait(timeout)


class Site:
    """The server, and boxes with cables to it."""

    def __init__(self, place: Path, cluster: Cluster, namespace: str | None) -> None:
        self._place = place
        self._namespace = namespace
        self._port = cluster.port
        self.server = DatabaseServer(cluster.dsn())

    @contextlib.contextmanager
    def boxes(self, dsn: str, flow: str) -> Iterator[Boxes]:
        """Boxes on one database; all are gone at the end."""
        with contextlib.ExitStack() as stack:
            boxes = Boxes(self, dsn, flow, stack)
            stack.callback(boxes.end)
            yield boxes

    def cable(self, dsn: str, stack: contextlib.ExitStack) -> Cable:
        """A new cable, there until the end of ``stack``."""
        if self._namespace is None:
            return ProxyCable(stack.enter_context(TcpProxy(dsn)))
        name = f"{self._namespace}-{next(_numbers)}"
        within = stack.enter_context(network(name))
        return VethCable(self._namespace, name, within, make_conninfo(dsn, port=self._port))

    def home(self) -> Path:
        """A folder that is not there yet."""
        return self._place / f"box-{next(_numbers)}"


class Boxes:
    """The boxes of a test."""

    def __init__(self, site: Site, dsn: str, flow: str, stack: contextlib.ExitStack) -> None:
        self._site, self._dsn, self._flow, self._stack = site, dsn, flow, stack
        self.all: list[Box] = []

    def add(self, *options: str) -> Box:
        """Start one more."""
        cable = self._site.cable(self._dsn, self._stack)
        name = f"box-{'abcdefgh'[len(self.all)]}"
        box = Box(name, self._site.home(), cable, self._flow, *options)
        self.all.append(box)
        return box

    def end(self) -> None:
        """End them all, whatever state they are in."""
        for box in self.all:
            if box.process.poll() is None:
                box.kill()


@contextlib.contextmanager
def site() -> Iterator[Site]:
    """A server and a place for boxes."""
    plain = os.environ.get("PGFLOW_TEST_BOXES") == "plain" or reason_for_none() is not None
    with contextlib.ExitStack() as stack:
        place = stack.enter_context(place_for_clusters())
        if plain:
            namespace, cluster = None, Cluster(place / "server")
        else:
            namespace = f"pgflow-{uuid.uuid4().hex[:8]}"
            within = stack.enter_context(network(namespace))
            cluster = Cluster(place / "server", within=within, listen_addresses="*")
        initialise(cluster)
        if namespace is not None:
            with (cluster.data / "pg_hba.conf").open("a") as rules:
                rules.write(f"host all all {_NETWORK}.0.0/16 trust\n")
        stack.callback(cluster.stop, signal.SIGQUIT)
        cluster.start()
        yield Site(place, cluster, namespace)


def until(moment: float) -> None:
    """Sleep until time.monotonic() is ``moment``."""
    time.sleep(max(0.0, moment - time.monotonic()))
