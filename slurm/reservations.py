"""Reservations of Slurm: made, prolonged, given back, and jobs moved into them and out. Slurm lets its operators only;
others are refused in its own words."""

from __future__ import annotations

import re
import time
from collections.abc import Sequence

from orchestrator.errors import UserError
from orchestrator.jobs import Refused, Reservation, SchedulerSilent
from slurm import argv
from slurm.client import SILENT, UTC, Slurm

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@+-]{0,127}")


def create(
    slurm: Slurm,
    name: str,
    *,
    from_at: float,
    until_at: float,
    nodes: int,
    queue: str = "",
    users: Sequence[str] = (),
    accounts: Sequence[str] = (),
) -> Reservation:
    """Reserve `nodes` nodes. Times are epoch seconds. Raises UserError for words that make no reservation, Refused with
    Slurm's own words."""
    for word in (name, *users, *accounts, *([queue] if queue else [])):
        _check(word)
    if until_at <= max(from_at, time.time()):
        raise UserError("The reservation would be over before it begins.", "Give an end that is later.")
    if nodes < 1:
        raise UserError("A reservation holds one node at least.")
    if not users and not accounts:
        raise UserError("Say for whom the reservation is: users or accounts.")
    _change(
        slurm,
        argv.create_reservation(
            name,
            from_at=from_at if from_at > time.time() + 1 else 0,
            until_at=until_at,
            nodes=nodes,
            queue=queue,
            users=",".join(users),
            accounts=",".join(accounts),
        ),
    )
    made = slurm.reservations().get(name) or Reservation(name, from_at, until_at, queue, node_count=nodes)
    if made.node_count < nodes:  # Slurm reserves what there is, and calls that a success
        delete(slurm, name)
        raise Refused(f"Slurm would hold only {made.node_count} of the {nodes} nodes, so nothing is reserved.")
    return made


def extend(slurm: Slurm, name: str, *, until_at: float) -> None:
    _check(name)
    _change(slurm, argv.extend_reservation(name, until_at=until_at))


def delete(slurm: Slurm, name: str) -> None:
    """Give it back. Slurm refuses while jobs of it run."""
    _check(name)
    _change(slurm, argv.delete_reservation(name))


def attach(slurm: Slurm, job: str, name: str) -> None:
    """Move a waiting job into the reservation."""
    _check(name)
    _check(job)
    _change(slurm, argv.move_job(job, name))


def detach(slurm: Slurm, job: str) -> None:
    """Move a waiting job out of its reservation."""
    _check(job)
    _change(slurm, argv.move_job(job, ""))


def _change(slurm: Slurm, words: list[str]) -> None:
    answer = slurm.calls.run(words, environment=UTC)
    if answer.rc == 0 and "error" not in answer.err.lower():
        return
    if SILENT.search(answer.words):
        raise SchedulerSilent(f"Slurm does not answer 'scontrol': {answer.words}", "Look whether it was done.")
    raise Refused(f"Slurm does not do it: {answer.words}")


def _check(word: str) -> None:
    if not _NAME.fullmatch(word):
        raise UserError(f"{word!r} is no name for Slurm: letters, digits and '._@+-', and a letter or digit first.")
