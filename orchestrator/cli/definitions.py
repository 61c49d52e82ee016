"""Commands about definitions: list, explain, check, export; and the kernels that their stages call."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from orchestrator.cli import session
from orchestrator.cli.session import arguments_argument, json_option, workflow_argument

if TYPE_CHECKING:
    from orchestrator.client import Client
    from orchestrator.engine.placement import Placement
    from orchestrator.model import Definition, Plan

SUFFIXES = (".py", ".pyspec", ".json")


def known(client: Client) -> list[tuple[str, Path]]:
    """(name, file) of every definition that can be run by name; an earlier directory hides a later one's."""
    found: dict[str, Path] = {}
    for directory in client.workflow_directories():
        try:
            files = sorted(p for p in directory.iterdir() if p.suffix in SUFFIXES and p.is_file())
        except OSError:
            continue
        for path in files:
            if not path.stem.startswith(("_", ".")):
                found.setdefault(path.stem, path)
    return sorted(found.items())


@click.command()
@json_option
def workflows(as_json: bool) -> None:
    """List the workflows that can be run by name."""
    from orchestrator.cli import formats
    from orchestrator.errors import BeamwayError

    lines: list[dict[str, Any]] = []
    with session.client() as client:
        for name, path in known(client):
            line: dict[str, Any] = {"name": name, "file": str(path), "owner": "", "description": "", "error": ""}
            try:
                definition = client.definition(str(path))
                line |= {"owner": definition.owner, "description": definition.description}
            except BeamwayError as error:
                line["error"] = str(error)
            lines.append(line)
    if as_json:
        formats.emit(lines)
        return
    items = [(w["name"], w["file"], w["error"] or w["description"]) for w in lines]
    click.echo(formats.entries(items) if items else "No workflows.")


@click.command()
@click.argument("name", metavar="[NAME]", required=False)
@json_option
def kernels(name: str | None, as_json: bool) -> None:
    """List the kernels that a stage can call, or one with its arguments."""
    from kernels import registry
    from orchestrator.cli import formats
    from orchestrator.errors import NotFound, nearest

    names = registry.names()
    if name is not None and name not in names:
        raise NotFound(f"There is no kernel {name!r}.{nearest(name, names)}", "`beamway kernels` lists them.")
    known = {n: (registry.summary(n), _arguments(registry.get(n))) for n in ([name] if name else names)}
    if as_json:
        formats.emit([{"name": n, "summary": summary, "arguments": takes} for n, (summary, takes) in known.items()])
        return
    if name is None:
        click.echo(formats.table(("kernel", "what it does"), [(n, summary) for n, (summary, _) in known.items()]))
        click.echo("\n`beamway kernels NAME` shows the arguments of one.")
        return
    summary, takes = known[name]
    click.echo(f"{name}: {summary}\n")
    click.echo(formats.entries((a["name"], _note(a), a["description"]) for a in takes))


def _arguments(spec: Any) -> list[dict[str, Any]]:
    return [
        {
            "name": a.name,
            "type": a.type,
            "required": a.required,
            "default": a.default,
            "choices": list(a.choices),
            "description": a.description,
        }
        for a in spec.schema
    ]


def _note(argument: dict[str, Any]) -> str:
    parts = [str(argument["type"]), *(["required"] if argument["required"] else [])]
    if argument["choices"]:
        parts.append("one of " + ", ".join(str(c) for c in argument["choices"]))
    if argument["default"] not in (None, ""):
        parts.append(f"default {argument['default']}")
    return "; ".join(parts)


