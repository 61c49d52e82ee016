"""What a pilot worker does around one attempt: the only judge of its success.

Runs inside the worker process, which is warm (libraries stay imported) and lives for many attempts:

* stdout and stderr of the process, native code included, go to two files of the worker; the agent links them under the
  attempt's name while it runs, and they are handed over to that name at its end, if anything was written;
* the worker's *slot* file says which attempt it is busy with, so that the agent sees the start and can end it;
* SIGTERM ends the attempt, not the worker: the call is left by an exception, so its clean-up runs. A worker on another
  host than the agent's, which no signal reaches, looks for the attempt's mark on the shared file system and signals
  itself;
* after the call the declared outputs are checked; then the outcome is written beside the logs, unless the attempt was
  so short that doing it again costs less.
"""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec

import kernels.ranks
from orchestrator import codec
from orchestrator.agent import around as surroundings
from orchestrator.agent import claim, output, processes, ranks, shell
from orchestrator.agent.around import Around
from orchestrator.model import Content, FailureClass, Order, Outcome, Product, StageKind
from orchestrator.outside import effect

WORTH_KEEPING_S = 0.2  # an outcome of a shorter attempt is not written down: it is repeated after a crash
SLOT_BYTES = 512
LOOK_S = 0.5  # how often a far worker looks whether it is to end


class Ended(BaseException):
    """The agent wants this attempt to end. Not an Exception, so that no `except Exception` of a kernel swallows it."""


class Slot(msgspec.Struct, frozen=True):
    """What a worker is busy with."""

    pid: int
    token: str = ""
    started_at: float = 0.0
    host: str = ""


