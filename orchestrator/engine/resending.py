"""Another run in place of one that failed, with some arguments changed."""

from __future__ import annotations

import uuid

from orchestrator import codec
from orchestrator.engine.opening import submission
from orchestrator.engine.planner import Planner
from orchestrator.model import Run
from orchestrator.protocol import Submit
from orchestrator.store.letters import Letter

PLACES = uuid.UUID("5d1c1a8e-3f0e-4f6d-8f0e-6f6f0b0b7a51")  # namespace of the ids of such runs


def in_place_of(run: Run, letter: Letter, planner: Planner, *, username: str, host: str) -> Submit:
    """The wish for it. Its id follows from the run and the changes, so that asking twice begins one.

    Raises what compiling a plan raises, for arguments that cannot be.
    """
    plan = planner.changed(run.plan, letter.fixes)
    run_id = str(uuid.uuid5(PLACES, f"{run.id}\0{codec.dumps(sorted(letter.fixes.items()))}"))
    return submission(plan, run_id, username, host, instead_of=run.id)
