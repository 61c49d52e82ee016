"""One scan in the making: its own chance, its own names, and what is noted of it."""

from __future__ import annotations

import os
import random
import time
from pathlib import Path

from tests.chaos.arrivals import scans
from tests.chaos.arrivals.scans import Frames
from tests.chaos.arrivals.truth import INCOMPLETE, WHOLE, Content, Item, Truth

HOSTILE = [
    "{}",
    "{}",
    "{}",
    "{}",
    "a b {}",
    "-{}",
    "ü{}",
    "{}$(x);&",
    "{}\n",
    "%2e{}",
    "\udcff\udcfe{}",
    "'{}\"",
    "$id {}",
]


class Shot:
    def __init__(self, tree: Path, beside: Path, number: int, seed: int, kind: str, truth: Truth) -> None:
        self.tree, self.beside, self.number, self.kind, self.truth = tree, beside, number, kind, truth
        self.chance = random.Random(f"{seed}:{number}")
        self._made = 0

    # ---- names and content

    def name(self, rule: str, ending: str) -> str:
        """A new name below the folder of that rule, in a folder that may be new as well."""
        self._made += 1
        levels = [f"{self.chance.choice('abc')}{self.chance.randrange(5)}" for _ in range(self.chance.randrange(4))]
        if self.chance.random() < 0.3:
            levels.append(f"new-{self.number}")
        name = "/".join([rule, *levels, self.called(rule != "eiger") + ending])
        self.path(name).parent.mkdir(parents=True, exist_ok=True)
        return name

    def called(self, hostile: bool) -> str:
        return self.chance.choice(HOSTILE if hostile else HOSTILE[:1]).format(f"scan_{self.number:05}_{self._made}")

    def path(self, name: str) -> Path:
        return self.tree / name

    @property
    def seed(self) -> int:
        return self.chance.getrandbits(31)

    def frames(self) -> Frames:
        return scans.frames(self.seed, self.chance.randrange(6, 20))

    def rest(self, least_s: float, most_s: float) -> None:
        time.sleep(self.chance.uniform(least_s, most_s))

    def slowly(self, name: str, data: Frames) -> None:
        """In place, frame by frame, the writer alive for up to a second after the last."""
        step_s = self.chance.choice((0.0, 0.0, 0.02, 0.05, 0.1))
        last = len(data) - 1
        late_s = self.chance.choice((0.0, 0.0, 0.3, 1.0))

        def after(number: int) -> None:
            time.sleep(late_s if number == last else step_s)

        scans.dxchange(self.path(name), data, after=after, swmr=self.chance.random() < 0.3)

    def scan(self, rule: str = "") -> tuple[str, Content]:
        """A whole one, written somehow; not noted down yet."""
        rule = rule or self.chance.choice(("scans", "scans", "tomo"))
        name, data = self.name(rule, ".h5"), self.frames()
        self.slowly(name, data)
        return name, self.content(name, scans.proof(data))

    def content(self, name: str, proof: str) -> Content:
        return Content(scans.checksum(self.path(name)), proof, self.kind)

    # ---- what is noted

    def whole(self, name: str, content: Content) -> None:
        self.truth.content(content)
        self.truth.item(Item(name, self.kind, WHOLE, checksum=content.checksum))

    def broken(self, name: str, *words: str) -> None:
        self.truth.item(Item(name, self.kind, INCOMPLETE, words))

    def gone(self, name: str, content: Content) -> None:
        """Its content may have run before it went."""
        self.truth.passed(name)
        self.truth.content(content._replace(stays=False))

    def move(self, old: str, new: str) -> None:
        self.path(new).parent.mkdir(parents=True, exist_ok=True)
        os.rename(self.path(old), self.path(new))
