"""The words that start the ranks of a parallel program, per launcher."""

from __future__ import annotations

from pathlib import Path

import pytest

from orchestrator.agent import launch
from orchestrator.agent.around import Around
from orchestrator.model import Resources

TWO_NODES = Resources(nodes=2, ranks_per_node=4, cores_per_rank=8)


def line(kind: str, resources: Resources = TWO_NODES, *nodes: str, open_mpi: bool = False, **more: object) -> str:
    around = Around(launcher=kind, **more)  # type: ignore[arg-type]
    return " ".join(launch.line(around, resources, nodes, open_mpi=open_mpi))


def test_srun_is_told_nodes_ranks_and_cores() -> None:
    assert line("srun") == "srun --nodes=2 --ntasks=8 --ntasks-per-node=4 --cpus-per-task=8 --kill-on-bad-exit=1"


def test_srun_gets_the_hosts_of_its_task_within_a_larger_job() -> None:
    assert line("srun", TWO_NODES, "n1", "n2").endswith("--kill-on-bad-exit=1 --nodelist=n1,n2")


def test_open_mpi_spreads_the_ranks_over_the_nodes() -> None:
    words = "mpiexec -n 8 --oversubscribe --bind-to none"
    assert line("mpiexec", open_mpi=True) == f"{words} --map-by ppr:4:node"
    assert line("mpiexec", TWO_NODES, "n1", "n2", open_mpi=True) == f"{words} --host n1:4,n2:4 --map-by ppr:4:node"


def test_open_mpi_on_one_node_maps_nothing() -> None:
    assert line("mpiexec", Resources(ranks_per_node=2), open_mpi=True) == "mpiexec -n 2 --oversubscribe --bind-to none"


def test_hydra_counts_ranks_per_node() -> None:
    assert line("mpiexec") == "mpiexec -n 8 -ppn 4"
    assert line("mpiexec", TWO_NODES, "n1", "n2") == "mpiexec -n 8 -ppn 4 -hosts n1,n2"


def test_pals_binds_each_rank_to_its_cores() -> None:
    words = "mpiexec -n 8 --ppn 4 --depth 8 --cpu-bind depth"
    assert line("pals") == words
    assert line("pals", TWO_NODES, "n1", "n2") == f"{words} --hosts n1,n2"


@pytest.mark.parametrize("kind", ["srun", "mpiexec", "pals"])
def test_the_profile_names_the_program_and_its_first_words(kind: str) -> None:
    said = line(kind, launcher_command="/opt/mpi/run", launcher_options=("--overlap", "--quiet"))
    assert said.startswith("/opt/mpi/run --overlap --quiet -")


def test_a_site_without_a_launcher_starts_no_ranks() -> None:
    with pytest.raises(ValueError, match=r"launcher\.kind"):
        line("none")


def test_a_program_for_each_node_needs_no_launcher_on_one() -> None:
    assert launch.per_node(Around(), 1) == []
    words = launch.per_node(Around(launcher="srun"), 3)
    assert words[:4] == ["srun", "--nodes=3", "--ntasks=3", "--ntasks-per-node=1"]


@pytest.mark.parametrize(("said", "whose"), [("mpiexec (Open MPI) 4.1", True), ("HYDRA build details:", False)])
def test_mpiexec_is_asked_whose_it_is(said: str, whose: bool, tmp_path: Path) -> None:
    program = tmp_path / "mpiexec"
    program.write_text(f"#!/bin/sh\necho '{said}'\n")
    program.chmod(0o755)
    assert launch.is_open_mpi(str(program)) is whose


def test_a_launcher_that_is_not_there_is_not_open_mpi(tmp_path: Path) -> None:
    assert launch.is_open_mpi(str(tmp_path / "nothing")) is False
