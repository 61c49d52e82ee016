"""Commands about runs: start, list, show, watch, cancel, retry, and why."""

from __future__ import annotations

import click

from orchestrator.cli import bulk, session
from orchestrator.cli.session import arguments_argument, json_option, run_argument, workflow_argument


@click.command(add_help_option=False)
@workflow_argument(required=False)
@arguments_argument
@click.option("--wait", is_flag=True, help="Show it until it is over; exit 0 only when it is done, 1 when it failed.")
@click.option("--strict", is_flag=True, help="Refuse a run without an input file specification, as DM does.")
@click.option("--dry-run", is_flag=True, help="Print the plan and start nothing.")
@click.option("--id", "run_id", metavar="UUID", default="", help="The id of the run; asking twice starts it once.")
@session.placing_options
@click.option("--priority", type=click.Choice(["live", "normal", "backfill"]), help="Whose work goes first at a site.")
@json_option
@click.option("--help", "wants_help", is_flag=True, help="Show this; of a WORKFLOW, its arguments.")
@click.pass_context
def run(
    context: click.Context,
    /,
    workflow: str | None,
    pairs: tuple[str, ...],
    wait: bool,
    strict: bool,
    dry_run: bool,
    run_id: str,
    as_json: bool,
    wants_help: bool,
    **placing: str | None,
) -> None:
    """Start WORKFLOW (a file, or a name) with these arguments."""
    if wants_help and workflow is None:
        click.echo(context.get_help())
        return
    if workflow is None:
        context.fail("Name the workflow to run.")
    from orchestrator import records
    from orchestrator.cli import definitions, formats, progress
    from orchestrator.definition import compat

    run_id = session.checked_id(run_id)
    with session.client() as client:
        definition = client.definition(workflow)
        if wants_help:
            definitions.print_arguments(definition, workflow, as_json=as_json)
            return
        asked = session.placing(placing)
        plan = client.plan(definition, compat.parse_arguments(pairs), strict=strict, placing=asked)
        if dry_run:
            session.quiet_logs()
            definitions.print_plan(plan, client.placements(plan), as_json=as_json)
            return
        run_id = client.submit(plan, run_id=run_id)
        started = {"id": run_id, "owner": plan.owner, "status": "pending"}
        if not wait:
            if as_json:
                formats.emit(started)
            else:
                click.echo(compat.one_line(started))
            return
        if not as_json:
            click.echo(compat.one_line(started))
        ended = progress.follow(client, run_id, quiet=as_json)
        if as_json:
            formats.emit(records.run_record(ended))
            context.exit(0 if ended.status.value == "done" else 1)
        print_outputs(ended)
        progress.require_done(ended)


@click.command()
@click.option("--status", default="", help="Only runs in this state.")
@click.option("--workflow", default="", help="Only runs of this workflow.")
@click.option("--experiment", default="", help="Only runs of this experiment.")
@click.option("--file", default="", help="Only runs on files whose path, name or a word of it begins so.")
@click.option("--since", default="", metavar="WHEN", help="Only runs submitted since: 2h (ago), 14:00, 2026-11-24.")
@click.option("--until", default="", metavar="WHEN", help="Only runs submitted before; of a date, the whole day.")
@click.option("--limit", default=20, show_default=True, type=click.IntRange(1, 100_000), help="At most so many.")
@json_option
def ls(
    status: str, workflow: str, experiment: str, file: str, since: str, until: str, limit: int, as_json: bool
) -> None:
    """List the runs, the newest first."""
    import time

    from orchestrator import records
    from orchestrator.cli import formats, times
    from orchestrator.errors import ArgumentError, nearest
    from orchestrator.model import RunStatus

    states = [s.value for s in RunStatus]
    if status and status not in states:
        raise ArgumentError(f"There is no state {status!r}.{nearest(status, states)}", f"States: {', '.join(states)}.")
    now = time.time()
    with session.client() as client:
        found = client.runs(
            status=status,
            workflow=workflow,
            experiment=experiment,
            file=session.beginning_of_path(file),
            since=times.past(since, now) if since else 0.0,
            until=times.past(until, now, whole_day=True) if until else 0.0,
            limit=limit,
        )
    if as_json:
        formats.emit([records.summary_record(line) for line in found])
        return
    named = any(line.experiment for line in found)
    rows = []
    for line in found:
        took = formats.duration(line.ended_at - line.started_at) if line.ended_at and line.started_at else "-"
        shown = formats.coloured(line.status.value)
        whose = (line.experiment,) if named else ()
        rows.append(
            (line.id, line.workflow, *whose, shown, line.stage, formats.local(line.created_at), took, line.error)
        )
    if rows:
        headings = (
            "id",
            "workflow",
            *(("experiment",) if named else ()),
            "status",
            "stage",
            "submitted",
            "took",
            "error",
        )
        click.echo(formats.table(headings, rows))
    else:
        click.echo("No runs.")


