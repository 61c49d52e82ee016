"""Commands about collections: files of an experiment under one name."""

from __future__ import annotations

import click

from orchestrator.cli import files, session
from orchestrator.cli.group import Commands
from orchestrator.cli.session import json_option

experiment_argument = click.argument("experiment", metavar="EXPERIMENT")
name_argument = click.argument("name", metavar="COLLECTION")


@click.group(cls=Commands)
def collection() -> None:
    """Files of an experiment under one name: make, fill, count."""


@collection.command()
@experiment_argument
@name_argument
@click.option("--description", default="", help="What it is for.")
@json_option
def create(experiment: str, name: str, description: str, as_json: bool) -> None:
    """Make one, without files."""
    from orchestrator.catalog import records
    from orchestrator.cli import formats
    from orchestrator.store.filesets import Collection

    with session.client() as client:
        made = client.files.create_collection(Collection(experiment, name, description))
    if as_json:
        formats.emit(records.collection(made))
    else:
        click.echo(f"Collection {made.name} of {made.experiment} is there.")


@collection.command()
@experiment_argument
@name_argument
@click.argument("which", metavar="ID|PATH…", nargs=-1, required=True)
@json_option
def add(experiment: str, name: str, which: tuple[str, ...], as_json: bool) -> None:
    """Put files of the experiment into it."""
    from orchestrator.cli import formats

    with session.client() as client:
        ids = [files.number(client, each, "") for each in which]
        count, _ = client.files.collect(experiment, name, add=ids, remove=())
    if as_json:
        formats.emit({"added": count})
    else:
        click.echo(f"{count} files are new in it.")


@collection.command()
@experiment_argument
@name_argument
@click.argument("which", metavar="[ID|PATH]…", nargs=-1)
@click.option("--all", "every", is_flag=True, help="The collection itself; its files stay.")
@json_option
@click.pass_context
def remove(
    context: click.Context, experiment: str, name: str, which: tuple[str, ...], every: bool, as_json: bool
) -> None:
    """Take files out of it, or the collection away; the files stay."""
    from orchestrator.cli import formats

    if bool(which) == every:
        context.fail("Name files, or say --all for the collection itself.")
    count = 0
    with session.client() as client:
        if every:
            client.files.delete_collection(experiment, name)
        else:
            ids = [files.number(client, each, "") for each in which]
            _, count = client.files.collect(experiment, name, add=(), remove=ids)
    if as_json:
        formats.emit({"removed": count})
    else:
        click.echo(f"Collection {name} is gone; its files stay." if every else f"{count} files are out of it.")


@collection.command()
@experiment_argument
@json_option
def ls(experiment: str, as_json: bool) -> None:
    """List those of an experiment."""
    from orchestrator.catalog import records
    from orchestrator.cli import formats

    with session.client() as client:
        found = client.files.collections(experiment)
    if as_json:
        formats.emit([records.collection(each) for each in found])
        return
    rows = [(c.name, c.description, formats.local(c.created_at)) for c in found]
    click.echo(formats.table(("collection", "description", "made"), rows) if rows else "No collections.")


@collection.command()
@experiment_argument
@click.argument("name", metavar="[COLLECTION]", required=False, default="")
@json_option
def stats(experiment: str, name: str, as_json: bool) -> None:
    """Count the files of a collection or of the whole experiment: how many, how large, since when, of which kinds."""
    from orchestrator.catalog import records
    from orchestrator.cli import formats

    with session.client() as client:
        found = client.files.stats(experiment, name)
    if as_json:
        formats.emit(records.stats(found))
        return
    times = f", added {formats.local(found.first_at)} to {formats.local(found.last_at)}" if found.files else ""
    click.echo(f"{found.files} files, {formats.size(found.bytes)}{times}")
    if found.files:
        sizes = (found.smallest, found.largest, round(found.mean), round(found.deviation))
        click.echo("a file has {} to {}, {} on average, deviation {}".format(*map(formats.size, sizes)))
    rows = [(kind, each.files, formats.size(each.bytes)) for kind, each in found.kinds.items()]
    if rows:
        click.echo(formats.table(("kind", "files", "size"), rows, right=("files", "size")))
