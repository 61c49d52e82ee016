"""One job per attempt, over the scheduler that needs none: what comes back, and that nothing runs twice."""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from msgspec.structs import replace

from orchestrator import codec, jobscript
from orchestrator.agent import batch, output, pulse
from orchestrator.agent.around import Around
from orchestrator.agent.batch import BatchExecutor
from orchestrator.agent.ranks import RankOrder
from orchestrator.agent.target import Shape, Target
from orchestrator.agent.tracker import Tracker
from orchestrator.errors import UserError
from orchestrator.jobs import OVER, JobSpec, JobState, NotLetIn, Refused, ReservationGone, SchedulerSilent
from orchestrator.model import FailureClass, Order, Outcome, Resources, StageKind
from orchestrator.schedulers.local import LocalScheduler

ROOT = Path(__file__).resolve().parents[3]
WAIT_S = 30.0
TARGET = Target("batch", Shape(), queue="local", walltime_s=300.0)


@dataclass
class Site:
    """A ledger of local jobs and the executors over it; each `open` is an agent that has started anew."""

    place: Path
    told: list[str] = field(default_factory=list)
    opened: list[tuple[BatchExecutor, Tracker]] = field(default_factory=list)

    @property
    def scheduler(self) -> LocalScheduler:
        return LocalScheduler(self.place / "ledger")

    def open(
        self,
        scheduler: LocalScheduler | None = None,
        *,
        init: tuple[str, ...] = (),
        silent_s: float = 0.0,
        down_after_s: float = 120.0,
    ) -> BatchExecutor:
        scheduler = scheduler or self.scheduler
        tracker = Tracker(scheduler, poll_s=1.0)
        made = BatchExecutor(
            scheduler,
            tracker,
            Around(),
            init=init,
            environment={"PYTHONPATH": str(ROOT)},
            told=lambda token, since, text: self.told.append(text),
            silent_s=silent_s,
            down_after_s=down_after_s,
        )
        made.start()
        tracker.start()
        self.opened.append((made, tracker))
        return made

    def other(self, name: str, last: int) -> LocalScheduler:
        """A scheduler that knows none of our jobs; `last` is the number of its last one."""
        (self.place / name).mkdir()
        (self.place / name / "last").write_text(str(last))
        return LocalScheduler(self.place / name)

    def close(self) -> None:
        for executor, tracker in self.opened:
            executor.shutdown()
            tracker.close()

    def order(self, command: str, *, number: int = 0, **more: object) -> Order:
        work = self.place / "work"
        work.mkdir(exist_ok=True)
        logs = str(self.place / "logs")
        given = {"command": command, "working_dir": str(work), "log_dir": logs, **more}
        return Order(f"run.{number}.1", StageKind.COMMAND, "s", **given)  # type: ignore[arg-type]

    def ran(self, name: str = "ran") -> int:
        try:
            return (self.place / "work" / name).read_text().count("\n")
        except FileNotFoundError:
            return 0


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    made = Site(tmp_path)
    yield made
    made.close()
    left = made.scheduler.mine(batch.PREFIX)
    made.scheduler.cancel([job.id for job in left])
    until(lambda: not made.scheduler.mine(batch.PREFIX))


def until(true: Callable[[], object]) -> None:
    deadline = time.monotonic() + WAIT_S
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def outcome(executor: BatchExecutor, order: Order, target: Target = TARGET) -> Outcome:
    return executor.submit(None, {}, order, target).result(WAIT_S)


def test_a_job_that_goes_well_says_so_itself(site: Site) -> None:
    found = outcome(site.open(), site.order("echo n: 5; pwd; echo grumble >&2", captures=(r"n: (?P<n>\d+)",)))
    assert (found.failure, found.exit_status, found.captures) == (None, 0, {"n": "5"})
    assert found.job == "1"
    assert Path(found.stdout).read_text() == f"n: 5\n{site.place / 'work'}\n"
    assert Path(found.stderr).read_text() == "grumble\n"


def test_a_job_that_fails_says_why(site: Site) -> None:
    found = outcome(site.open(), site.order("echo 'no such scan' >&2; exit 3"))
    assert (found.failure, found.exit_status) == (FailureClass.USER, 3)
    assert found.reason == "exit status 3: no such scan"


def test_an_attempt_has_its_timeout_in_its_job(site: Site) -> None:
    found = outcome(site.open(), site.order("sleep 60", timeout_s=0.3))
    assert (found.failure, found.reason) == (FailureClass.TIMEOUT, "ended after its timeout of 0.3 s")


def test_an_environment_that_cannot_be_prepared_is_the_fault_of_the_site(site: Site) -> None:
    executor = site.open(init=("echo 'no module recon' >&2; false",))
    found = outcome(executor, site.order("true"))
    assert found.failure is FailureClass.SITE
    assert found.reason.endswith("could not be prepared (exit status 1): no module recon")