class _Worker:
    """State of this worker process, made at its first attempt."""

    def __init__(self, around: Around) -> None:
        slots = around.slots
        with contextlib.suppress(OSError):
            os.setpgid(0, 0)  # so that ending the attempt ends what the kernel started, and nothing else
        os.makedirs(slots, mode=0o700, exist_ok=True)
        self.host = socket.gethostname() if around.far else ""
        stem = f"{slots}/{slot_name(os.getpid(), self.host)}"
        self.slot = os.open(stem, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
        self.busy = False
        self.mark = ""  # of the attempt it is busy with: where it is, the attempt is to end
        self._streams = {1: f"{stem}.out", 2: f"{stem}.err"}
        for descriptor in self._streams:
            self._fresh(descriptor)
        signal.signal(signal.SIGTERM, self._on_signal)
        if around.far:
            threading.Thread(target=self._look_for_mark, daemon=True).start()

    def _look_for_mark(self) -> None:
        seen_at, seen = 0.0, ""
        while True:
            time.sleep(LOOK_S)
            mark = self.mark
            if not mark or not os.path.exists(mark):
                continue
            if mark != seen:
                seen_at, seen = time.monotonic(), mark
                os.kill(os.getpid(), signal.SIGTERM)
            elif time.monotonic() - seen_at > processes.GRACE_S:
                os.killpg(0, signal.SIGKILL)

    def _on_signal(self, _number: int, _frame: object) -> None:
        if self.busy:
            raise Ended
        raise SystemExit(0)

    def _fresh(self, descriptor: int) -> None:
        """Let this descriptor of the process write to a new, empty file."""
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_TRUNC | os.O_CLOEXEC
        handle = os.open(self._streams[descriptor], flags, 0o600)
        os.dup2(handle, descriptor)
        os.close(handle)

    def hand_over(self, paths: output.Paths) -> None:
        """What was written since the last call gets the attempt's names."""
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(OSError, ValueError):
                stream.flush()
        for descriptor, final in ((1, paths.stdout), (2, paths.stderr)):
            state = os.fstat(descriptor)
            if os.path.islink(final):
                os.unlink(final)  # see `show`
            if not state.st_size and state.st_nlink == 1:
                continue
            mine = self._streams[descriptor]
            if state.st_nlink > 1 and os.path.exists(final):
                os.unlink(mine)  # the agent has linked it already
            else:
                os.makedirs(os.path.dirname(final), mode=0o700, exist_ok=True)
                _move(mine, final)
            self._fresh(descriptor)

    def say(self, slot: Slot) -> None:
        os.pwrite(self.slot, codec.dumps(slot).encode().ljust(SLOT_BYTES), 0)


_worker: _Worker | None = None  # one per process by nature


def slot_name(pid: int, host: str) -> str:
    return f"{host.replace('.', '_')}-{pid}" if host else str(pid)


def show(slots: Path, slot: Slot, paths: output.Paths) -> None:
    """Give what a worker writes now the attempt's names, so that it can be followed."""
    os.makedirs(os.path.dirname(paths.stdout), mode=0o700, exist_ok=True)
    for name, final in (("out", paths.stdout), ("err", paths.stderr)):
        mine = slots / f"{slot_name(slot.pid, slot.host)}.{name}"
        with contextlib.suppress(OSError):
            try:
                os.link(mine, final)
            except OSError as error:
                if error.errno == errno.EXDEV:  # the runs lie on another file system
                    os.symlink(mine, final)


def hide(paths: output.Paths) -> None:
    """Undo `show`: the worker was at something else."""
    for final in (paths.stdout, paths.stderr):
        with contextlib.suppress(OSError):
            if os.path.islink(final) or os.stat(final).st_nlink > 1:
                os.unlink(final)


def _move(mine: str, final: str) -> None:
    """Rename, or copy where the two lie on different file systems."""
    try:
        os.replace(mine, final)
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
        shutil.copyfile(mine, final)
        os.unlink(mine)


def forget_slots(slots: Path) -> None:
    """Those of workers that are gone."""
    with contextlib.suppress(OSError):
        for entry in os.scandir(slots):
            os.unlink(entry.path)


def run(text: str, surrounding: str, **_parsl: object) -> str:
    """Carry out the order in `text`, in the `Around` that the other text holds; its outcome as text. Never raises.

    Parsl hands on what its executors are told of nodes and ranks; the order says it, too.
    """
    global _worker
    order = codec.loads(text, Order)
    around = surroundings.read(surrounding)
    if _worker is None:
        _worker = _Worker(around)
    worker = _worker
    paths = output.Paths(order)
    started_at = time.time()
    try:
        worker.busy = True
        worker.say(Slot(os.getpid(), order.token, started_at, worker.host))
        if os.path.exists(paths.cancelled):
            raise Ended
        worker.mark = paths.cancelled
        if claim.take(paths.claim(order.claim)):
            with effect("call.run"):
                outcome = attempt(order, around)
        else:
            outcome = Outcome(FailureClass.LOST, "another agent has begun it")
    except Ended:
        outcome = Outcome(FailureClass.CANCELLED, "cancelled")
    except OSError as error:
        outcome = Outcome(FailureClass.LOST, f"the attempt could not be prepared: {error}")
    finally:
        worker.mark = ""
        worker.busy = False
        worker.say(Slot(os.getpid()))
    try:
        worker.hand_over(paths)
    except OSError as error:
        outcome = Outcome(FailureClass.LOST, f"the output of the attempt could not be kept: {error}")
    outcome = with_output(order, outcome, started_at, around.cap_bytes)
    result = codec.dumps(outcome)
    ended_by_itself = outcome.failure is not FailureClass.CANCELLED  # who asked it to end knows why; we do not
    if ended_by_itself and outcome.ended_at - started_at > WORTH_KEEPING_S:
        write_whole(paths.exit, result)
    return result


def check(text: str, started_at: float) -> str:
    """Check the declared outputs of a command that has exited with 0; an Outcome that holds findings and products."""
    order = codec.loads(text, Order)
    begun = time.time()
    outcome = _witnessed(order, _checked(order, Outcome(), since=started_at), since=started_at)
    return codec.dumps(msgspec.structs.replace(outcome, checks_s=time.time() - begun))


def on_term(_number: int, _frame: object) -> None:
    """Handler of SIGTERM for processes that carry out one attempt only."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    raise Ended


def attempt(order: Order, around: Around | None) -> Outcome:
    """Carry out the order in its working directory and check its outputs; without `around`: as one rank of several.

    Raises Ended when it was asked to end.
    """
    started_at = time.time()
    if not os.path.isdir(order.working_dir):
        reason = f"the working directory {order.working_dir} does not exist or cannot be entered"
        return Outcome(FailureClass.USER, reason)
    if around is not None:  # whatever launcher has started this worker or job, one on each node of a block perhaps
        os.environ[kernels.ranks.EXPECTED] = "1"
    before = os.getcwd()
    os.chdir(order.working_dir)
    try:
        several = around is not None and ranks.several(order)
        outcome = ranks.run(order, around, _nodes()) if around is not None and several else _call(order)
        if outcome.failure is None and around is not None:
            begun = time.time()
            outcome = _witnessed(order, _checked(order, outcome, since=started_at), since=started_at)
            outcome = msgspec.structs.replace(outcome, checks_s=time.time() - begun)
        return outcome
    finally:
        os.chdir(before)


def _checked(order: Order, outcome: Outcome, *, since: float) -> Outcome:
    if not order.expect:
        return outcome
    from orchestrator.agent import checks

    findings = checks.check(order.expect, since=since, base=order.working_dir)
    reason = checks.verdict(findings)
    if reason:
        return msgspec.structs.replace(outcome, failure=FailureClass.BAD_OUTPUT, reason=reason, findings=findings)
    known = {p.path for p in outcome.products}
    products = tuple(p for p in checks.products(order.expect, order.working_dir) if p.path not in known)
    return msgspec.structs.replace(outcome, findings=findings, products=outcome.products + products)


def _witnessed(order: Order, outcome: Outcome, *, since: float) -> Outcome:
    """With the content of what it has read and made, where anybody may ask for it."""
    asked = order.inputs or order.known or outcome.products or order.kind in (StageKind.KERNEL, StageKind.TRANSFER)
    if outcome.failure is not None or not asked:
        return outcome
    from orchestrator.agent import contents

    return contents.witnessed(order, outcome, since=since)


def _call(order: Order) -> Outcome:
    """Whatever a kernel or a user's function raises is the outcome of the attempt, with the traceback in its stderr."""
    try:
        return _CALLS[order.kind](order)
    except (Exception, SystemExit) as error:  # noqa: BLE001 - this is where it ends
        import traceback

        traceback.print_exc()
        return Outcome(FailureClass.USER, f"{type(error).__name__}: {error}")


def _nodes() -> tuple[str, ...]:
    """The hosts that this task has within its job; empty: all of the job's, or the only one."""
    given = os.environ.get("PARSL_MPI_NODELIST", "")
    if given:
        return tuple(given.split(","))
    mine = os.environ.get("SLURMD_NODENAME", "")
    return (mine,) if mine and os.environ.get("SLURM_JOB_NUM_NODES", "1") != "1" else ()


def _call_command(order: Order) -> Outcome:
    """A command in a pilot worker or a job, in the environment that the site's profile has prepared there."""
    alone = os.environ.get(kernels.ranks.EXPECTED) == "1"
    environment = {**(kernels.ranks.apart(os.environ) if alone else os.environ), processes.TOKEN: order.token}
    process = subprocess.Popen(
        [shell.program(), "-c", order.command],
        stdin=subprocess.DEVNULL,
        env=environment,
        start_new_session=True,
    )
    status = processes.waited(process)
    failure, reason = shell.judge(order, status, None, "")
    return Outcome(failure, reason, exit_status=status)


def _call_kernel(order: Order) -> Outcome:
    from kernels import contract, registry

    try:
        result = contract.run(order.call, order.arguments)
    except contract.PeerFailed as error:
        return Outcome(FailureClass.CANCELLED, str(error), exit_status=error.exit_code)
    except contract.KernelError as error:
        failure = FailureClass(error.failure)
        return Outcome(failure, str(error), exit_status=error.exit_code, metrics=dict(error.metrics))
    from orchestrator.agent import contents

    products = tuple(Product(p.path, p.bytes, p.description, p.checksum) for p in result.products)
    software = {order.call: registry.get(order.call).version, **contents.software()}
    return Outcome(
        exit_status=0,
        products=products,
        inputs=tuple(map(Content, result.inputs)),
        software=software,
        metrics=dict(result.metrics),
        warnings=tuple(map(str, result.warnings)),
    )


def _call_function(order: Order) -> Outcome:
    import importlib

    module, _, name = order.call.partition(":")
    try:
        function: Callable[..., Any] = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError) as error:
        return Outcome(FailureClass.USER, f"the function {order.call!r} cannot be imported: {error}")
    value = function(**order.arguments)
    metrics = value if isinstance(value, dict) else {} if value is None else {"value": value}
    try:
        return Outcome(metrics=codec.loads(codec.dumps(metrics), dict))
    except (TypeError, ValueError):
        return Outcome(FailureClass.USER, f"{order.call} returned a {type(value).__name__}, which is not plain data")


