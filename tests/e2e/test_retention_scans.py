"""A scan of several files from its arrival to the archive and back: it goes as a whole, or stays as a whole."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from orchestrator.client import Client
from orchestrator.settings import Settings
from orchestrator.store.watches import Wish
from tests.chaos.arrivals import scans
from tests.e2e.test_retention import E, Facility
from tests.e2e.test_watch import until
from tests.gridftp import Gridftp, missing

pytestmark = pytest.mark.skipif(bool(missing()), reason=missing())
NAMES = ("s_master.h5", "s_data_000001.h5", "s_data_000002.h5")
RULES = """
workflow = "look"
match = "{scan}_master.h5"
parts = { pattern = "{scan}_data_{index:06}.h5", links = "/entry/data" }
ready = { settle_s = 0.2 }
"""
KEEP = '[[rule]]\nname = "raw"\nkinds = "raw"\nplaces = "local"\nkeep = "0"\nelsewhere = "archive"\n'


class Beamline(Facility):
    """Where a detector has written a scan of three files, and a run has read it."""

    def __init__(self, home: Path, server: Gridftp) -> None:
        super().__init__(home, server)
        (home / "retention.toml").write_text(f'[place.archive]\naddress = "{server.url()}"\n{KEEP}')
        (home / "workflows").mkdir(exist_ok=True)
        look = {"name": "look", "owner": "o", "stages": {"1": {"command": "cat $filePath >/dev/null"}}}
        (home / "workflows" / "look.py").write_text(repr(look))
        self.frames = [np.full((2, 3, 3), number, np.uint16) for number in (1, 2)]
        for name, frames in zip(NAMES[1:], self.frames, strict=True):
            scans.eiger_part(self.data / name, frames)
        scans.eiger_master(self.data / NAMES[0], list(NAMES[1:]))
        with Client(Settings(home=home)) as client:
            client.watches.put(Wish(RULES, directory=str(self.data), experiment=E))
            until(lambda: client.counts().get("done", 0) == 1, f"{client.counts()} {client.watches.arrivals()}")
            client.watches.stop(E)
            client.stop_service()

    @property
    def there(self) -> list[str]:
        return sorted(path.name for path in self.data.iterdir())

    def ids(self) -> dict[str, int]:
        return {os.path.basename(file["name"]): file["id"] for file in self.beamway("file", "ls", "--experiment", E)}

    def verdicts(self, *words: str, exit_code: int = 0) -> dict[str, Any]:
        said = self.beamway("retention", "apply", *words, exit_code=exit_code)
        return {os.path.basename(each["name"]): each for each in said["copies"]}


@pytest.fixture
def beamline(home: Path) -> Iterator[Beamline]:
    with Gridftp() as server:
        yield Beamline(home, server)


def test_a_scan_goes_and_comes_back_as_a_whole(beamline: Beamline) -> None:
    ids = beamline.ids()
    assert sorted(ids) == sorted(NAMES)
    shown = beamline.beamway("file", "show", str(ids[NAMES[0]]))
    assert [(part["id"], part["size"]) for part in shown["parts"]] == [
        (ids[name], (beamline.data / name).stat().st_size) for name in NAMES[1:]
    ]
    shown = beamline.beamway("file", "show", str(beamline.data / NAMES[2]))
    assert (shown["part_of"], shown["copies"][0]["state"]) == (ids[NAMES[0]], "verified")
    archived = beamline.beamway("archive", str(ids[NAMES[1]]), "--to", "archive")
    assert archived["bytes"] == sum((beamline.data / name).stat().st_size for name in NAMES)  # a part is named

    rotten = beamline.archived(beamline.data / NAMES[2])
    content = rotten.read_bytes()
    rotten.write_bytes(bytes([content[0] ^ 1]) + content[1:])
    refused = beamline.verdicts("--yes", exit_code=1)
    assert {name: (each["verdict"], each["trouble"]) for name, each in refused.items()} == {
        NAMES[0]: ("refused", ""),
        NAMES[1]: ("refused", ""),
        NAMES[2]: ("refused", "corrupted"),
    }
    for name in NAMES[:2]:
        assert refused[name]["reason"].startswith(
            f"file {ids[NAMES[2]]} of its scan ({NAMES[2]}): the copy at 'archive'"
        )
        [row, *_] = beamline.beamway("retention", "log", "--file", str(ids[name]))
        assert (row["verdict"], row["reason"]) == ("refused", refused[name]["reason"])
    assert beamline.there == sorted(NAMES)
    plan = [each for each in beamline.beamway("retention", "plan") if each["place"] == "local"]
    assert {each["verdict"] for each in plan} == {"keep"}
    assert all("archive is corrupted" in each["reason"] for each in plan)
    rotten.unlink()
    beamline.beamway("archive", "--experiment", E, "--to", "archive")

    words = [sys.executable, "-m", "orchestrator.cli", "retention", "apply", "--yes"]
    environment = {**os.environ, "BEAMWAY_HOME": str(beamline.home), "BEAMWAY_CRASH": "copy.aside:after"}
    died = subprocess.run(words, env=environment, capture_output=True, check=False)
    assert died.returncode == -signal.SIGKILL
    assert len([name for name in beamline.there if name.endswith(".pruned")]) == 1
    done = beamline.verdicts("--yes")
    assert {each["verdict"] for each in done.values()} == {"pruned"}
    assert (len(done), beamline.there) == (3, [])

    assert beamline.beamway("restore", str(ids[NAMES[0]]))["refused"] == 0
    assert beamline.there == sorted(NAMES)
    for found, frames in zip(scans.read(str(beamline.data / NAMES[0])), beamline.frames, strict=True):
        np.testing.assert_array_equal(found, frames)
    with h5py.File(beamline.data / NAMES[0]) as master:
        assert len(master["entry/data"]) == 2
