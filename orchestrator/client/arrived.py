"""Runs of what has arrived, begun through a client: each under an id that is made of the arrival's key."""

from __future__ import annotations

import hashlib
import json
import time
import uuid
from collections.abc import Callable
from typing import TYPE_CHECKING

from orchestrator.arrival.trigger import Rule
from orchestrator.model import Definition, Placing
from orchestrator.outside import effect
from orchestrator.store import search, watches
from orchestrator.store.arrivals import Arrival
from orchestrator.store.database import Database
from orchestrator.store.watches import Watch

if TYPE_CHECKING:
    from orchestrator.client import Client

KEYS = uuid.UUID("5b0c31a4-8f0e-4d0b-9f6f-3d3b7a1f4d52")  # namespace of the ids made from keys of arrivals
FRESH_S = 1.0  # for so long a definition and a watch are as they were read
DIGITS = 16


class Versions:
    """Definitions by name, each with its version, which is of what it says and of the workflows that it starts."""

    def __init__(self, load: Callable[[str], Definition], *, clock: Callable[[], float] = time.monotonic) -> None:
        self._load, self._clock = load, clock
        self._kept: dict[str, tuple[float, Definition, str]] = {}

    def get(self, name: str) -> tuple[Definition, str]:
        """The definition, and `NAME@VERSION`. Raises what loading it raises."""
        kept = self._kept.get(name)
        if kept is None or self._clock() > kept[0] + FRESH_S:
            definition = self._load(name)
            kept = self._kept[name] = (self._clock(), definition, f"{name}@{self._digest(definition, ())}")
        return kept[1], kept[2]

    def _digest(self, definition: Definition, above: tuple[str, ...]) -> str:
        started = sorted({str(stage["workflow"]) for stage in definition.stages.values() if stage.get("workflow")})
        children = [self._digest(self._load(n), (*above, n)) for n in started if n not in above]
        text = json.dumps([definition.raw, children], sort_keys=True, default=str)
        return hashlib.sha256(text.encode()).hexdigest()[:DIGITS]


def run_id(run_key: str) -> str:
    return str(uuid.uuid5(KEYS, run_key))


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
        arguments = {"experimentName": arrival.experiment, **arrival.arguments}
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
