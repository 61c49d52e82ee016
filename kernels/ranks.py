"""The processes that run one kernel together, under MPI, or the only one.

Whether a kernel has several is decided by what the launcher says, never by asking MPI alone: N processes that cannot
find each other are N worlds of one, of which each would do all of the work and call it a success. `Ranks.here`
compares the two and refuses.

Failures: every meeting of the ranks (barrier, reduce, …) also carries whether a rank has failed. A failing rank tells
the others at once and joins their next meeting, so all of them stop and none waits for ever; the others raise
`PeerFailed`. A rank that dies without a word is the launcher's business, which ends the others.
"""

from __future__ import annotations

import importlib
import os
import socket
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple, TypeVar

from kernels.errors import Exit, KernelError, PeerFailed

T = TypeVar("T")

MARK = "BEAMWAY_RANKS"  # says how many ranks there are, whatever launcher variables a process has inherited
_SIZES = ("OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "SLURM_STEP_NUM_TASKS")
_TAG = 7301  # of the messages that say "I have failed"
_LONGEST_NAP_S = 0.005


def promised(environment: Mapping[str, str]) -> int:
    """How many processes the launcher has started for this program; 1 without a launcher.

    Slurm's batch script has `SLURM_NTASKS` though it is one process; only a step has `SLURM_STEP_NUM_TASKS`.
    """
    for name in (MARK, *_SIZES):
        text = environment.get(name, "")
        if text.isdecimal() and int(text) > 0:
            return int(text)
    return 1


class Ranks:
    """One process alone: every meeting is over at once.

    Attributes
    ----------
    rank, size : int
        Which of how many.
    local_rank, local_size : int
        The same among those on this host.
    cores : int
        CPUs that this rank may keep busy: its share of those that the ranks of this host may run on.
    """

    def __init__(self) -> None:
        self.rank, self.size = 0, 1
        self.local_rank, self.local_size = 0, 1
        self.cores = len(_affinity())

    @staticmethod
    def here() -> Ranks:
        """The ranks that this process is one of.

        Raises
        ------
        KernelError
            Exit 2 when the launcher has started several and MPI does not join them, or mpi4py is missing.
        """
        wanted = promised(os.environ)
        return _World(wanted) if wanted > 1 else Ranks()

    @property
    def first(self) -> bool:
        """Is this the rank that prints, checks and publishes?"""
        return self.rank == 0

    def share(self, count: int) -> range:
        """Those of `count` things that are this rank's: neighbours, as evenly as possible, the first rank's first."""
        return range(-(-count * self.rank // self.size), -(-count * (self.rank + 1) // self.size))

    def barrier(self) -> None:
        """Wait until all ranks are here."""
        self._exchange(None)

    def reduce(self, value: T, how: Callable[[Iterable[T]], T]) -> T:
        """`how` (min, max, sum) of the values of all ranks, on all of them."""
        return how(self._exchange(value))

    def gather(self, value: T) -> list[T]:
        """The values of all ranks in their order, on the first; an empty list on the others."""
        return [value]

    def broadcast(self, value: T) -> T:
        """The first rank's value, on all of them."""
        return self._exchange(value if self.first else None)[0]  # type: ignore[return-value]

    def once(self, do: Callable[[], T]) -> T:
        """What `do` gives on the first rank, on all of them; only that one calls it."""
        return self._exchange(do() if self.first else None)[0]  # type: ignore[return-value]

    def look(self) -> None:
        """Raise `PeerFailed` when another rank has failed meanwhile. Costs next to nothing."""

    def fail(self, error: BaseException) -> PeerFailed | None:
        """Tell the other ranks of a failure and wait until they have stopped.

        Returns what this rank is to raise in the place of `error`, when another's failure is the cause.
        """
        return None

    def _exchange(self, value: T) -> list[T]:
        return [value]


class _Failure(NamedTuple):
    sentence: str
    exit_code: int
    cause: bool  # False: it stopped because of another's


class _World(Ranks):
    """The ranks of MPI's world."""

    def __init__(self, wanted: int) -> None:
        super().__init__()
        self._mpi = _load()
        self._comm = self._mpi.COMM_WORLD
        self.rank, self.size = self._comm.rank, self._comm.size
        if self.size != wanted:
            raise KernelError(
                f"The launcher has started {wanted} processes, but MPI joins {self.size} of them, so each would do "
                "all of the work. Start them with the launcher that belongs to this MPI; under srun give --mpi=pmix."
            )
        self._waiting: Any = None  # a meeting that this rank has announced and not reached yet
        self._met = False
        self._over = False  # a failure was agreed on: there are no more meetings
        hosts = self._exchange((socket.gethostname(), _affinity()))
        mine = [affinity for host, affinity in hosts if host == hosts[self.rank][0]]
        self.local_rank = sum(host == hosts[self.rank][0] for host, _ in hosts[: self.rank])
        self.local_size = len(mine)
        # Bound ranks have CPUs of their own; others see all of the host and must not all use them.
        self.cores = max(1, min(self.cores, len(frozenset().union(*mine)) // self.local_size))

    def gather(self, value: T) -> list[T]:
        self._exchange(None)
        return self._comm.gather(value) or []

    def look(self) -> None:
        if not self._over and self._comm.iprobe(tag=_TAG):
            raise PeerFailed("another rank failed.", Exit.TRANSIENT)

    def fail(self, error: BaseException) -> PeerFailed | None:
        if isinstance(error, PeerFailed) and error.rank >= 0:
            return None
        if not self._over:
            failure = _failure(error)
            told = []
            if failure.cause:
                others = [rank for rank in range(self.size) if rank != self.rank]
                told = [self._comm.isend(None, rank, _TAG) for rank in others]
            failures = self._say(failure, None)[0]
            self._mpi.Request.waitall(told)
        else:
            failures = self._failures
        blamed = self._blamed(failures)
        keeps = blamed.rank == self.rank or not isinstance(error, Exception)
        return None if keeps else blamed

    def _exchange(self, value: T) -> list[T]:
        failures, values = self._say(None, value)
        if failures:
            raise self._blamed(failures)
        return values

    def _say(self, failure: _Failure | None, value: T) -> tuple[dict[int, _Failure], list[T]]:
        """One meeting: everybody's failure and value to everybody."""
        self._meet()
        said = self._comm.allgather((failure, value))
        self._met = False
        self._failures = {rank: failure for rank, (failure, _) in enumerate(said) if failure}
        for rank, failed in self._failures.items():
            self._over = True
            if failed.cause and rank != self.rank:
                self._comm.recv(source=rank, tag=_TAG)
        return self._failures, [value for _, value in said]

    def _meet(self) -> None:
        """Wait for the others without keeping a CPU busy, and so that signals are heard.

        Left by a signal's exception, the meeting stays announced: the next call goes on waiting for the same one.
        """
        if self._met:
            return
        self._waiting = self._waiting or self._comm.Ibarrier()
        nap = 0.0
        while not self._waiting.Test():
            time.sleep(nap)
            nap = min(nap + 0.0001, _LONGEST_NAP_S)
        self._waiting, self._met = None, True

    @staticmethod
    def _blamed(failures: dict[int, _Failure]) -> PeerFailed:
        rank = min(failures, key=lambda rank: (not failures[rank].cause, rank))
        return PeerFailed(f"rank {rank} failed: {failures[rank].sentence}", failures[rank].exit_code, rank)


def _failure(error: BaseException) -> _Failure:
    if isinstance(error, KernelError):
        return _Failure(error.sentence, error.exit_code, not isinstance(error, PeerFailed))
    if isinstance(error, Exception):
        return _Failure(f"{type(error).__name__}: {error}", Exit.BUG, True)
    return _Failure("it was ended.", Exit.TERMINATED, True)


def _affinity() -> frozenset[int]:
    if hasattr(os, "sched_getaffinity"):
        return frozenset(os.sched_getaffinity(0))
    return frozenset(range(os.cpu_count() or 1))


def _load() -> Any:
    try:
        return importlib.import_module("mpi4py.MPI")
    except (ImportError, OSError, RuntimeError) as error:
        raise KernelError(
            f"Several ranks need mpi4py, which cannot be used here ({error}). Install it for the MPI of this machine."
        ) from error
