"""What a run that ended well has read, copied and made, as its tasks have reported it. Pure."""

from __future__ import annotations

import os
from collections.abc import Callable

from msgspec.structs import replace

from orchestrator import states
from orchestrator.engine import inputs
from orchestrator.model import Content, Outcome, Product, Run, RunStatus, StageKind, StagePlan, Task, TaskStatus
from orchestrator.store.catalog import FileKind
from orchestrator.store.lineage import Account, Facts, Step
from orchestrator.transfer import address

CALL_MOST = 500  # letters of a command line
PLACE_MOST = 128  # of the name of a place


def summary(run: Run) -> str:
    """In words for the run's history; empty when it has not ended well or has nothing to do with files."""
    if run.status is not RunStatus.DONE:
        return ""
    outcomes = [t.outcome for t in run.tasks.values() if t.status is TaskStatus.DONE and t.outcome is not None]
    read = len({c.path for o in outcomes for c in o.inputs} | set(inputs.named(run)))
    made = len({p.path for o in outcomes for p in o.products})
    return f"{read} read, {made} made" if read or made else ""


def account(run: Run, default_site: str, apart: Callable[[str, str], str] = lambda place, address: "") -> Account:
    """`default_site`: that of stages that name none; `apart`: see `places.apart`."""

    def site_of(task: Task) -> str:
        return task.site if task.site not in ("", states.AUTO) else default_site

    own = {os.path.normpath(path) if not address.is_one(path) else path for path in inputs.named(run)}
    tasks = [t for t in run.tasks.values() if t.status is TaskStatus.DONE and t.outcome is not None]
    tasks.sort(key=lambda t: (t.ended_at, t.number))
    last = {p.path: t.number for t in tasks for p in t.outcome.products}  # type: ignore[union-attr]
    steps: list[Step] = []
    for task in tasks:
        assert task.outcome is not None
        writer = _Writer(run, task, task.outcome, states.stage_plan(run, task.stage), site_of(task), own)
        steps += writer.steps(last)
    seen = {step.address for step in steps if not step.made and step.source is None}
    unseen = [path for path in inputs.named(run) if path not in seen]
    at = run.ended_at
    first = min(tasks, key=lambda t: t.number, default=None)
    site = site_of(first) if first is not None else default_site
    steps += [Step(*spot(site, path), Facts(site=site, address=path), at, kind=FileKind.RAW) for path in unseen]
    paths = (replace(s, site=apart(s.place, s.address)) if s.address.startswith("/") else s for s in steps)
    return Account(run.id, run.plan.variables.get("experimentName", ""), tuple(paths))


def spot(site: str, name: str) -> tuple[str, str]:
    """(place, address) of a path at a site, or of an address: one of a place at a site is a path there."""
    if name.startswith(inputs.PLACE):
        return address.authority(name)[:PLACE_MOST], address.below(name)
    return (address.authority(name) or site)[:PLACE_MOST], name


class _Writer:
    """Of one task."""

    def __init__(self, run: Run, task: Task, outcome: Outcome, plan: StagePlan, site: str, own: set[str]) -> None:
        self._run, self._task, self._outcome, self._plan = run, task, outcome, plan
        self._site, self._own = site, own

    def steps(self, last: dict[str, int]) -> list[Step]:
        if self._plan.kind is StageKind.TRANSFER:
            return self._copies()
        made = [p for p in self._outcome.products if last[p.path] == self._task.number]
        return [*map(self._read, self._outcome.inputs), *map(self._made, made)]

    def _copies(self) -> list[Step]:
        told = {c.path: c for c in self._outcome.inputs}
        products = self._outcome.products
        steps = []
        for number, (source, target) in enumerate(inputs.copies(self._run, self._task, self._plan)):
            name = self._from(number)
            content = told.get(name) or Content(name)
            product = products[number] if len(products) > number else None
            size, checksum = (product.bytes, product.checksum) if product and product.checksum else (-1, "")
            facts = self._facts(target)
            here, there = spot(self._site, source), spot(self._site, target)
            steps.append(self._read(content, spot_of=here))
            steps.append(Step(*there, facts, self._at, size, content.checksum or checksum, source=here))
        return steps

    def _from(self, number: int) -> str:
        given = self._task.arguments["from"]
        name = given if isinstance(given, str) else given[number]
        return name if address.is_one(name) else os.path.normpath(os.path.join(self._task.working_dir, name))

    def _read(self, content: Content, spot_of: tuple[str, str] | None = None) -> Step:
        place, where = spot_of or spot(self._site, content.path)
        size = content.bytes if content.checksum or content.modified_at else -1
        own = content.path in self._own or where in self._own
        kind = FileKind.RAW if own else FileKind.CALIBRATION if self._own else FileKind.OTHER
        return Step(place, where, self._facts(where), self._at, size, content.checksum, content.modified_at, kind=kind)

    def _made(self, product: Product) -> Step:
        place, where = spot(self._site, product.path)
        return Step(place, where, self._facts(where), self._at, product.bytes, product.checksum, made=True)

    @property
    def _at(self) -> float:
        return self._outcome.ended_at or self._task.ended_at

    def _facts(self, where: str) -> Facts:
        call = self._task.call or self._task.command[:CALL_MOST]
        return Facts(self._task.stage, self._site, where, call, self._outcome.software)
