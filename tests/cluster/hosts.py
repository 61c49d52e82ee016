"""Hosts on this machine: each with a name and a table of hosts of its own, and, where it is to be reached, a network.

Made of Linux namespaces (UTS, mount, network) that a sleeping process holds; programs enter them with `nsenter`.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path

HELD = 'mount --bind "$1" /etc/hosts && { [ -z "$2" ] || hostname "$2"; } && echo ready && exec sleep infinity'


class Host:
    """Entered by `inside(argv)`. Without a name it is this machine under its own, with another table of hosts."""

    def __init__(self, name: str, table: Path, *, network: bool) -> None:
        kinds = ["--mount", "--uts", *(["--net"] if network else [])]
        self._holder = subprocess.Popen(
            ["unshare", *kinds, "sh", "-c", HELD, "sh", str(table), name],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            text=True,
        )
        self._enter = ["nsenter", f"--target={self._holder.pid}", *kinds, "--"]
        assert self._holder.stdout is not None
        if self._holder.stdout.readline() != "ready\n":
            self.close()
            raise RuntimeError(f"no host {name} could be made")

    @property
    def pid(self) -> int:
        return self._holder.pid

    def inside(self, argv: list[str]) -> list[str]:
        return [*self._enter, *argv]

    def cut_off(self) -> None:
        """Let every packet to and from it vanish, from now on."""
        for chain in ("INPUT", "OUTPUT"):
            self._iptables("-A", chain, "-j", "DROP")

    def join(self) -> None:
        self._iptables("-F")

    def _iptables(self, *words: str) -> None:
        subprocess.run(self.inside(["iptables", *words]), check=True, capture_output=True, timeout=20)

    def close(self) -> None:
        self._holder.kill()
        self._holder.wait()
        assert self._holder.stdout is not None
        self._holder.stdout.close()


def missing() -> str:
    """Why there can be no further hosts here; empty when there can."""
    absent = [name for name in ("ip", "iptables", "nsenter", "unshare") if shutil.which(name) is None]
    if absent:
        return f"no {', '.join(absent)}: tests/install-system-parts"
    tried = subprocess.run(
        ["unshare", "--mount", "--uts", "--net", "true"], capture_output=True, text=True, check=False, timeout=20
    )
    return f"namespaces cannot be made: {tried.stderr.strip()}" if tried.returncode else ""


@contextlib.contextmanager
def joined(name: str, place: Path) -> Iterator[tuple[Host, str]]:
    """A host with a network of its own, and the address at which it is reached from this machine. One a process."""
    net = own_net()
    here, there = f"{net}.1", f"{net}.2"
    host = Host(name, table(place / f"hosts-{name}", {"localhost": "127.0.0.1", name: there}), network=True)
    try:
        with network(host, f"bw{os.getpid()}", here=here, there=there):
            yield host, there
    finally:
        host.close()


@contextlib.contextmanager
def network(host: Host, link: str, *, here: str, there: str) -> Iterator[None]:
    """Join this machine (address `here`) and the host (`there`) by a link of at most 14 letters, for the time of it."""
    ends = f"{link}a", f"{link}b"
    _ip("link", "add", ends[0], "type", "veth", "peer", "name", ends[1], "netns", str(host.pid))
    try:
        _ip("addr", "add", f"{here}/30", "dev", ends[0])
        _ip("link", "set", ends[0], "up")
        for words in (
            ("addr", "add", f"{there}/30", "dev", ends[1]),
            ("link", "set", ends[1], "up"),
            ("link", "set", "lo", "up"),
            ("route", "add", "default", "via", here),
        ):
            subprocess.run(host.inside(["ip", *words]), check=True, capture_output=True, timeout=20)
        yield
    finally:
        with contextlib.suppress(subprocess.CalledProcessError):
            _ip("link", "del", ends[0])


@contextlib.contextmanager
def neighbours(place: Path, *names: str) -> Iterator[list[tuple[Host, str]]]:
    """Hosts with networks of their own, and their addresses; each reaches each and this machine. One set a process."""
    net = own_net()
    addresses = {name: f"{net}.{4 * number + 2}" for number, name in enumerate(names)}
    # Servers ask for the names of those who call, and a name service out of reach takes ten seconds to say none.
    near = {f"near-{name}": f"{net}.{4 * number + 1}" for number, name in enumerate(names)}
    with contextlib.ExitStack() as stack:
        made: list[tuple[Host, str]] = []
        for number, (name, there) in enumerate(addresses.items()):
            known = table(place / f"hosts-{name}", {"localhost": "127.0.0.1", **addresses, **near})
            host = Host(name, known, network=True)
            stack.callback(host.close)
            stack.enter_context(network(host, f"bw{os.getpid()}{number}", here=near[f"near-{name}"], there=there))
            for other, (neighbour, address) in enumerate(made):
                _join(neighbour, address, host, there, f"bn{number}{other}")
            made.append((host, there))
        yield made


def _join(one: Host, its: str, other: Host, others: str, link: str) -> None:
    """A line from host to host: this machine need not forward anything. It goes with them."""
    ends = f"{link}a", f"{link}b"
    _ip("link", "add", ends[0], "netns", str(one.pid), "type", "veth", "peer", "name", ends[1], "netns", str(other.pid))
    for host, end, mine, there in ((one, ends[0], its, others), (other, ends[1], others, its)):
        for words in (
            ("link", "set", end, "up"),
            ("route", "add", f"{there}/32", "dev", end, "src", mine),
        ):
            subprocess.run(host.inside(["ip", *words]), check=True, capture_output=True, timeout=20)


def own_net() -> str:
    """The first three numbers of addresses that no other process of ours uses."""
    return f"10.{os.getpid() >> 8 & 255}.{os.getpid() & 255}"


def table(path: Path, names: Mapping[str, str]) -> Path:
    """A file as /etc/hosts: names (several between spaces) -> address."""
    path.write_text("".join(f"{address} {name}\n" for name, address in names.items()))
    return path


def _ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True, timeout=20)
