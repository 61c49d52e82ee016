"""The demo finds what an earlier one left: a run to go on with, a scan to use again."""

from __future__ import annotations

import json
from pathlib import Path
from typing import cast

import pytest
from cli_samples import ID, FakeClient, done, running
from click.testing import CliRunner

from orchestrator.cli import demo, demo_facility
from orchestrator.client import Client
from orchestrator.errors import SettingsError


def left(where: Path, text: str) -> None:
    (where / "run.json").write_text(text, encoding="utf-8")


@pytest.mark.parametrize(("over", "found"), [(False, ID), (True, "")])
def test_an_unfinished_run_is_found(client: FakeClient, tmp_path: Path, over: bool, found: str) -> None:
    client.known[ID] = done() if over else running()
    left(tmp_path, json.dumps({"run": ID}))
    assert demo._unfinished(cast(Client, client), tmp_path) == found


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"run": "x"}', '{"run": 3}', '{"run": null}'])
def test_a_broken_note_is_no_note(client: FakeClient, tmp_path: Path, text: str) -> None:
    left(tmp_path, text)
    assert demo._unfinished(cast(Client, client), tmp_path) == ""


def test_a_scan_is_whole_when_shape_and_sizes_agree(tmp_path: Path) -> None:
    shape = demo.SIZES["small"]
    file = tmp_path / "scan.h5"
    file.write_bytes(b"1234")
    manifest = {"arguments": {n: int(v) for n, v in shape.items()}, "outputs": [{"path": str(file), "bytes": 4}]}
    assert not demo._whole(tmp_path, shape)
    (tmp_path / "scan.h5.manifest.json").write_text(json.dumps(manifest), encoding="utf-8")
    assert demo._whole(tmp_path, shape)
    assert not demo._whole(tmp_path, demo.SIZES["standard"])
    file.write_bytes(b"123")
    assert not demo._whole(tmp_path, shape)


def test_the_record_keeps_the_error_of_the_run_beside_that_of_the_volume(tmp_path: Path) -> None:
    record = demo._record(done(), tmp_path, 1.0, 2.0)
    assert record["error"] == ""
    assert record["relative_error"] is None
    assert (record["scan_s"], record["total_s"], record["directory"]) == (1.0, 2.0, str(tmp_path))


def test_without_the_parts_of_a_facility_it_says_which(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(demo_facility, "PATH", str(tmp_path))
    told = CliRunner().invoke(demo.demo, ["--facility", "--directory", str(tmp_path / "demo")])
    assert isinstance(told.exception, SettingsError)
    assert "GridFTP needs globus-gridftp-server (Debian: globus-gridftp-server-progs)" in str(told.exception)
    assert not (tmp_path / "demo").exists()
    assert CliRunner().invoke(demo.demo, ["--facility", "--site", "local"]).exit_code == 2
