"""What Slurm's commands are told."""

from __future__ import annotations

from msgspec.structs import replace

from orchestrator.jobs import JobSpec
from slurm import argv

SPEC = JobSpec("bw-one", "true", stdout="/o", stderr="/e", directory="/d")


def test_a_plain_job_asks_for_one_task_and_leaves_the_rest_to_the_partition() -> None:
    assert argv.sbatch(SPEC) == [
        "sbatch",
        "--parsable",
        "--job-name=bw-one",
        "--no-requeue",
        "--output=/o",
        "--error=/e",
        "--chdir=/d",
        "--nodes=1",
        "--ntasks-per-node=1",
        "--cpus-per-task=1",
    ]


def test_everything_that_is_asked_for_is_said() -> None:
    spec = replace(
        SPEC,
        queue="gpu",
        qos="high",
        account="als",
        reservation="beam",
        nodes=2,
        ranks_per_node=4,
        cores_per_rank=8,
        gpus_per_node=4,
        memory_bytes=3 * 2**30 + 1,
        walltime_s=90.0,
        warning_s=9.0,
        exclusive=True,
        options=("--constraint=gpu",),
    )
    words = argv.sbatch(spec)
    for word in (
        "--partition=gpu",
        "--qos=high",
        "--account=als",
        "--reservation=beam",
        "--nodes=2",
        "--ntasks-per-node=4",
        "--cpus-per-task=8",
        "--gres=gpu:4",
        "--mem=3073M",
        "--time=2",
        "--exclusive",
    ):
        assert word in words
    assert words[-1] == "--constraint=gpu"
    assert "--test-only" in argv.test_only(spec)


def test_times_are_given_in_utc() -> None:
    words = argv.create_reservation("r", from_at=30, until_at=60, nodes=1, queue="", users="root", accounts="")
    assert words[3:] == [
        "ReservationName=r",
        "StartTime=1970-01-01T00:00:30",
        "EndTime=1970-01-01T00:01:00",
        "NodeCnt=1",
        "Users=root",
    ]


def test_a_job_leaves_its_reservation_by_an_empty_name() -> None:
    assert argv.move_job("3", "")[-1] == "ReservationName="
