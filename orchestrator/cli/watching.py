"""Commands about watched directories: watch one, list, show, stop, start."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import click

from orchestrator.cli import runs, session
from orchestrator.cli.group import Main, Noun
from orchestrator.cli.session import json_option

if TYPE_CHECKING:
    from orchestrator.client import Client
    from orchestrator.store.watches import Watched, Wish


@click.group(cls=Noun)
def watch() -> None:
    """Watch directories for files that arrive; or show a run until it is over."""


@watch.command("", cls=Main)
@click.argument("target", metavar="DIR|RUN", required=False, default="", shell_complete=session.complete_runs)
@click.argument("pairs", metavar="[KEY:VALUE]…", nargs=-1)
@click.option("--experiment", default="", help="Whose files these are; DM's experimentName.")
@click.option("--workflow", default="", help="What runs on each whole file: a name, or a file.")
@click.option("--match", multiple=True, metavar="GLOB", help="Only such names: `*.h5`, `scans/**/{scan}.h5`.")
@click.option("--argument", "arguments", multiple=True, metavar="KEY:VALUE", help="Of the runs; may hold {words}.")
@click.option("--rules", "rules_file", type=click.Path(path_type=Path), metavar="FILE", help="A rule file instead.")
@click.option("--name", default="", help="Of the watch; without it, that of the experiment.")
@click.option("--site", default="", metavar="SITE", help="Whose watcher sees DIR; without it, the default site.")
@click.option("--existing/--new-only", default=None, help="Take up what is there already (it is by default), or not.")
@click.option("--once", is_flag=True, help="Only until all that is there is decided.")
@click.option("--follow", is_flag=True, help="Show what becomes of each file, until Ctrl-C.")
@click.option("--change", is_flag=True, help="Give a watch that is there these rules.")
@json_option
@click.pass_context
def main(
    context: click.Context,
    /,
    target: str,
    pairs: tuple[str, ...],
    experiment: str,
    workflow: str,
    match: tuple[str, ...],
    arguments: tuple[str, ...],
    rules_file: Path | None,
    name: str,
    site: str,
    existing: bool | None,
    once: bool,
    follow: bool,
    change: bool,
    as_json: bool,
) -> None:
    """Watch DIR: each file that is whole and new runs a workflow. Or show RUN until it is over."""
    asked = experiment or workflow or match or arguments or rules_file or name or site or once or change or pairs
    if not asked and existing is None and os.sep not in target and not os.path.isdir(target):
        if not target:
            context.fail("Name a directory to watch, or a run to show.")
        runs.watch_run(context, target, as_json=as_json)
        return
    from orchestrator.arrival import rule_text
    from orchestrator.errors import SettingsError

    if rules_file is not None:
        if workflow or match or arguments or pairs or once or existing is not None:
            context.fail("With --rules its file says what runs on which files.")
        try:
            text = rules_file.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise SettingsError(f"The rule file '{rules_file}' cannot be read: {error}.") from None
    else:
        if not target:
            context.fail("Name the directory to watch.")
        given = rule_text.arguments_of(arguments)
        workflow = os.path.abspath(workflow) if os.path.isfile(workflow) else workflow
        said = {"workflow": workflow, "match": match, "arguments": given, "existing": existing, "once": once or None}
        text = rule_text.text_of(pairs, **said)
    from orchestrator.store.watches import Wish

    with session.client() as client:
        wish = Wish(
            text,
            directory=os.path.abspath(target) if target else "",
            experiment=experiment,
            name=name,
            site=site or client.settings.site,
            base=os.getcwd(),
            change=change,
            source=str(rules_file) if rules_file else "",
        )
        _put(client, wish, follow=follow, as_json=as_json)


def _put(client: Client, wish: Wish, *, follow: bool, as_json: bool) -> None:
    from orchestrator.cli import Interrupted, arrivals, formats
    from orchestrator.errors import printable

    last = arrivals.last(client) if follow else 0
    made = client.watches.put(wish)
    if as_json:
        formats.emit(_record(client, made.name))
    else:
        click.echo(printable(f"'{made.directory}' is watched for {made.experiment} as {made.name!r}."))
    if follow:
        try:
            arrivals.follow(client, made.name, last, as_json=as_json)
        except KeyboardInterrupt:
            raise Interrupted("It is watched on.", f"`beamway watch stop {made.name}` ends that.") from None
    elif not as_json:
        click.echo(f"`beamway arrivals --watch {made.name}` lists its files, `beamway watch stop {made.name}` ends it.")


def complete(context: click.Context, _parameter: click.Parameter, incomplete: str) -> list[str]:
    from orchestrator.errors import BeamwayError

    try:
        with session.client() as client:
            return [w.watch.name for w in client.watches.ls() if w.watch.name.startswith(incomplete)]
    except BeamwayError:
        return []


_name_argument = click.argument("name", metavar="NAME", shell_complete=complete)


@watch.command()
@json_option
def ls(as_json: bool) -> None:
    """List the watches, with how each stands."""
    import time

    from orchestrator import records
    from orchestrator.cli import formats
    from orchestrator.errors import printable

    with session.client() as client:
        found = client.watches.ls()
    now = time.time()
    if as_json:
        formats.emit([records.watch_record(w, now) for w in found])
        return
    if not found:
        click.echo("Nothing is watched.")
        return
    states = ("due", "run", "duplicate", "ignored", "incomplete")
    rows = []
    for w in found:
        scanned = formats.local(w.report.scanned_at) if w.report else "-"
        numbers = [w.arrivals.get(state, 0) for state in states]
        state = formats.coloured(records.watch_state(w, now))
        rows.append((w.watch.name, state, w.watch.experiment, w.watch.directory, scanned, *numbers))
    headings = ("name", "state", "experiment", "directory", "scanned", *states)
    click.echo(formats.table(headings, rows, right=states))
    for w in found:
        if words := records.watch_trouble(w, now):
            click.echo(printable(words))


@watch.command()
@_name_argument
@json_option
def show(name: str, as_json: bool) -> None:
    """Show a watch: its rules, its last scan, what has become of its files."""
    import time

    from orchestrator import records
    from orchestrator.cli import formats
    from orchestrator.errors import printable

    with session.client() as client:
        record = _record(client, name)
        watched = _find(client, name)
    if as_json:
        formats.emit(record)
        return
    watch, report = watched.watch, watched.report
    click.echo(printable(f"{watch.name}  {record['state']}  {watch.experiment}  '{watch.directory}' at {watch.site}"))
    if report is not None and report.scanned_at:
        took = formats.duration(report.scan_s)
        click.echo(f"scanned {formats.local(report.scanned_at)} in {took}, {report.waiting} files wait to be whole")
    if report is not None and report.polls:
        click.echo(printable(f"polled: {report.polls}"))
    if words := records.watch_trouble(watched, time.time()):
        click.echo(printable(words))
    numbers = ", ".join(f"{n} {state}" for state, n in sorted(watched.arrivals.items())) or "none yet"
    click.echo(f"arrivals {numbers}\n")
    click.echo("\n".join(map(printable, watch.rules.splitlines())))


@watch.command()
@_name_argument
@json_option
def stop(name: str, as_json: bool) -> None:
    """Watch it no more; runs that are due still begin."""
    from orchestrator.cli import formats

    with session.client() as client:
        client.watches.stop(name)
        if as_json:
            formats.emit(_record(client, name))
            return
    click.echo(f"{name} is stopped; `beamway watch start {name}` goes on with it.")


@watch.command()
@_name_argument
@json_option
def start(name: str, as_json: bool) -> None:
    """Go on with a watch that was stopped; what came meanwhile is found."""
    from orchestrator.cli import formats

    with session.client() as client:
        client.watches.start(name)
        if as_json:
            formats.emit(_record(client, name))
            return
    click.echo(f"{name} is watched.")


def _find(client: Client, name: str) -> Watched:
    from orchestrator.errors import NotFound, nearest

    known = {w.watch.name: w for w in client.watches.ls()}
    if name not in known:
        raise NotFound(f"There is no watch {name!r}.{nearest(name, known)}", "`beamway watch ls` lists them.")
    return known[name]


def _record(client: Client, name: str) -> dict[str, object]:
    import time

    from orchestrator import records

    return records.watch_record(_find(client, name), time.time())