@click.command()
@run_argument
@click.option("--dm", is_flag=True, help="The job record of DM: one line of key=value, with --json the whole of it.")
@click.option("--display-keys", default="", metavar="KEY,KEY|ALL", help="With --dm: the keys to print.")
@json_option
def show(run_id: str, dm: bool, display_keys: str, as_json: bool) -> None:
    """Show a run: its stages, what they cost, what came out."""
    from orchestrator import records
    from orchestrator.cli import formats, progress
    from orchestrator.definition import compat
    from orchestrator.errors import printable
    from orchestrator.model import RUN_ENDED

    with session.client() as client:
        found = client.run(session.find(client, run_id))
        going = {} if found.status in RUN_ENDED else client.live(found.id).progress
    if dm or display_keys:
        record = compat.job_record(found)
        if as_json:
            wanted = [k for k in display_keys.split(",") if k]
            formats.emit(record if not wanted or wanted == ["ALL"] else {k: record.get(k) for k in wanted})
        else:
            click.echo(compat.one_line(record, display_keys or None))
        return
    going_on = records.going_on(found, going)
    if as_json:
        formats.emit({**records.run_record(found), "progress": going_on})
        return
    click.echo(f"{found.plan.workflow}  {found.id}  {formats.coloured(found.status.value)}")
    click.echo(f"submitted {formats.local(found.created_at)}, ended {formats.local(found.ended_at)}")
    given = [(n, found.plan.variables[n]) for n in found.plan.supplied if n in found.plan.variables]
    if given:
        click.echo("arguments " + " ".join(printable(f"{name}:{value}") for name, value in given))
    if found.error:
        click.echo(f"error {printable(found.error)}")
    for task in records.on_hold(found)[:1]:
        if task.hold is not None:
            click.echo(printable(f"on hold {task.hold.reason} (`beamway why {found.id}` says more)"))
    click.echo()
    click.echo(progress.stage_table(found))
    for each in going_on:
        click.echo(printable(f"{each['stage']}, task {each['task']}: {each['fraction']:.0%} {each['text']}".rstrip()))
    print_outputs(found)


def print_outputs(found: object) -> None:
    from orchestrator import records
    from orchestrator.cli import formats
    from orchestrator.errors import printable
    from orchestrator.model import Run

    assert isinstance(found, Run)
    rows = [(p.path, formats.size(p.bytes), p.description) for _, p in records.outputs(found)]
    if rows:
        click.echo()
        click.echo(formats.table(("output (passed its checks)", "size", ""), rows, right=("size",)))
    for stage, said in records.warnings(found):
        click.echo(printable(f"warning of {stage}: {said}"))


def watch_run(context: click.Context, run_id: str, *, as_json: bool) -> None:
    """Show a run until it is over; exit 0 only when it is done."""
    from orchestrator import records
    from orchestrator.cli import formats, progress

    with session.client() as client:
        ended = progress.follow(client, session.find(client, run_id), quiet=as_json)
    if as_json:
        formats.emit(records.run_record(ended))
        context.exit(0 if ended.status.value == "done" else 1)
    print_outputs(ended)
    progress.require_done(ended)


