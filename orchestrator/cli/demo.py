"""The command `demo`: a scan of a known object, reconstructed and checked through the whole product."""

from __future__ import annotations

import click

from orchestrator.cli.session import json_option


@click.command()
@click.option("--directory", default="demo", show_default=True, type=click.Path(), help="Where its files go.")
@click.option("--size", default="standard", show_default=True, type=click.Choice(["standard", "small"]))
@json_option
def demo(directory: str, size: str, as_json: bool) -> None:
    """Make a scan of a known object, reconstruct it, and check the result against the truth."""
