"""What a client needs of a service, wherever it is: in this home (`local`), or behind an address (`remote`)."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import TYPE_CHECKING, Protocol

from orchestrator import protocol
from orchestrator.client.files import Files
from orchestrator.client.retention import Retention
from orchestrator.client.watches import Watches
from orchestrator.model import Definition, Placing, Plan, Run
from orchestrator.store.letters import Letter
from orchestrator.store.runs import EventRow
from orchestrator.store.search import Summary, Wanted

if TYPE_CHECKING:
    from orchestrator.client.lineage import Lineage
    from orchestrator.engine.placement import Placement
    from orchestrator.engine.why import Why


class Backend(Protocol):
    @property
    def watches(self) -> Watches: ...

    @property
    def lineage(self) -> Lineage: ...

    @property
    def files(self) -> Files: ...

    @property
    def retention(self) -> Retention: ...

    # ---- workflows

    def definition(self, name_or_path: str) -> Definition: ...

    def plan(
        self, definition: Definition, arguments: Mapping[str, str], *, directory: str, strict: bool, placing: Placing
    ) -> Plan: ...

    def placements(self, plan: Plan) -> list[Placement]: ...

    # ---- wishes; each returns when it is on the disk

    def submit(self, plan: Plan, *, run_id: str, username: str) -> str: ...

    def submit_all(self, plans: Iterable[Plan], *, username: str) -> list[str]: ...

    def start_all(
        self,
        definition: Definition,
        many: Iterable[Mapping[str, str]],
        *,
        directory: str,
        placing: Placing,
        username: str,
    ) -> list[str]:
        """`plan` and `submit_all` in one."""
        ...

    def cancel(self, run_id: str, reason: str) -> None: ...

    def retry(self, run_id: str, stage: str) -> None: ...

    def resume(self, run_id: str, site: str) -> tuple[str, ...]: ...

    # ---- dead letters

    def dead(self, *, workflow: str, experiment: str, site: str, since: float, limit: int) -> list[Letter]: ...

    def letter(self, run_id: str) -> Letter: ...

    def fix(self, run_id: str, arguments: Mapping[str, str]) -> Letter: ...

    def resend(self, run_id: str) -> str: ...

    def dismiss(self, run_id: str) -> None: ...

    # ---- reading

    def find(self, prefix: str) -> str: ...

    def run(self, run_id: str) -> Run: ...

    def why(self, run_id: str) -> Why: ...

    def ended(self, ids: Collection[str]) -> set[str]: ...

    def runs(self, wanted: Wanted, limit: int) -> list[Summary]: ...

    def written(self, run_id: str, number: int, attempt: int, *, stderr: bool, after: int) -> bytes: ...

    def events(self, run_id: str, after: int) -> list[EventRow]: ...

    def last_event(self, run_id: str) -> int:
        """The number of its newest event; it grows with every change."""
        ...

    def live(self, run_id: str) -> protocol.Live: ...

    def counts(self) -> dict[str, int]: ...

    # ---- the service

    def service(self) -> protocol.Pong | None:
        """What it says of itself; None when it does not answer."""
        ...

    def ensure_service(self) -> None:
        """Start it where we may. Raises Unavailable when it does not answer in time."""
        ...

    def stop_service(self, timeout_s: float) -> bool: ...

    def close(self) -> None: ...
