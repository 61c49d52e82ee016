"""Outside effects: what is done in the world, and cannot be taken back by not writing it down.

Each has a token that is on the disk before (the intent), and a record after; between them this process may die. So each
stands in a `with effect(NAME):`, which is where tests kill it: at `NAME:before`, when the intent is written and nothing
is done, and at `NAME:after`, when it is done and nothing of it is written. What finds it again is said beside the name.

    BEAMWAY_CRASH=job.submit:after   kill this process there, with SIGKILL; several points between commas
    BEAMWAY_CRASH_MARK=PATH          once at each: PATH.POINT is made, and where it exists nothing is killed any more
    BEAMWAY_CRASH_LOG=PATH           write down every point that is reached, a line each
"""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Iterator

EFFECTS: dict[str, str] = {
    "store.commit": "a turn's changes: all there or none; what was not answered is asked again under the same id",
    "catalog.write": "what runs have read and made: with how far it came in one transaction, so it is written once",
    "orders.send": "orders to an agent: what it does not hold at its next hello is sent again, to be looked for",
    "kills.send": "what is to end: asked again at the next hello until it is seen to have ended",
    "report.send": "what an agent has seen: kept until it is stored, and sent again",
    "agent.start": "the process of an agent or a watcher: its lock says whether there is one",
    "run.begin": "the run of an arrival: asked again under the same id, which is made of what is on the disk",
    "command.start": "a command: it makes its claim first, its group carries the token, its exit record is on the disk",
    "command.end": "the end of a command: asked again as long as its group is seen",
    "call.submit": "a call handed to a worker pool: its claim says whether a worker has begun it",
    "call.run": "a call in a worker: its claim is made first, its outcome is on the disk before anybody hears of it",
    "outcome.keep": "the exit record of a call or job: without one it is begun again as another attempt",
    "job.submit": "a batch job: found by its token, in the scheduler and by its claim",
    "job.cancel": "the end of a batch job: asked again as long as the scheduler has it",
    "block.submit": "a pilot's job: found by its prefix, ended when no agent takes it over within its lease",
    "block.cancel": "the end of a pilot's job: the same",
    "globus.note": "what Globus is to be asked: written again by whoever goes on with it",
    "globus.submit": "a Globus task: asked again with its submission id, which is on the disk, or found by its label",
    "globus.cancel": "the end of a Globus task: asked again as long as it goes on",
    "transfer.run": "a copying program: dies with us; its pieces are found again by their checksums",
    "removal.note": "a copy is to go, or has gone: one row of the store, which the next apply finds",
    "removal.record": "a copy is pruned: recorded with its evidence, or it gets its name back",
    "copy.aside": "a copy on its way out, or back: under one of two names that the noted removal tells",
    "copy.remove": "the end of a copy that is recorded as gone: what is left of it is removed by whoever goes on",
    "file.publish": "a file under its final name: by rename of what has been verified",
}
POINTS = tuple(f"{name}:{when}" for name in EFFECTS for when in ("before", "after"))

_crash = frozenset(filter(None, os.environ.get("BEAMWAY_CRASH", "").split(",")))
_mark = os.environ.get("BEAMWAY_CRASH_MARK", "")
_log = os.environ.get("BEAMWAY_CRASH_LOG", "")
_armed = bool(_crash or _log)


@contextlib.contextmanager
def _between(name: str) -> Iterator[None]:
    reached(f"{name}:before")
    yield
    reached(f"{name}:after")


class _Nothing:
    def __enter__(self) -> None:
        pass

    def __exit__(self, *_: object) -> None:
        pass


_NOTHING = _Nothing()


def effect(name: str) -> contextlib.AbstractContextManager[None]:
    """Around an outside effect. Costs nothing when no test asks for anything."""
    if not _armed:
        return _NOTHING
    assert name in EFFECTS, name
    return _between(name)


def reached(point: str) -> None:
    if _log:
        handle = os.open(_log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        os.write(handle, f"{point}\n".encode())
        os.close(handle)
    if point not in _crash:
        return
    if _mark:
        try:
            os.close(os.open(f"{_mark}.{point}", os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
        except FileExistsError:
            return
    os.kill(os.getpid(), signal.SIGKILL)
