"""What a submit command can be given: schedulers read `host:path`, lists with commas and `$NAME` in paths, and queues
that are set to `unix_behavior` take the shell from a script's first line and nowhere else."""

from __future__ import annotations

from orchestrator.errors import UserError
from orchestrator.jobs import JobSpec, check_token

SPECIAL = frozenset(":,$\\'\"")


def check(spec: JobSpec) -> None:
    """Raises UserError for a token or path that a scheduler would read as something else."""
    check_token(spec.token)
    for path in (spec.stdout, spec.stderr, spec.directory):
        if not path.startswith("/") or not path.isprintable() or SPECIAL & set(path):
            raise UserError(
                f"The scheduler cannot be given the path {path!r}.",
                "It must be absolute, without ':', ',', '$', quotes and control characters.",
            )
    for name, word in (
        ("queue", spec.queue),
        ("account", spec.account),
        ("reservation", spec.reservation),
        ("qos", spec.qos),
    ):
        if word and (word.startswith("-") or not word.isprintable() or " " in word):
            raise UserError(f"{word!r} cannot be the {name} of a job.")
    if any("\0" in word for word in (spec.script, *spec.options)):
        raise UserError("A job's script and options hold no NUL characters.")


def for_bash(script: str) -> str:
    return script if script.startswith("#!") else f"#!/bin/bash\n{script}"
