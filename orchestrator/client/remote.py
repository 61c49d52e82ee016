"""A service behind an address, asked over HTTP. Several addresses are several services on one store: whichever has the
engine is asked, and another one when that is gone.
"""

from __future__ import annotations

import json
import time
import urllib.parse
import uuid
from collections.abc import Collection, Iterable, Iterator, Mapping
from datetime import datetime
from itertools import islice
from pathlib import Path
from typing import Any

import httpx2
import msgspec
from msgspec.structs import replace

from orchestrator import codec, protocol, wire
from orchestrator.client.lineage import Lineage, RemoteLineage
from orchestrator.client.remote_files import RemoteFiles
from orchestrator.client.remote_retention import RemoteRetention
from orchestrator.client.remote_watches import RemoteWatches
from orchestrator.engine.placement import Placement
from orchestrator.engine.why import Why
from orchestrator.errors import BeamwayError, Conflict, SettingsError, Unavailable, of_exit_code
from orchestrator.model import Definition, Placing, Plan, Run, RunStatus
from orchestrator.settings import Settings
from orchestrator.store.letters import Letter
from orchestrator.store.runs import EventRow
from orchestrator.store.search import Summary, Wanted

ANSWER_S = 90.0
CONNECT_S = 5.0
PATIENCE_S = 20.0  # how long a service that has gone is waited for: another takes over within less
BATCH = 200  # runs of one request
REMEMBERED = 64
AGAIN_S = 0.5
THEIRS = "service:"  # source of a definition that the service has


