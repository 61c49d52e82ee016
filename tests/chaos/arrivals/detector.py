"""Hands that write scans, some as they should be and some not, and note down what each is to become."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable
from pathlib import Path

from tests.chaos.arrivals import kinds
from tests.chaos.arrivals.shot import Shot
from tests.chaos.arrivals.truth import Truth

HANDS = 6


class Detector:
    """`seconds`: over how long the scans are spread. The same seed writes the same scans, at other moments."""

    def __init__(self, tree: Path, beside: Path, *, scans: int, seconds: float, seed: int) -> None:
        self.tree, self.beside, self.seconds, self.seed = tree, beside, seconds, seed
        self.truth = Truth()
        weighted = [kind for kind, weight in kinds.KINDS.items() for _ in range(weight)]
        by_chance = random.Random(seed)
        self.kinds = [*kinds.KINDS][:scans]
        self.kinds += by_chance.choices(weighted, k=max(0, scans - len(self.kinds)))
        by_chance.shuffle(self.kinds)
        self._next = 0
        self._lock = threading.Lock()
        self._hands = [threading.Thread(target=self._hand, daemon=True) for _ in range(HANDS)]

    def start(self) -> None:
        self._begun = time.monotonic()
        for hand in self._hands:
            hand.start()

    def join(self) -> Truth:
        for hand in self._hands:
            hand.join()
        return self.truth

    @property
    def alive(self) -> bool:
        return any(hand.is_alive() for hand in self._hands)

    def _hand(self) -> None:
        while True:
            with self._lock:
                number, self._next = self._next, self._next + 1
            if number >= len(self.kinds):
                return
            time.sleep(max(0.0, self._begun + self.seconds * number / len(self.kinds) - time.monotonic()))
            self._shoot(number, self.kinds[number])

    def _shoot(self, number: int, kind: Callable[[Shot], None]) -> None:
        shot = Shot(self.tree, self.beside, number, self.seed, kind.__name__, self.truth)
        try:
            kind(shot)
        except Exception as error:  # noqa: BLE001 - told in the end, and wrong whatever it is
            self.truth.failed.append(f"scan {number} ({kind.__name__}) could not be written: {error!r}")
        self.truth.kinds[kind.__name__] += 1
