"""What the scheduler says of all our jobs: one look at a time for all of them, by one thread.

Whoever watches a job is told each time its state or reason changes, and last when it is over. A scheduler that does not
answer is *silent*: nothing is concluded from that, and the looks go on.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import structlog

from orchestrator.errors import BeamwayError
from orchestrator.jobs import OVER, Job, JobState, Reservation, Scheduler, SchedulerSilent

FORGOTTEN_LOOKS = 2  # a job is over as GONE only when it was missed so often in a row
RESERVATIONS_S = 15.0  # how often reservations are asked for

log = structlog.get_logger()

Changed = Callable[[Job], None]


class Tracker:
    def __init__(self, scheduler: Scheduler, *, poll_s: float) -> None:
        self._scheduler, self._poll_s = scheduler, poll_s
        self._watched: dict[str, Changed] = {}
        self._seen: dict[str, Job] = {}
        self._missed: dict[str, int] = {}
        self._lock = threading.Lock()
        self._wake = threading.Event()
        self._stop = threading.Event()
        self._asked_at = float("-inf")
        self.silent_since = 0.0  # epoch seconds; 0: it answers
        self.silent_words = ""
        self.wants_reservations = False  # nobody has asked for one yet
        self.reservations: dict[str, Reservation] | None = None  # None: not known yet
        self.reservations_at = 0.0  # epoch seconds: as they were then
        self._thread = threading.Thread(target=self._run, name="tracker", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def watch(self, job_id: str, changed: Changed) -> None:
        """`changed` is called in the tracker's thread and must not wait."""
        with self._lock:
            self._watched[job_id] = changed
        self._wake.set()

    def forget(self, job_id: str) -> None:
        with self._lock:
            self._watched.pop(job_id, None)
            self._seen.pop(job_id, None)
            self._missed.pop(job_id, None)

    def job(self, job_id: str) -> Job | None:
        """As last seen; None before the first look."""
        with self._lock:
            return self._seen.get(job_id)

    def ask_reservations(self) -> None:
        """What is known of them may be too old."""
        self.wants_reservations = True
        self._asked_at = float("-inf")
        self._wake.set()

    def look_soon(self) -> None:
        """Something has happened: do not wait for the next turn."""
        self._wake.set()

    def close(self) -> None:
        self._stop.set()
        self._wake.set()
        if self._thread.is_alive():
            self._thread.join(timeout=5.0)

    def _run(self) -> None:
        while not self._stop.is_set():
            begun = time.monotonic()
            try:
                self.look()
            except Exception:  # a fault here must not leave jobs unwatched for ever
                log.exception("tracker.look_failed")
            # never more than one look a second, whoever wakes us
            self._stop.wait(max(0.0, 1.0 - (time.monotonic() - begun)))
            self._wake.wait(max(0.0, self._poll_s - (time.monotonic() - begun)))
            self._wake.clear()

    def look(self) -> None:
        """One look at everything that is watched."""
        with self._lock:
            ids = list(self._watched)
        try:
            found = self._scheduler.jobs(ids) if ids else {}
            for job_id in ids:
                self._saw(job_id, found.get(job_id) or Job(job_id, "", JobState.GONE))
            if self.wants_reservations and time.monotonic() - self._asked_at > RESERVATIONS_S:
                self._asked_at = time.monotonic()
                at = time.time()
                self.reservations = self._scheduler.reservations()
                self.reservations_at = at
        except SchedulerSilent as error:
            if not self.silent_since:
                self.silent_since = time.time()
                log.warning("scheduler.silent", reason=error.sentence)
            self.silent_words = error.sentence
            return
        except BeamwayError as error:
            log.error("scheduler.refused_look", reason=error.sentence)
            return
        if self.silent_since:
            log.info("scheduler.answers_again", silent_s=round(time.time() - self.silent_since))
            self.silent_since = 0.0

    def _saw(self, job_id: str, job: Job) -> None:
        with self._lock:
            if job_id not in self._watched:  # forgotten while we looked
                return
            if job.state is JobState.GONE:
                self._missed[job_id] = self._missed.get(job_id, 0) + 1
                if self._missed[job_id] < FORGOTTEN_LOOKS:
                    return
            else:
                self._missed.pop(job_id, None)
            before = self._seen.get(job_id)
            self._seen[job_id] = job
            changed = self._watched.get(job_id)
            if job.state in OVER:
                self._watched.pop(job_id, None)
                self._seen.pop(job_id, None)
        if changed is not None and (before is None or (before.state, before.reason) != (job.state, job.reason)):
            changed(job)
