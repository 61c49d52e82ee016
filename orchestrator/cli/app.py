"""Every command by name."""

from __future__ import annotations

import click

from orchestrator.cli import (
    arrivals,
    collections,
    database,
    dead,
    definitions,
    demo,
    experiments,
    files,
    logs,
    provenance,
    reservations,
    retention,
    runs,
    service,
    serving,
    sites,
    slurm_cluster,
    tokens,
    watching,
)
from orchestrator.cli.group import Commands


@click.group(cls=Commands, invoke_without_command=True, context_settings={"max_content_width": 110})
@click.version_option(package_name="beamway", prog_name="beamway", message="%(prog)s %(version)s")
@click.pass_context
def cli(context: click.Context) -> None:
    """Beamway: beamline scans in, verified results out.

    RUN is the id of a run, the unique beginning of one, or `last`. Every command takes --json.
    """
    if context.invoked_subcommand is None:
        click.echo(context.get_help())


for command in (
    demo.demo,
    runs.run,
    runs.ls,
    runs.show,
    watching.watch,
    arrivals.arrivals,
    logs.logs,
    runs.why,
    runs.cancel,
    runs.retry,
    runs.resume,
    dead.dead,
    provenance.provenance,
    provenance.crate,
    provenance.stale,
    experiments.experiment,
    files.file,
    collections.collection,
    definitions.workflows,
    definitions.kernels,
    definitions.explain,
    definitions.lint,
    definitions.export,
    sites.site,
    reservations.reservation,
    retention.retention,
    retention.archive,
    retention.restore,
    slurm_cluster.slurm_cluster,
    serving.service,
    serving.agent,
    serving.watcher,
    tokens.token,
    service.up,
    service.down,
    service.status,
    database.db,
    service.doctor,
    service.completion,
):
    cli.add_command(command)