def _call_transfer(order: Order) -> Outcome:
    from orchestrator.agent import transfer_stage

    return transfer_stage.call(order)


_CALLS: dict[StageKind, Callable[[Order], Outcome]] = {
    StageKind.COMMAND: _call_command,
    StageKind.KERNEL: _call_kernel,
    StageKind.FUNCTION: _call_function,
    StageKind.TRANSFER: _call_transfer,
}


def with_output(order: Order, outcome: Outcome, started_at: float, cap_bytes: int) -> Outcome:
    """The outcome with what was captured from the kept output, and where that lies."""
    paths = output.Paths(order)
    ended_at = time.time()
    captures: dict[str, str] = {}
    failure, reason = outcome.failure, outcome.reason
    if order.captures and failure is None:
        captures, trouble = output.captured(order.captures, output.read(paths.stdout))
        if trouble:
            failure, reason = FailureClass.USER, trouble
    if order.kind is StageKind.COMMAND and failure in shell.EXPLAINED:
        reason = f"{reason}{shell.last_words(paths.stderr)}"
    stdout, stderr = output.path_if_any(paths.stdout), output.path_if_any(paths.stderr)
    for path in filter(None, (stdout, stderr)):
        output.cut(path, cap_bytes)
    return msgspec.structs.replace(
        outcome,
        failure=failure,
        reason=reason,
        captures=captures,
        started_at=started_at,
        ended_at=ended_at,
        stdout=stdout,
        stderr=stderr,
    )


def write_whole(path: str, text: str) -> None:
    """All of it or nothing, whatever ends this process or its host."""
    part = Path(f"{path}.part")
    with contextlib.suppress(OSError):
        part.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with part.open("w") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        with effect("outcome.keep"):
            os.replace(part, path)
