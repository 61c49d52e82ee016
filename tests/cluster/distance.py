"""A host far away, made on this machine: a network namespace whose packets take their time to come and go.

Two TUN devices, one on either side, and a process that carries each packet across when it is due. The machine's own
queueing disciplines may have no delay; this needs only `/dev/net/tun`, `ip` and `tc`, and root.
"""

from __future__ import annotations

import contextlib
import fcntl
import multiprocessing
import os
import struct
import subprocess
import threading
import time
from collections import deque
from collections.abc import Iterator
from pathlib import Path

from tests.cluster import hosts

_TUNSETIFF = 0x400454CA
_TUN_WITHOUT_HEADER = 0x1001
PACKET_BYTES = 16000  # of jumbo frames, or so: fewer packets to carry
QUEUE = 20000


def missing() -> str:
    """Why there can be no host far away; empty when there can."""
    if os.geteuid():
        return "only root makes networks"
    return "" if os.path.exists("/dev/net/tun") else "there is no /dev/net/tun"


@contextlib.contextmanager
def far(place: Path, *, delay_s: float, gbit: float) -> Iterator[tuple[hosts.Host, str, str]]:
    """The host, and the addresses of this side and of that one. Each way takes `delay_s`, and lets through `gbit`."""
    net = hosts.own_net()
    here, there = f"{net}.1", f"{net}.2"
    table = hosts.table(place / "hosts-far", {"localhost": "127.0.0.1", "near": here, "far": there})
    names = f"bwa{os.getpid()}", f"bwb{os.getpid()}"
    with contextlib.ExitStack() as stack:
        host = hosts.Host("far", table, network=True)
        stack.callback(host.close)
        ends = []
        for name in names:
            ends.append(_device(name))
            stack.callback(os.close, ends[-1])
        _do("ip", "link", "set", names[1], "netns", str(host.pid))
        for name, address, inside in ((names[0], here, []), (names[1], there, host.inside([]))):
            _do(*inside, "ip", "addr", "add", f"{address}/30", "dev", name)
            _do(*inside, "ip", "link", "set", name, "mtu", str(PACKET_BYTES), "txqueuelen", str(QUEUE), "up")
            shape = f"tbf rate {gbit:g}gbit burst 1mb latency 200ms"
            _do(*inside, "tc", "qdisc", "add", "dev", name, "root", *shape.split())
        _do(*host.inside(["ip", "link", "set", "lo", "up"]))
        carrier = multiprocessing.get_context("fork").Process(target=_carry_both, args=(*ends, delay_s), daemon=True)
        carrier.start()
        stack.callback(carrier.join)  # a device is there as long as anybody has it open
        stack.callback(carrier.kill)
        yield host, here, there


def _device(name: str) -> int:
    end = os.open("/dev/net/tun", os.O_RDWR)
    fcntl.ioctl(end, _TUNSETIFF, struct.pack("16sH", name.encode(), _TUN_WITHOUT_HEADER))
    return end


def _do(*words: str) -> None:
    subprocess.run(words, check=True, timeout=20)


def _carry_both(one: int, other: int, delay_s: float) -> None:
    threading.Thread(target=_carry, args=(one, other, delay_s), daemon=True).start()
    _carry(other, one, delay_s)


def _carry(from_end: int, to_end: int, delay_s: float) -> None:
    waiting: deque[tuple[float, bytes]] = deque()
    some = threading.Event()

    def read() -> None:
        while True:
            packet = os.read(from_end, 65536)
            waiting.append((time.monotonic() + delay_s, packet))
            some.set()

    threading.Thread(target=read, daemon=True).start()
    while True:
        some.wait()
        some.clear()
        while waiting:
            due, packet = waiting.popleft()
            if (left := due - time.monotonic()) > 0:
                time.sleep(left)
            with contextlib.suppress(OSError):  # a packet that does not get through is lost, as on any network
                os.write(to_end, packet)
