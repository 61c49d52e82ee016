"""What runs have read and made is in the catalog, once, whatever was killed in between."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import xxhash

from kernels import contract
from orchestrator.client import Client
from orchestrator.model import Run, RunStatus
from orchestrator.settings import Settings
from orchestrator.store import catalog, lineage, schema
from orchestrator.store.catalog import CatalogFile, FileKind, ReplicaState
from orchestrator.store.database import Database
from orchestrator.store.lineage import Role
from tests.conftest import submit, wait, workflow

Finish = Callable[..., Run]
COPY = {"command": "cat $filePath $mask > $out", "inputs": ["$mask"], "outputs": ["$out"]}
STAGED = workflow(
    s01={"transfer": {"from": "$filePath", "to": "$scratch/"}},
    s02={"kernel": "tomography.inspect", "arguments": {"input": "$scratch/scan.h5"}},
    s03={"command": "cp $scratch/scan.h5 $scratch/made", "outputs": ["$scratch/made"]},
    s04={"transfer": {"from": "$scratch/made", "to": "$archive/"}},
)


def xxh3(path: Path) -> str:
    return f"xxh3:{xxhash.xxh3_128_hexdigest(path.read_bytes())}"


def used(client: Client, run_id: str, timeout_s: float = 30.0) -> dict[tuple[Role, str], CatalogFile]:
    """(role, name) → file, once the run is in the catalog."""
    with Database(client.settings.database_url) as database:
        over = time.monotonic() + timeout_s
        while True:
            with database.read() as connection:
                uses = lineage.uses_of_runs(connection, [run_id])
                files = lineage.files(connection, [use.file_id for use in uses])
            if uses:
                return {(use.role, files[use.file_id].name): files[use.file_id] for use in uses}
            assert time.monotonic() < over, "the run never came into the catalog"
            time.sleep(0.05)


def made(tmp_path: Path) -> dict[str, str]:
    for name in ("raw", "mask"):
        (tmp_path / name).write_text(name)
    return {"filePath": str(tmp_path / "raw"), "mask": str(tmp_path / "mask"), "out": str(tmp_path / "out")}


def test_inputs_calibrations_and_products(shared_client: Client, finish: Finish, tmp_path: Path) -> None:
    arguments = made(tmp_path) | {"experimentName": "2026-3"}
    run = finish(shared_client, workflow(s01=COPY), arguments)
    assert run.status is RunStatus.DONE, run.error
    found = used(shared_client, run.id)
    assert {(role, Path(name).name): (f.kind, f.checksum) for (role, name), f in found.items()} == {
        (Role.INPUT, "raw"): (FileKind.RAW, xxh3(tmp_path / "raw")),
        (Role.CALIBRATION, "mask"): (FileKind.CALIBRATION, xxh3(tmp_path / "mask")),
        (Role.PRODUCT, "out"): (FileKind.PRODUCT, xxh3(tmp_path / "out")),
    }
    assert {f.experiment for f in found.values()} == {"2026-3"}
    assert found[Role.PRODUCT, str(tmp_path / "out")].maker == run.id


def test_copies_are_copies_and_the_checksum_that_arrived_is_carried_through(
    shared_client: Client, finish: Finish, tmp_path: Path
) -> None:
    raw = tmp_path / "scan.h5"
    small = {"columns": 32, "rows": 4, "angles": 30, "flats": 4}
    contract.run("tomography.simulate", {"output": str(raw), **small}, say=None)
    arguments = {
        "filePath": str(raw),
        "inputChecksum": xxh3(raw),
        "scratch": str(tmp_path / "scratch"),
        "archive": str(tmp_path / "archive"),
    }
    run = finish(shared_client, STAGED, arguments)
    assert run.status is RunStatus.DONE, run.error
    found = used(shared_client, run.id)
    assert set(found) == {(Role.INPUT, str(raw)), (Role.PRODUCT, str(tmp_path / "scratch/made"))}
    assert found[Role.INPUT, str(raw)].checksum == xxh3(raw)
    kernel = next(t for t in run.tasks.values() if t.stage == "02")
    assert kernel.outcome is not None
    assert [c.checksum for c in kernel.outcome.inputs] == [xxh3(raw)]
    assert "tomography.inspect" in kernel.outcome.software
    with Database(shared_client.settings.database_url) as database:
        copies = catalog.replicas(database, [f.id for f in found.values()])
        assert {(r.address, r.state) for r in copies} == {
            (str(tmp_path / name), ReplicaState.VERIFIED)
            for name in ("scan.h5", "scratch/scan.h5", "scratch/made", "archive/made")
        }


@pytest.mark.parametrize("stage", ["direct", "staged", "command"])
def test_another_content_than_arrived_is_never_done(
    shared_client: Client, finish: Finish, tmp_path: Path, stage: str
) -> None:
    arguments = made(tmp_path) | {"inputChecksum": "xxh3:" + 32 * "0", "scratch": str(tmp_path / "s")}
    definition = {
        "direct": workflow(s01=COPY),
        "staged": workflow(s01={"transfer": {"from": "$filePath", "to": "$scratch/"}}),
        "command": workflow(s01={"command": "cat $filePath"}),
    }[stage]
    run = finish(shared_client, definition, arguments)
    assert run.status is RunStatus.FAILED
    assert "is not what arrived" in run.error


def test_a_staged_copy_that_is_changed_is_never_read_silently(
    shared_client: Client, finish: Finish, tmp_path: Path
) -> None:
    arguments = made(tmp_path) | {"scratch": str(tmp_path / "s")}
    arguments["inputChecksum"] = xxh3(tmp_path / "raw")
    definition = workflow(
        s01={"transfer": {"from": "$filePath", "to": "$scratch/"}},
        s02={"command": "sleep 0.1; echo more >> $scratch/raw; cat $scratch/raw"},
    )
    run = finish(shared_client, definition, arguments)
    assert run.status is RunStatus.FAILED
    assert "is not what arrived" in run.error


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("server", ["sqlite", "postgresql"])
def test_killed_between_the_end_of_the_run_and_the_catalog(
    request: pytest.FixtureRequest,
    home: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    when: str,
    server: str,
) -> None:
    database = ""
    if server == "postgresql":
        database = request.getfixturevalue("postgres").new_database()
        with Database(database) as fresh:
            fresh.upgrade()
    mark = tmp_path / "killed"
    monkeypatch.setenv("BEAMWAY_DATABASE", database)
    monkeypatch.setenv("BEAMWAY_CRASH", f"catalog.write:{when}")
    monkeypatch.setenv("BEAMWAY_CRASH_MARK", str(mark))
    with Client(Settings(home=home, database=database)) as client:
        run = wait(client, submit(client, workflow(s01=COPY), made(tmp_path)))
        assert run.status is RunStatus.DONE, run.error
        over = time.monotonic() + 30.0
        while not os.path.exists(f"{mark}.catalog.write:{when}"):
            assert time.monotonic() < over, "nothing was killed"
            time.sleep(0.05)
        client.ensure_service()
        found = used(client, run.id)
        assert len(found) == 3
        again = wait(client, submit(client, workflow(s01=COPY), made(tmp_path)))  # the next one is written after it
        used(client, again.id)
        with Database(client.settings.database_url) as store, store.read() as connection:
            names = list(connection.execute(schema.catalog_files.select()).mappings())
            assert sorted(bytes(row["name"]) for row in names) == sorted(os.fsencode(n) for _, n in found)
        client.stop_service()
