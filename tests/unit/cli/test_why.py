"""Every state of a run has an answer: what it waits for, since when, whom to call, what next."""

from __future__ import annotations

import pytest
from cli_samples import ID, T0, command, done, failed, held, plan, running, task
from immutables import Map
from msgspec.structs import replace

from orchestrator.engine.why import NEXT, THEIRS, Facts, Why, why
from orchestrator.model import (
    FailureClass,
    Finding,
    Outcome,
    Repeat,
    Run,
    RunStatus,
    StageKind,
    StagePlan,
    StageState,
    StageStatus,
    Task,
    TaskStatus,
)

FACTS = Facts(T0 + 10, agents=("local",), contacts={"local": "the beamline desk"})


def with_tasks(*tasks: Task, planned: StagePlan | None = None) -> Run:
    run = running()
    state = replace(run.stages["01-A"], open=len(tasks), tasks=len(tasks))
    stages = run.stages.set("01-A", state)
    pinned = run.plan if planned is None else plan(planned, command("02-B", "01-A"))
    return replace(run, plan=pinned, stages=stages, tasks=Map({t.number: t for t in tasks}))


def pending(number: int = 0, **more: object) -> Task:
    return task(number, "01-A", TaskStatus.PENDING, **more)


def opening() -> Run:
    run = running()
    state = StageState("01-A", StageStatus.OPENING, 1)
    return replace(run, stages=run.stages.set("01-A", state), tasks=Map())


REPEATED = command("01-A", repeat=Repeat(10, "$n == 3", 5))
LOST = Outcome(FailureClass.LOST, "the worker was lost", ended_at=T0 + 8)

CASES: list[tuple[str, Run, str, float]] = [
    ("pending", replace(running(), status=RunStatus.PENDING, stages=Map(), tasks=Map()), "has not begun it", T0),
    ("opening", opening(), "is being opened", T0 + 1),
    ("computing", running(), "is computing: 1 task at work", T0 + 2),
    ("queued", with_tasks(pending()), "waiting for a free worker of site 'local'", T0 + 1),
    (
        "backing off",
        with_tasks(task(0, "01-A", TaskStatus.BACKOFF, due_at=T0 + 15, outcome=LOST)),
        "the next is due in 5 s",
        T0 + 8,
    ),
    ("held", held(), "1 task, on hold because site 'local' is down (nobody answers); it is tried again", T0 + 3),
    ("repeating", with_tasks(pending(due_at=T0 + 12), planned=REPEATED), "starts in 2 s; it ends when $n == 3", T0 + 1),
    ("deciding", with_tasks(planned=REPEATED), "whether to repeat it is being decided", T0 + 1),
    ("child", with_tasks(pending(), planned=StagePlan("01-A", StageKind.WORKFLOW, call="x")), "child run", T0 + 1),
    ("done", done(), "every declared output passed its checks (1 product)", T0 + 7),
    ("failed", failed(), "Stage '01-A' failed: it ended with 3.", T0 + 3),
    ("aborting", replace(running(), status=RunStatus.ABORTING), "1 task of it still to end", T0 + 2),
    ("aborted", replace(running(), status=RunStatus.ABORTED, ended_at=T0 + 9, error="no"), "cancelled: no.", T0 + 9),
]


@pytest.mark.parametrize(("run", "sentence", "since"), [c[1:] for c in CASES], ids=[c[0] for c in CASES])
def test_every_state_has_an_answer(run: Run, sentence: str, since: float) -> None:
    answer = why(run, FACTS)
    assert sentence in answer.sentence
    assert answer.since == since
    assert answer.next or run.status is RunStatus.PENDING


@pytest.mark.parametrize("run", [c[1] for c in CASES], ids=[c[0] for c in CASES])
def test_without_a_service_that_is_the_answer_unless_it_is_over(run: Run) -> None:
    answer = why(run, replace(FACTS, service=False, agents=()))
    over = run.status in (RunStatus.DONE, RunStatus.FAILED, RunStatus.ABORTED)
    assert ("No service runs" in answer.sentence) is not over
    assert answer.since


@pytest.mark.parametrize("run", [c[1] for c in CASES], ids=[c[0] for c in CASES])
def test_without_an_agent_someone_is_to_be_called(run: Run) -> None:
    answer = why(run, replace(FACTS, agents=()))
    if "agent" in answer.sentence:
        assert answer.contact == "the beamline desk"


def test_an_agent_that_is_away_is_named() -> None:
    answer = why(running(), replace(FACTS, agents=()))
    assert answer.sentence == "Stage '01-A' waits for the agent of site 'local', which is not connected."
    assert answer.contact == "the beamline desk"