class Remote:
    def __init__(self, settings: Settings) -> None:
        self._addresses = settings.addresses
        for address in self._addresses or [settings.url]:
            if not address.startswith(("http://", "https://")):
                raise SettingsError(f"{address!r} is no address of a service.", "It begins with https:// or http://.")
        token = settings.token.reveal()
        self._http = httpx2.Client(
            headers={"authorization": f"Bearer {token}"} if token else {},
            timeout=httpx2.Timeout(ANSWER_S, connect=CONNECT_S),
        )
        self.watches = RemoteWatches(self.request)
        self.lineage: Lineage = RemoteLineage(self._get, self._post)
        self.files = RemoteFiles(self.request)
        self.retention = RemoteRetention(self._answer, self._streamed)
        self._made: list[tuple[Plan, dict[str, Any]]] = []  # plans of the service's own workflows, as they were asked

    def close(self) -> None:
        self._http.close()

    # ---- workflows

    def definition(self, name_or_path: str) -> Definition:
        from orchestrator.definition import loader

        if Path(name_or_path).is_file() or "/" in name_or_path:
            return loader.find(name_or_path, [])
        found = loader.load(json.loads(self._get(f"/workflows/{quote(name_or_path)}")))
        return replace(found, source=f"{THEIRS}{name_or_path}")

    def plan(
        self, definition: Definition, arguments: Mapping[str, str], *, directory: str, strict: bool, placing: Placing
    ) -> Plan:
        asked = _request(definition, arguments, directory=directory, strict=strict, placing=placing)
        plan = codec.loads(self._post("/plans", asked), Plan)
        self._made = [*self._made[-REMEMBERED:], (plan, asked)]
        return plan

    def placements(self, plan: Plan) -> list[Placement]:
        kind: Any = list[Placement]
        found: list[Placement] = codec.loads(self._post("/placements", self._asked(plan)), kind)
        return found

    def _asked(self, plan: Plan) -> dict[str, Any]:
        for made, asked in reversed(self._made):
            if made is plan:
                return dict(asked)
        raise Unavailable("This plan was not made by the service that is asked.", "Plan it again.")

    # ---- wishes

    def submit(self, plan: Plan, *, run_id: str, username: str) -> str:
        return self._submitted([{**self._asked(plan), "id": run_id or str(uuid.uuid4())}])[0]

    def submit_all(self, plans: Iterable[Plan], *, username: str) -> list[str]:
        return self._begun(self._asked(plan) for plan in plans)  # each as it is made

    def _begun(self, asked: Iterable[dict[str, Any]]) -> list[str]:
        wanted = ({**each, "id": str(uuid.uuid4())} for each in asked)
        ids: list[str] = []
        while some := list(islice(wanted, BATCH)):
            ids += self._submitted(some)
        return ids

    def _submitted(self, asked: list[dict[str, Any]]) -> list[str]:
        """Each has an id of ours, so that asking again after a lost answer begins nothing twice."""
        return [each["id"] for each in json.loads(self._post("/runs/batch", asked))]

    def start_all(
        self,
        definition: Definition,
        many: Iterable[Mapping[str, str]],
        *,
        directory: str,
        placing: Placing,
        username: str,
    ) -> list[str]:
        return self._begun(_request(definition, a, directory=directory, strict=False, placing=placing) for a in many)

    def cancel(self, run_id: str, reason: str) -> None:
        self._post(f"/runs/{quote(run_id)}/cancel", {"reason": reason})

    def retry(self, run_id: str, stage: str) -> None:
        self._post(f"/runs/{quote(run_id)}/retry", {"stage": stage})

    def resume(self, run_id: str, site: str) -> tuple[str, ...]:
        path = f"/sites/{quote(site)}/resume" if site else f"/runs/{quote(run_id)}/resume"
        return tuple(json.loads(self._post(path, {}))["runs"])

    # ---- dead letters

    def dead(self, *, workflow: str, experiment: str, site: str, since: float, limit: int) -> list[Letter]:
        wanted = {"workflow": workflow, "experiment": experiment, "site": site, "since": since, "limit": limit}
        return [_letter(line) for line in json.loads(self._get("/dead", wanted))]

    def letter(self, run_id: str) -> Letter:
        return _letter(json.loads(self._get(f"/dead/{quote(run_id)}")))

    def fix(self, run_id: str, arguments: Mapping[str, str]) -> Letter:
        return _letter(json.loads(self._post(f"/dead/{quote(run_id)}/fix", {"arguments": dict(arguments)})))

    def resend(self, run_id: str) -> str:
        return str(json.loads(self._post(f"/dead/{quote(run_id)}/resend", {}))["id"])

    def dismiss(self, run_id: str) -> None:
        self._post(f"/dead/{quote(run_id)}/dismiss", {})

    # ---- reading

    def find(self, prefix: str) -> str:
        return str(json.loads(self._get(f"/runs/{quote(prefix) or '-'}/id")))

    def run(self, run_id: str) -> Run:
        return wire.unpack(self._get(f"/runs/{quote(run_id)}/document"))

    def why(self, run_id: str) -> Why:
        said = json.loads(self._get(f"/runs/{quote(run_id)}/why"))
        return Why(**{**said, "since": _epoch(said["since"]), "details": tuple(said["details"])})

    def ended(self, ids: Collection[str]) -> set[str]:
        return set(json.loads(self._post("/runs/ended", list(ids))))

    def runs(self, wanted: Wanted, limit: int) -> list[Summary]:
        asked = {name: value for name, value in msgspec.structs.asdict(wanted).items() if value and name != "before"}
        if wanted.before is not None:
            asked["before"] = "{!r},{}".format(*wanted.before)
        return [_summary(line) for line in json.loads(self._get("/runs", {**asked, "limit": limit}))["runs"]]

    def written(self, run_id: str, number: int, attempt: int, *, stderr: bool, after: int) -> bytes:
        wanted = {"attempt": attempt, "stderr": stderr, "after": after}
        return self._answer("GET", f"/runs/{quote(run_id)}/tasks/{number}/output", params=wanted).content

    def events(self, run_id: str, after: int) -> list[EventRow]:
        found = json.loads(self._get(f"/runs/{quote(run_id)}/events", {"after": after}))
        return [EventRow(**{**event, "at": _epoch(event["at"])}) for event in found]

    def last_event(self, run_id: str) -> int:
        return int(self._get(f"/runs/{quote(run_id)}/last-event"))

    def live(self, run_id: str) -> protocol.Live:
        try:
            return codec.loads(self._get(f"/runs/{quote(run_id)}/live"), protocol.Live)
        except Unavailable:
            return protocol.Live({}, {}, ())

    def counts(self) -> dict[str, int]:
        found: dict[str, int] = json.loads(self._get("/counts"))
        return found

    # ---- the service

    def service(self) -> protocol.Pong | None:
        try:
            said = json.loads(self._request("GET", "/status", patience_s=0.0))
        except Unavailable:
            return None
        if not said["active"]:
            return None
        shut = {s["site"]: (_epoch(s["since"]), s["why"]) for s in said["shut"]}
        return protocol.Pong(0, said["version"], tuple(said["agents"]), said["unfinished"], shut)

    def ensure_service(self) -> None:
        self._get("/status")

    def ask(self, path: str) -> Any:
        """What the service says now, or Unavailable at once."""
        return json.loads(self._request("GET", path, patience_s=0.0))

    def stop_service(self, timeout_s: float) -> bool:
        raise Conflict(f"The service at {self._addresses[0]} is not of this home.", "Whoever runs it ends it.")

    # ---- HTTP

    def _get(self, path: str, wanted: Mapping[str, Any] | None = None) -> str:
        return self._request("GET", path, params=dict(wanted or {}))

    def _post(self, path: str, body: Any) -> str:
        return self.request("POST", path, body)

    def request(self, method: str, path: str, body: Any = None, /, params: Mapping[str, Any] | None = None) -> str:
        """What it answers to one request, with a body as JSON."""
        json_body = {"content": codec.dumps(body), "headers": {"content-type": "application/json"}}
        return self._request(method, path, params=dict(params or {}), **({} if body is None else json_body))

    def _request(self, method: str, path: str, **more: Any) -> str:
        return self._answer(method, path, **more).text

    def _answer(self, method: str, path: str, *, patience_s: float = PATIENCE_S, **more: Any) -> httpx2.Response:
        """What it answers. Every request may be repeated: what begins something carries its id."""
        over = time.monotonic() + patience_s
        while True:
            trouble = self._once(method, path, more)
            if isinstance(trouble, httpx2.Response):
                return trouble
            self._addresses.append(self._addresses.pop(0))
            if time.monotonic() > over:
                raise trouble
            time.sleep(AGAIN_S)

    def _once(self, method: str, path: str, more: Mapping[str, Any]) -> httpx2.Response | Unavailable:
        address = self._addresses[0]
        try:
            answer = self._http.request(method, f"{address}{protocol.API}{path}", **more)
        except httpx2.HTTPError as error:
            return Unavailable(f"The service at {address} does not answer: {error}.", "Is it up? `beamway status`")
        if answer.status_code < 300:
            return answer
        kind, sentence, hint = _refusal(answer)
        if kind is Unavailable or answer.status_code in (502, 504):
            return Unavailable(sentence, hint)
        raise kind(sentence, hint)

    def _streamed(self, method: str, path: str, **more: Any) -> Iterator[str]:
        """The lines of an answer as they come. Asked once: what had been done when it broke off is in the log."""
        address = self._addresses[0]
        try:
            with self._http.stream(method, f"{address}{protocol.API}{path}", **more) as answer:
                if answer.status_code >= 300:
                    answer.read()
                    kind, sentence, hint = _refusal(answer)
                    raise kind(sentence, hint)
                yield from answer.iter_lines()
        except httpx2.HTTPError as error:
            raise Unavailable(f"The service at {address} does not answer: {error}.", "Is it up?") from None


