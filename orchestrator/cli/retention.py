"""Commands about copies: which stay, go, are archived and brought back."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any

import click

from orchestrator.cli import session
from orchestrator.cli.group import Commands
from orchestrator.cli.session import json_option

if TYPE_CHECKING:
    from orchestrator.catalog.book import Done
    from orchestrator.catalog.retention import Planned

experiment_option = click.option("--experiment", default="", help="Only files of this experiment.")
site_option = click.option("--site", default="", help="Only copies of this site.")
what_argument = click.argument("what", metavar="[FILE|COLLECTION]", required=False, default="")


@click.group(cls=Commands)
def retention() -> None:
    """Remove copies that others stand for: plan, apply, log, pins."""


@retention.command()
@experiment_option
@site_option
@click.option("--all", "everything", is_flag=True, help="List the copies that stay too, each with its reason.")
@json_option
def plan(experiment: str, site: str, everything: bool, as_json: bool) -> None:
    """Show what would become of each copy, and why. Nothing is changed, and no copy looked at."""

    with session.client() as client:
        found = client.retention.plan(experiment=experiment, site=site)
        if as_json:
            _emit_all(_planned_record(each) for each in found)
            return
        _show_plan(found, everything)


def _show_plan(found: Iterator[Planned], everything: bool) -> None:
    from collections import Counter

    from orchestrator.cli import formats

    rows: list[tuple[object, ...]] = []
    bytes_of, kept = Counter[str](), Counter[str]()
    for each in found:
        bytes_of[each.verdict] += each.bytes
        if each.verdict == "keep":
            kept[_kind_of_reason(each.reason)] += 1
        if everything or each.verdict != "keep":
            rows.append((each.verdict, each.file, each.place, formats.size(each.bytes), each.name, each.reason))
    if rows:
        click.echo(formats.table(("verdict", "file", "place", "size", "name", "why"), rows, right=("file", "size")))
    for reason, count in kept.most_common(20) if not everything else ():
        click.echo(f"{count} cop{'ies stay' if count > 1 else 'y stays'}: {reason}")
    if not (rows or kept):
        click.echo("The catalog has no copies there to decide about.")
        return
    frees = bytes_of["prune"] + bytes_of["archive"]
    click.echo(
        f"{formats.size(frees)} would get free, {formats.size(bytes_of['archive'])} of it copied elsewhere first."
    )


def _kind_of_reason(reason: str) -> str:
    """The reason without what is another for each file."""
    import re

    from orchestrator.errors import printable

    return printable(re.sub(r"run \S+", "a run", re.sub(r"stays [\d.]+ days more", "stays longer", reason)))


@retention.command()
@experiment_option
@site_option
@click.option("--yes", is_flag=True, help="Do it. Without, every copy is looked at and none removed.")
@json_option
def apply(experiment: str, site: str, yes: bool, as_json: bool) -> None:
    """Remove the copies that may go, each when the others have just been read and found right."""
    with session.client() as client:
        _tell(client.retention.apply(experiment=experiment, site=site, dry_run=not yes), as_json, dry_run=not yes)


@retention.command()
@click.option("--file", "file", default="", help="Only about this file: its number or its path.")
@experiment_option
@click.option("--before", default=0, help="Only rows before the one with this id.")
@click.option("--limit", default=50, show_default=True, type=click.IntRange(1, 10_000), help="At most so many.")
@json_option
def log(file: str, experiment: str, before: int, limit: int, as_json: bool) -> None:
    """Show what was decided, the newest first; --json with the evidence."""
    from orchestrator import codec
    from orchestrator.cli import formats

    with session.client() as client:
        path = _named(file)
        rows = client.retention.log(file=path, experiment=experiment, before=before, limit=limit)
    if as_json:
        formats.emit([_plain(row) | {"at": codec.iso(row.at)} for row in rows])
        return
    lines = [(r.id, formats.local(r.at), r.verdict, r.file_id or "-", r.place, r.evidence.get("who", ""), r.reason)
             for r in rows]  # fmt: skip
    headings = ("id", "at", "verdict", "file", "place", "who", "why")
    click.echo(formats.table(headings, lines) if lines else "Nothing has been decided.")


@retention.command()
@what_argument
@click.option("--experiment", default="", help="Whose collection; alone: the whole experiment.")
@click.option("--collection", is_flag=True, help="What is named is a collection, and what is added to it later too.")
@click.option("--reason", default="", help="Why, for whoever finds it.")
@json_option
def pin(what: str, experiment: str, collection: bool, reason: str, as_json: bool) -> None:
    """Pin a file, a collection or an experiment: no rule removes a copy of it."""
    with session.client() as client:
        name = _named(what)
        made = client.retention.pin(name, experiment=experiment, collection=collection, reason=reason)
    _say(made, f"Pinned: {made.what} {made.target or made.experiment}.", as_json)


@retention.command()
@what_argument
@click.option("--experiment", default="", help="Whose collection; alone: the whole experiment.")
@click.option("--collection", is_flag=True, help="What is named is a collection.")
@json_option
def unpin(what: str, experiment: str, collection: bool, as_json: bool) -> None:
    """Take a pin away."""
    with session.client() as client:
        gone = client.retention.unpin(_named(what), experiment=experiment, collection=collection)
    _say(gone, f"Not pinned any more: {gone.what} {gone.target or gone.experiment}.", as_json)


@retention.command()
@experiment_option
@json_option
def pins(experiment: str, as_json: bool) -> None:
    """List the pins."""
    from orchestrator import codec
    from orchestrator.cli import formats

    with session.client() as client:
        found = client.retention.pins(experiment)
    if as_json:
        formats.emit([_plain(pin) | {"at": codec.iso(pin.at)} for pin in found])
        return
    rows = [(p.what, p.experiment, p.target or "-", p.who, formats.local(p.at), p.reason) for p in found]
    headings = ("what", "experiment", "target", "who", "at", "why")
    click.echo(formats.table(headings, rows) if rows else "Nothing is pinned.")


@click.command()
@what_argument
@click.option("--experiment", default="", help="Whose collection; alone: all its newest files.")
@click.option("--to", "place", required=True, metavar="PLACE", help="A place that `retention.toml` gives an address.")
@json_option
def archive(what: str, experiment: str, place: str, as_json: bool) -> None:
    """Copy files to an archive, verified there, and record the copies."""
    with session.client() as client:
        name = _named(what)
        _tell(client.retention.archive(name, experiment=experiment, to=place, moved=_bar(as_json)), as_json)


@click.command()
@what_argument
@click.option("--experiment", default="", help="Whose collection; alone: all its newest files.")
@click.option("--to", "folder", default="", metavar="DIR", help="Where to; else where each file was at this site.")
@json_option
def restore(what: str, experiment: str, folder: str, as_json: bool) -> None:
    """Bring files back from the first copy that is right, verified."""
    import os

    with session.client() as client:
        name, to = _named(what), os.path.abspath(folder) if folder else ""
        _tell(client.retention.restore(name, experiment=experiment, to=to, moved=_bar(as_json)), as_json)


# ------------------------------------------------------------------------------------------------------- telling


def _named(text: str) -> str:
    """A path is absolute; a number, a collection or an address is as it is."""
    return text if "://" in text else session.beginning_of_path(text)


def _tell(done: Iterator[Done], as_json: bool, *, dry_run: bool | None = None) -> None:
    """One line for each as it comes; exit 1 when one was refused or not ended."""
    from orchestrator.cli import formats
    from orchestrator.errors import printable

    told, moved, bad = [], 0, 0
    for each in done:
        told.append(each)
        moved += each.bytes
        bad += not each.good
        if not as_json:
            line = f"{each.verdict}  {each.file}  {each.place}  {each.address or each.name}  {each.reason}"
            click.echo(printable(line), err=not each.good)
    if as_json:
        more = {} if dry_run is None else {"dry_run": dry_run}
        formats.emit(more | {"bytes": moved, "refused": bad, "copies": [_plain(each) for each in told]})
    elif not told:
        click.echo("Nothing is to be done.")
    else:
        click.echo(f"{len(told) - bad} of {len(told)} copies, {formats.size(moved)}.")
        if dry_run:
            click.echo("This was a dry run: nothing was removed or copied. Do it with --yes.")
    if bad:
        click.get_current_context().exit(1)


def _bar(as_json: bool) -> Callable[[str, int, int], None] | None:
    """How far a file has come, on a terminal."""
    if as_json or not sys.stderr.isatty():
        return None
    from orchestrator.cli import formats
    from orchestrator.errors import printable

    def show(name: str, done: int, total: int) -> None:
        end = "\n" if done >= total else ""
        click.echo(f"\r{printable(name)}  {formats.size(done)} of {formats.size(total)}\x1b[K{end}", nl=False, err=True)

    return show


def _say(record: Any, sentence: str, as_json: bool) -> None:
    from orchestrator import codec
    from orchestrator.cli import formats
    from orchestrator.errors import printable

    if as_json:
        formats.emit(_plain(record) | {"at": codec.iso(record.at)})
    else:
        click.echo(printable(sentence))


def _planned_record(each: Planned) -> dict[str, Any]:
    return _plain(each) | {"rule": each.rule or None}


def _plain(record: Any) -> dict[str, Any]:
    import msgspec

    plain: dict[str, Any] = msgspec.to_builtins(record)
    return plain


def _emit_all(records: Iterable[dict[str, Any]]) -> None:
    """A list, written as it comes: there may be a million."""
    import json

    first = True
    for record in records:
        click.echo(f"{'[' if first else ','}\n  {json.dumps(record)}", nl=False)
        first = False
    click.echo("[]" if first else "\n]")
