"""What takes scans up: one home with its service, the agent and the watcher that it keeps; and who kills them."""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from orchestrator import locks
from orchestrator.settings import ensure_home
from tests.chaos.arrivals import work
from tests.conftest import end_processes_of

WATCH = "chaos"
BEAMWAY = (sys.executable, "-m", "orchestrator.cli")
AGAIN_S = 0.3
LULL_S = (0.5, 6.0)


class Plant:
    def __init__(self, place: Path) -> None:
        self.place, self.home, self.tree = place, place / "home", place / "tree"
        self.beside = place / "beside"  # where scans are before they come into the tree, on the same file system
        ensure_home(self.home)
        for folder in (self.tree, self.beside, *(place / name for name in ("work", "products", "marks"))):
            folder.mkdir()
        self.url = f"sqlite:///{self.home}/beamway.db"
        (self.home / "workflows").mkdir(exist_ok=True)
        for definition in work.definitions(place):
            (self.home / "workflows" / f"{definition['name']}.json").write_text(json.dumps(definition))
        self._over = threading.Event()
        self._keeper = threading.Thread(target=self._keep, daemon=True)

    def start(self) -> None:
        self._service = self._start()
        self._keeper.start()
        rules = self.place / "rules.toml"
        rules.write_text(work.rules(self.tree))
        words = ["watch", str(self.tree), "--rules", str(rules), "--name", WATCH]
        subprocess.run([*BEAMWAY, *words], env=self._environment, check=True, stdout=subprocess.DEVNULL)

    def _start(self) -> subprocess.Popen[bytes]:
        (self.home / "logs").mkdir(exist_ok=True)
        with (self.home / "logs" / "service.log").open("ab") as output:
            return subprocess.Popen(
                [*BEAMWAY, "up", "--json"],
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )

    @property
    def _environment(self) -> dict[str, str]:
        return {**os.environ, "BEAMWAY_HOME": str(self.home)}

    def _keep(self) -> None:
        """As systemd does."""
        while not self._over.wait(AGAIN_S):
            if self._service.poll() is not None:
                self._service = self._start()

    def kill(self, who: str) -> bool:
        """Whether there was one to kill."""
        lock = {
            "service": locks.service_lock(self.home),
            "agent": locks.agent_lock(self.home, "local"),
            "watcher": locks.watcher_lock(self.home, "local"),
        }[who]
        pid = locks.holder(lock)
        if not pid:
            return False
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
            return True
        return False

    def close(self) -> None:
        self._over.set()
        if self._keeper.is_alive():
            self._keeper.join(10.0)
            self._service.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._service.wait(30.0)
        end_processes_of(self.home)


class Killer(threading.Thread):
    """Kills one of the three after a random while, until told to stop; each at least `least` times."""

    def __init__(self, plant: Plant, seed: int, say: Callable[[str], None], *, least: int = 3) -> None:
        super().__init__(daemon=True)
        self._plant, self._chance, self._say, self._least = plant, random.Random(seed), say, least
        self.stop = threading.Event()
        self.count: Counter[str] = Counter()

    def run(self) -> None:
        whom = ("watcher", "service", "agent")
        while not self._over(whom):
            time.sleep(self._chance.uniform(*LULL_S))
            who = self._chance.choice(whom if not self.stop.is_set() else [w for w in whom if self._lacks(w)] or whom)
            if self._plant.kill(who):
                self.count[who] += 1
                self._say(f"{who} killed")

    def _lacks(self, who: str) -> bool:
        return self.count[who] < self._least

    def _over(self, whom: tuple[str, ...]) -> bool:
        return self.stop.is_set() and not any(self._lacks(who) for who in whom)
