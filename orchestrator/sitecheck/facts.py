"""What the profile says of itself: how old its facts are, and whether there is maintenance."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from orchestrator.sitecheck.record import Check, Noted, Wrong, made

if TYPE_CHECKING:
    from sites.schema import SiteProfile

FACTS_LAST = timedelta(days=365)
SOON = timedelta(days=7)


def checks(profile: SiteProfile, now: float) -> Iterator[Check]:
    at = datetime.fromtimestamp(now, tz=UTC)
    yield made("profile", lambda: _profile(profile, at))
    yield made("maintenance", lambda: _maintenance(profile, at))


def _profile(profile: SiteProfile, now: datetime) -> str:
    count = len(profile.queues)
    seen = f"valid; scheduler {profile.scheduler.kind}, {count} queue{'s' * (count != 1)}"
    checked = profile.identity.checked
    if profile.local:
        return seen
    source = profile.identity.documentation or "the documentation of the site"
    if checked is None:
        return Noted(seen, f"Nobody has compared it: read {source}, then set identity.checked to that day.")
    if now.date() - checked > FACTS_LAST:
        return Noted(
            f"{seen}; facts of {checked}, over a year old", f"Compare it with {source}, then set identity.checked."
        )
    return f"{seen}; facts of {checked}"


def _maintenance(profile: SiteProfile, now: datetime) -> str:
    contact = profile.identity.contact
    for pause in profile.maintenance:
        if pause.from_ <= now < pause.until:
            until = f"{pause.until:%Y-%m-%d %H:%M %Z}"
            raise Wrong(
                f"{pause.reason} until {until}: nothing is started there",
                f"Wait, or ask {contact} and change `until` in the profile's [[maintenance]].",
            )
    ahead = [p for p in profile.maintenance if now < p.from_ <= now + SOON]
    return "; ".join(["none now", *(f"{p.reason} from {p.from_:%Y-%m-%d %H:%M %Z}" for p in ahead)])
