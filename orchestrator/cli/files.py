"""Commands about the files of the catalog: add, find, show, verify."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from orchestrator.cli import experiments, session
from orchestrator.cli.experiments import meta_option
from orchestrator.cli.group import Commands
from orchestrator.cli.session import json_option

if TYPE_CHECKING:
    from orchestrator.catalog.content import Far
    from orchestrator.catalog.verify import Looked
    from orchestrator.client import Client
    from orchestrator.store.catalog import CatalogFile

place_option = click.option("--place", default="", metavar="SITE", help="Of which site this host's paths are.")
FAILED = 1
PARTS = 20  # that `show` names


@click.group(cls=Commands)
def file() -> None:
    """The catalog: what files there are, what they hold, where their copies are."""


@file.command()
@click.argument("paths", metavar="PATH…", nargs=-1, required=True)
@click.option("--experiment", required=True, help="Whose they are.")
@click.option("--kind", default="raw", show_default=True, help="raw, calibration, product or other.")
@meta_option
@click.option("--checksum", "algorithm", default="xxh3", show_default=True, help="xxh3, sha256 or md5.")
@click.option("--tree", is_flag=True, help="A directory is one thing, with one checksum.")
@place_option
@json_option
@click.pass_context
def add(
    context: click.Context,
    paths: tuple[str, ...],
    experiment: str,
    kind: str,
    pairs: tuple[str, ...],
    algorithm: str,
    tree: bool,
    place: str,
    as_json: bool,
) -> None:
    """Put files into the catalog, with their checksums and what they say of themselves."""
    from orchestrator.arrival.contents import Reader
    from orchestrator.catalog import content, entries, read
    from orchestrator.cli import formats
    from orchestrator.errors import InputError

    content.check_algorithm(algorithm)
    entries.kind(kind)
    given = experiments.known(pairs)
    told: list[dict[str, Any]] = []
    with session.client() as client, Reader() as reader:
        client.files.experiment(experiment)
        at = place or client.settings.site
        for path in paths:
            try:
                entry = read.entry(
                    *(path, experiment, kind, given, algorithm, at),
                    tree=tree,
                    reader=reader,
                    progress=_progress(path, as_json),
                )
            except InputError as error:
                told.append({"path": path, "id": None, "checksum": None, "size": None, "refused": error.sentence})
                continue
            [number] = client.files.add([entry])
            line = {"path": path, "id": number, "checksum": entry.checksum, "size": entry.size, "refused": None}
            told.append(line)
    if as_json:
        formats.emit(told)
    else:
        rows = [(t["id"], formats.size(t["size"]), t["checksum"], t["path"]) for t in told if t["id"]]
        if rows:
            click.echo(formats.table(("id", "size", "checksum", "path"), rows, right=("id", "size")))
        for each in told:
            if each["refused"]:
                click.echo(f"not added: {each['refused']}", err=True)
    context.exit(FAILED if any(each["refused"] for each in told) else 0)


def _progress(path: str, as_json: bool) -> Far | None:
    """A line on a terminal that says how far reading is."""
    import sys

    from orchestrator.errors import printable

    if as_json or not sys.stderr.isatty():
        return None

    def show(done: int, of: int) -> None:
        click.echo(f"\r{100 * done // max(of, 1):3} % {printable(path)[-70:]}", nl=done >= of, err=True)

    return show


@file.command()
@click.argument("query", metavar="[QUERY]…", nargs=-1)
@click.option("--experiment", default="", help="Only files of this experiment.")
@click.option("--kind", default="", help="Only raw, calibration, product or other ones.")
@click.option("--name", default="", help="Only files whose path, name or a word of it begins so.")
@click.option(
    "--meta", multiple=True, metavar="CONDITION", help="energy>=20, energy=20..30, sample=bone; several times."
)
@click.option("--text", multiple=True, metavar="WORD", help="A word of a name or of the metadata begins so; as QUERY.")
@click.option("--checksum", default="", help="Only files with this checksum, with its algorithm or without.")
@click.option(
    "--copies", default="", metavar="STATE", help="Some copy is verified, unverified, corrupted, missing, pruned."
)
@click.option("--place", default="", metavar="SITE", help="That copy is there; with --copies.")
@click.option("--collection", default="", help="Only files of this collection; with --experiment.")
@click.option("--since", default="", metavar="WHEN", help="Added since: 2h (ago), 14:00, 2026-11-24.")
@click.option("--until", default="", metavar="WHEN", help="Added before; of a date, the whole day.")
@click.option("--all", "superseded", is_flag=True, help="Also contents that another one has superseded.")
@click.option("--limit", default=20, show_default=True, type=click.IntRange(1, 1_000_000), help="At most so many.")
@json_option
def ls(query: tuple[str, ...], since: str, until: str, limit: int, as_json: bool, **asked: Any) -> None:
    """Find files, the newest first. Each QUERY is a condition (`energy>=20`) or the beginning of a word."""
    import re
    import time

    from orchestrator.catalog import records
    from orchestrator.catalog.query import Asked
    from orchestrator.cli import formats, times
    from orchestrator.client.files import found

    now = time.time()
    asked["name"] = session.beginning_of_path(asked["name"])
    asked["meta"] += tuple(word for word in query if re.search("[<>=]", word))
    asked["text"] += tuple(word for word in query if not re.search("[<>=]", word))
    wanted = Asked(
        **asked,
        since=times.past(since, now) if since else 0.0,
        until=times.past(until, now, whole_day=True) if until else 0.0,
    )
    with session.client() as client:
        files = list(found(client.files, wanted, limit))
    if as_json:
        formats.emit([records.file(each) for each in files])
        return
    rows = [
        (f.id, f.experiment, f.kind.value, formats.size(f.size), formats.local(f.added_at), f.part_of or "", f.name)
        for f in files
    ]
    headings = ("id", "experiment", "kind", "size", "added", "part of", "name")
    click.echo(formats.table(headings, rows, right=("id", "size", "part of")) if rows else "No files.")


@file.command()
@click.argument("which", metavar="ID|PATH")
@place_option
@json_option
def show(which: str, place: str, as_json: bool) -> None:
    """Show one: what it holds, where its copies are, when they were last seen right."""
    from orchestrator.catalog import records
    from orchestrator.cli import formats
    from orchestrator.errors import printable

    with session.client() as client:
        found, replicas = client.files.get(number(client, which, place))
        parts = [] if found.part_of else client.files.parts(found.id)
    if as_json:
        brief = [{"id": part.id, "name": part.name, "size": part.size} for part in parts]
        formats.emit(records.file(found, replicas) | {"parts": brief})
        return
    click.echo(printable(f"{found.name}  {found.id}  {found.kind.value} of {found.experiment}"))
    click.echo(f"{formats.size(found.size)}  {found.checksum}  added {formats.local(found.added_at)}")
    if found.maker:
        click.echo(f"made by run {found.maker}")
    if found.part_of:
        click.echo(f"part of the scan of file {found.part_of}")
    if found.superseded_at:
        click.echo(f"superseded {formats.local(found.superseded_at)}: there is another content under this name")
    rows = [
        (r.place, r.state.value, formats.local(r.verified_at), r.address, str(r.seen.get("why", ""))) for r in replicas
    ]
    if rows:
        click.echo(formats.table(("copy at", "state", "seen right", "address", ""), rows))
    if parts:
        click.echo(f"master of a scan with {len(parts)} parts, {formats.size(sum(part.size for part in parts))}")
        shown = [(part.id, formats.size(part.size), part.name) for part in parts[:PARTS]]
        click.echo(formats.table(("part", "size", "name"), shown, right=("part", "size")))
        if len(parts) > PARTS:
            click.echo(f"and {len(parts) - PARTS:,} more; --json has all")
    experiments.print_metadata(found.metadata)


def number(client: Client, which: str, place: str) -> int:
    """The number of the file that this number or path names. Raises NotFound."""
    import os

    from orchestrator.errors import NotFound

    if which.isascii() and which.isdecimal() and len(which) < 19:
        return int(which)
    there = client.files.at(place or client.settings.site, os.path.abspath(which))
    if not there:
        raise NotFound(f"The catalog knows no file at '{which}'.", "`beamway file ls` lists them.")
    return next((each for each in there if not each.superseded_at), there[0]).id


@file.command()
@click.argument("which", metavar="[ID|PATH]…", nargs=-1)
@click.option("--experiment", default="", help="All files of this experiment.")
@place_option
@json_option
@click.pass_context
def verify(context: click.Context, which: tuple[str, ...], experiment: str, place: str, as_json: bool) -> None:
    """Read the copies that this host has, and compare them with size and checksum. Exit 1 unless all are right."""
    from orchestrator.catalog import verify as catalog_verify
    from orchestrator.catalog.query import Asked
    from orchestrator.cli import formats
    from orchestrator.client.files import found

    if bool(which) == bool(experiment):
        context.fail("Name files, or an experiment with --experiment.")
    told: list[Looked] = []
    with session.client() as client:
        at = place or client.settings.site
        ids = [number(client, each, at) for each in which]
        ids = ids or [each.id for each in found(client.files, Asked(experiment=experiment, superseded=True))]
        for each in ids:
            one, replicas = client.files.get(each)
            for looked in catalog_verify.copies(one, replicas, at, progress=lambda f: _progress(f.name, as_json)):
                told.append(looked)
                if looked.look is not None:
                    client.files.looked([looked.look])
    if as_json:
        formats.emit([_looked_record(each) for each in told])
    else:
        _print_looked(told, at)
    context.exit(0 if told and all(each.look and each.look.state == "verified" for each in told) else FAILED)


def _looked_record(looked: Looked) -> dict[str, Any]:
    state = looked.look.state if looked.look else None
    return {
        "id": looked.file.id,
        "place": looked.replica.place,
        "address": looked.replica.address,
        "state": state,
        "why": looked.why,
    }


def _print_looked(told: list[Looked], at: str) -> None:
    from orchestrator.cli import formats

    bad = [each for each in told if each.look is None or each.look.state != "verified"]
    rows = [(e.file.id, e.look.state if e.look else "not seen", e.replica.address, e.why) for e in bad]
    if rows:
        click.echo(formats.table(("id", "state", "address", "why"), rows, right=("id",)))
    click.echo(f"{len(told) - len(bad)} of {len(told)} copies at {at} are right.")


@file.command("set")
@click.argument("which", metavar="ID|PATH")
@click.argument("pairs", metavar="KEY:VALUE…", nargs=-1, required=True)
@place_option
@json_option
def change(which: str, pairs: tuple[str, ...], place: str, as_json: bool) -> None:
    """Say what it is: set keys of its metadata; `KEY:` takes one away."""
    from orchestrator.catalog import records
    from orchestrator.cli import formats

    changes = experiments.metadata(pairs)
    with session.client() as client:
        after: CatalogFile = client.files.change(number(client, which, place), changes)
    if as_json:
        formats.emit(records.file(after))
    else:
        experiments.print_metadata(after.metadata)
