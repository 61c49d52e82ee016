"""Is a site as its profile says? `beamway site check` prints what `check` yields, one row at a time.

Every failure says what to change in the profile, by its key, or whom to call. Nothing is left behind at the site: what
a check makes it removes, and a probe job that is not over is cancelled.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterator
from typing import TYPE_CHECKING

from orchestrator.sitecheck import facts, live, places, scheduling
from orchestrator.sitecheck.record import Check, Result

if TYPE_CHECKING:
    from orchestrator.jobs import Scheduler
    from sites.schema import SiteProfile


def check(
    profile: SiteProfile,
    scheduler: Scheduler | None,
    *,
    live: bool = False,
    refused: str = "",
    queue: str = "",
    timeout_s: float = 300.0,
    tell: Callable[[str], None] = lambda text: None,
) -> Generator[Check, None, None]:
    """Each check as it is made. Close the iterator to end early; a probe job under way is then cancelled.

    `scheduler` is None for a local site, and for a kind without an adapter: `refused` then says so. With `live` a small
    job is run, in the queue of that name or use (else a debug queue, else the usual one), and waited for so long.
    """
    yield from facts.checks(profile, time.time())
    if not profile.local:
        yield from scheduling.checks(profile, scheduler, refused, time.time())
    scratch = places.scratch(profile)
    yield places.launcher(profile)
    yield scratch
    yield from places.project(profile)
    yield from places.doors(profile)
    if live:
        yield from _live(profile, scheduler, scratch, queue, timeout_s, tell)


def _live(
    profile: SiteProfile,
    scheduler: Scheduler | None,
    scratch: Check,
    queue: str,
    timeout_s: float,
    tell: Callable[[str], None],
) -> Iterator[Check]:
    if scratch.result is not Result.PASSED:
        yield from live.not_run("the probe's files go to paths.scratch, which cannot be used")
    elif scheduler is None and not profile.local:
        yield from live.not_run("there is no way to submit a job")
    else:
        yield from live.checks(profile, scheduler, queue=queue, timeout_s=timeout_s, tell=tell)


__all__ = ["Check", "Result", "check"]
