"""Dead letters in the whole product: a run that failed is mended, sent again, and its place taken."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from orchestrator.cli import bulk
from orchestrator.client import Client
from orchestrator.errors import ArgumentError, NotFound
from orchestrator.model import RunStatus
from tests.conftest import submit, wait, workflow


def mends(door: Path) -> dict[str, Any]:
    """Makes something, then fails until the file `door` is there, or `word` is right."""
    command = f"echo x >>{door}.first"
    made = workflow(s1={"command": command}, s2={"command": f"test -e {door} || test $word = right"})
    return made | {"arguments": {"word": {"default": "wrong", "choices": ["wrong", "right"]}}}


def listed(client: Client) -> list[str]:
    return [letter.run_id for letter in client.dead()]


def test_without_a_fix_the_run_itself_goes_on(shared_client: Client, tmp_path: Path) -> None:
    door = tmp_path / "door"
    run_id = submit(shared_client, mends(door), {"word": "wrong"})
    assert wait(shared_client, run_id).status is RunStatus.FAILED
    (letter,) = [x for x in shared_client.dead(site="local") if x.run_id == run_id]
    assert (letter.stage, letter.failure) == ("2", "user error")
    door.touch()
    assert shared_client.resend(run_id) == run_id
    assert wait(shared_client, run_id).status is RunStatus.DONE
    assert Path(f"{door}.first").read_text() == "x\n", "what passed was kept"
    assert run_id not in listed(shared_client)


def test_with_a_fix_another_run_takes_its_place(shared_client: Client, tmp_path: Path) -> None:
    run_id = submit(shared_client, mends(tmp_path / "door"), {"word": "wrong"})
    wait(shared_client, run_id)
    with pytest.raises(ArgumentError):
        shared_client.fix(run_id, {"word": "left"})
    shared_client.fix(run_id, {"word": "right"})
    again = shared_client.resend(run_id)
    assert again != run_id
    run = wait(shared_client, again)
    assert (run.status, run.instead_of, run.plan.variables["word"]) == (RunStatus.DONE, run_id, "right")
    assert shared_client.run(run_id).status is RunStatus.FAILED
    assert not {run_id, again} & set(listed(shared_client))
    with pytest.raises(NotFound, match="not on the list"):
        shared_client.resend(run_id)


def test_one_that_fails_again_is_on_the_list_again(shared_client: Client, tmp_path: Path) -> None:
    run_id = submit(shared_client, mends(tmp_path / "door"), {"word": "wrong"})
    wait(shared_client, run_id)
    shared_client.resend(run_id)
    assert wait(shared_client, run_id).status is RunStatus.FAILED
    assert run_id in listed(shared_client)
    shared_client.dismiss(run_id)
    assert run_id not in listed(shared_client)


def test_many_are_found_page_by_page_and_cancelled(
    client: Client, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(bulk, "PAGE", 2)
    plan = {"name": "test", "owner": "tester", "stages": {"1": {"command": "sleep 1000"}}}
    ids = [submit(client, plan, {"experimentName": name}) for name in ("e1", "e1", "e1", "e2")]
    which = bulk.Which(since="1h", experiment="e1", site="local")
    assert which.going(client) == ids[2::-1]

    def end(run_id: str) -> str:
        client.cancel(run_id)
        return run_id

    assert bulk.carry_out(which.going(client), end, done="cancelled", dry_run=False, as_json=False) == 0
    assert capfd.readouterr().out == "3 of 3 runs cancelled.\n"
    assert {wait(client, i).status for i in ids[:3]} == {RunStatus.ABORTED}
    assert bulk.Which().going(client) == ids[3:]
    client.cancel(ids[3])
    wait(client, ids[3])
