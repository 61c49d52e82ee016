"""Parsl for one site: one DataFlowKernel; where work runs on this host, one executor per resource shape.

Parsl starts and feeds the workers; success, retries and time-outs are ours. What was seen of it decides the settings:
no retries (they come at once and are not written down), no strategy thread (a block is wanted when the executor is
made, not seconds later), no monitoring, warnings only in its logs (a worker would write three lines a task, for ever),
no block error handler (the default one makes an executor bad for ever after its first lost block), encryption on (other
users of the host reach its ports).
"""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import structlog
from parsl import Config, python_app
from parsl.dataflow.dflow import DataFlowKernel
from parsl.executors import HighThroughputExecutor, ThreadPoolExecutor
from parsl.jobs.states import JobStatus
from parsl.launchers import SimpleLauncher
from parsl.logconfigs.file import FileLogging
from parsl.providers import LocalProvider

from orchestrator import codec
from orchestrator.agent import launch, leash, wrapper
from orchestrator.agent.around import Around
from orchestrator.model import Order

COMMANDS = "commands"
HEARTBEAT_S, HEARTBEATS_LOST_S = 2, 30  # the pool looks for dead workers once a heartbeat

log = structlog.get_logger()


class Executors:
    """The DataFlowKernel of the agent. Used from one thread."""

    def __init__(self, run_dir: Path, around: Around, *, cores: int, commands: int, worker_init: str = "") -> None:
        self._cores, self._worker_init = cores, worker_init
        self._around = codec.dumps(around)
        threads = ThreadPoolExecutor(label=COMMANDS, max_threads=commands)
        self.kernel = DataFlowKernel(
            Config(
                executors=[threads],
                run_dir=str(run_dir),
                strategy="none",
                retries=0,
                initialize_logging=FileLogging(level=logging.WARNING),
                usage_tracking=0,
            )
        )
        self._pilots: dict[int, HighThroughputExecutor] = {}
        self._apps: dict[tuple[str, Callable[..., Any]], Callable[..., Future[Any]]] = {}

    def submit(self, label: str, function: Callable[..., Any], *arguments: Any) -> Future[Any]:
        """Call an importable function on an executor. Its future never has to be cancelled: Parsl cannot."""
        app = self._apps.get((label, function))
        if app is None:
            app = python_app(function, data_flow_kernel=self.kernel, executors=[label])
            self._apps[label, function] = app
        return app(*arguments)

    def call(self, order: Order) -> Future[Any]:
        """A kernel, function or transfer in a warm worker of this host."""
        label = self.pilot(order.resources.cores_per_rank * order.resources.ranks_per_node)
        return self.submit(label, wrapper.run, codec.dumps(order), self._around)

    def pilot(self, cores: int) -> str:
        """The label of the executor whose workers have `cores` cores each; it is started at the first call."""
        cores = max(1, min(cores, self._cores))
        if cores not in self._pilots:
            self._pilots[cores] = self._start(cores)
        return str(self._pilots[cores].label)

    def _start(self, cores: int) -> HighThroughputExecutor:
        lines = [f"export {name}={cores}" for name in launch.THREADS]
        provider = LocalProvider(  # type: ignore[no-untyped-call]
            init_blocks=0,
            min_blocks=0,
            max_blocks=1,
            launcher=SimpleLauncher(),
            worker_init="\n".join([*lines, self._worker_init]),
        )
        pilot = HighThroughputExecutor(
            label=f"cores-{cores}",
            address="127.0.0.1",
            max_workers_per_node=max(1, self._cores // cores),
            cores_per_worker=1e-3,
            provider=provider,
            heartbeat_period=HEARTBEAT_S,
            heartbeat_threshold=HEARTBEATS_LOST_S,
            block_error_handler=_no_handler,
            interchange_launch_cmd=[sys.executable, "-m", leash.__name__, str(os.getpid()), "interchange.py"],
            encrypted=True,
        )
        self.kernel.add_executors([pilot])
        pilot.scale_out_facade(1)
        log.info("pilot.started", label=pilot.label, workers=pilot.max_workers_per_node)
        return pilot

    def tend(self) -> str:
        """Replace a block that has ended; a sentence when an executor cannot go on, and the agent should start anew."""
        for pilot in self._pilots.values():
            if pilot.interchange_proc is not None and pilot.interchange_proc.poll() is not None:
                return f"the interchange of {pilot.label} has died"
            thread = pilot._result_queue_thread
            if thread is not None and not thread.is_alive():
                return f"the result thread of {pilot.label} has died"
            status: dict[str, JobStatus] = pilot.status_facade
            if status and all(s.terminal for s in status.values()):
                log.warning("pilot.block_lost", label=pilot.label)
                pilot.scale_out_facade(1)
        return ""

    def close(self) -> None:
        self.kernel.cleanup()


def _no_handler(_executor: object, _status: object) -> None:
    """A lost block is replaced by `tend`, and its attempts are reported lost; nothing else follows from it."""


def environment_for_parsl(bin_dir: str) -> None:
    """Parsl finds its own programs on the PATH."""
    os.environ["PATH"] = os.pathsep.join([bin_dir, os.environ.get("PATH", os.defpath)])
