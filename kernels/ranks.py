"""The processes that run one kernel together, started by an MPI launcher: who of them this is, what is its share, and
how they tell each other.

One process alone is rank 0 of 1 and needs no MPI. Whether there are several is the launcher's word (its environment),
and MPI is asked whether it agrees: where launcher and MPI library do not fit, each process would be alone, and would do
the whole work in the others' way.

A rank that fails raises, writes down why, and ends with another status than 0; the launcher then ends the others, which
may be waiting for it. So between two meetings a kernel may raise whatever it likes.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from typing import Any, NoReturn, TypeVar

from kernels.errors import KernelError

T = TypeVar("T")

EXPECTED = "BEAMWAY_RANKS"  # set by who starts the ranks on purpose
# How launchers say how many there are, on a node too; Slurm's are of the step, as a batch script alone has the others.
_SIZES = ("OMPI_COMM_WORLD_SIZE", "PALS_SIZE", "PMI_SIZE", "SLURM_STEP_NUM_TASKS")
_LOCAL_SIZES = ("OMPI_COMM_WORLD_LOCAL_SIZE", "PALS_LOCAL_SIZE", "MPI_LOCALNRANKS")


def expected(environment: Mapping[str, str] = os.environ) -> int:
    """How many ranks the launcher has started."""
    for name in (EXPECTED, *_SIZES):
        if environment.get(name, "").isdecimal():
            return max(1, int(environment[name]))
    return 1


def apart(environment: Mapping[str, str]) -> dict[str, str]:
    """`environment` for a program that is none of the ranks this process was started with, but may start its own."""
    return {name: value for name, value in environment.items() if name not in (EXPECTED, *_SIZES)}


class Ranks:
    """`size` processes, of which this is `rank`; `local_size` of them are on this node.

    `cores` is how many CPUs this one may keep busy so that all on this node together use each once; 0 says that it is
    alone and may use what it likes.
    """

    def __init__(
        self, rank: int = 0, size: int = 1, local_size: int = 1, communicator: Any = None, cores: int = 0
    ) -> None:
        self.rank, self.size, self.local_size, self.cores = rank, size, local_size, cores
        self._communicator = communicator

    @classmethod
    def here(cls) -> Ranks:
        """Those that the launcher has started.

        Raises
        ------
        KernelError
            Exit 2 when MPI for Python is missing, or MPI sees another number than the launcher has started.
        """
        wanted = expected()
        if wanted == 1:
            return cls()
        try:
            from mpi4py import MPI
        except (ImportError, RuntimeError) as error:
            raise KernelError(
                f"{wanted} ranks were started, and MPI for Python (mpi4py) cannot be loaded: {error}."
            ) from error
        world = MPI.COMM_WORLD
        if world.size != wanted:
            raise KernelError(
                f"The launcher has started {wanted} processes, but MPI sees {world.size}: launcher and MPI library do "
                "not fit. With srun, `launcher.options` of the site's profile may need --mpi=pmix or --mpi=pmi2."
            )
        local = world.Split_type(MPI.COMM_TYPE_SHARED)
        try:
            cores = share_of_cores(local.allgather(cpus()), local.rank)
            return cls(world.rank, world.size, local.size, world, cores)
        finally:
            local.Free()

    @property
    def first(self) -> bool:
        return self.rank == 0

    def share(self, count: int, step: int = 1) -> range:
        """This rank's part of `count` things in a row, in whole pieces of `step` (the last may be shorter)."""
        pieces = -(-count // step)
        begin, end = (pieces * r // self.size * step for r in (self.rank, self.rank + 1))
        return range(min(begin, count), min(end, count))

    def meet(self) -> None:
        """Go on when all have come here."""
        if self._communicator is not None:
            self._communicator.barrier()

    def told(self, value: T) -> T:
        """What rank 0 gives here."""
        return value if self._communicator is None else self._communicator.bcast(value, root=0)

    def gathered(self, value: T) -> list[T]:
        """What each gives here, in the order of ranks; for rank 0, the others get nothing."""
        if self._communicator is None:
            return [value]
        return self._communicator.gather(value, root=0) or []


def cpus() -> frozenset[int]:
    """Those that this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return frozenset(os.sched_getaffinity(0))
    return frozenset(range(os.cpu_count() or 1))


def share_of_cores(cpus_of: Sequence[frozenset[int]], which: int) -> int:
    """How many CPUs one of the ranks on a node may keep busy, given those that each may run on.

    Ranks that are bound have CPUs of their own; others all see the whole node.
    """
    together = len(frozenset().union(*cpus_of))
    return max(1, min(len(cpus_of[which]), together // len(cpus_of)))


def leave(status: int) -> NoReturn:
    """End this process. A rank that failed does so without MPI's own end, which would wait for the others for ever."""
    if status and expected() > 1:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)
    sys.exit(status)


__all__ = ["EXPECTED", "Ranks", "apart", "expected", "leave"]
