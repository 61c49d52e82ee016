"""Where at its site an attempt goes: queue, account, reservation and for how long, and what comes when one is gone."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import pytest

from orchestrator.agent.target import MARGIN_S, Hold, Shape, Target, clock, resolve, shape_of
from orchestrator.jobs import Reservation
from orchestrator.model import FailureClass, Order, Outcome, Placing, Resources, StageKind
from sites.schema import SiteProfile

NOW = 1_800_000_000.0
QUEUES = [
    {"name": "work", "max_walltime_s": 7200.0, "default_walltime_s": 1800.0, "qos": "normal", "options": ["-x"]},
    {"name": "fast", "use": "realtime", "max_walltime_s": 600.0},
    {"name": "open", "use": "demand"},
]


def profile(**parts: Any) -> SiteProfile:
    given: dict[str, Any] = {
        "identity": {"name": "far", "contact": "the help desk"},
        "scheduler": {"kind": "slurm"},
        "paths": {"scratch": "/scratch"},
        "queues": QUEUES,
        "accounts": {"default": "regular"},
        **parts,
    }
    return SiteProfile.model_validate(given)


def order(
    *, walltime_s: float = 0.0, longer: float = 1.0, nodes: int = 1, experiment: str = "", **placing: str
) -> Order:
    resources = Resources(nodes=nodes, walltime_s=walltime_s, longer=longer)
    place = Placing(**placing)
    return Order("r.0.1", StageKind.KERNEL, "s", resources=resources, placing=place, experiment=experiment)


def found(
    asked: Order, site: SiteProfile, there: Mapping[str, Reservation] | None = None, *, now: float = NOW, **more: float
) -> Target | Hold | Outcome:
    return resolve(asked, site, {} if there is None else there, now=now, **more)


def target(*arguments: Any, **more: Any) -> Target:
    answer = found(*arguments, **more)
    assert isinstance(answer, Target), answer
    return answer


def beam(
    from_s: float = -3600.0, until_s: float = 3600.0, *, nodes: int = 4, active: bool = True
) -> Mapping[str, Reservation]:
    return {"beam": Reservation("beam", NOW + from_s, NOW + until_s, queue="resv", node_count=nodes, active=active)}


def moment(seconds: float) -> datetime:
    return datetime.fromtimestamp(NOW + seconds, UTC)


def test_without_a_word_the_profile_decides() -> None:
    chosen = target(order(), profile())
    assert (chosen.mode, chosen.queue, chosen.account, chosen.qos, chosen.options) == (
        profile().execution.mode,
        "work",
        "regular",
        "normal",
        ("-x",),
    )
    assert (chosen.walltime_s, chosen.longest_s, chosen.reservation, chosen.note) == (1800.0, 7200.0, "", "")


@pytest.mark.parametrize(("asked", "queue"), [("fast", "fast"), ("realtime", "fast"), ("demand", "open")])
def test_a_queue_is_asked_for_by_name_or_use(asked: str, queue: str) -> None:
    assert target(order(queue=asked), profile()).queue == queue


def test_a_queue_that_is_not_there_is_the_users_mistake_and_the_nearest_is_named() -> None:
    answer = found(order(queue="wrok"), profile())
    assert isinstance(answer, Outcome)
    assert answer.failure is FailureClass.USER
    assert "has no queue 'wrok'. Did you mean 'work'?" in answer.reason


def test_what_the_order_asks_for_goes_before_the_profile() -> None:
    chosen = target(order(account="mine", mode="batch", walltime_s=60.0), profile())
    assert (chosen.account, chosen.mode, chosen.walltime_s) == ("mine", "batch", 60.0)


def test_more_walltime_is_given_within_the_limit_of_the_queue() -> None:
    assert target(order(walltime_s=3000.0, longer=2.0), profile()).walltime_s == 6000.0
    assert target(order(walltime_s=6000.0, longer=2.0), profile()).walltime_s == 7200.0
    assert target(order(longer=2.0), profile()).walltime_s == 3600.0


def test_a_worker_holds_all_ranks_of_a_node() -> None:
    asked = Resources(2, ranks_per_node=4, gpus_per_rank=1, cores_per_rank=8, memory_bytes=100, larger=2.0)
    assert shape_of(asked) == Shape(2, 4, 32, 4, 200)


def test_maintenance_holds_what_would_begin_in_it() -> None:
    site = profile(maintenance=[{"from": moment(-60), "until": moment(60), "reason": "new disks"}])
    answer = found(order(), site)
    assert isinstance(answer, Hold)
    assert answer.sentence.startswith("new disks at far until ")
    assert answer.until == NOW + 60
    assert isinstance(found(order(), site, now=NOW + 60), Target)


def test_a_reservation_is_used_while_it_is_there() -> None:
    chosen = target(order(reservation="beam", queue="work"), profile(), beam())
    assert (chosen.reservation, chosen.queue, chosen.until) == ("beam", "work", NOW + 3600)


def test_the_queue_that_the_scheduler_names_with_a_reservation_need_not_be_in_the_profile() -> None:
    assert target(order(reservation="beam"), profile(), beam()).queue == "resv"


def test_a_job_ends_within_its_reservation() -> None:
    site = profile(queues=[])
    chosen = target(order(reservation="beam", walltime_s=7200.0), site, beam(until_s=1800.0))
    assert chosen.walltime_s == chosen.longest_s == 1740.0
    assert chosen.walltime_s <= 1800.0 - MARGIN_S
    assert chosen.walltime_s % 60 == 0


def test_a_reservation_that_opens_later_counts_from_then() -> None:
    chosen = target(order(reservation="beam", walltime_s=7200.0), profile(queues=[]), beam(600.0, 1800.0, active=False))
    assert (chosen.from_at, chosen.walltime_s) == (NOW + 600, 1140.0)


def test_queue_and_account_of_the_profile_go_with_its_reservation() -> None:
    site = profile(reservations=[{"name": "beam", "queue": "fast", "account": "shift"}])
    chosen = target(order(reservation="beam"), site, beam())
    assert (chosen.queue, chosen.account) == ("fast", "shift")
    assert target(order(reservation="beam", queue="work", account="mine"), site, beam()).account == "mine"


def test_a_reservation_of_the_profile_needs_no_word() -> None:
    site = profile(reservations=[{"name": "beam", "queue": "fast", "experiments": ["e1"]}])
    assert target(order(experiment="e1"), site, beam()).reservation == "beam"
    assert target(order(experiment="e2"), site, beam()).reservation == ""
    assert target(order(experiment="e1", nodes=5), site, beam()).reservation == ""
    assert target(order(experiment="e1", walltime_s=3600.0), site, beam()).reservation == ""
    assert target(order(experiment="e1"), site, beam(active=False)).reservation == ""
    assert target(order(experiment="e1"), site).reservation == ""


def test_until_the_scheduler_has_spoken_a_reservation_is_waited_for_or_taken_from_the_profile() -> None:
    answer = resolve(order(reservation="beam"), profile(), None, now=NOW)
    assert isinstance(answer, Hold)
    assert "asks whether reservation 'beam' is there" in answer.sentence
    site = profile(reservations=[{"name": "beam", "queue": "fast", "from": moment(-60), "until": moment(3600)}])
    chosen = resolve(order(), site, None, now=NOW)
    assert isinstance(chosen, Target)
    assert chosen.reservation == "beam"


FALLBACK = {"policies": {"fallback": ["wait 10 min", "queue realtime"]}}


def test_a_reservation_that_is_gone_is_waited_for_first() -> None:
    answer = found(order(reservation="beam"), profile(**FALLBACK), gone_since=NOW - 60)
    assert isinstance(answer, Hold)
    assert answer.until == NOW + 540
    assert answer.sentence.startswith("reservation 'beam' is gone; waits for it until ")


def test_then_the_next_step_is_taken_and_says_so() -> None:
    chosen = target(order(reservation="beam"), profile(**FALLBACK), gone_since=NOW - 600)
    assert (chosen.queue, chosen.reservation) == ("fast", "")
    assert chosen.note == "reservation 'beam' is gone, so it goes to queue 'realtime'"


def test_a_step_may_be_another_site() -> None:
    answer = found(order(reservation="beam"), profile(policies={"fallback": ["site other"]}))
    assert isinstance(answer, Outcome)
    assert (answer.failure, answer.elsewhere) == (FailureClass.RESERVATION, "other")


def test_without_a_policy_it_goes_to_the_regular_queue() -> None:
    chosen = target(order(reservation="beam"), profile())
    assert (chosen.queue, chosen.note) == ("work", "reservation 'beam' is gone, so it goes to the regular queue")


def test_nobody_waits_for_a_reservation_that_is_too_small() -> None:
    chosen = target(order(reservation="beam", nodes=5), profile(**FALLBACK), beam())
    assert chosen.note == "reservation 'beam' has only 4 nodes, so it goes to queue 'realtime'"


def test_a_reservation_that_is_over_and_still_listed_is_not_waited_for_for_ever() -> None:
    """Nobody misses it, so its end is what the waiting is counted from."""
    there = beam(until_s=-590.0)
    answer = found(order(reservation="beam"), profile(**FALLBACK), there)
    assert isinstance(answer, Hold)
    assert answer.until == NOW + 10
    assert isinstance(found(order(reservation="beam"), profile(**FALLBACK), there, now=NOW + 10), Target)


def test_a_reservation_about_to_close_takes_nothing_more() -> None:
    answer = found(order(reservation="beam"), profile(**FALLBACK), beam(until_s=MARGIN_S - 1))
    assert isinstance(answer, Hold)
    assert target(order(reservation="beam"), profile(**FALLBACK), beam(until_s=MARGIN_S + 1)).walltime_s == 60.0


def test_a_time_of_another_day_has_its_day() -> None:
    assert len(clock(NOW, NOW)) == 5
    assert len(clock(NOW + 2 * 86400, NOW)) == 12
