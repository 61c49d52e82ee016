"""Stages whose site is `auto`: the candidate sites are asked how they look, then the best is taken.

Candidates are the default site and every profile that somebody has added to this home. One that does not answer in time
counts as silent, not as empty. Where no site can take the stage now it waits, and says so, and they are asked again.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

import structlog

from orchestrator import events, protocol, states
from orchestrator.engine import moved, place_sites, placement, placement_text
from orchestrator.model import Run, StageStatus, Task, TaskStatus
from orchestrator.settings import Settings
from orchestrator.store import history
from orchestrator.store.database import Database
from orchestrator.store.measured import Timing

if TYPE_CHECKING:
    from sites.schema import SiteProfile

ANSWER_S = 20.0  # a site that has not answered by then is silent
FIRST_S = 45.0  # the first time, when its agent may still have to start
AGAIN_S = 30.0  # no site can take it now: so long until they are asked again
WORTH_KEEPING_S = 0.5  # how long shorter attempts take is no question

log = structlog.get_logger()


class _Question:
    """One stage that wants a site."""

    def __init__(self, run_id: str, place: events.Place, now: float) -> None:
        self.run_id, self.place, self.since = run_id, place, now
        self.asked_at = 0.0
        self.until = 0.0
        self.again_at = 0.0
        self.sites: dict[str, SiteProfile] = {}
        self.views: dict[str, protocol.SiteView] = {}
        self.sentence = "asks the sites how soon they could begin it"


class Placer:
    """`ask` sends a question to the agent of a site, and starts that agent where it does not run; `shut` gives the
    sites to which nothing is sent, which are not asked."""

    def __init__(
        self,
        settings: Settings,
        database: Database,
        *,
        ask: Callable[[str, protocol.Estimate], None],
        shut: Callable[[], dict[str, tuple[float, str]]] = dict,
    ) -> None:
        self._settings, self._database, self._ask, self._shut = settings, database, ask, shut
        self._questions: dict[int, _Question] = {}
        self._number = 0
        self._heard: set[str] = set()  # sites that have answered before

    def begin(self, run_id: str, place: events.Place) -> None:
        if any((q.run_id, q.place) == (run_id, place) for q in self._questions.values()):
            return  # many attempts of a stage may be refused by its site at once
        self._number += 1
        self._questions[self._number] = _Question(run_id, place, time.time())

    def answered(self, site: str, answer: protocol.Estimated) -> None:
        self._heard.add(site)
        question = self._questions.get(answer.number)
        if question is not None and site in question.sites:
            question.views[site] = answer.view

    def waits(self, run_id: str) -> dict[str, tuple[float, str]]:
        questions = self._questions.values()
        return {f"{run_id}:{q.place.stage}": (q.since, q.sentence) for q in questions if q.run_id == run_id}

    def due(self, runs: dict[str, Run]) -> list[tuple[str, events.Event]]:
        """Call often: asks, and gives the events of what is decided."""
        decided: list[tuple[str, events.Event]] = []
        now = time.time()
        for number, question in list(self._questions.items()):
            run = runs.get(question.run_id)
            stage = run.stages.get(question.place.stage) if run is not None else None
            if run is None or stage is None or stage.status not in (StageStatus.OPENING, StageStatus.RUNNING):
                del self._questions[number]
            elif not question.asked_at:
                if now >= question.again_at:
                    self._send(number, question, run, now)
            elif question.views.keys() >= question.sites.keys() or now > question.until:
                event = self._decide(question, run, now)
                if event is not None:
                    decided.append((run.id, event))
                    del self._questions[number]
        return decided

    # ---- inside

    def _send(self, number: int, question: _Question, run: Run, now: float) -> None:
        plan = states.stage_plan(run, question.place.stage)
        question.asked_at = now
        question.sites = {p.name: p for p in self._candidates()}
        question.views = {}
        new = {n for n, p in question.sites.items() if not p.local} - self._heard
        question.until = now + (FIRST_S if new else ANSWER_S)
        shut = self._shut()
        for name, profile in question.sites.items():
            if name in shut:
                question.views[name] = protocol.SiteView(now, shut=shut[name][1])
                continue
            if profile.local:
                question.views[name] = protocol.SiteView(now)
                continue
            self._ask(name, protocol.Estimate(number, plan.resources, place_sites.queues(profile, plan.placing)))

    def _candidates(self) -> Iterable[SiteProfile]:
        return place_sites.candidates(self._settings.site, self._settings.home / "sites")

    def _decide(self, question: _Question, run: Run, now: float) -> events.Event | None:
        plan = states.stage_plan(run, question.place.stage)
        silent = protocol.SiteView(now, silent_since=question.asked_at)
        sites = [(p, question.views.get(n, silent)) for n, p in question.sites.items()]
        found = place_sites.predict(self._database, run, plan, sites, now=now, data_at=self._settings.site)
        if question.place.but:
            found = placement.fallback(found, question.place.but)
        attempt = max((t.attempt for t in run.tasks.values() if t.stage == plan.name), default=0) + 1
        history.put_placement(self._database, placement.row(found, run.id, attempt))
        sentence = placement_text.sentence(found)
        if found.chosen is not None:
            log.info("stage.placed", run=run.id, stage=plan.name, site=found.chosen.site, why=sentence)
            return events.StagePlaced(
                now, plan.name, found.chosen.site, sentence, found.chosen.queue, found.chosen.reservation
            )
        if not question.place.but and all(
            place_sites.forbidden(p, plan.resources, plan.placing) for p in question.sites.values()
        ):
            return events.StageRefused(now, plan.name, sentence)
        question.asked_at = 0.0
        question.again_at = max(now + AGAIN_S, min(found.again_at or 0.0, now + 20 * AGAIN_S))
        question.sentence = f"{sentence}; the sites are asked again within {question.again_at - now:.0f} s"
        return None


def learn(database: Database, run: Run, settings: Settings) -> None:
    """Keep what a finished run has shown: how long its attempts took, how its placements came out, and how fast
    data moved."""

    def site_of(name: str) -> str:
        return name or settings.site

    rows = []
    for plan in run.plan.stages:
        done = [t for t in run.tasks.values() if t.stage == plan.name and t.status is TaskStatus.DONE]
        rows += [_timing(run, t, site_of) for t in done if _lasted_s(t) >= WORTH_KEEPING_S]
        if plan.placing.site == states.AUTO and done:
            last = max(done, key=lambda t: t.ended_at)
            queue_s = max(0.0, last.started_at - last.submitted_at)
            took_s = last.outcome.transfer_s if last.outcome else 0.0
            history.finish_placement(
                database,
                run.id,
                plan.name,
                last.attempt,
                transfer_s=took_s,
                queue_s=queue_s,
                compute_s=_lasted_s(last),
            )
    history.record(database, rows)
    sites = moved.moved(run, site_of, lambda: place_sites.candidates(settings.site, settings.home / "sites"))
    history.record_transfers(database, sites)


def _lasted_s(task: Task) -> float:
    return task.ended_at - task.started_at if task.started_at else 0.0


def _timing(run: Run, task: Task, site_of: Callable[[str], str]) -> Timing:
    plan = states.stage_plan(run, task.stage)
    r = plan.resources
    return Timing(
        run.plan.workflow,
        task.stage,
        site_of(task.site),
        _lasted_s(task),
        input_bytes=place_sites.need(run, plan).input_bytes,
        nodes=r.nodes,
        ranks=r.nodes * r.ranks_per_node,
        gpus=r.nodes * r.ranks_per_node * r.gpus_per_rank,
        queue_s=max(0.0, task.started_at - task.submitted_at),
        call=task.call,
        at=task.ended_at,
    )
