"""PBS Pro by its contract, against small stand-ins for its commands that really run the jobs."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from orchestrator.jobs import JobState, Refused, ReservationGone, SchedulerSilent
from orchestrator.schedulers.pbs import Pbs
from tests.unit.schedulers.contract import Bench, SchedulerContract

ROOT = Path(__file__).resolve().parents[3]
FAKE = ROOT / "tests" / "fakes" / "pbs"


@pytest.fixture
def place(tmp_path: Path) -> Path:
    made = tmp_path / "pbs"
    made.mkdir()
    return made


@pytest.fixture
def bench(tmp_path: Path, place: Path) -> Iterator[Bench]:
    work = tmp_path / "work"
    work.mkdir()
    environment = {"FAKE_PBS_DIR": str(place), "FAKE_PBS_PYTHON": sys.executable, "PYTHONPATH": str(ROOT)}

    @contextlib.contextmanager
    def fault(word: str) -> Iterator[None]:
        (place / "faults").write_text(word)
        if word == "hang":
            made.scheduler.calls.timeout_s = 0.3  # type: ignore[attr-defined]
        yield
        (place / "faults").unlink(missing_ok=True)
        made.scheduler.calls.timeout_s = 30  # type: ignore[attr-defined]

    made = Bench(
        open=lambda: Pbs(environment=environment, bin_dir=str(FAKE), timeout_s=30),
        directory=work,
        silent=lambda: fault("hang"),
        lost_answer=lambda: fault("lose-submit"),
        waiting={"nodes": 2},
    )
    yield made
    left = made.scheduler.mine("bw-")
    made.scheduler.cancel([job.id for job in left])
    for job in left:
        made.until(job.id)


class TestPbs(SchedulerContract):
    def test_no_server_is_silence(self, bench: Bench, place: Path) -> None:
        number = bench.run("bw-up", ["true"])
        bench.until(number)
        (place / "faults").write_text("refuse")
        asks: tuple[Callable[[], object], ...] = (
            bench.scheduler.ping,
            lambda: bench.scheduler.jobs([number]),
            lambda: bench.scheduler.find("bw-up"),
            lambda: bench.scheduler.cancel([number]),
            lambda: bench.scheduler.submit_once(bench.spec("bw-other", ["true"])),
        )
        try:
            for ask in asks:
                with pytest.raises(SchedulerSilent, match="cannot connect"):
                    ask()
        finally:
            (place / "faults").unlink()

    def test_a_variable_that_breaks_the_answer_is_left_out(self, bench: Bench, place: Path) -> None:
        number = bench.run("bw-json", ["true"])
        bench.until(number)
        (place / "faults").write_text("bad-json")
        assert bench.scheduler.jobs([number])[number].token == "bw-json"

    def test_a_queue_that_is_not_there_is_refused(self, bench: Bench) -> None:
        with pytest.raises(Refused, match="Unknown queue"):
            bench.run("bw-queue", ["true"], queue="nope")

    def test_a_reservation_is_its_queue(self, bench: Bench) -> None:
        with pytest.raises(ReservationGone):
            bench.run("bw-queue", ["true"], reservation="R123", queue="workq")

    def test_a_waiting_job_has_an_estimate(self, bench: Bench) -> None:
        number = bench.run("bw-when", ["true"], nodes=2)
        job = bench.until(number, [JobState.PENDING])
        assert job.starts_at > job.submitted_at
        assert job.reason.startswith("Insufficient amount of resource")

    def test_ids_without_the_name_of_the_server_are_known(self, bench: Bench) -> None:
        number = bench.run("bw-short", ["true"])
        bench.until(number)
        short = number.partition(".")[0]
        assert bench.scheduler.jobs([short])[short].id == number

    def test_a_look_is_one_call(self, bench: Bench) -> None:
        assert isinstance(bench.scheduler, Pbs)
        numbers = [bench.run(f"bw-look-{n}", ["true"]) for n in range(3)]
        before = bench.scheduler.calls.count
        bench.scheduler.jobs(numbers)
        assert bench.scheduler.calls.count == before + 1
