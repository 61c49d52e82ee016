"""Executors whose interchange and blocks a later agent takes over: `start` makes them, or goes on with what is there.

Beside the interchange lies its *state*: where it listens, with which certificates, and which jobs are its blocks. It is
written when there is a new block, not for each task. What is on its way the interchange itself knows.
"""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import psutil
import structlog
import zmq
from msgspec import Struct
from parsl.executors import HighThroughputExecutor, MPIExecutor
from parsl.executors.high_throughput.executor import HTEXFuture
from parsl.executors.status_handling import BlockProviderExecutor
from parsl.jobs.states import JobStatus
from parsl.serialize import pack_apply_message

from orchestrator import codec
from orchestrator.agent import interchange, output, processes, wrapper
from orchestrator.agent.target import Target
from orchestrator.model import Order

HELLO_S = 20.0  # for the answer of an interchange that is there
BEAT_S = 2.0  # how often it hears that its agent is there
SILENT_S = 15.0  # Parsl would wait for ever for one that has died

log = structlog.get_logger()


class BlockState(Struct, frozen=True):
    number: str  # Parsl's own
    job: str
    stem: str  # of its files


class State(Struct, frozen=True):
    label: str
    target: Target
    made_of: str  # profile and versions: another agent with others starts anew
    pid: int
    ports: tuple[int, ...]  # the agent's three
    worker_port: int
    cert_dir: str
    blocks: tuple[BlockState, ...] = ()


class Found:
    """A task that an earlier agent had handed over."""

    def __init__(self, mark: str, future: HTEXFuture, *, running: bool) -> None:
        self.mark, self.future, self.running = mark, future, running


class _Numbers(dict[object, Any]):
    """Parsl's tasks by number. Results of tasks that nobody here has begun, or that came twice, are let go."""

    def pop(self, number: Any, *_default: Any) -> Any:
        return super().pop(number, None) or HTEXFuture(number)


class _Orphan:
    """The interchange of an earlier agent, with what Parsl asks of a child."""

    def __init__(self, pid: int, state: Path) -> None:
        """Raises psutil.NoSuchProcess when it is gone."""
        self.pid = pid
        self._process = psutil.Process(pid)
        with contextlib.suppress(psutil.ZombieProcess):
            if str(state) in self._process.cmdline():
                return
        raise psutil.NoSuchProcess(pid)

    def poll(self) -> int | None:
        with contextlib.suppress(psutil.NoSuchProcess):
            if self._process.is_running() and self._process.status() != psutil.STATUS_ZOMBIE:
                return None
        return -1

    def terminate(self) -> None:
        with contextlib.suppress(psutil.NoSuchProcess):
            self._process.terminate()

    def kill(self) -> None:
        with contextlib.suppress(psutil.NoSuchProcess):
            self._process.kill()

    def wait(self, timeout: float) -> int:
        over = time.monotonic() + timeout
        while self.poll() is None:
            if time.monotonic() > over:
                raise subprocess.TimeoutExpired("interchange", timeout)
            time.sleep(0.05)
        return 0