def _request(
    definition: Definition, arguments: Mapping[str, str], *, directory: str, strict: bool, placing: Placing
) -> dict[str, Any]:
    """What is asked for: a workflow of the service by its name, else the whole definition."""
    ours = not definition.source.startswith(THEIRS)
    what = {"definition": definition.raw} if ours else {"workflow": definition.source.removeprefix(THEIRS)}
    return {
        **what,
        "arguments": dict(arguments),
        "directory": str(Path(directory or ".").absolute()),
        "strict": strict,
        "placing": msgspec.to_builtins(placing),
    }


def _refusal(answer: httpx2.Response) -> tuple[type[BeamwayError], str, str]:
    try:
        said = answer.json()
        return of_exit_code(said["exit_code"]), str(said["detail"]), str(said["hint"])
    except (ValueError, KeyError, TypeError):
        sentence = f"{answer.request.url} answered {answer.status_code} {answer.reason_phrase}."
        return BeamwayError, sentence, "Is this the address of a Beamway service?"


def quote(text: str) -> str:
    return urllib.parse.quote(text, safe="")


def _epoch(text: str | None) -> float:
    return datetime.fromisoformat(text).timestamp() if text else 0.0


def _letter(line: dict[str, Any]) -> Letter:
    return Letter(**{**line, "at": _epoch(line["at"])})


def _summary(line: dict[str, Any]) -> Summary:
    times = {name: _epoch(line[name]) for name in ("created_at", "started_at", "ended_at")}
    return Summary(
        **{
            **line,
            **times,
            "status": RunStatus(line["status"]),
            "parent": line["parent"] or "",
            "experiment": line["experiment"] or "",
        }
    )
