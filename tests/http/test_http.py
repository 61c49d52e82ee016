"""The service over HTTP: real process, real client, real agent."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import threading
import time
import uuid
from pathlib import Path
from typing import Any

import httpx2
import pytest

from orchestrator import written
from orchestrator.client import Client
from orchestrator.definition import loader
from orchestrator.errors import Conflict, Denied, NotFound, Unavailable, UserError
from orchestrator.model import Placing, RunStatus
from tests.conftest import submit, wait, workflow
from tests.http.conftest import Running


def hello(**more: Any) -> dict[str, Any]:
    return workflow(s01={"command": "echo value=$word", "outputVariableRegexList": ["value=(?P<v>.*)"]}, **more)


def test_the_client_is_the_same_over_http(running: Running, tmp_path: Path) -> None:
    with running.client() as client:
        definition = loader.load(hello(s02={"command": f"echo $v > {tmp_path}/out", "outputs": [f"{tmp_path}/out"]}))
        plan = client.plan(definition, {"word": "seven"}, directory=str(tmp_path))
        run_id = client.submit(plan)
        run = wait(client, run_id)
        assert run.status is RunStatus.DONE, run.error
        assert (tmp_path / "out").read_text() == "seven\n"
        assert run.variables["v"] == "seven"
        assert client.find(run_id[:8]) == run_id
        assert run_id in {line.id for line in client.runs(limit=100)}
        assert client.ended([run_id, str(uuid.uuid4())]) == {run_id}
        assert client.counts()["done"] >= 1
        assert "done" in client.why(run_id).sentence
        assert client.events(run_id)[0].kind == "run begun"
        assert client.service() is not None


def test_a_run_ends_cancelled_and_is_tried_again(running: Running, tmp_path: Path) -> None:
    with running.client() as client:
        run_id = submit(client, workflow(s01={"command": f"[ -e {tmp_path}/go ] || sleep 1000"}))
        client.cancel(run_id, "enough")
        assert wait(client, run_id).status is RunStatus.ABORTED
        (tmp_path / "go").touch()
        client.retry(run_id)
        assert wait(client, run_id).status is RunStatus.DONE
        with pytest.raises(Conflict):
            client.cancel(run_id)
        with pytest.raises(NotFound):
            client.run(str(uuid.uuid4()))


def test_named_workflows_come_from_the_service(running: Running) -> None:
    (running.home / "workflows").mkdir(exist_ok=True)
    (running.home / "workflows" / "greet.py").write_text(repr(hello() | {"name": "greet"}))
    with running.client("user") as client:
        plan = client.plan(client.definition("greet"), {"word": "hi"})
        run = wait(client, client.submit(plan))
        assert (run.status, run.variables["v"]) == (RunStatus.DONE, "hi")
        with pytest.raises(Denied, match="may not define"):
            client.plan(loader.load(hello()), {"word": "hi"})


def test_what_each_role_may(running: Running) -> None:
    with running.client("author") as author:
        run_id = submit(author, workflow(s01={"command": "sleep 1000"}))
    with running.client("user") as other, pytest.raises(Denied, match="change anyone's runs"):
        other.cancel(run_id)
    with running.client("viewer") as viewer:
        assert viewer.run(run_id).username == "a author"
        with pytest.raises(Denied):
            viewer.cancel(run_id)
    with running.client("author") as author:
        author.cancel(run_id)
        assert wait(author, run_id).status is RunStatus.ABORTED
    assert running.ask("GET", "/runs", "agent").status_code == 403
    assert running.ask("POST", "/sites/elsewhere/agents", "agent", content="[]").status_code == 403
    assert running.ask("GET", "/tokens", "operator").status_code == 403


def test_a_hold_is_seen_and_resumed_over_http(running: Running, tmp_path: Path) -> None:
    door = tmp_path / "door"
    retries = {"authentication": {"exitCodes": [77]}}
    asks = "{ echo Sign in at https://sign.in >&2; exit 77; }"
    held = workflow(s01={"command": f"test -e {door} || {asks}", "retries": retries})
    with running.client("author") as author:
        run_id = submit(author, held)
        over = time.monotonic() + 60
        while not author.runs(status="held"):
            assert time.monotonic() < over
            time.sleep(0.05)
        said = author.why(run_id)
        assert "on hold" in said.sentence
        assert said.next.startswith("Sign in at https://sign.in. ")
        (hold,) = running.ask("GET", f"/runs/{run_id}").json()["holds"]
        assert (hold["cause"], hold["link"]) == ("authentication", "https://sign.in")
        assert hold["next_attempt"] > hold["since"]
        door.touch()
        with pytest.raises(Denied):
            author.resume(site="local")
        assert author.resume(run_id) == (run_id,)
        assert wait(author, run_id).status is RunStatus.DONE
    with running.client("operator") as operator:
        assert operator.resume(site="local") == ()
        service = operator.service()
        assert service is not None
        assert service.shut == {}


def test_dead_letters_over_http(running: Running, tmp_path: Path) -> None:
    made = workflow(s01={"command": "test $word = right"})
    made |= {"arguments": {"word": {"choices": ["wrong", "right"]}}}
    with running.client("author") as author:
        run_id = submit(author, made, {"word": "wrong"})
        wait(author, run_id)
        assert run_id in [x.run_id for x in author.dead(site="local")]
    with running.client("user") as other:
        assert other.letter(run_id).failure == "user error"
        with pytest.raises(Denied):
            other.dismiss(run_id)
    with running.client("author") as author:
        with pytest.raises(UserError):
            author.fix(run_id, {"word": "left"})
        assert author.fix(run_id, {"word": "right"}).fixes == {"word": "right"}
        again = wait(author, author.resend(run_id))
        assert (again.status, again.instead_of) == (RunStatus.DONE, run_id)
        with pytest.raises(NotFound):
            author.letter(run_id)


def test_a_priority_goes_over_http(running: Running) -> None:
    with running.client("author") as author:
        plan = author.plan(loader.load(hello()), {"word": "hi"}, placing=Placing(priority="live"))
        run = author.run(author.submit(plan))
    assert run.plan.stages[0].placing.priority == "live"


def test_nobody_gets_in_without_a_good_token(running: Running) -> None:
    paths = httpx2.get(f"{running.url}/api/v1/openapi.json").json()["paths"]
    assert len(paths) > 20
    for path, methods in paths.items():
        for method in methods:
            answer = httpx2.request(method, running.url + path.replace("{", "").replace("}", ""))
            expected = (200, 503) if path.startswith("/health/") else (401,)
            assert answer.status_code in expected, (method, path, answer.status_code)
    for text in ("", "Bearer", "Bearer x", "Bearer bw_x_y", "Basic eDp5", f"Bearer {running.tokens['viewer']}x"):
        answer = httpx2.get(f"{running.url}/api/v1/runs", headers={"authorization": text})
        assert answer.status_code in (401, 403), text
        assert answer.headers["content-type"] == "application/problem+json"


def test_a_token_is_made_and_ends(running: Running) -> None:
    made = running.ask("POST", "/tokens", "admin", json={"name": "guest", "role": "viewer", "lasts_s": 600}).json()
    headers = {"authorization": f"Bearer {made['token']}"}
    assert httpx2.get(f"{running.url}/api/v1/counts", headers=headers).status_code == 200
    assert made["token"] not in running.ask("GET", "/tokens", "admin").text
    assert running.ask("DELETE", f"/tokens/{made['id']}", "admin").status_code == 204
    over = time.monotonic() + 8.0
    while httpx2.get(f"{running.url}/api/v1/counts", headers=headers).status_code != 403:
        assert time.monotonic() < over, "a revoked token goes on"
        time.sleep(0.2)


def test_the_same_key_begins_one_run(running: Running) -> None:
    asked = {"definition": hello(), "arguments": {"word": "once"}}
    key = {"Idempotency-Key": str(uuid.uuid4())}
    answers: list[httpx2.Response] = []
    threads = [
        threading.Thread(target=lambda: answers.append(running.ask("POST", "/runs", json=asked, headers=key)))
        for _ in range(6)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {a.status_code for a in answers} == {201}
    assert len({a.json()["id"] for a in answers}) == 1
    other = {**asked, "arguments": {"word": "other"}}
    assert running.ask("POST", "/runs", json=other, headers=key).status_code == 409


@pytest.mark.parametrize(
    ("body", "status", "words"),
    [
        ({"workflow": "no-such"}, 404, "no-such"),
        ({"workflow": "../../etc/passwd"}, 400, "Name a workflow"),
        ({"definition": {"name": "x"}}, 400, "owner"),
        ({"definition": hello(), "arguments": {"word": 7}}, 400, "arguments"),
        ({"definition": hello(), "arguments": {"word": "$(id)"}}, 400, "word"),
        ({"workflow": "tomography", "surprise": 1}, 400, "surprise"),
        ({"definition": hello(), "arguments": {"word": "x"}, "id": "a/../b"}, 400, "id of a run"),
        ({"definition": hello(), "arguments": {"word": "x"}, "placing": {"site": "nowhere"}}, 4, "nowhere"),
    ],
)
def test_bad_wishes_are_problems_with_a_sentence(running: Running, body: Any, status: int, words: str) -> None:
    answer = running.ask("POST", "/runs", json=body)
    assert str(answer.status_code).startswith(str(status)), answer.text
    problem = answer.json()
    assert words in problem["detail"], problem
    assert problem["exit_code"] in (2, 4, 66, 78)
    assert "Traceback" not in answer.text


def test_bodies_that_are_none(running: Running) -> None:
    assert running.ask("POST", "/runs", content=b"\xff\x00").status_code == 400
    assert running.ask("POST", "/runs", content=b"[" * 100_000).status_code == 400
    with socket.create_connection(("127.0.0.1", running.port), timeout=10) as raw:
        raw.sendall(b"POST /api/v1/runs HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000000000\r\n\r\n")
        assert raw.recv(100).startswith(b"HTTP/1.1 413 ")
    assert running.ask("GET", "/runs?status=dome").json()["detail"].startswith("There is no state 'dome'")
    assert running.ask("GET", "/nothing").status_code == 404


def test_events_are_streamed_and_resumed(running: Running) -> None:
    with running.client() as client:
        run_id = submit(client, workflow(s01={"command": "sleep 0.5"}, s02={"command": "true"}))
        heard: list[dict[str, Any]] = []
        headers = {"authorization": f"Bearer {running.tokens['viewer']}"}
        with httpx2.stream("GET", f"{running.url}/api/v1/events?run={run_id}&after=0", headers=headers) as answer:
            for line in answer.iter_lines():
                if line.startswith("data: "):
                    heard.append(json.loads(line.removeprefix("data: ")))
                    if len(heard) == 3:
                        break
        wait(client, run_id)
        headers["Last-Event-ID"] = str(heard[-1]["seq"])
        with httpx2.stream("GET", f"{running.url}/api/v1/events?run={run_id}", headers=headers) as answer:
            for line in answer.iter_lines():
                if line.startswith("data: "):
                    heard.append(json.loads(line.removeprefix("data: ")))
                    if heard[-1]["kind"] == "task ended" and heard[-1]["stage"] == "02":
                        break
        assert [e["seq"] for e in heard] == [e.seq for e in client.events(run_id)][: len(heard)]


def test_many_at_once(running: Running) -> None:
    with running.client() as client:
        definition = loader.load(hello())
        ids = client.submit_all(client.plan(definition, {"word": str(number)}) for number in range(70))
        ids += client.start_all(definition, ({"word": str(number)} for number in range(50)))
        assert len(set(ids)) == 120
        over = time.monotonic() + 60.0
        while client.ended(ids) != set(ids):
            assert time.monotonic() < over
            time.sleep(0.1)
        assert {client.run(i).status for i in ids} == {RunStatus.DONE}


def test_a_local_client_reads_the_same_runs(running: Running) -> None:
    from orchestrator.settings import Settings

    with running.client() as far, Client(Settings(home=running.home)) as near:
        run_id = submit(far, hello(), {"word": "both"})
        assert wait(far, run_id) == near.run(run_id)


def test_definitions_of_another_kind_are_refused_by_name(running: Running) -> None:
    with running.client() as client:
        with pytest.raises(NotFound):
            client.definition("no-such-workflow")
        with pytest.raises(UserError):
            client.plan(client.definition("tomography"), {"nonsense": "1"})


def test_a_name_that_is_none_is_not_to_be_asked_again(running: Running) -> None:
    assert running.ask("GET", "/sites/local").json()["name"] == "local"
    assert running.ask("GET", "/sites/mine.toml").status_code == 400
    assert running.ask("GET", "/sites/nowhere").status_code in (400, 404)


def test_a_name_that_is_not_utf_8_comes_through(running: Running, tmp_path: Path) -> None:
    odd = Path(os.fsdecode(os.fsencode(str(tmp_path)) + b"/sc\xff.h5"))
    odd.write_text("x")
    with running.client() as client:
        plan = client.plan(loader.load(workflow(s01={"command": "cat $filePath"})), {"filePath": str(odd)})
        run_id = client.submit(plan)
        assert wait(client, run_id).status is RunStatus.DONE
    for path in (f"/runs/{run_id}", f"/runs/{run_id}/events", "/runs?file=sc"):
        answer = running.ask("GET", path)
        assert answer.status_code == 200, answer.text
    assert running.ask("GET", f"/runs/{run_id}").json()["variables"]["filePath"] == str(odd)


def test_logs_are_read_from_elsewhere(running: Running, tmp_path: Path) -> None:
    with running.client() as client:
        run_id = submit(client, workflow(s01={"command": "seq 200000; echo trouble >&2"}, s02={"command": "true"}))
        assert wait(client, run_id).status is RunStatus.DONE
        assert client.written(run_id, 0, 1, after=5) != b""
        assert client.written(run_id, 0, 1, after=10**7) == client.written(run_id, 1, 1) == b""
        with pytest.raises(NotFound, match="has no task 7"):
            client.written(run_id, 7, 1)
    there = {"BEAMWAY_HOME": str(tmp_path), "BEAMWAY_URL": running.url, "BEAMWAY_TOKEN": running.tokens["viewer"]}
    for more, heard in (["01"], "".join(f"{n}\n" for n in range(1, 200_001))), (["01", "--stderr"], "trouble\n"):
        for follow in ([], ["--follow"]):
            words = [sys.executable, "-m", "orchestrator.cli", "logs", run_id, *more, *follow]
            said = subprocess.run(words, env={**os.environ, **there}, capture_output=True, text=True, check=True)
            assert said.stdout == heard


def test_logs_that_the_service_cannot_see_are_not_said_to_be_empty(tmp_path: Path) -> None:
    with pytest.raises(Unavailable, match="which is not there"):
        written.piece(tmp_path / "absent", "run", 0, 1, stderr=False, after=0)
