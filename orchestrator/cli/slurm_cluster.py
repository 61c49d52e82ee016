"""Commands about the trial cluster: a whole Slurm on this machine."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from orchestrator.cli.group import Commands
from orchestrator.cli.session import json_option

if TYPE_CHECKING:
    from collections.abc import Callable

    from orchestrator.settings import Settings
    from slurm.cluster import Cluster

F = TypeVar("F", bound="Callable[..., Any]")

SITE = "trial"
OURS = "# Written by `beamway slurm-cluster up`, taken away by `beamway slurm-cluster down`.\n\n"


@click.group("slurm-cluster", cls=Commands, invoke_without_command=True)
@click.pass_context
def slurm_cluster(context: click.Context) -> None:
    """Start, end and show a trial cluster: a whole Slurm on this machine, with pretended nodes."""
    if context.invoked_subcommand is None:
        click.echo(context.get_help())


def directory_option(function: F) -> F:
    kind = click.Path(path_type=Path)
    text = "Where all its files are; without it, `slurm-cluster` in the home directory."
    return click.option("--directory", type=kind, metavar="DIR", help=text)(function)


def _settled(directory: Path | None) -> tuple[Settings, Path]:
    from orchestrator import settings

    configured = settings.load()
    return configured, (directory or configured.home / "slurm-cluster").expanduser().absolute()


@slurm_cluster.command()
@directory_option
@click.option("--accounting", is_flag=True, help="With slurmdbd and a database of its own, so that sacct knows jobs.")
@click.option("--nodes", type=click.IntRange(1, 64), default=4, show_default=True, help="Nodes to pretend.")
@click.option("--cpus", type=click.IntRange(1, 256), default=2, show_default=True, help="CPUs of a node.")
@click.option("--gpus", type=click.IntRange(0, 16), default=2, show_default=True, help="GPUs of a node, pretended.")
@click.option("--base-port", type=click.IntRange(1024, 65_000), help="First of its ports; without it, free ones.")
@click.option("--no-site", is_flag=True, help="Add no site `trial`.")
@json_option
def up(
    directory: Path | None,
    accounting: bool,
    nodes: int,
    cpus: int,
    gpus: int,
    base_port: int | None,
    no_site: bool,
    as_json: bool,
) -> None:
    """Start the trial cluster and add it as site `trial`; what runs already is left as it is."""
    from orchestrator import settings
    from orchestrator.cli import formats
    from orchestrator.errors import printable
    from slurm import cluster

    configured, top = _settled(directory)
    settings.ensure_home(configured.home)
    if not no_site:
        _require_ours(configured)
    begun = time.monotonic()
    made = cluster.up(top, accounting=accounting, nodes=nodes, cpus=cpus, gpus=gpus, base_port=base_port or 0)
    took_s = time.monotonic() - begun
    site = "" if no_site else str(_add_site(configured, made))
    if as_json:
        record = {"directory": str(top), "environment": made.environment, "nodes": made.plan.node_names}
        formats.emit(record | {"accounting": made.plan.accounting, "site": site, "seconds": round(took_s, 3)})
        return
    click.echo(f"The trial cluster is up: {nodes} nodes of {cpus} CPUs and {gpus} GPUs, in {took_s:.1f} s.")
    for variable, value in made.environment.items():
        click.echo(f"export {variable}={printable(value)}")
    if site:
        click.echo(f"Site {SITE} is added: {printable(site)}. `beamway run WORKFLOW --site {SITE}` runs there.")


@slurm_cluster.command()
@directory_option
@json_option
def down(directory: Path | None, as_json: bool) -> None:
    """End the trial cluster with all its jobs, and take the site `trial` away."""
    from orchestrator.cli import formats
    from slurm import cluster

    configured, top = _settled(directory)
    ended = cluster.down(top)
    removed = _remove_site(configured, top)
    if as_json:
        formats.emit({"directory": str(top), "processes": ended, "site_removed": removed})
        return
    click.echo(f"The trial cluster has ended: {ended} processes." if ended else "Nothing of the trial cluster ran.")
    if removed:
        click.echo(f"Site {SITE} is taken away.")


@slurm_cluster.command()
@directory_option
@json_option
def status(directory: Path | None, as_json: bool) -> None:
    """Show which of its daemons and nodes live."""
    import msgspec

    from orchestrator.cli import formats
    from slurm import cluster

    _, top = _settled(directory)
    found = cluster.status(top)
    if as_json:
        formats.emit([msgspec.to_builtins(daemon) for daemon in found])
        return
    click.echo(
        formats.table(("daemon", "state", "pid"), [(d.name, d.state, d.pid or "-") for d in found], right=("pid",))
    )


def _site_file(configured: Settings) -> Path:
    return configured.home / "sites" / f"{SITE}.toml"


def _require_ours(configured: Settings) -> None:
    """A site `trial` that somebody wrote by hand is not replaced."""
    from orchestrator.errors import Conflict
    from sites import loader

    path = _site_file(configured)
    if path.exists() and not loader.read(path).startswith(OURS):
        hint = "Give it another name, or start the cluster with --no-site."
        raise Conflict(f"There is a site {SITE!r} of yours already: {path}.", hint)


def _add_site(configured: Settings, made: Cluster) -> Path:
    from orchestrator.cli import siteview
    from slurm.cluster import profile_toml

    path, _ = siteview.put(OURS + profile_toml(made), SITE, _site_file(configured).parent, replace=True)
    return path


def _remove_site(configured: Settings, top: Path) -> bool:
    """Take away the site of this cluster, not that of another one."""
    from sites import loader

    path = _site_file(configured)
    if not path.exists():
        return False
    text = loader.read(path)
    if not text.startswith(OURS) or loader.parse(text, str(path)).scheduler.environment.get("SLURM_CONF") != str(
        top / "etc" / "slurm.conf"
    ):
        return False
    path.unlink(missing_ok=True)
    return True
