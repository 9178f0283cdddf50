"""Hosts on one machine, whose cables can be pulled and which can be lost: network namespaces at a bridge.

    with Network(2) as network:
        subprocess.Popen([*network.hub.wrapper, …])       # listens on network.hub.address
        subprocess.Popen([*network.nodes[0].wrapper, …])  # a host of its own: its network, pids and name
        network.cut(network.nodes[0])

Nothing of it is to be seen from outside: no name, no address, no interface. Namespaces live as long as a process that
holds them, which ends with the pipe that it reads: none is left after a test, however that ended. Root makes them as
they are; anybody else in a user namespace, where the system allows that. Needs unshare and nsenter (util-linux), and
ip (iproute2). Imports the standard library alone: benchmarks use it too.
"""

from __future__ import annotations

import contextlib
import os
import select
import shutil
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

_SUBNET = "10.77.0"
_BRIDGE = "bridge"
_ANSWER_S = 20.0
_CHUNK = 65_536
_ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Host:
    """One host of a network.

    Attributes:
        name: its host name; the hub has this machine's.
        address: where the others reach it.
        wrapper: a command before a program's own that runs it there; a node's program is its second process.
        pid: of the process that holds it.
    """

    name: str
    address: str
    wrapper: Sequence[str]
    pid: int


class Network:
    """A hub, where a collector may run, and nodes, each at one cable to it.

    The hub has a network of its own, and shares all else with this process. A node has its own processes too: what
    runs there cannot be seen by its pid from the hub.

    Args:
        nodes: how many.
    """

    def __init__(self, nodes: int) -> None:
        self._count = nodes
        self._holders: list[subprocess.Popen[bytes]] = []
        self._published: dict[int, int] = {}
        self.hub: Host
        self.nodes: list[Host] = []

    def cut(self, node: Host) -> None:
        """Pulls its cable: what is sent to it, or from it, gets lost, and nobody is told."""
        self._ip("link", "set", node.name, "down")

    def heal(self, node: Host) -> None:
        """Plugs it in again."""
        self._ip("link", "set", node.name, "up")

    def lose(self, node: Host) -> None:
        """All that runs there is gone at once, without a word to anybody: the power was cut."""
        self.cut(node)
        os.kill(
            node.pid, signal.SIGKILL
        )  # the first process of its pid namespace: the kernel ends all others with it

    def published(self, port: int) -> int:
        """The port of this process's own loopback at which a port of the hub is to be had."""
        if port not in self._published:
            with socket.create_server(("127.0.0.1", 0)) as listener:
                fd = listener.fileno()  # made here, it stays of this network, whoever listens
                command = [sys.executable, "-m", "tests.support.networks", str(fd), self.hub.address, str(port)]
                self._hold([*self.hub.wrapper, *command], fd)
                self._published[port] = listener.getsockname()[1]
        return self._published[port]

    def __enter__(self) -> Network:
        missing = [tool for tool in ("unshare", "nsenter", "ip") if shutil.which(tool) is None]
        if missing:
            raise RuntimeError(f"{', '.join(missing)} is not to be found: install util-linux and iproute2")
        try:
            self._build()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        for holder in reversed(self._holders):
            assert holder.stdin is not None
            assert holder.stdout is not None
            holder.stdin.close()
            with contextlib.suppress(subprocess.TimeoutExpired):
                holder.wait(_ANSWER_S)
            holder.kill()
            holder.wait(_ANSWER_S)
            holder.stdout.close()
        self._holders.clear()

    def _build(self) -> None:
        is_root = os.geteuid() == 0
        pid = self._hold(["unshare", *([] if is_root else ["--user", "--map-root-user"]), "--net", *_holding("")])
        enter = ["nsenter", *([] if is_root else ["--user", "--preserve-credentials"]), "--net"]
        self.hub = Host(os.uname().nodename, f"{_SUBNET}.1", [*enter, f"--target={pid}"], pid)
        self._ip("link", "set", "lo", "up")
        self._ip("link", "add", _BRIDGE, "type", "bridge")
        self._ip("address", "add", f"{self.hub.address}/24", "dev", _BRIDGE)
        self._ip("link", "set", _BRIDGE, "up")
        new = ["unshare", "--net", "--uts", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"]
        for number in range(1, self._count + 1):
            name, address = f"node-{number}", f"{_SUBNET}.{number + 1}"
            outer = self._hold([*self.hub.wrapper, *new, *_holding(f"hostname {name};")])
            pid = int(Path(f"/proc/{outer}/task/{outer}/children").read_text())
            within = [*enter, "--uts", "--mount", "--pid", "--wd=.", f"--target={pid}"]
            self.nodes.append(Host(name, address, within, pid))
            # The hub's end of its cable has the node's name.
            self._ip("link", "add", name, "type", "veth", "peer", "name", "eth0", "netns", str(pid))
            self._ip("link", "set", name, "master", _BRIDGE, "up")
            self._ip("link", "set", "lo", "up", at=self.nodes[-1])
            self._ip("address", "add", f"{address}/24", "dev", "eth0", at=self.nodes[-1])
            self._ip("link", "set", "eth0", "up", at=self.nodes[-1])

    def _ip(self, *arguments: str, at: Host | None = None) -> None:
        command = [*(at or self.hub).wrapper, "ip", *arguments]
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, timeout=_ANSWER_S, check=False)
        if done.returncode:
            raise RuntimeError(f"{' '.join(command)}: {done.stderr.decode(errors='replace').strip()}")

    def _hold(self, command: Sequence[str], *fds: int) -> int:
        """Starts a process that lives until its pipe is closed; its pid, once it has said that it is there."""
        process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, pass_fds=fds, cwd=_ROOT
        )
        self._holders.append(process)
        assert process.stdout is not None
        ready, _, _ = select.select([process.stdout], [], [], _ANSWER_S)
        said = os.read(process.stdout.fileno(), _CHUNK) if ready else b"nothing"
        if said != _READY:
            raise RuntimeError(f"no namespace: {' '.join(command)} says {said.decode(errors='replace').strip()}")
        return process.pid


_READY = b"ready\n"


def _holding(first: str) -> Sequence[str]:
    return ("sh", "-c", f"{first} echo ready; exec cat >/dev/null")


def _forward(fd: str, address: str, port: str) -> None:
    """Hands each connection to the listening socket `fd` on to a port; until standard input ends."""
    listener = socket.socket(fileno=int(fd))
    threading.Thread(target=_hand_on, args=(listener, (address, int(port))), daemon=True).start()
    os.write(1, _READY)
    while os.read(0, _CHUNK):
        pass


def _hand_on(listener: socket.socket, to: tuple[str, int]) -> None:
    while True:
        caller, _ = listener.accept()
        try:
            called = socket.create_connection(to, timeout=_ANSWER_S)
        except OSError:
            caller.close()
            continue
        called.settimeout(None)
        for one, other in ((caller, called), (called, caller)):
            threading.Thread(target=_copy, args=(one, other), daemon=True).start()


def _copy(source: socket.socket, target: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while chunk := source.recv(_CHUNK):
            target.sendall(chunk)
    with contextlib.suppress(OSError):
        target.shutdown(socket.SHUT_WR)


if __name__ == "__main__":
    _forward(*sys.argv[1:])
