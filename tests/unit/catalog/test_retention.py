"""The plan: what is to become of each copy, and why, on both databases."""

from __future__ import annotations

import pytest
from sqlalchemy import insert

from orchestrator.errors import NotFound, SettingsError
from orchestrator.store import schema
from orchestrator.store.catalog import ReplicaState
from orchestrator.store.texts import key
from tests.unit.catalog.keep import DAY, NOW, Beamline, E


def reason(beamline: Beamline, place: str = "beamline") -> str:
    found = beamline.plan()[place]
    assert found.verdict == "keep", found.reason
    return found.reason


def test_an_old_copy_with_another_elsewhere_goes(beamline: Beamline) -> None:
    beamline.file("a.h5", "tape")
    plan = beamline.plan()
    assert (plan["beamline"].verdict, plan["beamline"].rule and plan["beamline"].rule.name) == ("prune", "raw")
    assert plan["tape"].reason == "no rule is about it"
    assert beamline.raw() == ["a.h5"]


def test_nothing_goes_without_a_rule(alone: Beamline) -> None:
    alone.file("a.h5", "tape")
    alone.rules = ""
    assert {d.verdict for d in alone.plan().values()} == {"keep"}


def test_the_last_copy_stays(alone: Beamline) -> None:
    alone.file()
    assert reason(alone) == "0 of 1 copies elsewhere"


@pytest.mark.parametrize(("copies", "verdict"), [(1, "prune"), (2, "prune"), (3, "keep")])
def test_as_many_copies_as_the_rule_says(alone: Beamline, copies: int, verdict: str) -> None:
    alone.file("a.h5", "tape", "disk")
    alone.rules += f"copies = {copies}\n"
    assert alone.plan()["beamline"].verdict == verdict


def test_only_places_that_are_named_count(alone: Beamline) -> None:
    file = alone.file("a.h5", "disk")
    alone.rules += 'elsewhere = ["tape"]\n'
    assert reason(alone) == "0 of 1 copies elsewhere"
    alone.copy(file, "tape", str(alone.home / "tape" / "a.h5"))
    assert alone.plan()["beamline"].verdict == "prune"


def test_each_of_these_places_must_hold_one(alone: Beamline) -> None:
    alone.file("a.h5", "disk")
    alone.rules += 'each = ["tape"]\n'
    assert reason(alone) == "there is no copy at tape"


def test_another_copy_at_the_same_place_does_not_count(alone: Beamline) -> None:
    file = alone.file()
    alone.copy(file, "beamline", str(alone.home / "raw" / "b.h5"))
    assert reason(alone) == "0 of 1 copies elsewhere"


@pytest.mark.parametrize("state", [ReplicaState.CORRUPTED, ReplicaState.MISSING, ReplicaState.PRUNED])
def test_a_copy_that_is_known_to_be_bad_does_not_count(alone: Beamline, state: ReplicaState) -> None:
    file = alone.file()
    alone.copy(file, "tape", str(alone.home / "tape" / "a.h5"), state)
    assert reason(alone).startswith("0 of 1 copies elsewhere")


@pytest.mark.parametrize(
    ("added", "says"),
    [(NOW - 89 * DAY, "1.0 days more"), (NOW + 1, "one of the clocks is wrong"), (NOW + 900 * DAY, "clocks is wrong")],
)
def test_a_young_file_stays_and_one_from_the_future_too(alone: Beamline, added: float, says: str) -> None:
    file = alone.file("a.h5", "tape")
    with alone.database.write() as connection:
        connection.execute(
            schema.catalog_files.update().values(added_at=added).where(schema.catalog_files.c.id == file.id)
        )
    assert says in reason(alone)


def test_the_clock_goes_back_and_nothing_goes(alone: Beamline) -> None:
    alone.file("a.h5", "tape")
    alone.now = NOW - 3650 * DAY
    assert "clocks is wrong" in reason(alone)


