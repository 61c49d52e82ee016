"""Commands about files that have arrived: list them, say why, release by hand."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from orchestrator.cli import session
from orchestrator.cli.group import Main, Noun
from orchestrator.cli.session import json_option
from orchestrator.cli.watching import complete

if TYPE_CHECKING:
    from orchestrator.client import Client
    from orchestrator.store.arrivals import Arrival, ArrivalState

FOLLOW_S, LS_S = 0.2, 1.0


@click.group(cls=Noun)
def arrivals() -> None:
    """List the files that arrived, say why each is what it is, release by hand."""


@arrivals.command("", cls=Main)
@click.option("--watch", default="", metavar="NAME", shell_complete=complete, help="Only of this watch.")
@click.option("--experiment", default="", help="Only of this experiment.")
@click.option("--state", default="", help="Only in this state: due, run, duplicate, ignored, incomplete.")
@click.option("--limit", default=20, show_default=True, type=click.IntRange(1, 1_000_000), help="At most so many.")
@json_option
def main(watch: str, experiment: str, state: str, limit: int, as_json: bool) -> None:
    """List the files that arrived, the newest first."""
    from orchestrator import records
    from orchestrator.cli import formats

    with session.client() as client:
        wanted = _state(state)
        found = client.watches.arrivals(watch=watch, experiment=experiment, state=wanted, newest=True, limit=limit)
    if as_json:
        formats.emit([records.arrival_record(arrival) for arrival in found])
        return
    rows = [
        (a.id, a.watch, a.name, formats.size(a.fingerprint[2]), formats.coloured(a.state.value), _when(a), _what(a))
        for a in found
    ]
    headings = ("id", "watch", "name", "size", "state", "decided", "run or reason")
    click.echo(formats.table(headings, rows, right=("size",)) if rows else "No arrivals.")


@arrivals.command()
@click.argument("number", metavar="ID", type=click.IntRange(1))
@json_option
def why(number: int, as_json: bool) -> None:
    """Say what became of a file, and why."""
    from orchestrator import records
    from orchestrator.cli import formats
    from orchestrator.engine import watching
    from orchestrator.errors import NotFound, printable

    with session.client() as client:
        found = client.watches.of([number])
    if not found:
        raise NotFound(f"There is no arrival {number}.", "`beamway arrivals` lists them.")
    sentence, then = watching.sentence(found[0])
    if as_json:
        formats.emit({**records.arrival_record(found[0]), "why": sentence, "next": then})
        return
    click.echo(printable(sentence))
    click.echo(f"since  {formats.local(found[0].decided_at)}")
    click.echo(f"next   {printable(then)}")


@arrivals.command()
@click.argument("numbers", metavar="ID…", nargs=-1, required=True, type=click.IntRange(1))
@click.option("--workflow", default="", help="What is to run, where no rule has said it, or something else than that.")
@click.option("--argument", "pairs", multiple=True, metavar="KEY:VALUE", help="Of the runs, beside those they have.")
@json_option
def release(numbers: tuple[int, ...], workflow: str, pairs: tuple[str, ...], as_json: bool) -> None:
    """Run files that did not: incomplete ones, duplicates, ignored ones."""
    from orchestrator import records
    from orchestrator.arrival import rule_text
    from orchestrator.cli import formats
    from orchestrator.errors import printable

    given = rule_text.arguments_of(pairs)
    with session.client() as client:
        made = [client.watches.release(number, workflow=workflow, given=given) for number in numbers]
    if as_json:
        formats.emit([records.arrival_record(arrival) for arrival in made])
        return
    for arrival in made:
        click.echo(printable(f"{arrival.id}: '{arrival.name}' is due to run {arrival.workflow.rpartition('@')[0]}."))


def last(client: Client) -> int:
    """The number of the newest arrival; 0 when there is none."""
    found = client.watches.arrivals(newest=True, limit=1)
    return found[0].id if found else 0


def follow(client: Client, watch: str, after: int, *, as_json: bool) -> None:
    """Show what becomes of each file of a watch after that number, until Ctrl-C or until it is over."""
    import json
    import time

    from orchestrator import records
    from orchestrator.cli import formats
    from orchestrator.errors import printable
    from orchestrator.store.arrivals import ArrivalState

    going: dict[int, ArrivalState] = {}
    runs: dict[str, Arrival] = {}
    stopped, asked_at = False, 0.0
    while True:
        if time.monotonic() > asked_at + LS_S:
            stopped = any(w.watch.name == watch and w.watch.stopped_at for w in client.watches.ls())
            asked_at = time.monotonic()
        fresh = client.watches.arrivals(watch=watch, after=after)
        after = fresh[-1].id if fresh else after
        for arrival in [*client.watches.of([*going]), *fresh]:
            if going.get(arrival.id) is arrival.state:
                continue
            if as_json:
                click.echo(json.dumps(records.arrival_record(arrival)))
            else:
                state = formats.coloured(arrival.state.value)
                click.echo(f"{_when(arrival)} {printable(arrival.name)} {state} {printable(_what(arrival))}".rstrip())
            if arrival.state in (ArrivalState.DUE, ArrivalState.INCOMPLETE):
                going[arrival.id] = arrival.state
            else:
                going.pop(arrival.id, None)
            if arrival.state is ArrivalState.RUN:
                runs[arrival.run_id] = arrival
        for run_id in client.ended([*runs]) if runs else ():
            arrival, status = runs.pop(run_id), client.run(run_id).status.value
            if not as_json:
                now = formats.local(time.time())
                click.echo(f"{now} {printable(arrival.name)} {formats.coloured(status)} {run_id}")
        due = ArrivalState.DUE in going.values()
        if stopped and not fresh and not due and not runs:
            return
        time.sleep(FOLLOW_S)


def _state(text: str) -> ArrivalState | None:
    from orchestrator.errors import ArgumentError, nearest
    from orchestrator.store.arrivals import ArrivalState

    states = [s.value for s in ArrivalState]
    if text and text not in states:
        raise ArgumentError(f"There is no state {text!r}.{nearest(text, states)}", f"States: {', '.join(states)}.")
    return ArrivalState(text) if text else None


def _when(arrival: Arrival) -> str:
    from orchestrator.cli import formats

    return formats.local(arrival.decided_at)


def _what(arrival: Arrival) -> str:
    return arrival.run_id or arrival.reason
