"""Commands about reservations of a site: which there are, and with Slurm making, prolonging and giving them back."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from datetime import datetime
from typing import TYPE_CHECKING, Any

import click

from orchestrator.cli import session
from orchestrator.cli.group import Commands
from orchestrator.cli.session import json_option
from orchestrator.cli.sites import load, name_argument
from orchestrator.errors import UserError

if TYPE_CHECKING:
    from orchestrator.jobs import Reservation, Scheduler
    from sites.schema import SiteProfile
    from slurm.client import Slurm


@click.group(cls=Commands, invoke_without_command=True)
@click.pass_context
def reservation(context: click.Context) -> None:
    """List the reservations of a site; with Slurm make and change them."""
    if context.invoked_subcommand is None:
        click.echo(context.get_help())
    else:
        session.quiet_logs()


_reservation_argument = click.argument("reservation_name", metavar="RESERVATION")
_from_option = click.option("--from", "from_text", default="now", show_default=True, metavar="WHEN", help="Its begin.")


def _until_options(function: Callable[..., Any]) -> Callable[..., Any]:
    function = click.option("--until", "until_text", default="", metavar="WHEN", help="Its end.")(function)
    return click.option("--for", "length", default="", metavar="TIME", help="Or its length, such as 2h or 90min.")(
        function
    )


@reservation.command()
@name_argument
@json_option
def ls(name: str, as_json: bool) -> None:
    """List the reservations that the scheduler of a site has."""
    from orchestrator import schedulers
    from orchestrator.cli import formats

    profile = load(name)
    listed = {} if profile.local else schedulers.of(profile).reservations()
    known = {r.name for r in profile.reservations}
    if as_json:
        formats.emit([_record(r, known) for r in listed.values()])
        return
    if not listed:
        click.echo(f"{profile.name} has no reservations.")
    else:
        rows = [
            (r.name, _state(r), formats.local(r.from_at), formats.local(r.until_at), r.queue, r.node_count, _whom(r))
            for r in sorted(listed.values(), key=lambda r: r.from_at)
        ]
        click.echo(formats.table(("name", "state", "from", "until", "queue", "nodes", "for"), rows, right=("nodes",)))
    for missing in sorted(known - listed.keys()):
        click.echo(f"The profile names {missing!r}, which the scheduler does not have.")


@reservation.command()
@name_argument
@_reservation_argument
@_from_option
@_until_options
@click.option("--nodes", type=click.IntRange(1), default=1, show_default=True, help="How many.")
@click.option("--queue", default="", metavar="NAME", help="Partition it is in; without it, the default one.")
@click.option("--user", "users", multiple=True, metavar="USER", help="For whom; without --user and --account, for you.")
@click.option("--account", "accounts", multiple=True, metavar="ACCOUNT", help="Or for which accounts.")
@json_option
def create(
    name: str,
    reservation_name: str,
    from_text: str,
    until_text: str,
    length: str,
    nodes: int,
    queue: str,
    users: tuple[str, ...],
    accounts: tuple[str, ...],
    as_json: bool,
) -> None:
    """Reserve nodes of a site that runs Slurm; its operators may."""
    import getpass

    from slurm import reservations

    profile, slurm = _slurm(name)
    now = time.time()
    from_at = moment(from_text, now)
    made = reservations.create(
        slurm,
        reservation_name,
        from_at=from_at,
        until_at=_until(until_text, length, from_at, now),
        nodes=nodes,
        queue=queue,
        users=users or (() if accounts else (getpass.getuser(),)),
        accounts=accounts,
    )
    _tell(made, as_json=as_json)
    if not as_json and reservation_name not in {r.name for r in profile.reservations}:
        click.echo(f"Runs use it with `--reservation {reservation_name}`; for all, name it in the profile.")


@reservation.command()
@name_argument
@_reservation_argument
@_until_options
@json_option
def extend(name: str, reservation_name: str, until_text: str, length: str, as_json: bool) -> None:
    """Give a reservation a later end; --for adds to the end it has."""
    from slurm import reservations

    _, slurm = _slurm(name)
    there = _existing(slurm, reservation_name)
    until_at = _until(until_text, length, there.until_at, time.time())
    reservations.extend(slurm, reservation_name, until_at=until_at)
    _tell(_existing(slurm, reservation_name), as_json=as_json)


@reservation.command()
@name_argument
@_reservation_argument
@json_option
def delete(name: str, reservation_name: str, as_json: bool) -> None:
    """Give a reservation back."""
    from orchestrator.cli import formats
    from slurm import reservations

    _, slurm = _slurm(name)
    _existing(slurm, reservation_name)
    reservations.delete(slurm, reservation_name)
    if as_json:
        formats.emit({"name": reservation_name, "deleted": True})
    else:
        click.echo(f"{reservation_name} is given back.")


@reservation.command()
@name_argument
@_reservation_argument
@click.argument("job", metavar="JOB")
@json_option
def attach(name: str, reservation_name: str, job: str, as_json: bool) -> None:
    """Move a waiting job of the scheduler into a reservation."""
    from slurm import reservations

    _, slurm = _slurm(name)
    reservations.attach(slurm, job, reservation_name)
    _moved(slurm, job, as_json=as_json)


@reservation.command()
@name_argument
@click.argument("job", metavar="JOB")
@json_option
def detach(name: str, job: str, as_json: bool) -> None:
    """Move a waiting job of the scheduler out of its reservation."""
    from slurm import reservations

    _, slurm = _slurm(name)
    reservations.detach(slurm, job)
    _moved(slurm, job, as_json=as_json)


def moment(text: str, now: float) -> float:
    """Epoch seconds of `now`, `+30min`, `14:00` (today, or tomorrow when that is past) or an ISO 8601 time."""
    text = text.strip()
    if text == "now":
        return now
    if text.startswith("+"):
        return now + _seconds(text[1:])
    if re.fullmatch(r"\d{1,2}:\d{2}", text):
        hours, minutes = map(int, text.split(":"))
        if hours < 24 and minutes < 60:
            day = time.localtime(now)
            at = time.mktime((day.tm_year, day.tm_mon, day.tm_mday, hours, minutes, 0, 0, 0, -1))
            return at if at > now else at + 86_400
    try:
        return datetime.fromisoformat(text).timestamp()
    except ValueError:
        raise UserError(f"{text!r} is no time.", "Say now, +30min, 14:00 or 2026-11-24T14:00.") from None


def _seconds(text: str) -> float:
    from orchestrator.definition.units import duration_s

    try:
        return duration_s(text)
    except ValueError as error:
        raise UserError(f"{text!r} is no length of time. {error}") from None


def _until(until_text: str, length: str, begin: float, now: float) -> float:
    if bool(until_text) == bool(length):
        raise UserError("Say when it ends: either --until WHEN or --for TIME.")
    return moment(until_text, now) if until_text else begin + _seconds(length)


def _slurm(name: str) -> tuple[SiteProfile, Slurm]:
    from orchestrator import schedulers
    from slurm.client import Slurm

    profile = load(name)
    scheduler: Scheduler | None = None if profile.local else schedulers.of(profile)
    if not isinstance(scheduler, Slurm):
        raise UserError(
            f"Beamway changes reservations of Slurm; {profile.name} has {profile.scheduler.kind!r}.",
            f"Ask {profile.identity.contact}; a reservation that is there can be used.",
        )
    return profile, scheduler


def _existing(slurm: Slurm, name: str) -> Reservation:
    from orchestrator.errors import NotFound, nearest

    known = slurm.reservations()
    if name not in known:
        raise NotFound(f"There is no reservation {name!r} here.{nearest(name, known)}")
    return known[name]


def _moved(slurm: Slurm, job: str, *, as_json: bool) -> None:
    from orchestrator.cli import formats

    seen = slurm.jobs([job])[job]
    if as_json:
        formats.emit({"job": job, "reservation": seen.reservation, "state": seen.state.value, "reason": seen.reason})
    else:
        where = f"in reservation {seen.reservation!r}" if seen.reservation else "in no reservation"
        click.echo(f"Job {job} is {where}: {seen.reason or seen.state.value}.")


def _tell(there: Reservation, *, as_json: bool) -> None:
    from orchestrator.cli import formats

    if as_json:
        formats.emit(_record(there, set()))
        return
    begin, end = formats.local(there.from_at), formats.local(there.until_at)
    click.echo(f"{there.name}: {there.node_count} nodes from {begin} to {end}, for {_whom(there)}.")


def _record(there: Reservation, known: set[str]) -> dict[str, Any]:
    from orchestrator import codec

    return {
        "name": there.name,
        "state": _state(there),
        "from": codec.iso(there.from_at),
        "until": codec.iso(there.until_at),
        "queue": there.queue,
        "nodes": list(there.nodes),
        "node_count": there.node_count,
        "users": list(there.users),
        "accounts": list(there.accounts),
        "in_profile": there.name in known,
    }


def _state(there: Reservation) -> str:
    return "open" if there.active else "not open"


def _whom(there: Reservation) -> str:
    return ", ".join((*there.users, *there.accounts)) or "everybody"
