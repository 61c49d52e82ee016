"""The circuit breaker of a site: when several runs in a row fail because of the site itself, no more are sent there.

While it is open one order at a time tries whether the site works again, after a wait that doubles up to a limit and is
spread by a fifth, so that several sites behind one fault are not tried in step. It closes at the first sign of work.
Nothing of it is stored: a service that starts anew finds out again, and what has failed is on hold in the store.
"""

from __future__ import annotations

from collections.abc import Callable

from orchestrator.model import FailureClass, Outcome, split_token

OPENS_AT = 3  # different runs in a row
WAIT_S, LONGEST_WAIT_S = 30.0, 600.0
PASSES_S = 300.0  # an order that has met no fault of the site for so long was taken: it may wait long in a queue


class Breaker:
    """`clock` gives epoch seconds, `spread` a number from 0 to 1."""

    def __init__(self, *, clock: Callable[[], float], spread: Callable[[], float]) -> None:
        self._clock, self._spread = clock, spread
        self._failing: set[str] = set()  # runs that the site has failed since it last worked
        self._waits = 0
        self._again_at = 0.0
        self._probe, self._probe_at = "", 0.0
        self.since = 0.0  # 0: closed
        self.reason = ""  # of the last failure

    @property
    def lets(self) -> bool:
        """May an order be sent now?"""
        return not self.since or (not self._probe and self._clock() >= self._again_at)

    @property
    def sentence(self) -> str:
        """Why nothing is sent there, for people; empty while it is closed."""
        if not self.since:
            return ""
        left_s = max(0.0, self._again_at - self._clock())
        again = "one attempt is trying it now" if self._probe else f"one attempt tries it in {left_s:.0f} s"
        return f"{len(self._failing)} runs in a row have failed there ({self.reason.rstrip('.')}); {again}"

    def sent(self, token: str) -> None:
        if self.since and not self._probe:
            self._probe, self._probe_at = token, self._clock()

    def began(self) -> None:
        """Something has begun to run there."""
        self._close()

    def ended(self, token: str, outcome: Outcome) -> None:
        if _fails(outcome):
            self._failing.add(split_token(token)[0])
            self.reason = outcome.reason
            if token == self._probe or (not self.since and len(self._failing) >= OPENS_AT):
                self._open()
        elif _works(outcome):
            self._close()
        self.dropped(token)

    def dropped(self, token: str) -> None:
        """Nothing is known of what came of this order."""
        if token == self._probe:
            self._probe = ""

    def try_now(self) -> None:
        """Somebody says that it works again."""
        self._again_at = 0.0

    def look(self) -> None:
        """Call from time to time."""
        if self._probe and self._clock() - self._probe_at > PASSES_S:
            self._close()

    def _open(self) -> None:
        now = self._clock()
        self.since = self.since or now
        wait_s = min(WAIT_S * 2.0 ** min(self._waits, 32), LONGEST_WAIT_S)
        self._again_at = now + wait_s * (0.8 + 0.4 * self._spread())
        self._waits += 1
        self._probe = ""

    def _close(self) -> None:
        self._failing.clear()
        self._waits, self._probe, self.since = 0, "", 0.0


def _fails(outcome: Outcome) -> bool:
    """Was it the site? A job that was taken and could not do anything counts; a request that was refused may have been
    wrong in itself, and what was not let in somewhere, or found something else down, has run here."""
    match outcome.failure:
        case FailureClass.DOWN | FailureClass.AUTHENTICATION:
            return outcome.exit_status is None
        case FailureClass.SITE:
            return bool(outcome.job)
    return False


def _works(outcome: Outcome) -> bool:
    return outcome.failure is None or outcome.exit_status is not None
