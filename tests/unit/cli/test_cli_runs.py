"""The commands about runs, without a service: what they ask of the client, and what they print."""

from __future__ import annotations

import json
import time
from datetime import UTC, datetime
from pathlib import Path

import pytest
from cli_samples import ID, T0, Beamway, FakeClient, done, failed, held, running
from immutables import Map
from msgspec.structs import replace

from orchestrator.cli import formats, times
from orchestrator.errors import ArgumentError
from orchestrator.model import Product, RunStatus

NOON = datetime(2026, 11, 21, 12).astimezone().timestamp()


def test_run_prints_the_line_that_scripts_of_dm_cut(client: FakeClient, beamway: Beamway) -> None:
    said = beamway("run", "recon", "filePath:/data/a.h5", "n:-3", "--id", ID.upper(), "--strict")
    assert said.exit_code == 0
    assert said.out == f"id={ID} owner=ann status=pending \n"
    assert client.asked == [("plan", json.dumps({"filePath": "/data/a.h5", "n": "-3"}), "True"), ("submit", ID)]


def test_run_with_json(client: FakeClient, beamway: Beamway) -> None:
    assert beamway("run", "recon", "--json").json == {"id": ID, "owner": "ann", "status": "pending"}


def test_run_and_wait_with_json_is_one_object(client: FakeClient, beamway: Beamway) -> None:
    said = beamway("run", "recon", "--wait", "--json")
    assert (said.exit_code, said.err) == (0, "")
    record = said.json
    assert (record["id"], record["status"]) == (ID, "done")
    assert [s["name"] for s in record["stages"]] == ["01-A", "02-B"]
    assert record["outputs"] == [{"path": "/data/out.h5", "bytes": 2048, "description": "the volume", "stage": "02-B"}]
    assert record["created_at"] == "2025-11-21T04:40:00.000+00:00"
    assert record["metrics"] == {"02-B": {"axis": 12.5}}
    assert record["warnings"][0] == {"stage": "02-B", "warning": "axis: not certain"}


def test_run_and_wait_with_json_of_a_run_that_fails(client: FakeClient, beamway: Beamway) -> None:
    client.known[ID] = failed()
    said = beamway("run", "recon", "--wait", "--json")
    assert (said.exit_code, said.err) == (1, "")
    assert said.json["status"] == "failed"
    assert said.json["outputs"] == []


def test_run_and_wait_without_a_terminal(client: FakeClient, beamway: Beamway) -> None:
    client.known[ID] = done()
    said = beamway("run", "recon", "--wait")
    assert said.exit_code == 0
    assert "/data/out.h5" in said.out
    assert "warning of 02-B: axis: not certain" in said.out
    assert "\x1b" not in said.out


def test_costs_of_a_stage(client: FakeClient, beamway: Beamway) -> None:
    client.known[ID] = done()
    stage = beamway("show", "last", "--json").json["stages"][0]
    assert {k: stage[k] for k in ("queue_s", "transfer_s", "compute_s", "checks_s", "wall_s")} == {
        "queue_s": 1.0,
        "transfer_s": 1.0,
        "compute_s": 2.5,
        "checks_s": 0.5,
        "wall_s": 6.0,
    }


def test_show(client: FakeClient, beamway: Beamway) -> None:
    client.known[ID] = failed()
    said = beamway("show", "3f2a")
    assert said.exit_code == 0
    assert "error stage '01-A': it ended with 3" in said.out
    assert "arguments filePath:/data/a.h5" in said.out
    assert "queue s" in said.out


def test_show_as_dm(client: FakeClient, beamway: Beamway) -> None:
    client.known[ID] = done()
    assert beamway("show", "last", "--dm").out == f"id={ID} owner=ann status=done \n"
    assert beamway("show", "last", "--dm", "--display-keys", "status,owner").out == "status=done owner=ann \n"
    everything = beamway("show", "last", "--dm", "--display-keys", "ALL").out
    assert everything.endswith(" \n")
    assert "submissionTimestamp=" in everything
    record = beamway("show", "last", "--dm", "--json").json
    assert record["submissionTime"] == T0
    assert record["countFiles"] == 0
    assert beamway("show", "last", "--dm", "--json", "--display-keys", "id").json == {"id": ID}


