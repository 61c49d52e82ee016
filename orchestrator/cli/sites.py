"""Commands about sites: which there are, what a profile says, whether it is true, and adding one."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.shell_completion import CompletionItem

from orchestrator.cli import session
from orchestrator.cli.group import Commands
from orchestrator.cli.session import json_option
from orchestrator.errors import BeamwayError

if TYPE_CHECKING:
    from orchestrator.settings import Settings
    from orchestrator.sitecheck import Check
    from sites.schema import SiteProfile


@click.group(cls=Commands, invoke_without_command=True)
@click.pass_context
def site(context: click.Context) -> None:
    """List, show, check and add the places that compute."""
    if context.invoked_subcommand is None:
        click.echo(context.get_help())


def _complete(context: click.Context, _parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    from orchestrator import settings
    from sites import loader

    try:
        known = loader.names([_folder(settings.load()), loader.SHIPPED])
    except BeamwayError:
        return []
    return [CompletionItem(n) for n in known if n.startswith(incomplete)] or [CompletionItem(incomplete, type="file")]


name_argument = click.argument("name", metavar="NAME", shell_complete=_complete)


def _folder(settings: Settings) -> Path:
    """Where the user's own profiles are; they go before the shipped ones."""
    return settings.home / "sites"


def load(name: str) -> SiteProfile:
    from orchestrator import settings
    from sites import loader

    return loader.load(name, [_folder(settings.load())])


def _now_in(profile: SiteProfile) -> str:
    """What of maintenance there is at this moment."""
    now = datetime.now(tz=UTC)
    return next(
        (f"{m.reason} until {m.until.isoformat()}" for m in profile.maintenance if m.from_ <= now < m.until), ""
    )


@site.command()
@json_option
def ls(as_json: bool) -> None:
    """List the sites."""
    from orchestrator import settings
    from orchestrator.cli import formats
    from orchestrator.errors import printable
    from sites import loader

    configured = settings.load()
    own = _folder(configured)
    lines: list[dict[str, Any]] = []
    for name in loader.names([own, loader.SHIPPED]):
        path = own / f"{name}.toml"
        path, origin = (path, "yours") if path.is_file() else (loader.SHIPPED / path.name, "shipped")
        line: dict[str, Any] = {"name": name, "scheduler": "", "title": "", "queues": [], "now": "", "error": ""}
        line |= {"default": name == configured.site, "from": origin, "file": str(path)}
        try:
            profile = loader.load(name, [own])
            line |= {"scheduler": profile.scheduler.kind, "title": profile.identity.title}
            line |= {"queues": [q.name for q in profile.queues], "now": _now_in(profile)}
        except BeamwayError as error:
            line["error"] = str(error)
        lines.append(line)
    if as_json:
        formats.emit(lines)
        return
    rows = [
        (
            w["name"] + (" (default)" if w["default"] else ""),
            w["scheduler"],
            w["title"] if not w["error"] else "its profile is wrong, see below",
            len(w["queues"]),
            w["from"],
            w["now"],
        )
        for w in lines
    ]
    click.echo(formats.table(("name", "scheduler", "title", "queues", "from", "now"), rows, right=("queues",)))
    for line in lines:
        if line["error"]:
            click.echo(f"\n{printable(line['error'])}")


@site.command()
@name_argument
@json_option
def show(name: str, as_json: bool) -> None:
    """Show what the profile of a site says."""
    profile = load(name)
    if as_json:
        from orchestrator.cli import formats

        formats.emit(json.loads(profile.model_dump_json(by_alias=True)))
        return
    from orchestrator.cli import siteview

    click.echo(siteview.text(profile))


@site.command()
@name_argument
@click.option("--live", is_flag=True, help="Run a small job there too, on one node for some seconds.")
@click.option("--queue", default="", metavar="NAME", help="Queue or use for that job; without it, a debug queue.")
@click.option(
    "--timeout",
    "timeout_s",
    type=click.FloatRange(1, 86400),
    default=300.0,
    show_default=True,
    help="Seconds to wait for that job; then it is cancelled.",
)
@json_option
@click.pass_context
def check(context: click.Context, name: str, live: bool, queue: str, timeout_s: float, as_json: bool) -> None:
    """Compare a site with its profile; exit 1 when something is not as it says.

    NAME is a site, or the file of a profile, which need not be added yet. What is asked starts nothing; --live does.
    """
    import contextlib

    import msgspec

    from orchestrator import sitecheck
    from orchestrator.cli import formats

    session.quiet_logs()
    profile = load(name)
    if queue and profile.queue(queue) is None:
        raise click.BadParameter(f"there is no queue or use {queue!r} in the profile", param_hint="'--queue'")
    scheduler, refused = _scheduler(profile)
    made: list[Check] = []
    tell = _silent if as_json else _progress
    checks = sitecheck.check(
        profile, scheduler, live=live, refused=refused, queue=queue, timeout_s=timeout_s, tell=tell
    )
    with contextlib.closing(checks):
        for found in checks:
            made.append(found)
            if not as_json:
                check_row(found)
    failed = sum(c.result is sitecheck.Result.FAILED for c in made)
    if as_json:
        formats.emit([msgspec.to_builtins(c) for c in made])
    else:
        contact = f" Contact: {profile.identity.contact}." if failed else ""
        click.echo(f"\n{len(made)} checks, {failed} failed.{contact}")
    context.exit(1 if failed else 0)


def _scheduler(profile: SiteProfile) -> tuple[Any, str]:
    """The scheduler of a site, or why there is none."""
    from orchestrator import schedulers
    from orchestrator.errors import SettingsError

    if profile.local:
        return None, ""
    try:
        return schedulers.of(profile), ""
    except ImportError:  # it is declared, and its adapter is not part of this installation
        return None, ""
    except SettingsError as error:
        return None, error.sentence


def check_row(found: Check) -> None:
    from orchestrator.errors import printable

    colour = {"passed": "green", "failed": "red", "skipped": "bright_black"}[found.result]
    mark = click.style(f"{found.result:<7}", fg=colour)
    click.echo(f"{mark} {found.seconds:7.2f} s  {printable(found.name):<22} {printable(found.seen)}")
    if found.remedy:
        click.echo(f"{'':35}→ {printable(found.remedy)}")


def _silent(text: str) -> None:
    pass


def _progress(text: str) -> None:
    from orchestrator.errors import printable

    click.echo(f"{'':8}{'…':>9}  {printable(text)}", err=True)


@site.command()
@click.argument("file", metavar="FILE", type=click.Path())
@click.option("--replace", is_flag=True, help="Put it in the place of a site of the same name.")
@json_option
def add(file: str, replace: bool, as_json: bool) -> None:
    """Add the profile in FILE to your sites, under the name it gives itself."""
    from orchestrator import settings
    from orchestrator.cli import formats, siteview
    from orchestrator.errors import printable
    from sites import loader

    configured = settings.load()
    text = loader.read(Path(file))
    profile = loader.parse(text, file)
    settings.ensure_home(configured.home)
    path, replaced = siteview.put(text, profile.name, _folder(configured), replace=replace)
    if as_json:
        formats.emit({"name": profile.name, "file": str(path), "replaced": replaced})
        return
    click.echo(f"Site {profile.name} is {'replaced' if replaced else 'added'}: {printable(path)}")
    if replaced:
        click.echo("A service that runs keeps the old profile until `beamway down` and the next command.")
    click.echo(f"`beamway site check {profile.name}` compares it with the site.")
