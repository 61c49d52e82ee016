"""The runs of the storm: each leaves a mark for each time that a stage of it was carried out."""

from __future__ import annotations

import random
import threading
import time
import uuid
from pathlib import Path
from typing import Any

from orchestrator.definition import loader
from orchestrator.errors import BeamwayError, Unavailable
from tests.chaos.callers import History
from tests.chaos.storm.plant import Plant

PATIENCE = {"retries": {"lost worker": {"most": 50, "delay": 0.2, "longest": 2}, "node failure": 50}}


def definition(plant: Plant, run_id: str, kind: str, chance: random.Random) -> dict[str, Any]:
    """A run of two or three stages of that kind, whose marks are named by run and stage."""
    out = plant.work / f"{run_id}.out"
    seconds = chance.choice((0.05, 0.2, 0.5))

    def mark(stage: str) -> str:
        return f"echo x >> {plant.marks}/{run_id}.{stage}"

    command = {"command": f"{mark('01')}; sleep {seconds}; echo made > {out}", "outputs": [str(out)], **PATIENCE}
    function = {
        "function": "tests.chaos.calls:mark",
        "arguments": {"directory": str(plant.marks), "name": f"{run_id}.01", "seconds": seconds},
        **PATIENCE,
    }
    last = {"command": mark("02"), **PATIENCE}
    stages: dict[str, Any] = {
        "command": {"01": command, "02": last},
        "function": {"01": function, "02": last},
        "transfer": {
            "01": command,
            "02": {"transfer": {"from": str(out), "to": f"{plant.work}/{run_id}.copy"}, **PATIENCE},
            "03": {"command": mark("03"), **PATIENCE},
        },
        "batch": {"01": {**command, "site": "trial", "mode": "batch"}, "02": last},
        "pilot": {"01": {**function, "site": "trial", "mode": "pilot"}, "02": last},
    }[kind]
    return {"name": f"storm-{kind}", "owner": "storm", "stages": stages}


class Requests(threading.Thread):
    """A client that asks for runs, one after another, and notes which requests were acknowledged."""

    def __init__(self, plant: Plant, history: History, count: int, seconds: float, seed: int) -> None:
        super().__init__(daemon=True)
        self._plant, self._history, self._count, self._seconds = plant, history, count, seconds
        self._chance = random.Random(seed)
        self.asked: list[str] = []
        self.acknowledged: list[str] = []
        self.refused: list[str] = []
        self.over = False

    def run(self) -> None:
        kinds = ("command", "function", "transfer", "batch", "pilot")
        weights = (40, 25, 15, 8, 12)
        begun = time.monotonic()
        with self._plant.client() as client:
            for number in range(self._count):
                run_id = str(uuid.UUID(int=self._chance.getrandbits(128), version=4))
                kind = self._chance.choices(kinds, weights)[0]
                made = definition(self._plant, run_id, kind, self._chance)
                self.asked.append(run_id)
                while True:
                    try:
                        plan = client.plan(loader.load(made), {}, directory=str(self._plant.work))
                        with self._history.submitting(run_id):
                            client.submit(plan, run_id=run_id)
                        break
                    except Unavailable:
                        time.sleep(0.5)  # asked again under the same id
                    except BeamwayError as error:
                        self.refused.append(f"{run_id} was refused: {error}")
                        return
                self.acknowledged.append(run_id)
                time.sleep(max(0.0, begun + self._seconds * (number + 1) / self._count - time.monotonic()))
        self.over = True


def marks(folder: Path) -> dict[str, int]:
    return {path.name: len(path.read_text().splitlines()) for path in folder.iterdir()}
