"""The same wish for many runs: which they are, what would be done, and what became of each."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

import click

if TYPE_CHECKING:
    from orchestrator.client import Client
    from orchestrator.store.letters import Letter
    from orchestrator.store.search import Summary

F = TypeVar("F", bound=Callable[..., Any])

PAGE = 1000  # runs that are asked for at a time

_WHICH = {
    "since": "Only those of the last so long: 90 min, 2h, 3 days.",
    "workflow": "Only runs of this workflow.",
    "experiment": "Only runs of this experiment.",
    "site": "Only what happened at this site.",
}
dry_run_option = click.option("--dry-run", is_flag=True, help="With many runs: print which, and change nothing.")


def which(function: F) -> F:
    """The options that say which runs are meant."""
    for name, text in reversed(_WHICH.items()):
        function = click.option(f"--{name}", default="", metavar=name.upper(), help=text)(function)
    return function


class Which(NamedTuple):
    since: str = ""
    workflow: str = ""
    experiment: str = ""
    site: str = ""

    @property
    def since_at(self) -> float:
        """The moment `since` means, 0 for none. Raises ArgumentError."""
        from orchestrator.definition.units import duration_s
        from orchestrator.errors import ArgumentError

        if not self.since:
            return 0.0
        try:
            return time.time() - duration_s(self.since)
        except ValueError as error:
            raise ArgumentError(f"--since {self.since!r} is no length of time.", str(error)) from None

    def dead(self, client: Client, *, limit: int = 1_000_000) -> list[Letter]:
        """The runs that failed for good and that nobody has dealt with, the newest first."""
        return client.dead(
            workflow=self.workflow, experiment=self.experiment, site=self.site, since=self.since_at, limit=limit
        )

    def going(self, client: Client) -> list[str]:
        """The runs that are not over and that no other run has begun, the newest first."""
        from orchestrator.model import RUN_ENDED, RunStatus

        found: list[Summary] = []
        for status in RunStatus:
            if status not in RUN_ENDED and status is not RunStatus.ABORTING:
                found += self._pages(client, status.value)
        ids = [r.id for r in sorted(found, key=lambda r: -r.created_at) if not r.parent]
        return [i for i in ids if self._there(client, i)] if self.site else ids

    def _pages(self, client: Client, status: str) -> Iterator[Summary]:
        before = None
        while True:
            page = client.runs(
                status=status,
                workflow=self.workflow,
                experiment=self.experiment,
                since=self.since_at,
                before=before,
                limit=PAGE,
            )
            yield from page
            if len(page) < PAGE:
                return
            before = page[-1].place

    def _there(self, client: Client, run_id: str) -> bool:
        stages = client.run(run_id).stages.values()
        return self.site in {s.site or client.settings.site for s in stages if s.started_at or s.site}


def one_or_many(context: click.Context, run_id: str, word: str, many: bool, which: Which, dry_run: bool) -> None:
    """Either one run is named or many are meant, and only many are chosen by options."""
    if bool(run_id) == many:
        context.fail(f"Name a run, or say {word} for many.")
    if run_id and (any(which) or dry_run):
        context.fail(f"The options that choose among runs go with {word}.")


def carry_out(ids: Sequence[str], wish: Callable[[str], str], *, done: str, dry_run: bool, as_json: bool) -> int:
    """Ask for it run by run and tell what came of it; 0 when each was accepted, 1 when one was refused.

    `wish` gives the id of the run that goes on. A service that does not answer ends it: what was accepted stays so.
    """
    from orchestrator.cli import formats
    from orchestrator.errors import BeamwayError, Unavailable

    told: list[dict[str, Any]] = []
    shows = sys.stderr.isatty() and not as_json and not dry_run and bool(ids)
    for number, run_id in enumerate(ids):
        if shows:
            click.echo(f"\r{number}/{len(ids)}", nl=False, err=True)
        try:
            told.append({"id": run_id, "now": run_id if dry_run else wish(run_id), "refused": None})
        except Unavailable as error:
            words = f"{error.sentence} {number} of {len(ids)} runs were {done} before."
            raise Unavailable(words, "Ask again: those are not asked twice.") from error
        except BeamwayError as error:
            told.append({"id": run_id, "now": None, "refused": error.sentence})
    if shows:
        click.echo("\r", nl=False, err=True)
    refused = [t for t in told if t["refused"]]
    if as_json:
        formats.emit({"dry_run": dry_run, "runs": told})
    elif dry_run:
        click.echo("\n".join(ids) if ids else "No run is meant.")
    else:
        for each in refused:
            click.echo(f"{each['id']} was not {done}: {each['refused']}", err=True)
        click.echo(f"{len(told) - len(refused)} of {len(told)} runs {done}.")
    return 1 if refused else 0
