"""What a submit command can be given: schedulers read `host:path`, lists with commas and `$NAME` in paths, and queues
that are set to `unix_behavior` take the shell from a script's first line and nowhere else."""

from __future__ import annotations

import math

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


def warned_after_s(spec: JobSpec) -> int:
    """When the script is warned, from its start; 0: not at all."""
    return max(1, math.floor(spec.walltime_s - spec.warning_s)) if 0 < spec.warning_s < spec.walltime_s else 0


def timed(spec: JobSpec, *before: str) -> str:
    """The script with these lines before it, and with a timer of its own that warns it by SIGALRM.

    For schedulers that warn late (PBS: when the walltime is over) or inexactly (Slurm: up to a minute too early, with a
    signal that others send too).
    """
    first, _, rest = for_bash(spec.script).partition("\n")
    lines = [first, *before]
    if warned_s := warned_after_s(spec):
        # It ends with the script: a timer that is left behind would keep some sites' nodes.
        lines.append(
            f'( until=$((SECONDS + {warned_s})); while kill -0 "$$" 2>/dev/null; do'
            ' left=$((until - SECONDS)); if [ "$left" -le 0 ]; then kill -ALRM "$$"; break; fi;'
            ' sleep "$((left < 5 ? left : 5))"; done ) </dev/null >/dev/null 2>&1 &'
        )
    return "\n".join([*lines, rest])
