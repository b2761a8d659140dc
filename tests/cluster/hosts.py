"""Hosts on one machine: network namespaces on a bridge, each with its own address, that can be lost like spot instances."""

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import psutil

SUBNET = "10.77.63"


def can_be_made() -> bool:
    """Network namespaces need root and iproute2."""
    return os.geteuid() == 0 and shutil.which("ip") is not None


def ip(*arguments: str) -> str:
    return subprocess.run(["ip", *arguments], check=True, capture_output=True, text=True).stdout


@dataclass
class Hosts:
    """The test itself is on the bridge at .254, outside of all hosts; the hosts are .1, .2, … in the order of their making."""

    prefix: str
    names: list[str] = field(default_factory=list)
    processes: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def add(self, name: str) -> str:
        """A new host; returns its address."""
        space = self._space(name)
        self.names.append(name)
        address = f"{SUBNET}.{len(self.names)}"
        ip("netns", "add", space)
        ip("link", "add", space, "type", "veth", "peer", "name", "eth0", "netns", space)
        ip("link", "set", space, "master", self.prefix, "up")
        ip("-n", space, "addr", "add", f"{address}/24", "dev", "eth0")
        for device in ("lo", "eth0"):
            ip("-n", space, "link", "set", device, "up")
        return address

    def start(self, name: str, command: Sequence[str], environment: Mapping[str, str], log: Path) -> None:
        with open(log, "ab") as file:
            inside = ["ip", "netns", "exec", self._space(name), *command]
            self.processes.append(subprocess.Popen(inside, env=dict(environment), stdout=file, stderr=file))

    def processes_of(self, name: str) -> list[psutil.Process]:
        found = []
        for pid in ip("netns", "pids", self._space(name)).split():
            with suppress(psutil.NoSuchProcess):
                found.append(psutil.Process(int(pid)))
        return found

    def running(self, name: str, what: str) -> list[psutil.Process]:
        """The host's processes with `what` in their command line."""
        found = []
        for process in self.processes_of(name):
            with suppress(psutil.NoSuchProcess):
                if what in " ".join(process.cmdline()):
                    found.append(process)
        return found

    def lose(self, name: str) -> None:
        """Cut the network first, so that no process can report; then kill all processes."""
        ip("link", "set", self._space(name), "down")
        self._kill(name)

    def _kill(self, name: str) -> None:
        while family := self.processes_of(name):
            for process in family:
                with suppress(psutil.NoSuchProcess):
                    process.send_signal(signal.SIGKILL)
            time.sleep(0.05)

    def _space(self, name: str) -> str:
        return f"{self.prefix}-{name}"

    def close(self) -> None:
        for name in self.names:
            self._kill(name)
            ip("link", "del", self._space(name))
            ip("netns", "del", self._space(name))
        for process in self.processes:
            process.wait()
        ip("link", "del", self.prefix)


@contextmanager
def hosts() -> Iterator[Hosts]:
    prefix = f"st{os.getpid() % 10**5}"  # names of devices have 15 letters at most
    ip("link", "add", prefix, "type", "bridge")
    ip("addr", "add", f"{SUBNET}.254/24", "dev", prefix)
    ip("link", "set", prefix, "up")
    made = Hosts(prefix)
    try:
        yield made
    finally:
        made.close()
