"""Commands about experiments and their people."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from orchestrator.cli import session
from orchestrator.cli.group import Commands
from orchestrator.cli.session import json_option

if TYPE_CHECKING:
    from orchestrator.store.experiments import Experiment

name_argument = click.argument("name", metavar="EXPERIMENT")
meta_option = click.option(
    "--meta", "pairs", metavar="KEY:VALUE", multiple=True, help="What is known of it; several times."
)


@click.group(cls=Commands)
def experiment() -> None:
    """What owns files, runs and people: make, list, change, delete."""


def metadata(pairs: tuple[str, ...]) -> dict[str, Any]:
    """KEY:VALUE as values of metadata; an empty value takes the key away. Raises ArgumentError."""
    from orchestrator.catalog import query
    from orchestrator.errors import ArgumentError

    found: dict[str, Any] = {}
    for pair in pairs:
        name, colon, text = pair.partition(":")
        if not colon or not name.strip().strip("/"):
            raise ArgumentError(f"{pair!r} is no KEY:VALUE.", "Say energy:25.5, for example.")
        found[name.strip().strip("/")] = query.value(text) if text else None
    return found


def known(pairs: tuple[str, ...]) -> dict[str, Any]:
    """The same, of what has nothing that could be taken away."""
    return {name: value for name, value in metadata(pairs).items() if value is not None}


@experiment.command()
@name_argument
@click.option("--title", default="", help="What it is about.")
@click.option("--proposal", default="", help="Number of its proposal.")
@click.option("--owner", "owners", metavar="PERSON", multiple=True, help="Who may change it (you); several times.")
@click.option("--member", "members", metavar="PERSON", multiple=True, help="Who may add files; several times.")
@click.option("--viewer", "viewers", metavar="PERSON", multiple=True, help="Who may see it; several times.")
@meta_option
@json_option
def create(
    name: str,
    title: str,
    proposal: str,
    owners: tuple[str, ...],
    members: tuple[str, ...],
    viewers: tuple[str, ...],
    pairs: tuple[str, ...],
    as_json: bool,
) -> None:
    """Make one. People are named as their tokens are."""
    import getpass

    from orchestrator.catalog import records
    from orchestrator.cli import formats
    from orchestrator.store.experiments import Experiment, Part

    people = dict.fromkeys(viewers, Part.VIEWER) | dict.fromkeys(members, Part.MEMBER)
    people |= dict.fromkeys(owners or (getpass.getuser(),), Part.OWNER)
    with session.client() as client:
        made = client.files.create(Experiment(name, title, proposal, known(pairs), people=people))
    if as_json:
        formats.emit(records.experiment(made))
    else:
        click.echo(f"Experiment {made.name} is there.")


@experiment.command()
@json_option
def ls(as_json: bool) -> None:
    """List them, the newest first."""
    from orchestrator.catalog import records
    from orchestrator.cli import formats

    with session.client() as client:
        found = client.files.experiments()
    if as_json:
        formats.emit([records.experiment(each) for each in found])
        return
    rows = [(e.name, e.proposal, e.title, len(e.people), formats.local(e.created_at)) for e in found]
    headings = ("experiment", "proposal", "title", "people", "made")
    click.echo(formats.table(headings, rows, right=("people",)) if rows else "No experiments.")


@experiment.command()
@name_argument
@json_option
def show(name: str, as_json: bool) -> None:
    """Show one: its people, its metadata, and what files it has."""
    from orchestrator.catalog import records
    from orchestrator.cli import formats
    from orchestrator.errors import printable

    with session.client() as client:
        found = client.files.experiment(name)
        stats = client.files.stats(name)
    if as_json:
        formats.emit(records.experiment(found) | {"stats": records.stats(stats)})
        return
    click.echo(printable(f"{found.name}  {found.title}".rstrip()))
    for what, text in (("proposal", found.proposal), ("made", formats.local(found.created_at))):
        if text:
            click.echo(printable(f"{what:9} {text}"))
    click.echo(f"{'files':9} {stats.files}, {formats.size(stats.bytes)}")
    for person, part in found.people.items():
        click.echo(printable(f"{part.value:9} {person}"))
    print_metadata(found.metadata)


def print_metadata(found: dict[str, Any]) -> None:
    import json

    from orchestrator.errors import printable

    for name, value in found.items():
        text = value if isinstance(value, str) else json.dumps(value)
        click.echo(printable(f"  {name} = {text[:200]}{'…' * (len(text) > 200)}"))


@experiment.command("set")
@name_argument
@click.argument("pairs", metavar="[KEY:VALUE]…", nargs=-1)
@click.option("--title", default=None, help="What it is about.")
@click.option("--proposal", default=None, help="Number of its proposal.")
@json_option
def change(name: str, pairs: tuple[str, ...], title: str | None, proposal: str | None, as_json: bool) -> None:
    """Change its title, its proposal, keys of its metadata; `KEY:` takes one away."""
    told = {k: v for k, v in (("title", title), ("proposal", proposal)) if v is not None}
    with session.client() as client:
        _tell(client.files.set(name, {**told, "metadata": metadata(pairs)}), as_json)


@experiment.command("add-person")
@name_argument
@click.argument("person", metavar="PERSON")
@click.option("--role", default="member", show_default=True, help="owner, member or viewer.")
@json_option
def add_person(name: str, person: str, role: str, as_json: bool) -> None:
    """Give a person a part in it, or another part; they are named as their token is."""
    from orchestrator.store import experiments

    part = experiments.part(role)
    with session.client() as client:
        _tell(client.files.put_person(name, person, part), as_json)


@experiment.command("remove-person")
@name_argument
@click.argument("person", metavar="PERSON")
@json_option
def remove_person(name: str, person: str, as_json: bool) -> None:
    """Take a person's part in it away."""
    with session.client() as client:
        _tell(client.files.remove_person(name, person), as_json)


@experiment.command()
@name_argument
@json_option
def delete(name: str, as_json: bool) -> None:
    """Delete one that has no files."""
    from orchestrator.cli import formats

    with session.client() as client:
        client.files.delete(name)
    if as_json:
        formats.emit({"name": name})
    else:
        click.echo(f"Experiment {name} is deleted.")


def _tell(found: Experiment, as_json: bool) -> None:
    from orchestrator.catalog import records
    from orchestrator.cli import formats
    from orchestrator.errors import printable

    if as_json:
        formats.emit(records.experiment(found))
        return
    click.echo(printable(f"{found.name}  {found.title}".rstrip()))
    click.echo(printable("  " + ", ".join(f"{person} ({part.value})" for person, part in found.people.items())))
    print_metadata(found.metadata)
