"""Faults planted into what was in order: the audit has to see each."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

from orchestrator.store.arrivals import Arrival, ArrivalState
from tests.chaos.arrivals.audit import audit, look
from tests.chaos.arrivals.plant import WATCH, Plant
from tests.chaos.arrivals.truth import INCOMPLETE, Content, Truth


def blind(plant: Plant, truth: Truth) -> list[str]:
    """Which of them it does not see, each planted by itself and taken away again."""
    missed = []
    for what, (fault, word) in faults(plant, truth).items():
        undo = fault()
        seen = audit(look(plant.place, plant.url, WATCH), truth, volumes="volume" in what)
        undo()
        if not any(word in sentence for sentence in seen):
            missed.append(f"the audit does not see {what}: {seen[:3]}")
    wrong = audit(look(plant.place, plant.url, WATCH), truth, volumes=False)
    return missed + [f"after the faults were taken away: {sentence}" for sentence in wrong[:5]]


Undo = Callable[[], None]


def faults(plant: Plant, truth: Truth) -> dict[str, tuple[Callable[[], Undo], str]]:
    left = look(plant.place, plant.url, WATCH)
    names = {c.checksum for c in truth.whole}
    ran = [
        a for a in left.arrivals if a.state is ArrivalState.RUN and a.checksum in names and a.run_id in left.products
    ]
    there = [a for a in left.arrivals if left.tree.get(a.name) == a.fingerprint]
    broken = next(a for a in there if truth.items[a.name].states == INCOMPLETE)
    other = next(a for a in there if a.state is ArrivalState.DUPLICATE)
    product = plant.place / "products" / f"{ran[0].run_id}.json"
    mark = plant.place / "marks" / ran[0].run_id
    never = Content("xxh3:0", "0", "never written")

    def written(path: Path, text: str) -> Callable[[], Undo]:
        def fault() -> Undo:
            before = path.read_text() if path.exists() else None
            path.write_text(text)
            return lambda: path.unlink() if before is None else void(path.write_text(before))

        return fault

    def changed(arrival: Arrival, **fields: str | None) -> Callable[[], Undo]:
        return lambda: rows(plant, arrival, fields)

    def promised() -> Undo:
        truth.content(never)
        return lambda: void(truth.contents.pop((never.checksum, never.proof)))

    one, two = sorted((plant.place / "products").glob("*.zarr"))[:2]

    def exchanged() -> Undo:
        for old, new in ((one, plant.beside / "volume"), (two, one), (plant.beside / "volume", two)):
            old.rename(new)
        return lambda: void(exchanged())

    return {
        "a volume of another scan": (exchanged, "the volume of"),
        "a product of another content": (written(product, '{"checksum": "x", "proof": "x"}'), "is not of its scan"),
        "a product that is not there": (lambda: moved(plant, product), "is not of its scan"),
        "a part left over": (written(product.with_suffix(".json.part"), ""), "left over"),
        "work carried out twice": (written(mark, "x\n" * 1000), "was carried out"),
        "a scan that never ran": (promised, "has no product"),
        "a file that nobody has seen": (written(plant.tree / "stray.h5", "x"), "nobody wrote it"),
        "a file that is gone": (lambda: moved(plant, plant.tree / broken.name), "is not in the tree"),
        "a file that is not accounted for": (lambda: dropped(plant, broken), "is accounted for 0 times"),
        "a run without an arrival": (lambda: dropped(plant, ran[0]), "is of no arrival"),
        "an arrival without its run": (changed(ran[0], run_id="0" * 8 + "-0000-4000-8000-" + "0" * 12), "is not there"),
        "one run of two arrivals": (changed(ran[0], run_id=ran[1].run_id), "is the run of 2 arrivals"),
        "a broken scan that runs": (changed(broken, state="run", run_id=ran[0].run_id), "is run, not incomplete"),
        "what is still due": (changed(ran[0], state="due"), "is still due"),
        "a duplicate that has run as well": (changed(other, state="run", run_id=ran[0].run_id), "has run 2 times"),
        "a whole scan that is ignored": (changed(ran[0], state="ignored", reason="x"), "is of no arrival"),
        "a reason that is not said": (changed(broken, reason=""), "does not say why"),
        "another reason": (changed(broken, reason="it is Monday"), "for another reason"),
    }


def rows(plant: Plant, arrival: Arrival, fields: dict[str, str | None]) -> Undo:
    """Change the row of an arrival in the store."""
    before = {name: str(getattr(arrival, name)) for name in fields}
    update(plant, arrival, fields)
    return lambda: update(plant, arrival, before)


def update(plant: Plant, arrival: Arrival, fields: dict[str, str | None] | dict[str, str]) -> None:
    words = ", ".join(f"{name} = ?" for name in fields)
    with closing(sqlite3.connect(plant.home / "beamway.db")) as connection, connection:
        connection.execute(f"UPDATE arrivals SET {words} WHERE id = ?", (*fields.values(), arrival.id))


def dropped(plant: Plant, arrival: Arrival) -> Undo:
    with closing(sqlite3.connect(plant.home / "beamway.db")) as connection, connection:
        row = connection.execute("SELECT * FROM arrivals WHERE id = ?", (arrival.id,)).fetchone()
        connection.execute("DELETE FROM arrivals WHERE id = ?", (arrival.id,))

    def undo() -> None:
        with closing(sqlite3.connect(plant.home / "beamway.db")) as connection, connection:
            connection.execute(f"INSERT INTO arrivals VALUES ({', '.join('?' * len(row))})", row)

    return undo


def moved(plant: Plant, path: Path) -> Undo:
    away = plant.beside / "away"
    path.rename(away)
    return lambda: void(away.rename(path))


def void(_: object) -> None:
    """So that an expression is a statement."""
