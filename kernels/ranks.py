"""The processes that run one kernel together, started by an MPI launcher: who of them this is, what is its share, and
how they tell each other.

One process alone is rank 0 of 1 and needs no MPI. Whether there are several is the launcher's word (its environment),
and MPI is asked whether it agrees: where launcher and MPI library do not fit, each process would be alone, and would do
the whole work in the others' way.

A rank that fails tells the others, waits until they have stopped, and raises; the others raise `PeerFailed` at their
next meeting or word of progress, whichever comes first. So a kernel may raise whatever it likes between two meetings,
nobody waits for ever, and the first rank can take away what is half. A rank that dies without a word is the launcher's
business, which ends the others.
"""

from __future__ import annotations

import math
import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import accumulate
from typing import TYPE_CHECKING, Any, NamedTuple, NoReturn, TypeVar

from kernels.errors import Exit, KernelError, PeerFailed

if TYPE_CHECKING:  # NumPy alone takes longer than the rest of a kernel's beginning
    import numpy as np
    from numpy.typing import DTypeLike, NDArray

T = TypeVar("T")
N = TypeVar("N", bound="np.generic")

_FAILED = 7301  # tag of the messages that say so
_GIVEN = 7302  # of what rank 0 is given
_MOST_ON_THEIR_WAY = 4
_LONGEST_NAP_S = 0.005
_PATIENCE_S = 1.0  # of a rank that is being ended: those that ended it kill next

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


class Failure(NamedTuple):
    """Why a rank stops. `cause`: by itself, and not because another did."""

    sentence: str
    exit_code: int
    cause: bool


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
        self._waiting: Any = None  # a meeting that this rank has come to and that others have not
        self._met = False
        self._windows: list[Any] = []
        self._on_their_way: list[Any] = []  # what was given to rank 0 and may not be there yet
        self._over = False  # they have agreed on a failure: there are no more meetings

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
        """Go on when all have come here. As the other meetings, it raises `PeerFailed` when a rank has failed."""
        self.said(None)

    def told(self, value: T) -> T:
        """What rank 0 gives here."""
        return self.said(value if self.first else None)[0]  # type: ignore[return-value]

    def gathered(self, value: T) -> list[T]:
        """What each gives here, in the order of ranks; for rank 0, the others get nothing."""
        if self._communicator is None:
            return [value]
        self.meet()
        return self._communicator.gather(value, root=0) or []

    def shared(
        self, shape: Sequence[int], kind: DTypeLike, fill: Callable[[NDArray[Any], int, int], None]
    ) -> NDArray[Any]:
        """An array of zeros that the ranks on a node have in common, once each has filled its part of it.

        `fill(array, which, of)` fills part `which` of `of`; what it raises the others hear of, as of any failure.
        """
        import numpy as np

        if self._communicator is None:
            array: NDArray[Any] = np.zeros(tuple(shape), kind)
            fill(array, 0, 1)
            return array
        from mpi4py import MPI

        local = self._communicator.Split_type(MPI.COMM_TYPE_SHARED)
        whole = math.prod(shape) * np.dtype(kind).itemsize
        window = MPI.Win.Allocate_shared(max(1, whole) if local.rank == 0 else 0, 1, comm=local)
        self._windows.append(window)  # the memory lasts as long as these processes
        memory: Any = window.Shared_query(0)[0]
        array = np.frombuffer(memory, kind, math.prod(shape)).reshape(tuple(shape))
        window.Lock_all()
        if local.rank == 0:
            array[...] = 0
        window.Sync()
        self.meet()
        fill(array, local.rank, local.size)
        window.Sync()
        self.meet()
        window.Sync()
        window.Unlock_all()
        return array

    def said(self, value: T) -> list[T]:
        """What each gives here, in the order of ranks; for all of them."""
        if self._communicator is None:
            return [value]
        self._meet(math.inf)
        failures, values = self._exchange(None, value)
        if failures:
            blamed = _blamed(failures)
            raise _peer_failed(blamed, failures[blamed])
        return values

    def summed(self, values: NDArray[N]) -> NDArray[N]:
        """The sum of the arrays that all give here, each of the same shape and type; for all of them."""
        if self._communicator is None:
            return values
        self.meet()
        total = values.copy()
        self._communicator.Allreduce(values.copy(), total)
        return total

    def exchanged(self, values: NDArray[N], given: Sequence[int], taken: Sequence[int]) -> NDArray[N]:
        """What all ranks have for this one, in the order of ranks: of rank r the next `taken[r]` elements.

        `values`, without gaps, are what this one has for them: first `given[0]` elements for rank 0, and so on.
        """
        if self._communicator is None:
            return values
        import numpy as np

        self.meet()
        found = np.empty(sum(taken), values.dtype)
        send, receive = ((list(lengths), [0, *accumulate(lengths)][:-1]) for lengths in (given, taken))
        self._communicator.Alltoallv([values, send], [found, receive])
        return found

    def give(self, value: object) -> None:
        """Send something to rank 0, which has to ask for what it `received`; waits while others are on their way."""
        self.look()
        self._on_their_way.append(self._communicator.isend(value, 0, _GIVEN))
        self._see_off(_MOST_ON_THEIR_WAY)

    def see_off(self) -> None:
        """Wait until rank 0 has what it was given."""
        self._see_off(0)

    def received(self) -> Iterator[Any]:
        """What other ranks have given to this one, which is 0, and has come by now; of each in its order."""
        while self._communicator is not None and (here := self._communicator.improbe(tag=_GIVEN)) is not None:
            yield here.recv()

    def nap(self) -> None:
        """Let a moment go by for what others have to do first."""
        self.look()
        time.sleep(_LONGEST_NAP_S)

    def look(self) -> None:
        """Raise `PeerFailed` when another rank has failed meanwhile. Costs next to nothing."""
        if self._communicator is not None and not self._over and self._communicator.iprobe(tag=_FAILED):
            raise PeerFailed("Another rank has failed.", Exit.TRANSIENT)

    def fail(self, error: BaseException) -> BaseException:
        """Tell the other ranks and wait until they have stopped, too; what this one is to raise then.

        Of several errors at once only that of the lowest rank is raised: one failure has one voice.
        """
        if self._communicator is None or self._over:
            return error
        failure, told = _failure(error), []
        if failure.cause:
            others = [rank for rank in range(self.size) if rank != self.rank]
            told = [self._communicator.isend(None, rank, _FAILED) for rank in others]
        ended = not isinstance(error, Exception)
        if not self._meet(_PATIENCE_S if ended else math.inf):
            return error
        failures, _ = self._exchange(failure, None)
        for request in told:
            request.wait()
        blamed = _blamed(failures)
        return error if ended or blamed == self.rank else _peer_failed(blamed, failures[blamed])

    def part(self) -> None:
        """After a failure: go on when all have come here, so that none ends while another takes away what is half."""
        if self._communicator is not None and self._over:
            _wait(self._communicator.Ibarrier(), math.inf)

    def _see_off(self, most: int) -> None:
        while len(self._on_their_way) > most:
            if self._on_their_way[0].Test():
                del self._on_their_way[0]
            else:
                self.nap()

    def _exchange(self, failure: Failure | None, value: T) -> tuple[dict[int, Failure], list[T]]:
        said = self._communicator.allgather((failure, value))
        self._met = False
        failures = {rank: failed for rank, (failed, _) in enumerate(said) if failed}
        self._over = bool(failures)
        for rank, failed in failures.items():
            if failed.cause and rank != self.rank:
                self._communicator.recv(source=rank, tag=_FAILED)
        return failures, [given for _, given in said]

    def _meet(self, patience_s: float) -> bool:
        """Wait for the others without keeping a CPU busy and with an ear for signals.

        Left by a signal's exception, this rank goes on waiting for the same meeting at the next call.
        """
        if not self._met:
            self._waiting = self._waiting or self._communicator.Ibarrier()
            if not _wait(self._waiting, patience_s):
                return False
            self._waiting, self._met = None, True
        return True


