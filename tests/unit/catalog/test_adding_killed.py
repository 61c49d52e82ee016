"""`beamway file add` killed at any moment, and asked again: each file once, and whole."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import time
from pathlib import Path

from orchestrator.store import catalog, catalog_search
from orchestrator.store.catalog_search import Match, Wanted
from orchestrator.store.database import Database
from orchestrator.store.experiments import Experiment, create

FILES = 60


def test_killed_and_asked_again(tmp_path: Path) -> None:
    home, folder = tmp_path / "home", tmp_path / "data"
    home.mkdir(mode=0o700)
    folder.mkdir()
    for number in range(FILES):
        (folder / f"scan_{number:03}.txt").write_text(f"{number}")
    chance = random.Random(5)
    with Database(f"sqlite:///{home}/beamway.db") as database:
        database.upgrade()
        create(database, Experiment("smith"))
        words = [sys.executable, "-m", "orchestrator.cli", "file", "add", *map(str, sorted(folder.iterdir()))]
        words += ["--experiment", "smith", "--meta", "sample:bone", "--meta", "n:7"]
        environment = {**os.environ, "BEAMWAY_HOME": str(home), "BEAMWAY_DATABASE": database.url}
        for _ in range(3):
            adding = subprocess.Popen(words, env=environment, stdout=subprocess.DEVNULL)
            wanted = catalog.number_of_files(database) + chance.randrange(1, 12)
            over = time.monotonic() + 50
            while catalog.number_of_files(database) < min(wanted, FILES - 1) and time.monotonic() < over:
                time.sleep(0.002)
            adding.kill()
            adding.wait()
        assert 0 < catalog.number_of_files(database) <= FILES
        _whole(database, catalog.number_of_files(database))
        assert subprocess.run(words, env=environment, stdout=subprocess.DEVNULL, check=False).returncode == 0
        _whole(database, FILES)


def _whole(database: Database, count: int) -> None:
    """Each is found by every way, and its copy is there."""
    wanted = Wanted(
        ("smith",), "raw", "scan_", matches=(Match("sample", "bone"), Match("n", low=7.0)), copies="verified"
    )
    found = catalog_search.listing(database, wanted, limit=1000, longest_s=60.0).files
    assert len(found) == len({file.name for file in found}) == count