@click.command()
@run_argument
@json_option
def why(run_id: str, as_json: bool) -> None:
    """Say what a run waits for or why it failed: since when, whom to call, what to do next."""
    import time

    from orchestrator import codec
    from orchestrator.cli import formats
    from orchestrator.errors import printable

    with session.client() as client:
        found = client.run(session.find(client, run_id))
        answer = client.why(found.id)
    if as_json:
        formats.emit(
            {
                "id": found.id,
                "status": found.status.value,
                "why": answer.sentence,
                "since": codec.iso(answer.since),
                "contact": answer.contact,
                "next": answer.next,
                "details": list(answer.details),
            }
        )
        return
    click.echo(printable(answer.sentence))
    for detail in answer.details:
        click.echo(f"  {printable(detail)}")
    if answer.since:
        ago = formats.duration(max(0.0, time.time() - answer.since))
        click.echo(f"since  {formats.local(answer.since)} ({ago} ago)")
    if answer.contact:
        click.echo(f"call   {printable(answer.contact)}")
    if answer.next:
        click.echo(f"next   {printable(answer.next)}")


@click.command()
@session.optional_run_argument
@click.option("--wait", is_flag=True, help="Return when no process of it is left.")
@click.option("--all", "every", is_flag=True, help="Every run that is not over, or those the options below name.")
@bulk.which
@bulk.dry_run_option
@json_option
@click.pass_context
def cancel(
    context: click.Context,
    run_id: str,
    wait: bool,
    every: bool,
    since: str,
    workflow: str,
    experiment: str,
    site: str,
    dry_run: bool,
    as_json: bool,
) -> None:
    """End a run and every process of it, or many runs."""
    from orchestrator.cli import formats, progress
    from orchestrator.errors import Conflict

    which = bulk.Which(since, workflow, experiment, site)
    bulk.one_or_many(context, run_id, "--all", every, which, dry_run)
    with session.client() as client:
        if every:
            ids = which.going(client)

            def end(run: str) -> str:
                client.cancel(run)
                if wait:
                    progress.follow(client, run, quiet=True)
                return run

            context.exit(bulk.carry_out(ids, end, done="cancelled", dry_run=dry_run, as_json=as_json))
        found = session.find(client, run_id)
        client.cancel(found)
        status = progress.follow(client, found, quiet=True).status.value if wait else "aborting"
    if wait and status != "aborted":
        raise Conflict(f"Run {found} was over before it could be cancelled: {status}.")
    if as_json:
        formats.emit({"id": found, "status": status})
    else:
        click.echo(f"Run {found} is {status}.")


@click.command()
@session.optional_run_argument
@click.option("--site", default="", metavar="SITE", help="Everything that is on hold at this site.")
@json_option
@click.pass_context
def resume(context: click.Context, run_id: str, site: str, as_json: bool) -> None:
    """Try at once what is on hold, of a run or at a site."""
    from orchestrator.cli import formats

    if bool(run_id) == bool(site):
        context.fail("Name a run, or a site with --site.")
    with session.client() as client:
        found = client.resume(site=site) if site else client.resume(session.find(client, run_id))
    if as_json:
        formats.emit({"runs": list(found)})
    else:
        click.echo(f"{len(found)} run{'s' * (len(found) != 1)} tried again." if found else "Nothing is on hold there.")


@click.command()
@session.optional_run_argument
@click.option("--from", "stage", default="", metavar="STAGE", help="Run this stage and all after it again.")
@click.option("--failed", is_flag=True, help="Every dead letter, or those that the options below name.")
@bulk.which
@bulk.dry_run_option
@json_option
@click.pass_context
def retry(
    context: click.Context,
    run_id: str,
    stage: str,
    failed: bool,
    since: str,
    workflow: str,
    experiment: str,
    site: str,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Run again what did not pass, with the plan the run has; of one run or of many."""
    from orchestrator.cli import formats

    which = bulk.Which(since, workflow, experiment, site)
    bulk.one_or_many(context, run_id, "--failed", failed, which, dry_run)
    if failed and stage:
        context.fail("--from is for one run.")
    with session.client() as client:
        if failed:
            ids = [letter.run_id for letter in reversed(which.dead(client))]
            context.exit(bulk.carry_out(ids, client.resend, done="begun again", dry_run=dry_run, as_json=as_json))
        found = session.find(client, run_id)
        client.retry(found, stage)
    if as_json:
        formats.emit({"id": found, "status": "running"})
    else:
        click.echo(f"Run {found} goes on; `beamway watch {found}` shows it.")
