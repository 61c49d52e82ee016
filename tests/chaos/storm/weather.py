"""What happens: each disturbance does something, lasts for a while, and is undone."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path

from orchestrator.errors import BeamwayError
from tests.chaos.storm.plant import Plant

PAST_LEASE_S = 18.0  # longer than any lease
LULL_S = (2.0, 6.0)


class Weather(threading.Thread):
    def __init__(self, plant: Plant, seed: int, say: Callable[[str], None]) -> None:
        super().__init__(daemon=True)
        self._plant, self._say = plant, say
        self._chance = random.Random(seed)
        self.stop = threading.Event()
        self.count: dict[str, int] = {}
        self.failed: list[str] = []

    def run(self) -> None:
        kinds: list[tuple[str, int, Callable[[], None]]] = [
            ("a service is killed", 3, lambda: self._kill("service")),
            ("a service hangs past its lease", 2, lambda: self._pause("service")),
            ("an agent is killed", 4, lambda: self._kill("agent")),
            ("an agent hangs past its lease", 2, lambda: self._pause("agent")),
            ("the database restarts", 2, self._restart_database),
            ("the database is killed", 2, self._kill_database),
            ("the database hangs", 1, self._pause_database),
            ("the network to the database drops", 2, self._cut_off_database),
            ("the controller stops", 1, self._stop_controller),
            ("a node dies", 1, self._kill_node),
            ("the disk fills", 1, self._fill_disk),
        ]
        deck: list[tuple[str, Callable[[], None]]] = []
        while not self.stop.wait(self._chance.uniform(*LULL_S)):
            if not deck:
                deck = [(name, act) for name, weight, act in kinds for _ in range(weight)]
                self._chance.shuffle(deck)
            name, act = deck.pop()
            self._say(name)
            try:
                act()
            except (OSError, BeamwayError, AssertionError, subprocess.SubprocessError) as error:
                self.failed.append(f"{name}: {error}")
            else:
                self.count[name] = self.count.get(name, 0) + 1

    def _one(self, kind: str) -> str:
        return self._chance.choice([name for name in self._plant.kept if name.startswith(kind)])

    def _kill(self, kind: str) -> None:
        self._plant.kept[self._one(kind)].signal(signal.SIGKILL)

    def _pause(self, kind: str) -> None:
        kept = self._plant.kept[self._one(kind)]
        kept.signal(signal.SIGSTOP)
        try:
            self.stop.wait(PAST_LEASE_S)
        finally:
            kept.signal(signal.SIGCONT)

    def _restart_database(self) -> None:
        self._plant.database.stop()
        time.sleep(self._chance.uniform(0.0, 3.0))
        self._plant.database.start()

    def _kill_database(self) -> None:
        self._plant.database.kill()
        time.sleep(self._chance.uniform(0.0, 5.0))
        self._plant.database.start()

    def _pause_database(self) -> None:
        self._plant.database.pause()
        try:
            self.stop.wait(self._chance.uniform(2.0, 15.0))
        finally:
            self._plant.database.resume()

    def _cut_off_database(self) -> None:
        self._plant.host.cut_off()
        try:
            self.stop.wait(self._chance.uniform(2.0, PAST_LEASE_S))
        finally:
            self._plant.host.join()

    def _stop_controller(self) -> None:
        self._plant.cluster.stop_controller()
        try:
            self.stop.wait(self._chance.uniform(2.0, 20.0))
        finally:
            self._plant.cluster.start_controller()

    def _kill_node(self) -> None:
        name = self._chance.choice(list(self._plant.cluster.plan.node_names))
        self._plant.cluster.kill_node(name)
        try:
            self.stop.wait(self._chance.uniform(1.0, 10.0))
        finally:
            self._plant.cluster.start_node(name)

    def _fill_disk(self) -> None:
        """That of the runs' logs and records, a small one of its own."""
        filler = Path(self._plant.runs) / "filler"
        if not os.path.ismount(self._plant.runs):
            return
        try:
            with filler.open("wb") as file:
                while True:
                    file.write(b"x" * 65536)
                    file.flush()
        except OSError:
            pass
        try:
            self.stop.wait(self._chance.uniform(1.0, 6.0))
        finally:
            filler.unlink(missing_ok=True)