def test_a_hostile_file_name_stays_on_its_line(client: FakeClient, beamway: Beamway) -> None:
    path = "/data/\x1b[2Jevil\nname\udcff.h5"
    run = done()
    ended = run.tasks[1]
    assert ended.outcome is not None
    outcome = replace(ended.outcome, products=(Product(path, 1),))
    client.known[ID] = replace(run, tasks=run.tasks.set(1, replace(ended, outcome=outcome)))
    said = beamway("show", "last")
    assert "\x1b" not in said.out
    assert "\\x1b[2Jevil\\nname" in said.out
    assert beamway("show", "last", "--json").json["outputs"][0]["path"] == path


def test_ls(client: FakeClient, beamway: Beamway) -> None:
    assert beamway("ls").out == "No runs.\n"
    client.known[ID] = running()
    said = beamway("ls", "--status", "running", "--workflow", "recon", "--limit", "7")
    assert client.asked[-1] == ("runs", "status=running", "workflow=recon", "7")
    assert ID in said.out
    (line,) = beamway("ls", "--json").json
    assert (line["id"], line["status"], line["ended_at"]) == (ID, "running", None)


def test_ls_by_file_experiment_and_time(
    client: FakeClient, beamway: Beamway, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for text, file in (("scan", "scan"), ("./a/../b", f"{tmp_path}/b"), ("b/", f"{tmp_path}/b/"), ("/d", "/d")):
        assert beamway("ls", "--file", text, "--experiment", "e").exit_code == 0
        assert client.asked[-1] == ("runs", "experiment=e", f"file={file}", "20")
    begun = time.time()
    assert beamway("ls", "--since", "2h", "--until", "2000-02-29").exit_code == 0
    since, until = (float(text.partition("=")[2]) for text in client.asked[-1][1:3])
    assert begun - 7200 <= since <= time.time() - 7200
    assert until == datetime(2000, 3, 1).astimezone().timestamp()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("90", NOON - 90),
        ("2 h", NOON - 7200),
        ("3d", NOON - 3 * 86_400),
        ("11:59", NOON - 60),
        ("12:01", NOON + 60 - 86_400),
        ("2026-11-21", NOON - 43_200),
        ("2026-11-20T12:00", NOON - 86_400),
        ("2026-11-21T12:00+00:00", datetime(2026, 11, 21, 12, tzinfo=UTC).timestamp()),
    ],
)
def test_times_in_the_past(text: str, expected: float) -> None:
    assert times.past(text, NOON) == expected


@pytest.mark.parametrize("text", ["", "yesterday", "2026-13-01", "25:00", "-2h", "9999-12-31", "2h ago"])
def test_what_is_no_time(text: str) -> None:
    with pytest.raises(ArgumentError, match="is no time"):
        times.past(text, NOON, whole_day=True)


def test_cancel_and_retry(client: FakeClient, beamway: Beamway) -> None:
    client.known[ID] = running()
    assert beamway("cancel", "last", "--json").json == {"id": ID, "status": "aborting"}
    assert beamway("retry", "last", "--from", "02-B", "--json").json == {"id": ID, "status": "running"}
    assert client.asked == [("cancel", ID), ("retry", ID, "02-B")]


def test_cancel_and_wait(client: FakeClient, beamway: Beamway) -> None:
    client.known[ID] = running()
    client.follows = lambda run_id: iter([replace(running(), status=RunStatus.ABORTED)])
    assert beamway("cancel", "last", "--wait", "--json").json == {"id": ID, "status": "aborted"}
    client.follows = lambda run_id: iter([done()])
    assert beamway("cancel", "last", "--wait").exit_code == 5


