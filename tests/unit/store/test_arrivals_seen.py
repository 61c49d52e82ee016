"""The arrivals that a person may see are those that a plain filter over all of them would keep, in the same pages."""

from __future__ import annotations

import random
from typing import Any

import pytest

from orchestrator.store import arrivals, arrivals_seen, experiments
from orchestrator.store.arrivals import Arrival, ArrivalState
from orchestrator.store.database import Database
from orchestrator.store.experiments import Experiment, Part

PEOPLE = {"e": {"ann"}, "f": {"carol"}}  # "open" has no record, "bare" one without people
OWN = {"bob": ("w1",), "ann": ("w2", "none")}


@pytest.fixture
def filled(database: Database) -> Database:
    chance = random.Random(5)
    for name in ("e", "f", "bare"):
        people = dict.fromkeys(PEOPLE.get(name, ()), Part.VIEWER)
        experiments.create(database, Experiment(name, people=people))
    states = [s for s in ArrivalState if s is not ArrivalState.DUE]
    some = [
        Arrival(
            f"w{chance.randrange(3)}",
            chance.choice(["e"] * 9 + ["f", "open", "bare"]),
            b"%016d" % number,
            f"{number}.h5",
            (1, number, 3, 4),
            chance.choice(states),
        )
        for number in range(80)
    ]
    arrivals.decide(database, some)
    return database


def may_see(person: str, arrival: Arrival) -> bool:
    people = PEOPLE.get(arrival.experiment)
    return people is None or person in people or arrival.watch in OWN.get(person, ())


@pytest.mark.parametrize("near", [1, 7, 10_000])
@pytest.mark.parametrize("person", ["ann", "bob", "carol", "dora"])
def test_pages_hold_what_a_person_may_see(
    filled: Database, person: str, near: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(arrivals_seen, "NEAR", near)
    own, nothing = OWN.get(person, ()), {"watch": "", "experiment": "", "state": None, "after": 0, "before": 0}
    wishes: list[dict[str, Any]] = [
        {},
        {"watch": "w1"},
        {"experiment": "f"},
        {"experiment": "e"},
        {"state": ArrivalState.IGNORED},
        {"after": 20, "before": 60},
        {"watch": "w2", "experiment": "e", "state": ArrivalState.RUN},
    ]
    for wanted in (nothing | wish for wish in wishes):
        for newest in (False, True):
            every = [a for a in arrivals.ls(filled, **wanted, newest=newest) if may_see(person, a)]
            for limit in (1, 5, 200):
                found = arrivals_seen.ls(filled, person, own, **wanted, newest=newest, limit=limit)
                assert found == every[:limit], (wanted, newest, limit)


def test_by_number_only_those_are_there_that_a_person_may_see(filled: Database) -> None:
    every = arrivals.ls(filled)
    for person in ("ann", "bob", "carol", "dora"):
        seen = [a for a in every if may_see(person, a)]
        assert 0 < len(seen) < len(every)
        assert arrivals_seen.get(filled, [a.id for a in every], person, OWN.get(person, ())) == seen
