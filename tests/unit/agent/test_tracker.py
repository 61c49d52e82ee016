"""One thread looks at all jobs: in bulk, never faster than once a second, and silence concludes nothing."""

from __future__ import annotations

import threading
import time
from collections.abc import Collection
from typing import cast

import pytest

from orchestrator.agent.tracker import FORGOTTEN_LOOKS, Tracker
from orchestrator.errors import UserError
from orchestrator.jobs import Job, JobState, Reservation, Scheduler, SchedulerSilent


class Script:
    """A scheduler that says what the test has put in."""

    def __init__(self) -> None:
        self.known: dict[str, Job] = {}
        self.silent = self.refuses = self.mute_reservations = False
        self.looks: list[set[str]] = []
        self.reservation_looks = 0

    def jobs(self, ids: Collection[str]) -> dict[str, Job]:
        self.looks.append(set(ids))
        if self.silent:
            raise SchedulerSilent("No answer.")
        if self.refuses:
            raise UserError("Not allowed.")
        return {n: self.known.get(n, Job(n, "", JobState.GONE)) for n in ids}

    def reservations(self) -> dict[str, Reservation]:
        self.reservation_looks += 1
        if self.silent or self.mute_reservations:
            raise SchedulerSilent("No answer.")
        return {"beam": Reservation("beam", active=True)}

    def say(self, number: str, state: JobState, reason: str = "") -> None:
        self.known[number] = Job(number, "", state, reason=reason)


@pytest.fixture
def script() -> Script:
    return Script()


@pytest.fixture
def tracker(script: Script) -> Tracker:
    return Tracker(cast("Scheduler", script), poll_s=60.0)


def told_by(tracker: Tracker, number: str = "1") -> list[str]:
    """What is heard of a job, as it comes."""
    heard: list[str] = []
    tracker.watch(number, lambda job: heard.append(f"{job.state.value} {job.reason}".strip()))
    return heard


@pytest.mark.parametrize("count", [1, 500])
def test_a_look_is_one_call_whatever_the_number_of_jobs(count: int, tracker: Tracker, script: Script) -> None:
    for number in range(count):
        script.say(str(number), JobState.RUNNING)
        told_by(tracker, str(number))
    tracker.look()
    assert [len(ids) for ids in script.looks] == [count]
    assert tracker.job("0") == script.known["0"]


def test_nothing_is_asked_when_nothing_is_watched(tracker: Tracker, script: Script) -> None:
    tracker.look()
    assert script.looks == []


def test_each_change_is_told_once(tracker: Tracker, script: Script) -> None:
    heard = told_by(tracker)
    for state, reason in [
        (JobState.PENDING, "Priority"),
        (JobState.PENDING, "Priority"),
        (JobState.PENDING, "Resources"),
        (JobState.HELD, "it is held by a person"),
        (JobState.RUNNING, ""),
        (JobState.RUNNING, ""),
        (JobState.DONE, ""),
    ]:
        script.say("1", state, reason)
        tracker.look()
    assert heard == ["pending Priority", "pending Resources", "held it is held by a person", "running", "done"]


def test_a_job_that_is_over_is_looked_at_no_more(tracker: Tracker, script: Script) -> None:
    heard = told_by(tracker)
    script.say("1", JobState.CANCELLED, "by a person")
    tracker.look()
    tracker.look()
    assert heard == ["cancelled by a person"]
    assert len(script.looks) == 1
    assert tracker.job("1") is None


def test_a_job_is_gone_only_when_it_was_missed_several_times_in_a_row(tracker: Tracker, script: Script) -> None:
    heard = told_by(tracker)
    tracker.look()
    script.say("1", JobState.RUNNING)
    tracker.look()
    script.known.clear()
    for _ in range(FORGOTTEN_LOOKS - 1):
        tracker.look()
    assert heard == ["running"]
    tracker.look()
    assert heard == ["running", "gone"]


def test_silence_concludes_nothing(tracker: Tracker, script: Script) -> None:
    heard = told_by(tracker)
    script.say("1", JobState.RUNNING)
    tracker.look()
    script.silent = True
    for _ in range(5):
        tracker.look()
    assert heard == ["running"]
    assert tracker.silent_words == "No answer."
    began = tracker.silent_since
    assert abs(began - time.time()) < 5
    tracker.look()
    assert tracker.silent_since == began
    script.silent = False
    script.say("1", JobState.DONE)
    tracker.look()
    assert heard == ["running", "done"]
    assert tracker.silent_since == 0.0


def test_silence_between_two_misses_does_not_count_as_one(tracker: Tracker, script: Script) -> None:
    heard = told_by(tracker)
    tracker.look()
    script.silent = True
    for _ in range(FORGOTTEN_LOOKS):
        tracker.look()
    assert heard == []


def test_a_look_that_is_refused_is_no_silence_and_no_end(tracker: Tracker, script: Script) -> None:
    heard = told_by(tracker)
    script.refuses = True
    tracker.look()
    assert heard == []
    assert tracker.silent_since == 0.0


def test_reservations_are_asked_for_when_somebody_wants_them_and_not_at_each_look(
    tracker: Tracker, script: Script
) -> None:
    tracker.look()
    assert tracker.reservations is None
    tracker.wants_reservations = True
    for _ in range(3):
        tracker.look()
    assert script.reservation_looks == 1
    assert tracker.reservations is not None
    assert list(tracker.reservations) == ["beam"]


def test_jobs_are_seen_although_nothing_is_heard_of_reservations(tracker: Tracker, script: Script) -> None:
    heard = told_by(tracker)
    tracker.wants_reservations = script.mute_reservations = True
    script.say("1", JobState.DONE)
    tracker.look()
    assert heard == ["done"]
    assert tracker.reservations is None


def test_a_job_that_is_forgotten_while_it_is_looked_at_leaves_nothing(tracker: Tracker, script: Script) -> None:
    heard = told_by(tracker)
    script.say("1", JobState.RUNNING)
    ask = script.jobs

    def forgets(ids: Collection[str]) -> dict[str, Job]:
        tracker.forget("1")
        return ask(ids)

    script.jobs = forgets  # type: ignore[method-assign]
    tracker.look()
    assert heard == []
    assert tracker.job("1") is None


def test_whoever_wakes_it_it_looks_once_a_second_at_most(tracker: Tracker, script: Script) -> None:
    script.say("1", JobState.RUNNING)
    seen = threading.Event()
    tracker.watch("1", lambda _: seen.set())
    tracker.start()
    assert seen.wait(5)
    deadline = time.monotonic() + 0.7
    while time.monotonic() < deadline:
        tracker.look_soon()
        time.sleep(0.01)
    assert len(script.looks) == 1
    tracker.close()


def test_a_fault_of_one_watcher_leaves_the_looks_going(tracker: Tracker, script: Script) -> None:
    def broken(_: Job) -> None:
        raise RuntimeError

    seen = threading.Event()
    tracker.watch("1", broken)
    script.say("1", JobState.DONE)
    script.say("2", JobState.DONE)
    tracker.start()
    while "1" in tracker._watched:
        time.sleep(0.01)
    tracker.watch("2", lambda _: seen.set())
    assert seen.wait(5)
    tracker.close()
