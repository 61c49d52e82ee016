"""A run whose data come from one GridFTP server and go to another."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from orchestrator.client import Client
from orchestrator.model import Run, RunStatus
from tests.conftest import workflow
from tests.gridftp import Gridftp, missing


@pytest.mark.skipif(bool(missing()), reason=missing())
def test_stage_in_compute_stage_out(client: Client, finish: Callable[..., Run], tmp_path: Path) -> None:
    with Gridftp() as beamline, Gridftp() as archive:
        (beamline.root / "scan 1.txt").write_text("1 2 3\n")
        definition = workflow(
            s01={"transfer": {"from": beamline.url("scan 1.txt"), "to": "in.txt"}, "workingDir": str(tmp_path)},
            s02={"command": "rev in.txt > out.txt", "workingDir": str(tmp_path)},
            s03={"transfer": {"from": "out.txt", "to": archive.url() + "$sample/"}, "workingDir": str(tmp_path)},
        )
        run = finish(client, definition, {"sample": "glass bead"})
        assert run.status is RunStatus.DONE, run.error
        assert (archive.root / "glass bead" / "out.txt").read_text() == "3 2 1\n"
