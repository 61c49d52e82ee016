"""Commands about the service itself, and completion for shells."""

from __future__ import annotations

import click

from orchestrator.cli import session
from orchestrator.cli.session import json_option


@click.command()
@json_option
def up(as_json: bool) -> None:
    """Be the service of this home in the foreground, until Ctrl-C.

    Commands start a service by themselves when none runs, which ends after a while without work; this one stays. With
    --json its log is one JSON object a line.
    """
    from orchestrator import locks, settings
    from orchestrator.errors import Conflict

    configured = settings.load()
    settings.ensure_home(configured.home)
    running = locks.service_lock(configured.home)
    if locks.locked(running):
        raise Conflict(f"A service runs for {configured.home} already (pid {locks.holder(running)}).", "`beamway down`")
    configure_logs(as_json)
    from orchestrator.service.serve import serve

    click.get_current_context().exit(serve(configured))


def configure_logs(as_json: bool) -> None:
    """Logs of a process in the foreground: for people, or one JSON object a line."""
    from orchestrator import logs

    if as_json:
        logs.configure()
    else:
        logs.configure_for_people()


@click.command()
@json_option
def down(as_json: bool) -> None:
    """End the service; its runs go on when it is started again."""
    from orchestrator.cli import formats

    with session.client() as client:
        stopped = client.stop_service()
    if as_json:
        formats.emit({"stopped": stopped})
    else:
        click.echo("The service has ended; what ran is taken up again by the next." if stopped else "No service ran.")


@click.command()
@json_option
def status(as_json: bool) -> None:
    """Show the service, its agents, how many runs are in each state, and how the watches stand."""
    import time

    from orchestrator import codec, records
    from orchestrator.cli import formats
    from orchestrator.errors import printable

    with session.client() as client:
        home, site = client.settings.home, client.settings.site
        pong = client.service()
        counts = client.counts()
        watches, now = client.watches.ls(), time.time()
    if as_json:
        service = {"pid": pong.pid, "version": pong.version, "active": pong.active} if pong else None
        agents = list(pong.agents) if pong else []
        shut = {n: {"since": codec.iso(at), "why": text} for n, (at, text) in pong.shut.items()} if pong else {}
        told = {"home": str(home), "service": service, "site": site, "agents": agents, "shut": shut, "runs": counts}
        formats.emit({**told, "watches": [records.watch_record(w, now) for w in watches]})
        return
    click.echo(f"home     {printable(home)}")
    if pong is None:
        click.echo("service  none runs; the next command that needs one starts it")
    else:
        click.echo(f"service  pid {pong.pid}, {pong.active} runs not over")
        away = "" if site in pong.agents else f"{site} (not connected; log: {printable(home)}/logs/agent-{site}.log)"
        click.echo(f"agents   {', '.join([*pong.agents, *([away] if away else [])])}")
    for name, (since, text) in pong.shut.items() if pong else ():
        click.echo(f"shut     {printable(name)} since {formats.local(since)}: {printable(text)}")
    shown = ", ".join(f"{n} {formats.coloured(s)}" for s, n in sorted(counts.items())) or "none yet"
    click.echo(f"runs     {shown}")
    for w in watches:
        if w.watch.stopped_at:
            continue
        scanned = formats.local(w.report.scanned_at) if w.report else "-"
        numbers = ", ".join(f"{n} {formats.coloured(s)}" for s, n in sorted(w.arrivals.items())) or "nothing arrived"
        click.echo(f"watch    {printable(w.watch.name)}, scanned {scanned}: {numbers}")
        if words := records.watch_trouble(w, now):
            click.echo(f"         {printable(words)}")


@click.command()
@json_option
@click.pass_context
def doctor(context: click.Context, as_json: bool) -> None:
    """Look whether this installation is well; exit 1 when something is not. Nothing is changed by it."""
    import os
    from pathlib import Path

    import msgspec

    from orchestrator import settings
    from orchestrator.cli import formats
    from orchestrator.cli.sites import check_row
    from orchestrator.client import checkup
    from orchestrator.sitecheck import Result

    session.quiet_logs()
    home = Path(os.environ.get("BEAMWAY_HOME") or settings.default_home()).expanduser().absolute()
    made = []
    for found in checkup.checks(home):
        made.append(found)
        if not as_json:
            check_row(found)
    wrong = sum(c.result is Result.FAILED for c in made)
    if as_json:
        formats.emit([msgspec.to_builtins(c) for c in made])
    else:
        click.echo(f"\n{len(made)} checks, {wrong} failed.")
    context.exit(1 if wrong else 0)


@click.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@json_option
def completion(shell: str, as_json: bool) -> None:
    """Print the completion of a shell: `eval "$(beamway completion bash)"`."""
    from click.shell_completion import get_completion_class

    from orchestrator.cli import COMPLETE, PROGRAM, formats
    from orchestrator.cli.app import cli

    kind = get_completion_class(shell)
    assert kind is not None  # the choice above holds only known ones
    made = kind(cli, {}, PROGRAM, COMPLETE)
    script = made.source_template % made.source_vars()
    if as_json:
        formats.emit({"shell": shell, "script": script})
    else:
        click.echo(script)
