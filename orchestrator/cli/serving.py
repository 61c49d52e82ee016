"""Commands that are processes of an installation: the service over HTTP, the agent and the watcher of a site."""

from __future__ import annotations

from pathlib import Path

import click

from orchestrator.cli.session import json_option

_file = click.Path(exists=True, dir_okay=False, path_type=Path)


@click.command()
@click.option(
    "--listen", "address", default="127.0.0.1:8787", show_default=True, metavar="HOST:PORT", help="Where it answers."
)
@click.option("--certificate", type=_file, help="TLS certificate, PEM.")
@click.option("--key", type=_file, help="The key of the certificate, PEM.")
@click.option("--behind-proxy", is_flag=True, help="Somebody else encrypts: listen in the clear on any address.")
@click.option("--agents/--no-agents", default=False, help="Start agents and watcher on this host too.")
@json_option
def service(
    address: str, certificate: Path | None, key: Path | None, behind_proxy: bool, agents: bool, as_json: bool
) -> None:
    """Be a service over HTTP, in the foreground, until Ctrl-C.

    Several on one PostgreSQL are safe: one has the engine, the others stand by and take over when it is gone. Agents
    (`beamway agent SITE`) and clients reach it by BEAMWAY_URL and BEAMWAY_TOKEN. With --json its log is one JSON object
    a line.
    """
    from orchestrator import settings
    from orchestrator.cli.service import configure_logs
    from orchestrator.errors import ArgumentError, Conflict
    from orchestrator.service.serve import Listen, serve

    if (certificate is None) != (key is None):
        raise ArgumentError("A certificate and its key go together.", "Give --certificate and --key.")
    configured = settings.load()
    configure_logs(as_json)
    listen = Listen(address, certificate, key, behind_proxy)
    if serve(configured, listen=listen, supervises=agents):
        raise Conflict(f"A service runs for {configured.home} already.", "`beamway down` ends it.")


@click.command()
@click.argument("site")
@json_option
def agent(site: str, as_json: bool) -> None:
    """Be the agent of SITE, in the foreground, until Ctrl-C.

    With BEAMWAY_URL it serves the service there, else that of this home. A second agent of a site stands by and takes
    over when the first is gone. Its log is one JSON object a line, with --json or without.
    """
    import os
    import sys

    os.execv(sys.executable, [sys.executable, "-m", "orchestrator.agent", site, "--stands-by"])


@click.command()
@click.argument("site", required=False, default="")
@json_option
def watcher(site: str, as_json: bool) -> None:
    """Be the watcher of SITE (without it, of the default site), in the foreground, until Ctrl-C.

    It runs where the files appear and begins runs at the service of this home, or with BEAMWAY_URL at the one there;
    then BEAMWAY_DATABASE is needed too. A second one of a site stands by and takes over when the first is gone. Its
    log is one JSON object a line, with --json or without.
    """
    import os
    import sys

    os.execv(sys.executable, [sys.executable, "-m", "orchestrator.client.watcher", *([site] if site else [])])
