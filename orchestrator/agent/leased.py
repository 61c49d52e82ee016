"""The scheduler as an agent sees it that may lose its site: without its lease it submits nothing.

An agent that has slept through its lease does not know when it wakes, and another one has begun its work anew.
"""

from __future__ import annotations

from collections.abc import Callable, Collection

from orchestrator.jobs import Job, JobSpec, Queue, Reservation, Scheduler, SchedulerSilent


class Leased:
    """`scheduler`, but for submitting while `valid` says no: that is asked again, as when it does not answer."""

    def __init__(self, scheduler: Scheduler, valid: Callable[[], bool]) -> None:
        self._scheduler, self._valid = scheduler, valid
        self.kind = scheduler.kind

    def submit_once(self, spec: JobSpec, *, known: bool = False) -> str:
        if not self._valid():
            raise SchedulerSilent("This agent has not heard from its service for the time of its lease.", "")
        return self._scheduler.submit_once(spec, known=known)

    def ping(self) -> str:
        return self._scheduler.ping()

    def find(self, token: str) -> list[Job]:
        return self._scheduler.find(token)

    def mine(self, prefix: str) -> list[Job]:
        return self._scheduler.mine(prefix)

    def jobs(self, ids: Collection[str]) -> dict[str, Job]:
        return self._scheduler.jobs(ids)

    def cancel(self, ids: Collection[str]) -> None:
        self._scheduler.cancel(ids)

    def queues(self) -> dict[str, Queue]:
        return self._scheduler.queues()

    def accounts(self) -> frozenset[str] | None:
        return self._scheduler.accounts()

    def reservations(self) -> dict[str, Reservation]:
        return self._scheduler.reservations()

    def starts_at(self, spec: JobSpec) -> float | None:
        return self._scheduler.starts_at(spec)
