"""Jobs as processes of this host, without a batch scheduler: for trial, for tests, and to be the same everywhere.

The ledger is a folder a job, named `ID~TOKEN`, so that a new instance after a restart finds every job by its token.
Each job is run by a process of its own (`local_runner`) that outlives us; it alone writes how the job went. Nothing
waits here: there is no queue, and a job that wants more than this host has is started all the same.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

from msgspec.structs import asdict

from orchestrator.jobs import ALIVE, Job, JobSpec, JobState, Queue, Reservation, ReservationGone, SchedulerSilent
from orchestrator.schedulers import local_runner, once, specs

START_S = 20.0  # for a runner to take its job over
KEPT_S = 7 * 86400.0  # how long jobs that are over are remembered


class LocalScheduler:
    kind = "local"

    def __init__(self, directory: str | Path) -> None:
        self._directory = Path(directory).expanduser()
        self._thread_lock = threading.Lock()

    def ping(self) -> str:
        with self._only_one():
            return f"processes of {os.uname().nodename}"

    def submit_once(self, spec: JobSpec, *, known: bool = False) -> str:
        specs.check(spec)
        if spec.reservation:
            raise ReservationGone(f"There is no reservation {spec.reservation!r} here: there is no batch scheduler.")
        with self._only_one():
            if found := self.find(spec.token):
                folder = self._folder(found[0].id)
                assert folder is not None
            else:
                folder = self._write_down(spec)
            self._start(folder)  # does nothing when it has been started before
            return folder.name.partition("~")[0]

    def find(self, token: str) -> list[Job]:
        return sorted((_job(f) for f in self._folders() if f.name.partition("~")[2] == token), key=once.order)

    def mine(self, prefix: str) -> list[Job]:
        found = [_job(f) for f in self._folders() if f.name.partition("~")[2].startswith(prefix)]
        return [job for job in found if job.state in ALIVE]

    def jobs(self, ids: Collection[str]) -> dict[str, Job]:
        wanted = set(ids)
        found = {f.name.partition("~")[0]: f for f in self._folders()} if wanted else {}
        return {n: _job(found[n]) if n in found else Job(n, "", JobState.GONE) for n in wanted}

    def cancel(self, ids: Collection[str]) -> None:
        wanted = set(ids)
        for folder in self._folders() if wanted else ():
            if folder.name.partition("~")[0] not in wanted or _job(folder).state not in ALIVE:
                continue
            try:
                (folder / "cancel").touch()
            except OSError as error:
                raise _broken(error) from error
            if _held(folder):
                with contextlib.suppress(OSError, ValueError):
                    os.kill(int((folder / "runner").read_text()), signal.SIGTERM)  # it looks for `cancel`
            elif (started := _read(folder / "started.json")) and _same_process(started):
                with contextlib.suppress(OSError):
                    os.killpg(started["pid"], signal.SIGKILL)  # nobody is left to give it its time

    def queues(self) -> dict[str, Queue]:
        return {"local": Queue("local", nodes=1, idle_nodes=1)}

    def accounts(self) -> frozenset[str] | None:
        return None

    def reservations(self) -> dict[str, Reservation]:
        return {}

    def starts_at(self, spec: JobSpec) -> float | None:
        return time.time()

    @contextlib.contextmanager
    def _only_one(self) -> Iterator[None]:
        """One submit at a time, of all the processes that use this ledger."""
        with self._thread_lock:
            try:
                self._directory.mkdir(parents=True, exist_ok=True)
                descriptor = os.open(self._directory / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            except OSError as error:
                raise _broken(error) from error
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX)
                yield
            except OSError as error:
                raise _broken(error) from error
            finally:
                os.close(descriptor)

    def _folders(self) -> list[Path]:
        try:
            with os.scandir(self._directory) as entries:
                return [Path(e.path) for e in entries if "~" in e.name and not e.name.startswith(".")]
        except FileNotFoundError:
            return []
        except OSError as error:
            raise _broken(error) from error

    def _folder(self, number: str) -> Path | None:
        return next((f for f in self._folders() if f.name.partition("~")[0] == number), None)

    def _write_down(self, spec: JobSpec) -> Path:
        folders = self._folders()
        numbers = [int(n) for n in (f.name.partition("~")[0] for f in folders) if n.isdecimal()]
        with contextlib.suppress(OSError, ValueError):
            numbers.append(int((self._directory / "last").read_text()))
        number = str(max(numbers, default=0) + 1)
        for folder in folders:
            ended = _read(folder / "ended.json")
            if ended and ended["at"] < time.time() - KEPT_S:
                shutil.rmtree(folder, ignore_errors=True)
        (self._directory / "last").write_text(number)  # numbers are not used again when their folders are gone
        part = self._directory / f".{number}"
        shutil.rmtree(part, ignore_errors=True)
        part.mkdir(mode=0o700)
        values = {k: v for k, v in asdict(spec).items() if k != "script"}
        (part / "job.json").write_text(json.dumps(values | {"id": number, "submitted_at": time.time()}))
        (part / "script").write_bytes(specs.for_bash(spec.script).encode("utf-8", "surrogateescape"))
        return part.rename(self._directory / f"{number}~{spec.token}")

    def _start(self, folder: Path) -> None:
        if (folder / "started.json").exists() or (folder / "ended.json").exists():
            return
        try:
            subprocess.run(
                [sys.executable, "-I", local_runner.__file__, str(folder)],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
                timeout=START_S,
                check=True,
            )
        except subprocess.SubprocessError as error:
            raise SchedulerSilent(f"A job could not be started on this host: {error}.", "Try again later.") from error


def _job(folder: Path) -> Job:
    number, _, token = folder.name.partition("~")
    alive = _held(folder)  # before the files: a runner writes its last one before it lets go
    spec, started, ended = (_read(folder / f"{name}.json") for name in ("job", "started", "ended"))
    cancelled = (folder / "cancel").exists()
    status: int | None = None
    reason = ""
    if ended:
        status = ended["status"]
        state, reason = _end_of(ended)
    elif started and (alive or _same_process(started)):
        state = JobState.ENDING if cancelled else JobState.RUNNING
    elif started:
        state = JobState.CANCELLED if cancelled else JobState.NODE
        reason = "" if cancelled else "its processes were killed, or this host was started anew"
    elif cancelled and not alive:
        state = JobState.CANCELLED
    else:
        state = JobState.PENDING
    return Job(
        id=number,
        token=token,
        state=state,
        word=str(ended["why"] or "ended") if ended else "",
        reason=reason,
        queue="local",
        nodes=(os.uname().nodename,) if started else (),
        submitted_at=spec.get("submitted_at", 0.0),
        started_at=started.get("at", 0.0),
        ended_at=ended.get("at", 0.0),
        exit_status=status,
        walltime_s=spec.get("walltime_s", 0.0),
    )


def _end_of(ended: dict[str, Any]) -> tuple[JobState, str]:
    status: int | None = ended["status"]
    if ended["why"] == "launch":
        return JobState.REFUSED, f"it could not be started: {ended['words']}"
    if ended["why"] == "cancel":
        return JobState.CANCELLED, "it was deleted on our request"
    if ended["why"] == "walltime" and status != 0:
        return JobState.WALLTIME, "it was ended at its time limit"
    if status == 0:
        return JobState.DONE, ""
    if status is not None and status > 128:
        return JobState.FAILED, f"it ended by signal {status - 128}"
    return JobState.FAILED, f"it ended with exit status {status}"


def _held(folder: Path) -> bool:
    """Does a runner live for this job? It holds the lock on its folder as long as it does."""
    try:
        descriptor = os.open(folder / "lock", os.O_RDWR | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        # Shared, so that two who look at the same time do not see each other.
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    finally:
        os.close(descriptor)
    return False


def _same_process(started: dict[str, Any]) -> bool:
    return bool(started["ticks"]) and local_runner.ticks(started["pid"]) == started["ticks"]


def _read(path: Path) -> dict[str, Any]:
    try:
        values = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return {}
    return values if isinstance(values, dict) else {}


def _broken(error: OSError) -> SchedulerSilent:
    return SchedulerSilent(f"The ledger of local jobs cannot be used: {error}.", "Check the site's scratch directory.")
