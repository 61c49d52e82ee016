"""Commands about dead letters: runs that failed for good and that nobody has dealt with."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from orchestrator.cli import bulk, session
from orchestrator.cli.group import Commands
from orchestrator.cli.session import arguments_argument, json_option

if TYPE_CHECKING:
    from orchestrator.store.letters import Letter


@click.group(cls=Commands, invoke_without_command=True)
@click.pass_context
def dead(context: click.Context) -> None:
    """List, mend, send again or dismiss the runs that failed for good."""
    if context.invoked_subcommand is None:
        click.echo(context.get_help())


def complete(context: click.Context, _parameter: click.Parameter, incomplete: str) -> list[str]:
    from orchestrator.errors import BeamwayError

    try:
        with session.client() as client:
            return [letter.run_id for letter in client.dead(limit=100) if letter.run_id.startswith(incomplete)]
    except BeamwayError:
        return []


run_argument = click.argument("run_id", metavar="RUN", shell_complete=complete)


@dead.command()
@bulk.which
@click.option("--limit", default=50, show_default=True, type=click.IntRange(1, 1_000_000), help="At most so many.")
@json_option
def ls(since: str, workflow: str, experiment: str, site: str, limit: int, as_json: bool) -> None:
    """List them, the newest first."""
    from orchestrator import records
    from orchestrator.cli import formats

    wanted = bulk.Which(since, workflow, experiment, site)
    with session.client() as client:
        found = wanted.dead(client, limit=limit)
    if as_json:
        formats.emit([records.letter_record(letter) for letter in found])
        return
    rows = [(x.run_id, x.workflow, x.experiment, x.site, x.failure, formats.local(x.at), x.reason) for x in found]
    headings = ("id", "workflow", "experiment", "site", "failure", "failed", "reason")
    click.echo(formats.table(headings, rows) if rows else "No dead letters.")


@dead.command()
@run_argument
@json_option
def show(run_id: str, as_json: bool) -> None:
    """Show one: why it failed, with which arguments, and what was fixed."""
    from orchestrator import records
    from orchestrator.cli import formats
    from orchestrator.errors import printable

    with session.client() as client:
        letter = client.letter(session.find(client, run_id))
        run = client.run(letter.run_id)
        answer = client.why(letter.run_id)
    given = {name: run.plan.variables[name] for name in run.plan.supplied if name in run.plan.variables}
    if as_json:
        told = {"arguments": given, "why": answer.sentence, "next": answer.next, "contact": answer.contact}
        formats.emit(records.letter_record(letter) | told)
        return
    click.echo(printable(f"{letter.workflow}  {letter.run_id}  {letter.failure} at site {letter.site}"))
    click.echo(f"failed {formats.local(letter.at)}")
    click.echo(printable(answer.sentence))
    for detail in answer.details:
        click.echo(f"  {printable(detail)}")
    if answer.contact:
        click.echo(f"call   {printable(answer.contact)}")
    for name, value in given.items():
        fixed = f" → {letter.fixes[name]}" if name in letter.fixes else ""
        click.echo(printable(f"argument {name}:{value}{fixed}"))
    for name in letter.fixes.keys() - given.keys():
        click.echo(printable(f"argument {name}: → {letter.fixes[name]}"))
    _say_next(letter)


@dead.command()
@run_argument
@arguments_argument
@json_option
def fix(run_id: str, pairs: tuple[str, ...], as_json: bool) -> None:
    """Write down arguments that another run in its place is to have; `resend` begins it."""
    from orchestrator import records
    from orchestrator.cli import formats
    from orchestrator.definition import compat
    from orchestrator.errors import ArgumentError

    changed = compat.parse_arguments(pairs)
    if not changed:
        raise ArgumentError("Name at least one argument and the value it should have, KEY:VALUE.")
    with session.client() as client:
        letter = client.fix(session.find(client, run_id), changed)
    if as_json:
        formats.emit(records.letter_record(letter))
        return
    _say_next(letter)


def _say_next(letter: Letter) -> None:
    what = "begins another run in its place" if letter.fixes else "runs again what did not pass"
    click.echo(f"next   `beamway dead resend {letter.run_id}` {what}.")


@dead.command()
@run_argument
@json_option
def resend(run_id: str, as_json: bool) -> None:
    """Run it again; where arguments were fixed, begin another run in its place."""
    from orchestrator.cli import formats

    with session.client() as client:
        failed = session.find(client, run_id)
        found = client.resend(failed)
    if as_json:
        formats.emit({"id": found, "instead_of": failed if found != failed else None})
    else:
        begun = "goes on" if found == failed else "was begun in its place"
        click.echo(f"Run {found} {begun}; `beamway watch {found}` shows it.")


@dead.command()
@run_argument
@json_option
def dismiss(run_id: str, as_json: bool) -> None:
    """Take it off the list; the run stays failed."""
    from orchestrator.cli import formats

    with session.client() as client:
        found = session.find(client, run_id)
        client.dismiss(found)
    if as_json:
        formats.emit({"id": found})
    else:
        click.echo(f"Run {found} is off the list.")
