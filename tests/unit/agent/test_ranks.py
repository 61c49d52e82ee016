"""An attempt on several ranks: each sees its own devices, and all must be well."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest
from msgspec.structs import replace

from orchestrator import codec
from orchestrator.agent import output, ranks, wrapper
from orchestrator.agent.around import Around
from orchestrator.model import FailureClass, Order, Outcome, Product, Resources, StageKind

ROOT = Path(__file__).resolve().parents[3]


def order(tmp_path: Path, **more: object) -> Order:
    given: dict[str, object] = {"resources": Resources(nodes=2, ranks_per_node=2), **more}
    place = {"working_dir": str(tmp_path), "log_dir": str(tmp_path)}
    return Order("r.0.1", StageKind.FUNCTION, "s", **place, **given)  # type: ignore[arg-type]


def devices(local_rank: int, each: int, *, gpus: int = 0, **environment: str) -> str:
    asked = Order("r.0.1", StageKind.KERNEL, "s", resources=Resources(gpus_per_rank=each))
    return ranks.pin(Around(gpus=gpus), asked, local_rank, environment).get("CUDA_VISIBLE_DEVICES", "")


def together(tmp_path: Path, status: int, *outcomes: Outcome | None) -> Outcome:
    wanted = order(tmp_path)
    stem = output.Paths(wanted).stem
    for number, outcome in enumerate(outcomes):
        if outcome is not None:
            Path(f"{stem}.rank.{number}").write_text(codec.dumps(outcome))
    return ranks._together(wanted, stem, status)


def test_each_rank_sees_its_own_device() -> None:
    assert [devices(n, 1, gpus=4) for n in range(4)] == ["0", "1", "2", "3"]


def test_a_rank_may_have_several_devices() -> None:
    assert [devices(n, 2, gpus=4) for n in range(2)] == ["0,1", "2,3"]


def test_only_granted_devices_are_shared_out() -> None:
    assert devices(1, 1, gpus=8, CUDA_VISIBLE_DEVICES="5,7") == "7"
    assert devices(0, 2, gpus=8, CUDA_VISIBLE_DEVICES="GPU-a,GPU-b,GPU-c") == "GPU-a,GPU-b"
    assert devices(1, 1, gpus=8, SLURM_STEP_GPUS="2,3", SLURM_JOB_GPUS="0,1,2,3") == "3"
    assert devices(1, 1, gpus=8, SLURM_JOB_GPUS="4,6") == "6"


def test_too_few_devices_are_refused_in_numbers() -> None:
    with pytest.raises(ValueError, match="rank 2 of its node should see 1 devices and 2 are granted"):
        devices(2, 1, gpus=2)
    with pytest.raises(ValueError, match="should see 2"):
        devices(1, 2, gpus=8, CUDA_VISIBLE_DEVICES="0,1,2")


def test_a_rank_that_asks_for_no_device_is_left_alone() -> None:
    assert ranks.pin(Around(gpus=4), Order("r.0.1", StageKind.KERNEL, "s"), 0, {}) == {}


def test_the_profile_says_which_variable_hides_devices() -> None:
    asked = Order("r.0.1", StageKind.KERNEL, "s", resources=Resources(gpus_per_rank=1))
    around = Around(gpus=2, variable="ROCR_VISIBLE_DEVICES")
    assert ranks.pin(around, asked, 1, {}) == {"ROCR_VISIBLE_DEVICES": "1"}


@pytest.mark.parametrize(
    ("environment", "place"),
    [
        ({"OMPI_COMM_WORLD_RANK": "3", "OMPI_COMM_WORLD_LOCAL_RANK": "1", "SLURM_PROCID": "0"}, (3, 1)),
        ({"PALS_RANKID": "5", "PALS_LOCAL_RANKID": "2", "PMI_RANK": "5"}, (5, 2)),
        ({"PMI_RANK": "2", "MPI_LOCALRANKID": "0"}, (2, 0)),
        ({"SLURM_PROCID": "6", "SLURM_LOCALID": "2"}, (6, 2)),
    ],
)
def test_a_rank_knows_its_place_from_the_launcher(environment: dict[str, str], place: tuple[int, int]) -> None:
    assert ranks.place(environment) == place


def test_a_process_without_a_launcher_is_no_rank() -> None:
    with pytest.raises(RuntimeError):
        ranks.place({})


def test_one_rank_and_transfers_need_no_launcher(tmp_path: Path) -> None:
    assert ranks.several(order(tmp_path))
    assert not ranks.several(order(tmp_path, resources=Resources()))
    assert not ranks.several(Order("r.0.1", StageKind.TRANSFER, "s", resources=Resources(nodes=4)))


def test_all_ranks_well_is_well(tmp_path: Path) -> None:
    each = [Outcome(metrics={"n": n}, products=(Product("/a", 1), Product(f"/{n}", 2))) for n in range(4)]
    outcome = together(tmp_path, 0, *each)
    assert outcome.failure is None
    assert outcome.metrics == {"n": 0}
    assert [p.path for p in outcome.products] == ["/a", "/0", "/1", "/2", "/3"]


def test_a_missing_rank_is_a_loss_although_the_launcher_ended_with_0(tmp_path: Path) -> None:
    outcome = together(tmp_path, 0, Outcome(), Outcome(), None, Outcome())
    assert outcome.failure is FailureClass.LOST
    assert outcome.reason == "rank 2 of 4 left no result; the launcher ended with 0"


def test_several_missing_ranks_are_counted(tmp_path: Path) -> None:
    outcome = together(tmp_path, 9, Outcome(), None, Outcome(), None)
    assert outcome.reason == "2 ranks, 1 the first, of 4 left no result; the launcher ended with 9"


def test_a_launcher_that_starts_no_rank_is_the_site(tmp_path: Path) -> None:
    outcome = together(tmp_path, 1)
    assert (outcome.failure, outcome.exit_status) == (FailureClass.SITE, 1)


def test_a_failing_rank_is_the_failure_and_is_named(tmp_path: Path) -> None:
    outcome = together(tmp_path, 1, Outcome(), Outcome(FailureClass.USER, "no such file"), None, Outcome())
    assert (outcome.failure, outcome.reason) == (FailureClass.USER, "rank 1 of 4: no such file")


def test_ranks_that_were_ended_for_another_are_not_the_cause(tmp_path: Path) -> None:
    ended = Outcome(FailureClass.CANCELLED, "ended")
    outcome = together(tmp_path, 1, ended, ended, Outcome(FailureClass.BAD_INPUT, "it is cut off"), ended)
    assert (outcome.failure, outcome.reason) == (FailureClass.BAD_INPUT, "rank 2 of 4: it is cut off")
    assert together(tmp_path, 1, ended, ended, ended, ended).failure is FailureClass.CANCELLED


def test_a_rank_that_was_killed_is_lost_although_the_others_were_asked_to_end(tmp_path: Path) -> None:
    ended = Outcome(FailureClass.CANCELLED, "ended")
    outcome = together(tmp_path, 137, ended, None, ended, ended)
    assert (outcome.failure, outcome.reason) == (
        FailureClass.LOST,
        "rank 1 of 4 left no result; the launcher ended with 137",
    )


def test_a_launcher_that_fails_with_all_ranks_well_is_no_success(tmp_path: Path) -> None:
    outcome = together(tmp_path, 137, Outcome(), Outcome(), Outcome(), Outcome())
    assert (outcome.failure, outcome.exit_status) == (FailureClass.LOST, 137)


def test_a_result_that_is_not_whole_is_none(tmp_path: Path) -> None:
    (tmp_path / "0.1.rank.3").write_text('{"failure"')
    assert together(tmp_path, 0, Outcome(), Outcome(), Outcome()).reason.startswith("rank 3 of 4 left no result")


LAUNCHER = """#!{python}
import os, subprocess, sys
words = sys.argv[1:]
count, program = int(words[words.index("-n") + 1]), words[words.index("--") + 1 :]
ranks = [
    subprocess.Popen(program, env=os.environ | {{"PMI_RANK": str(n), "MPI_LOCALRANKID": str(n)}}) for n in range(count)
]
sys.exit(max(r.wait() for r in ranks))
"""


@pytest.mark.parametrize(("call", "failure"), [("os:getpid", None), ("os:abort", FailureClass.SITE)])
def test_ranks_are_started_and_leave_no_files(call: str, failure: FailureClass | None, tmp_path: Path) -> None:
    launcher = tmp_path / "mpiexec"
    launcher.write_text(LAUNCHER.format(python=sys.executable))
    launcher.chmod(0o755)
    around = Around(launcher="mpiexec", launcher_command=str(launcher), program=("--", sys.executable))
    logs = tmp_path / "logs"
    logs.mkdir()
    (logs / "0.1.rank.0").write_text(codec.dumps(Outcome()))  # of an attempt before: it proves nothing
    wanted = Order(
        "r.0.1",
        StageKind.FUNCTION,
        "s",
        call=call,
        working_dir=str(tmp_path),
        log_dir=str(logs),
        resources=Resources(ranks_per_node=2),
    )
    outcome = ranks.run(wanted, around)
    assert outcome.failure is failure
    assert os.listdir(logs) == []


@pytest.mark.parametrize("launcher", ["SLURM_STEP_NUM_TASKS", "OMPI_COMM_WORLD_SIZE"])
def test_a_worker_is_one_process_whatever_has_started_it(
    launcher: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A block of two nodes has a worker on each, started by a launcher: they are no ranks of one kernel."""
    monkeypatch.setenv(launcher, "2")
    monkeypatch.setenv("BEAMWAY_RANKS", "2")
    alone = order(tmp_path, call="kernels.ranks:expected", resources=Resources())
    assert wrapper.attempt(alone, Around()).metrics == {"value": 1}
    command = f"env | grep -c '^BEAMWAY_RANKS\\|^{launcher}' >seen"
    assert wrapper.attempt(replace(alone, kind=StageKind.COMMAND, command=command), Around()).exit_status == 1
    assert (tmp_path / "seen").read_text() == "0\n"  # so that it may start ranks of its own


def test_a_launcher_that_is_not_there_is_the_site(tmp_path: Path) -> None:
    outcome = ranks.run(order(tmp_path), Around(launcher="srun", launcher_command=str(tmp_path / "nothing")))
    assert outcome.failure is FailureClass.SITE
    assert "cannot be started: No such file" in outcome.reason
    assert ranks.run(order(tmp_path), Around()).failure is FailureClass.SITE