class Lasting(HighThroughputExecutor):
    """Call `lasts` before it is started."""

    _ports: Iterator[int] = iter(())
    _known: State | None = None
    state: Path
    cert_dir: Any
    interchange_proc: Any
    _orphan: _Orphan

    def lasts(self, state: Path, lease_s: float, known: State | None) -> None:
        self.state, self._known = state, known
        self._beaten_at = 0.0
        self._sending = threading.Lock()  # Parsl submits in a thread of its own
        words = ["env", "-u", processes.AGENT, sys.executable, "-m", interchange.__name__, str(state), f"{lease_s:g}"]
        self.interchange_launch_cmd = words
        self.found: dict[str, Found] = {}  # token -> what was there when this agent came

    @property
    def interchange_port_range(self) -> tuple[int, int]:
        """Parsl asks once for each of its sockets: where those of the earlier agent were, they are again."""
        port = next(self._ports, 0)
        return (port, port + 1) if port else self._port_range

    @interchange_port_range.setter
    def interchange_port_range(self, ports: tuple[int, int]) -> None:
        self._port_range = ports

    def start(self) -> None:
        """Raises whatever Parsl, the system or a silent interchange raises when there is no going on."""
        self._tasks: dict[object, Any] = _Numbers()
        self._task_counter = int(time.time() * 1e6)  # beyond those of earlier agents
        known = self._known
        if known is not None:
            self._orphan = _Orphan(known.pid, self.state)
            _require_free(self.loopback_address, known.ports)
            self._ports, self.cert_dir = iter(known.ports), known.cert_dir
        super().start()  # type: ignore[no-untyped-call]
        self.outgoing_q.zmq_socket.setsockopt(zmq.SNDTIMEO, int(SILENT_S * 1000))
        self.outgoing_q.zmq_socket.setsockopt(zmq.LINGER, 0)  # closing it waits for no one who has died
        self.command_client.run = partial(  # type: ignore[method-assign]
            self.command_client.run, timeout_s=SILENT_S
        )
        if known is None:
            return
        running, ended = self.submit_payload({"asked": interchange.HELLO}, b"").result(HELLO_S)
        for number, (token, mark) in (ended | running).items():
            future = self._tasks[number] = HTEXFuture(number)
            self.found[token] = Found(mark, future, running=number in running)
        self._say(interchange.AGAIN)
        for block in known.blocks:
            self.blocks_to_job_id[block.number] = block.job
            self.job_ids_to_block[block.job] = block.number
            while self._block_id_counter.count <= int(block.number):
                self._block_id_counter.get_id()

    def _start_local_interchange_process(self) -> None:
        if self._known is None:
            super()._start_local_interchange_process()
            return
        self.interchange_proc = self._orphan
        self.worker_port = self._known.worker_port

    def _say(self, what: str) -> None:
        """Left unsaid where it would have to wait."""
        if self._sending.acquire(blocking=False):
            try:
                message = {"task_id": 0, "context": {"asked": what}, "buffer": b""}
                self.outgoing_q.zmq_socket.send_pyobj(message, zmq.NOBLOCK)
            except zmq.Again:
                pass
            finally:
                self._sending.release()

    def beat(self) -> None:
        """Often: the interchange hears that it is still wanted."""
        if time.monotonic() - self._beaten_at > BEAT_S:
            self._beaten_at = time.monotonic()
            self._say(interchange.ALIVE)

    def submit_payload(self, context: dict[str, Any], buffer: bytes) -> HTEXFuture:
        with self._sending:
            return super().submit_payload(context, buffer)

    def status(self) -> dict[str, JobStatus]:
        """Of the blocks, without asking the interchange: what Parsl adds from there is of no use here."""
        return BlockProviderExecutor.status(self)

    def trouble(self) -> str:
        """A sentence when it cannot go on."""
        thread = self._result_queue_thread
        if self.interchange_proc is not None and self.interchange_proc.poll() is not None:
            return f"the interchange of {self.label} has died"
        if thread is not None and not thread.is_alive():
            return f"the result thread of {self.label} has died"
        if not self.command_client.ok:
            return f"the interchange of {self.label} does not answer"
        return ""

    def let_go(self) -> None:
        """Before Parsl cleans up: the next agent starts anew, and nobody is asked who has died."""
        with contextlib.suppress(OSError):
            os.unlink(self.state)
        if self.trouble():
            self._executor_bad_state.set()

    def submit(
        self, func: Callable[..., Any], resource_specification: dict[str, Any], *args: Any, **kwargs: Any
    ) -> HTEXFuture:
        """As Parsl's, but that the interchange learns which order it is."""
        order = codec.loads(args[0], Order)
        self.validate_resource_spec(resource_specification)
        context: dict[str, Any] = {"token": order.token, "mark": output.Paths(order).cancelled}
        if resource_specification:
            context["resource_spec"] = resource_specification
        return self.submit_payload(context, pack_apply_message(func, args, kwargs, buffer_threshold=1 << 20))

    def save(self, target: Target, made_of: str, blocks: tuple[BlockState, ...]) -> None:
        """For the next agent."""
        pipes = (self.outgoing_q, self.incoming_q, self.command_client)
        ports = tuple(p.port or 0 for p in pipes)
        pid, workers = self.interchange_proc.pid, self.worker_port or 0
        state = State(self.label, target, made_of, pid, ports, workers, str(self.cert_dir), blocks)
        wrapper.write_whole(str(self.state), codec.dumps(state))


class LastingMPI(Lasting, MPIExecutor):
    pass


def _require_free(address: str, ports: Iterable[int]) -> None:
    """Raises OSError. Parsl would leave sockets open that it cannot bind."""
    for port in ports:
        with socket.socket() as trial:
            trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            trial.bind((address, port))


def states(directory: Path) -> list[tuple[Path, State | None]]:
    """What earlier agents have left; None where it cannot be read."""
    return [(path, _read(path)) for path in sorted(directory.glob("*.json"))]


def _read(path: Path) -> State | None:
    try:
        return codec.loads(path.read_text(), State)
    except (OSError, ValueError):
        return None


def dispose(path: Path, state: State | None) -> None:
    """End an interchange that cannot be used, and forget it; its workers end when they miss it."""
    if state is not None:
        with contextlib.suppress(psutil.Error):
            _Orphan(state.pid, path).kill()
    with contextlib.suppress(OSError):
        os.unlink(path)