def test_a_hold_says_whom_to_call_and_where_to_sign_in() -> None:
    answer = why(held(link="https://sign.in"), FACTS)
    assert answer.contact == "the beamline desk"
    assert answer.next == f"Sign in at https://sign.in. `beamway resume {ID}` tries at once."


def test_a_transfer_on_hold_blames_no_site() -> None:
    run = held(link="https://a.task")
    outcome = Outcome(FailureClass.DOWN, "nobody answers", exit_status=75)
    task = replace(run.tasks[0], outcome=outcome)
    run = with_tasks(task, planned=StagePlan("01-A", StageKind.TRANSFER))
    answer = why(run, FACTS)
    assert "on hold (nobody answers);" in answer.sentence
    assert answer.next.startswith("Look at https://a.task. ")


def test_an_attempt_that_tries_whether_a_hold_is_over_says_so() -> None:
    hold = held().tasks[0].hold
    answer = why(with_tasks(pending(hold=hold)), FACTS)
    assert answer.details == ("Task 0 was on hold (nobody answers) and is being tried.",)


def test_a_site_to_which_nothing_is_sent_is_named_with_whom_to_call() -> None:
    answer = why(with_tasks(pending()), replace(FACTS, shut={"local": (T0 + 4, "3 runs in a row have failed there")}))
    assert answer.sentence == (
        "Stage '01-A', 1 task: nothing new is sent to site 'local', because 3 runs in a row have failed there."
    )
    assert (answer.since, answer.contact) == (T0 + 4, "the beamline desk")


def test_what_is_on_hold_beside_work_is_a_detail() -> None:
    run = held()
    busy = task(1, "01-A", TaskStatus.RUNNING, started_at=T0 + 2)
    answer = why(replace(run, status=RunStatus.RUNNING, tasks=run.tasks.set(1, busy)), FACTS)
    assert "is computing: 1 task at work" in answer.sentence
    assert "on hold because site 'local' is down" in answer.details[0]


@pytest.mark.parametrize("failure", FailureClass)
def test_every_class_of_failure_has_a_next_step(failure: FailureClass) -> None:
    answer = why(failed(failure), FACTS)
    assert ID in answer.next
    assert "Not begun because of it: 02-B." in answer.details
    assert f"Task 0, attempt 1: {failure.value}, exit status 3." in answer.details
    assert (answer.contact != "") is (failure in THEIRS)
    assert failure in NEXT


def test_a_failed_check_says_what_was_seen() -> None:
    findings = (Finding("/out.h5", "exists", True), Finding("/out.h5", "finite >= 1", False, "0.4"))
    answer = why(failed(FailureClass.BAD_OUTPUT, findings=findings, stderr="/logs/0.1.err"), FACTS)
    assert "Check failed: /out.h5: finite >= 1; seen: 0.4." in answer.details
    assert "Its stderr: /logs/0.1.err" in answer.details


def test_a_stage_that_could_not_be_opened() -> None:
    run = replace(failed(), tasks=Map())
    answer = why(run, FACTS)
    assert "start a new run" in answer.next


def test_done_without_declared_outputs_says_that_none_was_checked() -> None:
    run = done()
    run = replace(run, tasks=run.tasks.set(1, replace(run.tasks[1], outcome=None)))
    assert "No stage declares outputs" in why(run, FACTS).sentence


def test_a_run_that_will_fail_says_so() -> None:
    run = running()
    state = StageState("02-B", StageStatus.FAILED, 1, T0 + 1, T0 + 2, "it ended with 1", failed=1, tasks=1)
    answer = why(replace(run, stages=run.stages.set("02-B", state)), FACTS)
    assert "Stage '02-B' has failed (it ended with 1); when what runs has ended, the run fails." in answer.details


def test_progress_is_told() -> None:
    answer = why(running(), replace(FACTS, progress={f"{ID}.0.1": (0.25, "slab 3")}))
    assert answer.details == ("Task 0: 25% slab 3",)


def test_cancelling_counts_from_the_wish() -> None:
    run = replace(running(), status=RunStatus.ABORTING)
    assert why(run, replace(FACTS, cancelled_at=T0 + 5)).since == T0 + 5


def test_a_failed_child_leads_to_the_child() -> None:
    run = failed()
    child = plan(StagePlan("01-A", StageKind.WORKFLOW, call="x"), command("02-B"))
    answer = why(replace(run, plan=child), replace(FACTS, children={0: "the-child"}))
    assert answer.next == "`beamway why the-child`"
    assert isinstance(answer, Why)
