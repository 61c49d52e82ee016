"""`/metrics`: the figures of this service as Prometheus reads them. docs/operations has the dashboard and the alerts.

The engine's thread only adds to plain numbers; they become text here. What the store has to be asked for is asked at
most every few seconds, and a store that does not answer costs a reader seconds and not the other figures.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable, Iterator, Mapping

from fastapi import APIRouter, Depends, Response
from msgspec import Struct
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
from prometheus_client.metrics_core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector

from orchestrator import records
from orchestrator.engine.tally import Histogram, Tally
from orchestrator.errors import Unavailable
from orchestrator.model import RunStatus
from orchestrator.service import holding
from orchestrator.service.agents import View
from orchestrator.service.http.context import Context, Permit
from orchestrator.service.permission import Action
from orchestrator.store import arrivals, search, watches
from orchestrator.store.arrivals import ArrivalState
from orchestrator.store.database import Database
from orchestrator.store.leases import Lease

KEPT_S = 5.0  # for so long an answer of the store serves all readers
SHARE = 20.0  # and for so many times what it took: counting millions is no more than a twentieth of the store's time
PATIENCE_S = 3.0  # a store that has not answered by then is said not to


def router(context: Context) -> APIRouter:
    registry = CollectorRegistry(auto_describe=False)
    registry.register(Figures(context))
    made = APIRouter(tags=["status"])

    @made.get("/metrics", dependencies=[Depends(Permit(Action.READ))], response_class=Response)
    def metrics() -> Response:
        """Figures for Prometheus, which sends a token of role viewer."""
        return Response(generate_latest(registry), media_type=CONTENT_TYPE_LATEST)

    return made


class Answer(Struct, frozen=True):
    """What the store says. `runs` is empty when it does not answer."""

    up: bool
    runs: Mapping[str, int] = {}
    lease: Lease | None = None
    arrivals: Mapping[str, int] = {}
    oldest_due_at: float = 0.0
    watches: Mapping[str, str] = {}  # name → state


class Asked:
    """The store's answer, not older than a few seconds. However many read, it is asked once at a time."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._lock = threading.Lock()
        self._answered = threading.Event()
        self._asking = False
        self._good_until = 0.0
        self._answer = Answer(up=False)

    def answer(self) -> Answer:
        with self._lock:
            if time.monotonic() < self._good_until:
                return self._answer
            if not self._asking:
                self._asking = True
                self._answered.clear()
                threading.Thread(target=self._ask, name="metrics-store", daemon=True).start()
        return self._answer if self._answered.wait(PATIENCE_S) else Answer(up=False)

    def _ask(self) -> None:
        began = time.monotonic()
        try:
            self._answer = _asked(self._database)
        except Unavailable:
            self._answer = Answer(up=False)
        finally:
            now = time.monotonic()
            with self._lock:
                self._good_until = now + max(KEPT_S, SHARE * (now - began) if self._answer.up else 0.0)
                self._asking = False
            self._answered.set()


def _asked(database: Database) -> Answer:
    """Raises Unavailable."""
    now = time.time()
    return Answer(
        True,
        search.counts(database),
        holding.holder(database),
        {state.value: number for state, number in arrivals.counts(database).items()},
        arrivals.oldest_due(database),
        {w.watch.name: records.watch_state(w, now) for w in watches.standing(database, count=False)},
    )


class Figures(Collector):
    def __init__(self, context: Context) -> None:
        self._context = context
        self._asked = Asked(context.database)

    def collect(self) -> Iterator[Metric]:
        yield from of_store(self._asked.answer())
        server = self._context.server()
        view = server.view if server is not None else None
        yield _gauge("engine_active", "1 where the engine is, 0 where a service stands by.", [((), view is not None)])
        if server is not None and view is not None:
            yield from of_view(view, time.monotonic())
            yield from of_tally(server.tally)