def test_why(client: FakeClient, beamway: Beamway) -> None:
    client.known[ID] = failed()
    said = beamway("why", "last")
    assert said.out.startswith("Stage '01-A' failed: it ended with 3.")
    assert f"beamway logs {ID} 0 --stderr" in said.out
    record = beamway("why", "last", "--json").json
    assert set(record) == {"id", "status", "why", "since", "contact", "next", "details"}


def test_logs(client: FakeClient, beamway: Beamway, tmp_path: Path) -> None:
    client.known[ID] = done()
    directory = client.settings.home / "runs" / ID / "logs"
    directory.mkdir(parents=True)
    (directory / "0.1.out").write_bytes(b"first \xff\n")
    (directory / "1.1.out").write_text("second\n")
    (directory / "1.1.err").write_text("trouble\n")
    assert beamway("logs", "last", "1").out == "second\n"
    assert beamway("logs", "last", "02-B", "--stderr").out == "trouble\n"
    both = beamway("logs", "last").out
    assert both.index("── 0 01-A") < both.index("first") < both.index("── 1 02-B") < both.index("second")
    assert beamway("logs", "last", "-f").out == both
    first, second = beamway("logs", "last", "--json").json
    assert (first["stdout"], second["stderr"]) == ("first \ufffd\n", "trouble\n")


def test_status_and_down(client: FakeClient, beamway: Beamway) -> None:
    record = beamway("status", "--json").json
    assert record["service"] == {"pid": 1, "version": "1", "active": 1}
    assert record["agents"] == ["local"]
    assert record["runs"] == {"done": 2, "failed": 1}
    assert "2 done, 1 failed" in beamway("status").out
    assert beamway("down", "--json").json == {"stopped": True}
    client.pong = None
    assert "none runs" in beamway("status").out
    assert beamway("status", "--json").json["service"] is None
    assert beamway("down").out == "No service ran.\n"


def test_a_run_without_stages_yet(client: FakeClient, beamway: Beamway) -> None:
    client.known[ID] = replace(running(), status=RunStatus.PENDING, stages=Map(), tasks=Map(), started_at=0.0)
    assert beamway("show", "last").exit_code == 0
    assert [s["status"] for s in beamway("show", "last", "--json").json["stages"]] == ["pending", "pending"]


@pytest.mark.parametrize(
    ("seconds", "text"), [(None, "-"), (0.5, "0.50 s"), (59.94, "59.9 s"), (60, "1 min 00 s"), (7322, "2 h 02 min")]
)
def test_durations(seconds: float | None, text: str) -> None:
    assert formats.duration(seconds) == text


def test_a_hold_is_shown_with_its_reason(client: FakeClient, beamway: Beamway) -> None:
    client.known[ID] = held()
    assert "on hold nobody answers" in beamway("show", ID).out
    record = beamway("show", ID, "--json").json
    (hold,) = record["holds"]
    assert (record["status"], hold["cause"], hold["since"]) == ("held", "site down", "2025-11-21T04:40:03.000+00:00")


def test_resume_of_a_run_and_of_a_site(client: FakeClient, beamway: Beamway) -> None:
    client.known[ID] = held()
    assert beamway("resume", "last").out == "1 run tried again.\n"
    assert beamway("resume", "--site", "far", "--json").json == {"runs": [ID]}
    assert client.asked == [("resume", ID, ""), ("resume", "", "far")]
    assert beamway("resume").exit_code == 2
    assert beamway("resume", ID, "--site", "far").exit_code == 2


def test_run_with_a_priority(client: FakeClient, beamway: Beamway) -> None:
    assert beamway("run", "recon", "--priority", "live").exit_code == 0
    assert ("placing", "priority=live") in client.asked
    assert beamway("run", "recon", "--priority", "urgent").exit_code == 2
