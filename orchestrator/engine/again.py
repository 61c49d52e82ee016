"""Runs whose products are stale, done again on what their inputs are now."""

from __future__ import annotations

import uuid
from collections.abc import Sequence

from msgspec import Struct

from orchestrator.engine.inputs import CHECKSUM
from orchestrator.engine.opening import submission
from orchestrator.engine.planner import Planner
from orchestrator.protocol import Submit
from orchestrator.store import lineage, runs, search, stale
from orchestrator.store.catalog import CatalogFile
from orchestrator.store.database import Database
from orchestrator.store.stale import StaleProduct

AGAIN = uuid.UUID("b3a1d0f2-64a0-4b0c-9d3f-0a4c6a1f3c5d")  # namespace of the ids of such runs


class Again(Struct, frozen=True):
    """A run that is to be done again as `again`. `there`: it was begun before, or is not begun yet because its inputs
    have to be made anew first (`again` is empty then)."""

    run_id: str
    again: str
    products: tuple[int, ...]
    there: bool = False


def wanted(database: Database, *, experiment: str = "", files: Sequence[int] = ()) -> list[Again]:
    """The runs behind the stale products, or behind these of them. The id of the next one follows from the run and the
    contents of its inputs now, so that asking twice begins one."""
    of_run: dict[str, list[StaleProduct]] = {}
    for product in stale.ls(database, experiment=experiment, limit=1_000_000):
        if not files or product.file.id in files:
            of_run.setdefault(product.run_id, []).append(product)
    found = []
    for run_id, products in of_run.items():
        ids = tuple(product.file.id for product in products)
        ready = all(product.ready for product in products)
        again = _id(run_id, products) if ready else ""
        found.append(Again(run_id, again, ids, bool(again) and bool(search.known(database, [again]))))
    return found


def wish(database: Database, planner: Planner, again: Again, *, username: str, host: str) -> Submit:
    """With the same workflow and arguments. Raises what compiling a plan raises, as for a file that is gone."""
    run = runs.load(database, again.run_id)
    changed = {}
    if CHECKSUM in run.plan.variables:
        changed[CHECKSUM] = _checksum_now(database, again, run.plan.variables[CHECKSUM])
    plan = planner.changed(run.plan, changed)
    return submission(plan, again.again, username, host, instead_of=again.run_id)


def _id(run_id: str, products: Sequence[StaleProduct]) -> str:
    now = sorted({cause.now for product in products for cause in product.causes})
    return str(uuid.uuid5(AGAIN, f"{run_id}\0{','.join(map(str, now))}"))


def _checksum_now(database: Database, again: Again, before: str) -> str:
    """What has the name of the file that had this checksum; empty when nobody has read that."""
    for product in stale.ls(database, limit=1_000_000):
        for cause in product.causes if product.run_id == again.run_id else ():
            if cause.file.checksum == before:
                with database.read() as connection:
                    now: CatalogFile = lineage.files(connection, [cause.now])[cause.now]
                return "" if now.checksum.startswith("stat:") else now.checksum
    return before
