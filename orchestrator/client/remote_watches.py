"""Watches and arrivals of a service behind an address."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Protocol
from urllib.parse import quote

from orchestrator.store.arrivals import Arrival, ArrivalState
from orchestrator.store.watches import Report, Watch, Watched, Wish


class Asked(Protocol):
    """One request over HTTP, and the text of the answer."""

    def __call__(self, method: str, path: str, body: Any = None, /, params: Mapping[str, Any] | None = None) -> str: ...


class RemoteWatches:
    def __init__(self, ask: Asked) -> None:
        self._ask = ask

    def put(self, wish: Wish) -> Watch:
        names = ("rules", "directory", "experiment", "name", "site", "change")
        said = self._ask("POST", "/watches", {name: getattr(wish, name) for name in names})
        return _watched(json.loads(said)).watch

    def ls(self) -> list[Watched]:
        return [_watched(record) for record in json.loads(self._ask("GET", "/watches"))]

    def stop(self, name: str) -> None:
        self._ask("DELETE", f"/watches/{quote(name, safe='')}")

    def start(self, name: str) -> None:
        self._ask("POST", f"/watches/{quote(name, safe='')}/start", {})

    def arrivals(
        self,
        *,
        watch: str = "",
        experiment: str = "",
        state: ArrivalState | None = None,
        after: int = 0,
        before: int = 0,
        newest: bool = False,
        limit: int = 1000,
    ) -> list[Arrival]:
        wanted = {"watch": watch, "experiment": experiment, "state": state.value if state else ""}
        wanted = {name: text for name, text in wanted.items() if text}
        params = {**wanted, "after": after, "before": before, "newest": newest, "limit": limit}
        return [_arrival(record) for record in json.loads(self._ask("GET", "/arrivals", params=params))]

    def of(self, numbers: Sequence[int]) -> list[Arrival]:
        if not numbers:
            return []
        return [_arrival(r) for r in json.loads(self._ask("GET", "/arrivals", params={"ids": list(numbers)}))]

    def release(self, number: int, *, workflow: str = "", given: dict[str, str] | None = None) -> Arrival:
        body = {"workflow": workflow, "arguments": given or {}}
        return _arrival(json.loads(self._ask("POST", f"/arrivals/{number}/release", body)))


def _watched(record: dict[str, Any]) -> Watched:
    same = ("name", "experiment", "directory", "rules", "site", "base", "owner")
    times: dict[str, Any] = {name: _epoch(record[name]) for name in ("created_at", "stopped_at")}
    watch = Watch(**{name: record[name] for name in same}, **times)
    report = None
    if record["seen_at"]:
        told = {name: record[name] for name in ("error", "scan_s", "waiting", "polls", "troubles")}
        report = Report(at=_epoch(record["seen_at"]), scanned_at=_epoch(record["scanned_at"]), **told)
    return Watched(watch, report, record["arrivals"])


def _arrival(record: dict[str, Any]) -> Arrival:
    same = ("id", "watch", "experiment", "name", "reason", "rule", "workflow", "arguments", "checksum")
    return Arrival(
        **{name: record[name] for name in same},
        place=b"",
        fingerprint=(0, 0, record["bytes"], 0),
        state=ArrivalState(record["state"]),
        run_id=record["run"] or "",
        seen_at=_epoch(record["seen_at"]),
        decided_at=_epoch(record["decided_at"]),
    )


def _epoch(text: str | None) -> float:
    return datetime.fromisoformat(text).timestamp() if text else 0.0