def test_a_job_that_leaves_nothing_behind_is_no_success(site: Site) -> None:
    """Its payload is killed: the scheduler says that the job has failed, and nobody that the work is done."""
    found = outcome(site.open(), site.order('kill -9 "$(ps -o ppid= -p $$ | tr -d " ")"'))
    assert found.failure is FailureClass.LOST


def test_a_cancelled_job_ends_in_order(site: Site) -> None:
    executor = site.open()
    order = site.order("trap 'echo tidy >tidy; exit' TERM; echo >ready; while :; do sleep 0.1; done")
    future = executor.submit(None, {}, order, TARGET)
    until(lambda: (site.place / "work" / "ready").exists())
    assert executor.end(order.token)
    found = future.result(WAIT_S)
    assert (found.failure, found.reason) == (FailureClass.CANCELLED, "cancelled")
    until(lambda: (site.place / "work" / "tidy").exists())
    assert not executor.end(order.token)


def test_a_job_that_somebody_else_cancels_is_not_ours(site: Site) -> None:
    executor = site.open()
    future = executor.submit(None, {}, site.order("echo >ready; sleep 60"), TARGET)
    until(lambda: (site.place / "work" / "ready").exists())
    site.scheduler.cancel(["1"])
    assert future.result(WAIT_S).failure is FailureClass.OUTSIDE


def test_a_new_agent_finds_the_job_and_nothing_runs_twice(site: Site) -> None:
    order = site.order("echo >>ran; while [ ! -e go ]; do sleep 0.05; done; echo well")
    first = site.open()
    first.submit(None, {}, order, TARGET)
    until(site.ran)
    site.close()
    future = site.open().submit(None, {}, replace(order, adopt=True), TARGET)
    time.sleep(0.2)
    (site.place / "work" / "go").touch()
    assert site.place.joinpath("logs", "0.1.order").exists()
    assert future.result(WAIT_S).failure is None
    assert site.ran() == 1
    assert len(list((site.place / "ledger").glob("*~*"))) == 1


def test_what_ended_while_no_agent_was_there_is_not_begun_again(site: Site) -> None:
    order = site.order("echo >>ran")
    assert outcome(site.open(), order).failure is None
    assert outcome(site.open(), replace(order, adopt=True)).failure is None
    assert site.ran() == 1


def test_a_token_whose_job_the_scheduler_has_forgotten_is_never_run_again(site: Site) -> None:
    """The claim that its job's script has left is on the disk; its outcome is lost."""
    order = site.order("echo >>ran")
    assert outcome(site.open(), order).failure is None
    paths = output.Paths(order)
    os.unlink(paths.exit)
    found = outcome(site.open(site.other("other", 7)), replace(order, adopt=True))
    assert found.failure is FailureClass.LOST
    assert site.ran() == 1


def test_two_jobs_of_one_token_run_it_once(site: Site) -> None:
    order = site.order("echo >>ran; sleep 0.3")
    spec = site.open().spec(order, TARGET)
    twins = [site.other("a", 1), site.other("b", 2)]
    numbers = [twin.submit_once(spec) for twin in twins]
    until(lambda: all(t.jobs([n])[n].state in OVER for t, n in zip(twins, numbers, strict=True)))
    assert site.ran() == 1


def test_where_it_was_sent_is_kept_for_a_new_agent(site: Site) -> None:
    order = site.order("true")
    target = replace(TARGET, queue="gpu", partition="gpu", account="beam", reservation="shift-1", shape=Shape(gpus=2))
    spec = site.open().spec(order, target)
    path = output.Paths(order).order
    assert batch.sent_to(path) == target
    assert codec.loads(Path(path).read_text(), RankOrder).order == order
    assert (spec.queue, spec.account, spec.reservation, spec.gpus_per_node) == ("gpu", "beam", "shift-1", 2)
    Path(path).write_text('{"order": ')
    assert batch.sent_to(path) is None
    assert batch.sent_to(f"{path}.none") is None


def test_a_job_asks_for_what_its_stage_asks_for(site: Site) -> None:
    resources = Resources(nodes=2, ranks_per_node=4, cores_per_rank=8, gpus_per_rank=1)
    target = replace(TARGET, shape=Shape(2, 4, 32, 4, 10**9), options=("--requeue",), walltime_s=7200.0)
    spec = site.open().spec(site.order("true", resources=resources), target)
    assert (spec.nodes, spec.ranks_per_node, spec.cores_per_rank) == (2, 4, 8)
    assert (spec.gpus_per_node, spec.memory_bytes, spec.options) == (4, 10**9, ("--requeue",))
    assert (spec.token, spec.walltime_s, spec.warning_s) == ("bw-run.0.1", 7200.0, batch.WARNING_S)


def test_a_short_job_is_warned_within_its_time() -> None:
    assert batch.warning_s(100.0) == 10.0
    assert batch.warning_s(36000.0) == batch.WARNING_S