def of_store(answer: Answer) -> Iterator[Metric]:
    yield _gauge("store_up", "1 when the database has just answered.", [((), answer.up)])
    if not answer.up:
        return
    runs = [((state.value,), answer.runs.get(state.value, 0)) for state in RunStatus]
    yield _gauge("runs", "Runs in the store by state.", runs, ("state",))
    states = [((state.value,), answer.arrivals.get(state.value, 0)) for state in ArrivalState]
    yield _gauge("arrivals", "Files in watched directories by what became of them.", states, ("state",))
    age_s = time.time() - answer.oldest_due_at if answer.oldest_due_at else 0.0
    yield _gauge("oldest_due_arrival_seconds", "Age of the oldest file whose run is about to begin.", [((), age_s)])
    wrong = [((name,), state in ("wrong", "unseen")) for name, state in answer.watches.items() if state != "stopped"]
    yield _gauge("watch_wrong", "1 while a directory is not watched as it should be.", wrong, ("watch",))
    held = [((answer.lease.holder,), answer.lease.fence)] if answer.lease is not None else []
    yield _gauge("engine_lease_fence", "Who has the engine, with the number of its lease.", held, ("holder",))


def of_view(view: View, now: float) -> Iterator[Metric]:
    yield _gauge("engine_fence", "The number of the lease that this service has.", [((), view.fence)])
    yield _gauge("engine_runs", "Runs that are not over, as the engine has them.", [((), view.runs)])
    yield _gauge("engine_silent_seconds", "Since the engine's loop last turned.", [((), now - view.at)])
    yield _gauge("unstored_replies", "Answers that wait for the store.", [((), view.unstored)])
    connected = [((line.name,), line.connected) for line in view.sites]
    yield _gauge("agent_connected", "1 while the agent of a site is there.", connected, ("site",))
    shut = [((line.name,), line.shut) for line in view.sites]
    yield _gauge(
        "site_shut", "1 while a site fails run after run and only one order at a time tries it.", shut, ("site",)
    )
    silent = [((line.name,), line.silent_s + now - view.at) for line in view.sites if line.silent_s is not None]
    yield _gauge("agent_silent_seconds", "Since the agent of a site was heard.", silent, ("site",))
    orders, oldest = [], []
    for line in view.sites:
        for where, count, age_s in (
            ("waiting", line.waiting, line.oldest_waiting_s),
            ("agent", line.sent, line.oldest_sent_s),
        ):
            orders.append(((line.name, where), count))
            oldest.append(((line.name, where), age_s))
    words = "that wait here for an agent's window, or are with the agent."
    yield _gauge("orders", f"Attempts {words}", orders, ("site", "where"))
    yield _gauge("oldest_order_seconds", f"Age of the oldest of those {words}", oldest, ("site", "where"))


def of_tally(tally: Tally) -> Iterator[Metric]:
    """Counted since this service has the engine."""
    yield _counter("runs_ended", "Runs that have ended, by state.", tally.finished, "state")
    yield _counter("attempts_failed", "Attempts that have failed, by cause.", tally.failures, "cause")
    yield _counter("retries", "Attempts that are made again, by the cause of it.", tally.retries, "cause")
    yield _counter("holds", "Attempts that wait for a person or the site, by cause.", tally.holds, "cause")
    phases = HistogramMetricFamily(
        "beamway_phase_seconds", "Of an attempt: queue, transfer, compute, checks.", labels=("site", "phase")
    )
    for labels, histogram in tally.phases.copy().items():
        _add(phases, labels, histogram)
    yield phases
    for name, text, histogram in (
        ("engine_turn", "A turn of the engine that had something to do.", tally.turns),
        ("store_write", "A transaction of the engine.", tally.writes),
    ):
        family = HistogramMetricFamily(f"beamway_{name}_seconds", text)
        _add(family, (), histogram)
        yield family


Values = Iterable[tuple[tuple[str, ...], float]]


def _gauge(name: str, text: str, values: Values, labels: tuple[str, ...] = ()) -> Metric:
    family = GaugeMetricFamily(f"beamway_{name}", text, labels=labels)
    for of, value in values:
        family.add_metric(of, float(value))
    return family


def _counter(name: str, text: str, values: Mapping[str, int], label: str) -> Metric:
    family = CounterMetricFamily(f"beamway_{name}", text, labels=(label,))
    for of, value in dict(values).items():
        family.add_metric((of,), float(value))
    return family


def _add(family: HistogramMetricFamily, labels: tuple[str, ...], histogram: Histogram) -> None:
    counted, buckets = 0, []
    for bound, count in zip((*histogram.bounds, float("inf")), list(histogram.counts), strict=True):
        counted += count
        buckets.append(("+Inf" if bound == float("inf") else repr(bound), float(counted)))
    family.add_metric(labels, buckets, histogram.total)
