"""What commands have in common: the client they speak through, and the arguments they share."""

from __future__ import annotations

import os
import uuid
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

import click
from click.shell_completion import CompletionItem

from orchestrator.errors import ArgumentError, BeamwayError, NotFound

if TYPE_CHECKING:
    from orchestrator.client import Client
    from orchestrator.model import Placing

F = TypeVar("F", bound=Callable[..., Any])

json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON on stdout: UTC times, seconds, bytes.")

_PLACING = {
    "site": "Where it runs, `auto` for the best; a stage that names a site stays there.",
    "queue": "Queue there: its name, or its use (realtime, demand, regular, debug).",
    "account": "Who pays.",
    "reservation": "Reservation it runs in.",
    "mode": "`pilot`: in warm workers; `batch`: a job of its own for each task.",
}


def placing_options(function: F) -> F:
    """Where and how it runs, for what the stages leave open."""
    for name, text in reversed(_PLACING.items()):
        kind = click.Choice(["pilot", "batch"]) if name == "mode" else None
        function = click.option(f"--{name}", type=kind, metavar=name.upper(), help=text)(function)
    return function


def placing(asked: dict[str, str | None]) -> Placing:
    from orchestrator.model import Placing

    return Placing(**{name: text or "" for name, text in asked.items()})


def quiet_logs() -> None:
    """What adapters log of foreign text goes to stderr, and only when it is a warning: stdout is for the answer."""
    from orchestrator import logs

    logs.configure_for_people(warnings_only=True)


def client() -> Client:
    """The client of this home, to be used as a context manager."""
    from orchestrator import settings
    from orchestrator.client import Client

    return Client(settings.load())


def find(opened: Client, text: str) -> str:
    """The id of the run that `text` names. Raises NotFound."""
    if not text:
        raise NotFound("An empty text names no run.", "`beamway ls` lists the runs.")
    return opened.find(text)


def beginning_of_path(text: str) -> str:
    """What files to look for: with a slash in it the beginning of an absolute path, otherwise of a name, as it is."""
    if os.sep not in text:
        return text
    return os.path.abspath(text) + (os.sep if text.endswith(os.sep) else "")


def checked_id(text: str) -> str:
    """An id that a user supplied, in its one form. Raises ArgumentError."""
    try:
        return str(uuid.UUID(text)) if text else ""
    except ValueError:
        raise ArgumentError(f"The id {text!r} is not a UUID.", "Leave --id out and one is made.") from None


def run_argument(function: F) -> F:
    return click.argument("run_id", metavar="RUN", shell_complete=complete_runs)(function)


def optional_run_argument(function: F) -> F:
    argument = click.argument("run_id", metavar="[RUN]", required=False, default="", shell_complete=complete_runs)
    return argument(function)


def workflow_argument(*, required: bool = True) -> Callable[[F], F]:
    return click.argument("workflow", metavar="WORKFLOW", required=required, shell_complete=_complete_workflows)


arguments_argument = click.argument("pairs", metavar="[KEY:VALUE]…", nargs=-1)


def complete_runs(context: click.Context, _parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    try:
        with client() as opened:
            known = [CompletionItem(r.id, help=f"{r.workflow} {r.status.value}") for r in opened.runs(limit=100)]
    except BeamwayError:
        return []
    return [item for item in (CompletionItem("last"), *known) if item.value.startswith(incomplete)]


def _complete_workflows(context: click.Context, _parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    if os.sep in incomplete or incomplete.startswith("."):
        return [CompletionItem(incomplete, type="file")]
    from orchestrator.cli.definitions import known

    try:
        with client() as opened:
            names = [name for name, _ in known(opened)]
    except BeamwayError:
        return []
    return [CompletionItem(n) for n in names if n.startswith(incomplete)] or [CompletionItem(incomplete, type="file")]