class Deaf(LocalScheduler):
    """Raises what it is given instead of taking a job."""

    errors: list[Exception]
    known: list[bool]
    finds = True

    def submit_once(self, spec: JobSpec, *, known: bool = False) -> str:
        self.known.append(known)
        if self.errors:
            raise self.errors.pop(0)
        return super().submit_once(spec, known=known)


def deaf(site: Site, *errors: Exception) -> Deaf:
    made = Deaf(site.place / "ledger")
    made.errors, made.known = list(errors), []
    return made


@pytest.mark.parametrize(
    ("error", "failure"),
    [
        (Refused("Invalid partition."), FailureClass.SITE),
        (ReservationGone("No reservation 'x'."), FailureClass.RESERVATION),
        (NotLetIn("Your ticket has expired."), FailureClass.AUTHENTICATION),
        (UserError("'a:b' cannot be a path."), FailureClass.USER),
        (RuntimeError("a bug"), FailureClass.LOST),
    ],
)
def test_a_job_that_is_not_taken_has_its_class(error: Exception, failure: FailureClass, site: Site) -> None:
    found = outcome(site.open(deaf(site, error)), site.order("true"))
    assert found.failure is failure
    assert str(error) in found.reason


def test_silence_is_waited_out_and_looked_behind(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batch, "SILENT_RETRY_S", 0.05)
    scheduler = deaf(site, SchedulerSilent("No answer."), SchedulerSilent("No answer."))
    assert outcome(site.open(scheduler), site.order("echo >>ran")).failure is None
    assert scheduler.known == [False, True, True]
    assert "the scheduler does not answer: No answer." in site.told
    assert site.ran() == 1


def test_after_long_silence_the_site_is_down_and_the_job_may_be_there(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batch, "SILENT_RETRY_S", 0.05)
    executor = site.open(deaf(site, *[SchedulerSilent("No answer.")] * 1000), down_after_s=0.2)
    found = outcome(executor, site.order("true"))
    assert (found.failure, found.unsure) == (FailureClass.DOWN, True)
    assert found.reason == "the scheduler does not answer: No answer."
    again = outcome(site.open(), replace(site.order("echo >>ran"), adopt=True))
    assert (again.failure, site.ran()) == (None, 1)


def test_what_is_cancelled_while_the_scheduler_is_silent_is_never_submitted(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batch, "SILENT_RETRY_S", 0.05)
    scheduler = deaf(site, *[SchedulerSilent("No answer.")] * 100)
    executor = site.open(scheduler)
    order = site.order("echo >>ran")
    future = executor.submit(None, {}, order, TARGET)
    until(lambda: site.told)
    assert executor.end(order.token)
    assert future.result(WAIT_S).failure is FailureClass.CANCELLED
    assert site.ran() == 0


def test_what_waits_is_told_with_the_words_of_the_scheduler(site: Site) -> None:
    executor = site.open()
    order = site.order("true")
    entry = batch._Job(order, replace(TARGET, note="reservation 'x' is gone"))
    waiting = LocalScheduler(site.place / "ledger").jobs(["9"])["9"]
    executor._changed(entry, replace(waiting, state=JobState.PENDING, reason="Priority", queue="gpu"))
    executor._changed(entry, replace(waiting, state=JobState.HELD, queue="gpu"))
    assert site.told == [
        "job 9 in queue 'gpu' Priority (reservation 'x' is gone)",
        "job 9 in queue 'gpu' is held (reservation 'x' is gone)",
    ]


def test_attempts_that_have_not_begun_are_known(site: Site) -> None:
    gate = threading.Event()

    class Slow(LocalScheduler):
        def submit_once(self, spec: JobSpec, *, known: bool = False) -> str:
            assert gate.wait(WAIT_S)
            return super().submit_once(spec, known=known)

    executor = site.open(Slow(site.place / "ledger"))
    with contextlib.ExitStack() as after:
        after.callback(gate.set)
        future = executor.submit(None, {}, site.order("true"), TARGET)
        assert [token for token, _, _ in executor.waiting()] == ["run.0.1"]
        assert executor.of("run.0.1") == ("", None)
    assert future.result(WAIT_S).failure is None
    assert executor.waiting() == []
    assert executor.of("run.0.1") == ("", None)


def test_a_job_that_gives_no_sign_of_life_is_cancelled_and_lost(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pulse, "LOOK_S", 0.0)
    monkeypatch.setattr(jobscript, "BEAT_S", 1000)  # as one whose node has stopped
    order = site.order("touch began; sleep 60")
    found = outcome(site.open(silent_s=1.0), order)
    assert (found.failure, found.job) == (FailureClass.LOST, "1")
    assert found.reason.startswith("job 1 runs, says the scheduler, but has given no sign of life for ")
    until(lambda: site.scheduler.jobs(["1"])["1"].state is JobState.CANCELLED)
    assert (site.place / "work" / "began").exists()