def print_arguments(definition: Definition, workflow: str, *, as_json: bool) -> None:
    """What `beamway run WORKFLOW --help` shows: the declared arguments."""
    from orchestrator.cli import formats
    from orchestrator.errors import printable

    declared = definition.arguments or {}
    lines: list[dict[str, Any]] = [
        {
            "name": name,
            "type": spec.type,
            "required": spec.required,
            "default": spec.default,
            "choices": list(spec.choices),
            "description": spec.description,
        }
        for name, spec in declared.items()
    ]
    if as_json:
        description = definition.description
        formats.emit({"workflow": definition.name, "description": description, "arguments": lines})
        return
    click.echo(f"Usage: beamway run {printable(workflow)} [KEY:VALUE]… [OPTIONS]\n")
    for line in definition.description.splitlines():
        click.echo(textwrap.fill(printable(line), 100))
    click.echo()
    if definition.arguments is None:
        click.echo("This workflow declares no arguments: any KEY:VALUE is taken.")
        return
    click.echo(formats.entries((a["name"], _note(a), a["description"]) for a in lines))


def print_plan(plan: Plan, placements: Sequence[Placement] = (), *, as_json: bool) -> None:
    """What the plan would do, for people or for programs, and where its stages would go now."""
    from orchestrator.definition import explain as explaining

    explanation = explaining.explain(plan)
    if as_json:
        from orchestrator import codec
        from orchestrator.cli import formats

        formats.emit(
            {
                **json.loads(codec.dumps(explanation)),
                "placements": [json.loads(codec.dumps(p)) for p in placements],
                "plan": json.loads(codec.dumps(plan)),
            }
        )
    else:
        from orchestrator.engine import placement_text

        click.echo(explaining.render(explanation), nl=False)
        for found in placements:
            click.echo(f"\nWhere {found.stage} would go now: {placement_text.sentence(found)}")
            click.echo(placement_text.table(found), nl=False)


@click.command()
@workflow_argument()
@arguments_argument
@session.placing_options
@json_option
def explain(workflow: str, pairs: tuple[str, ...], as_json: bool, **placing: str | None) -> None:
    """Show what WORKFLOW with these arguments would do, and start nothing."""
    from orchestrator.definition import compat

    session.quiet_logs()
    with session.client() as client:
        definition = client.definition(workflow)
        plan = client.plan(definition, compat.parse_arguments(pairs), placing=session.placing(placing))
        placements = client.placements(plan)
    print_plan(plan, placements, as_json=as_json)


@click.command()
@click.argument("files", metavar="FILE…", nargs=-1, required=True, type=click.Path())
@click.option("--strict", is_flag=True, help="Warnings count as errors.")
@json_option
@click.pass_context
def lint(context: click.Context, files: tuple[str, ...], strict: bool, as_json: bool) -> None:
    """Check definitions; exit 1 when one has an error, with --strict also for a warning."""
    import msgspec

    from orchestrator.cli import formats
    from orchestrator.definition import lint as linting
    from orchestrator.definition import loader
    from orchestrator.errors import DefinitionError, printable

    results: list[dict[str, Any]] = []
    for file in files:
        try:
            found = linting.lint(loader.load(file))
        except DefinitionError as error:
            found = [linting.of_error(error)]
        complaints = [{**msgspec.structs.asdict(c), "text": str(c)} for c in found]
        results.append({"file": file, "complaints": complaints})
    if as_json:
        formats.emit(results)
    for result in () if as_json else results:
        for complaint in result["complaints"]:
            click.echo(printable(complaint["text"]))
        if not result["complaints"]:
            click.echo(f"{printable(result['file'])}: nothing to say")
    fatal = ("error", "warning") if strict else ("error",)
    context.exit(1 if any(c["level"] in fatal for r in results for c in r["complaints"]) else 0)


@click.command()
@workflow_argument()
@click.option("--dm", is_flag=True, required=True, help="As py-spec text that DM runs; what it cannot say is refused.")
@json_option
def export(workflow: str, dm: bool, as_json: bool) -> None:
    """Print a definition without what only Beamway understands."""
    from orchestrator.cli import formats
    from orchestrator.definition import compat

    with session.client() as client:
        exported = compat.export_dm(client.definition(workflow).raw)
    if as_json:
        formats.emit(exported)
    else:
        click.echo(compat.to_pyspec(exported), nl=False)