@pytest.mark.parametrize("told", [True, False])
@pytest.mark.parametrize("status", ["pending", "running", "held", "aborting", "failed", "aborted"])
def test_what_a_run_that_is_not_done_was_given_stays(beamline: Beamline, status: str, told: bool) -> None:
    file = beamline.file("a.h5", "tape")
    run = beamline.run(file, status, told=told)
    assert run in reason(beamline)
    assert status in reason(beamline)


def test_a_run_on_the_folder_above_counts(beamline: Beamline) -> None:
    from msgspec.structs import replace

    file = beamline.file("a.h5", "tape")
    beamline.run(replace(file, name=str(beamline.home / "raw")), "running", told=False)
    assert "run-1" in reason(beamline)


def test_when_its_runs_are_done_it_goes_after_the_grace(beamline: Beamline) -> None:
    file = beamline.file("a.h5", "tape")
    beamline.run(file, "done", ended_at=NOW - 3 * DAY)
    assert beamline.plan()["beamline"].verdict == "prune"
    beamline.rules += 'grace = "7 days"\n'
    assert "4.0 days more" in reason(beamline)
    beamline.now += 5 * DAY
    assert beamline.plan()["beamline"].verdict == "prune"


def test_another_run_has_done_the_work_of_one_that_failed(beamline: Beamline) -> None:
    file = beamline.file("a.h5", "tape")
    beamline.run(file, "aborted")
    beamline.run(file, "done", ended_at=NOW - 3 * DAY, number=2)
    assert beamline.plan()["beamline"].verdict == "prune"


def test_a_failed_run_counts_until_somebody_dismisses_it(beamline: Beamline) -> None:
    file = beamline.file("a.h5", "tape")
    run = beamline.run(file, "failed")
    assert run in reason(beamline)
    with beamline.database.write() as connection:
        connection.execute(schema.dead_letters.delete())
    assert beamline.plan()["beamline"].verdict == "prune"


def test_pins(beamline: Beamline) -> None:
    file = beamline.file("a.h5", "tape")
    keeping = beamline.keeping()
    with beamline.database.write() as connection:
        row = {"experiment": key(E), "name": "best", "file_id": file.id}
        connection.execute(insert(schema.collection_files).values(**row))
    pins = [
        ({"what": file.name}, "it is pinned"),
        ({"what": "best", "experiment": E, "collection": True}, "its collection 'best' is pinned"),
        ({"what": "", "experiment": E}, "its experiment is pinned"),
    ]
    for words, says in pins:
        keeping.pin(**words, reason="the paper")  # type: ignore[arg-type]
        assert reason(beamline) == says
        [pin] = keeping.pins()
        assert (pin.who, pin.reason) == ("rita", "the paper")
        keeping.unpin(**words)  # type: ignore[arg-type]
        assert beamline.plan()["beamline"].verdict == "prune"
    with pytest.raises(NotFound):
        keeping.unpin("", experiment=E)
    assert [row.verdict for row in keeping.log(experiment=E)] == ["unpinned", "pinned"] * 3


def test_the_rules_of_an_experiment_go_first(beamline: Beamline) -> None:
    beamline.file("a.h5", "tape")
    table = schema.experiments
    with beamline.database.write() as connection:
        doc = '{"retention": {"rule": [{"name": "ours", "keep": "for ever"}]}}'
        connection.execute(insert(table).values(name=key(E), created_at=0.0, doc=doc))
    assert reason(beamline) == "rule 'ours' keeps it for ever"
    with beamline.database.write() as connection:
        connection.execute(table.update().values(doc='{"retention": {"rules": []}}'))
    with pytest.raises(SettingsError, match=rf"experiment '{E}': there is no key 'rules'. Did you mean 'rule'"):
        beamline.plan()


def test_only_one_experiment_or_site(beamline: Beamline) -> None:
    beamline.file("a.h5", "tape")
    assert list(beamline.plan(site="tape")) == ["tape"]
    assert beamline.plan(experiment="another") == {}


def test_what_this_host_cannot_reach_stays(alone: Beamline) -> None:
    alone.file("a.h5", "tape")
    alone.settings = type(alone.settings)(home=alone.home, site="elsewhere")
    assert "is a path at 'beamline', and this is 'elsewhere'" in reason(alone)
