"""Runs of what has arrived, begun through a client: each under an id that is made of the arrival's key."""

from __future__ import annotations

import time
import uuid
from typing import TYPE_CHECKING

from orchestrator.arrival.trigger import Rule
from orchestrator.engine.watching import Versions
from orchestrator.model import Placing
from orchestrator.outside import effect
from orchestrator.store import search, watches
from orchestrator.store.arrivals import Arrival
from orchestrator.store.database import Database
from orchestrator.store.watches import Watch

if TYPE_CHECKING:
    from orchestrator.client import Client

KEYS = uuid.UUID("5b0c31a4-8f0e-4d0b-9f6f-3d3b7a1f4d52")  # namespace of the ids made from keys of arrivals
FRESH_S = 1.0  # for so long a watch is as it was read


def run_id(run_key: str) -> str:
    return str(uuid.uuid5(KEYS, run_key))


def _content(arrival: Arrival) -> dict[str, str]:
    """What its run must find in the file that it is begun for: where that is the one that has arrived."""
    own = arrival.arguments.get("filePath", "").endswith(f"/{arrival.name}")
    return {"inputChecksum": arrival.checksum} if own and arrival.checksum else {}


class Arrived:
    """Begins them, as `orchestrator.arrival.watch.Runs` says."""

    def __init__(self, client: Client, database: Database) -> None:
        self._client, self._database = client, database
        self._versions = Versions(client.definition)
        self._watches: dict[str, tuple[float, Watch]] = {}

    def version(self, rule: Rule) -> str:
        return self._versions.get(rule.workflow)[1]

    def begin(self, arrival: Arrival) -> str:
        watch = self._watch(arrival.watch)
        definition, _ = self._versions.get(arrival.workflow.rpartition("@")[0])
        arguments = {"experimentName": arrival.experiment, **_content(arrival), **arrival.arguments}
        plan = self._client.plan(definition, arguments, directory=watch.base, placing=Placing(priority="live"))
        with effect("run.begin"):
            return self._client.submit(plan, run_id=run_id(arrival.run_key), username=watch.owner)

    def begun(self, run_key: str) -> str:
        wanted = run_id(run_key)
        return wanted if search.known(self._database, [wanted]) else ""

    def _watch(self, name: str) -> Watch:
        kept = self._watches.get(name)
        if kept is None or time.monotonic() > kept[0] + FRESH_S:
            kept = self._watches[name] = (time.monotonic(), watches.get(self._database, name))
        return kept[1]