def _wait(request: Any, patience_s: float) -> bool:
    until, nap_s = time.monotonic() + patience_s, 0.0
    while not request.Test():
        if time.monotonic() > until:
            return False
        time.sleep(nap_s)
        nap_s = min(nap_s + 0.0001, _LONGEST_NAP_S)
    return True


def _blamed(failures: Mapping[int, Failure]) -> int:
    return min(failures, key=lambda rank: (not failures[rank].cause, rank))


def _peer_failed(rank: int, failure: Failure) -> PeerFailed:
    return PeerFailed(f"rank {rank} failed: {failure.sentence}", failure.exit_code)


def _failure(error: BaseException) -> Failure:
    if isinstance(error, KernelError):
        return Failure(error.sentence, error.exit_code, not isinstance(error, PeerFailed))
    if isinstance(error, Exception):
        return Failure(f"{type(error).__name__}: {error}", Exit.BUG, True)
    return Failure("It was ended.", Exit.TERMINATED, True)


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
    """End this process. A rank that failed does so without MPI's own end, which would wait for a dead one for ever.

    It waits a moment for the others to get here, since launchers end them as soon as the first is gone.
    """
    if status and expected() > 1:
        if mpi := sys.modules.get("mpi4py.MPI"):
            _wait(mpi.COMM_WORLD.Ibarrier(), _PATIENCE_S)
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)
    sys.exit(status)


__all__ = ["EXPECTED", "Ranks", "apart", "expected", "leave"]
