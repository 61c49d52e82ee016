"""What a run is told of the file that it is begun for."""

from __future__ import annotations

from orchestrator.client import arrived
from orchestrator.store.arrivals import Arrival, ArrivalState


def told(path: str, checksum: str) -> dict[str, str]:
    place = ("w", "e", b"\0", "scans/a.h5", (1, 2, 3, 4), ArrivalState.DUE)
    return arrived._content(Arrival(*place, arguments={"filePath": path}, checksum=checksum))


def test_a_run_must_find_the_content_that_arrived() -> None:
    assert told("/raw/scans/a.h5", "xxh3:1f") == {"inputChecksum": "xxh3:1f"}


def test_nothing_is_said_of_another_file_or_of_one_that_was_not_read() -> None:
    assert told("/raw/scans/other.h5", "xxh3:1f") == {}
    assert told("/raw/scans/a.h5", "") == {}
