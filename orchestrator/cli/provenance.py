"""Commands about what came from what: histories, RO-Crates, stale products."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from orchestrator.cli import session
from orchestrator.cli.group import Commands
from orchestrator.cli.session import json_option

if TYPE_CHECKING:
    from orchestrator.engine.again import Again

what_argument = click.argument("what", metavar="RUN|FILE|COLLECTION")
experiment_option = click.option("--experiment", default="", metavar="EXPERIMENT", help="Only of this experiment.")


def named(text: str) -> str:
    """A path from here as an absolute one; whatever else names something stays."""
    if "://" in text or text.startswith("collection:"):
        return text
    return os.path.abspath(text) if os.sep in text or (os.path.exists(text) and not text.isdecimal()) else text


@click.command()
@click.argument("what", metavar="RUN|FILE")
@click.option("--up", is_flag=True, help="Only what it was made of.")
@click.option("--down", is_flag=True, help="Only what was made with it.")
@click.option("--depth", default=20, show_default=True, type=click.IntRange(1, 1000), help="So many generations.")
@json_option
def provenance(what: str, up: bool, down: bool, depth: int, as_json: bool) -> None:
    """Show what a file or run was made of, and what was made with it.

    FILE is its number in the catalog, its path, or the address of a copy.
    """
    from orchestrator.catalog import provenance as told
    from orchestrator.cli import formats

    up, down = up or not down, down or not up
    with session.client() as client:
        found = client.lineage.story(named(what), up=depth * up, down=depth * down)
    if as_json:
        formats.emit(told.record(found))
        return
    for line in told.tree(found.graph, up=up, down=down):
        click.echo(line)
    if not found.graph.uses:
        click.echo("Nothing is known of what it was made of or for; runs are catalogued when they are done.")


@click.command()
@what_argument
@click.argument("output", type=click.Path(path_type=Path))
@click.option("--data/--no-data", default=False, help="With the files themselves, as far as they lie here.")
@experiment_option
@json_option
def crate(what: str, output: Path, data: bool, experiment: str, as_json: bool) -> None:
    """Export a run, a file with its history, or collection:NAME as an RO-Crate.

    OUTPUT is a directory to make, or a .zip. Without --data the files are described and not copied.
    """
    import time

    from orchestrator.catalog import crate as crates
    from orchestrator.catalog import provenance as told
    from orchestrator.cli import formats
    from orchestrator.store.descent import DEPTH

    name = named(what)
    with session.client() as client:
        lineage = client.lineage
        found = told.for_crate(lambda down: lineage.story(name, up=DEPTH, down=down, experiment=experiment))
    inside, sources = crates.placed(found.graph, found.copies_of()) if data else ({}, {})
    document = crates.document(found, at=time.time(), inside=inside)
    copied = {inside[number]: source for number, source in sources.items()}
    crates.write(Path(os.path.abspath(output)), document, found.graph, copied)
    elsewhere = len(found.graph.files) - len(inside)
    if as_json:
        formats.emit({"output": str(output), "files": len(found.graph.files), "copied": len(inside)})
        return
    click.echo(f"{output}: {len(found.graph.runs)} runs, {len(inside)} files in it, {elsewhere} described.")


@click.group(cls=Commands, invoke_without_command=True)
@click.pass_context
def stale(context: click.Context) -> None:
    """List products that were made of what has another content now, and make them anew."""
    if context.invoked_subcommand is None:
        context.invoke(ls, experiment="", limit=1000, as_json=False)


@stale.command()
@experiment_option
@click.option("--limit", default=1000, show_default=True, type=click.IntRange(1, 100_000), help="At most so many.")
@json_option
def ls(experiment: str, limit: int, as_json: bool) -> None:
    """List them, and why; what has to be made anew first comes first."""
    from orchestrator.catalog import provenance as told
    from orchestrator.cli import formats

    with session.client() as client:
        found = client.lineage.stale(experiment=experiment, limit=limit)
    if as_json:
        formats.emit([told.stale_record(each) for each in found])
        return
    rows = [(x.file.id, x.file.name, x.run_id, "now" if x.ready else "later", told.why(x)) for x in found]
    headings = ("file", "product", "made by", "rerun", "because")
    click.echo(formats.table(headings, rows, right=("file",)) if rows else "No product is stale.")
    if rows:
        click.echo("next   `beamway stale rerun` makes them anew; those marked `later` need the others first.")


@stale.command()
@click.argument("files", metavar="[FILE]…", nargs=-1, type=click.IntRange(1))
@experiment_option
@click.option("--dry-run", is_flag=True, help="Print which runs, and begin none.")
@json_option
def rerun(files: tuple[int, ...], experiment: str, dry_run: bool, as_json: bool) -> None:
    """Do the runs behind stale products again, on the contents of now; asked twice, each is begun once.

    FILE: numbers of stale products; without any, all of them.
    """
    from orchestrator.cli import formats

    with session.client() as client:
        found = client.lineage.rerun(experiment=experiment, files=files, dry_run=dry_run)
    if as_json:
        formats.emit([_record(each) for each in found])
        return
    rows = [(each.run_id, each.again or "-", len(each.products), _state(each, dry_run)) for each in found]
    headings = ("run", "again as", "products", "")
    click.echo(formats.table(headings, rows, right=("products",)) if rows else "No product is stale.")


def _state(each: Again, dry_run: bool) -> str:
    if each.there:
        return "begun before"
    if not each.again:
        return "its inputs have to be made anew first"
    return "would be begun" if dry_run else "begun"


def _record(each: Again) -> dict[str, Any]:
    return {
        "run_id": each.run_id,
        "again": each.again or None,
        "products": list(each.products),
        "begun_before": each.there,
    }
