"""False success of submit-and-monitor pairs: one stage submits a batch job, another waits for it to be over.

Over is not well. The condition of the waiting stage is tried with what a scheduler says of a job that failed;
if it holds, the run goes on, and is done, whatever became of the job.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from orchestrator.definition import expressions, graph, variables
from orchestrator.model import StagePlan

_SUBMIT = re.compile(r"\b(sbatch|qsub|bsub|msub|condor_submit)\b|submit", re.IGNORECASE)
_QUEUE = re.compile(r"\b(squeue|sacct|scontrol|qstat|bjobs|condor_q)\b")
_COUNTS = re.compile(r"\bwc\b|\bgrep\s+-\w*c")
_TESTS = re.compile(r"\b(test|exit|false|grep|exec)\b|\[")
_BAD = (
    "FAILED",
    "failed",
    "Failed",
    "CANCELLED",
    "TIMEOUT",
    "NODE_FAIL",
    "OUT_OF_MEMORY",
    "ERROR",
    "error",
    "Exit",
)
_GONE = (
    "0",
    "",
    "F",
    "C",
    "E",
)  # lines left in the queue; nothing; PBS and SGE letters that only say: it ended


def accepts_failure(stages: Sequence[StagePlan], index: int) -> str:
    """What a failed job can look like that ends the repetition of stage `index`, or an empty string.

    Empty, too, when the stage waits for no batch job, or when a later stage tests the captured state.
    """
    stage = stages[index]
    if not stage.repeat or not stage.command:
        return ""
    submitted = {name for s in stages[:index] if _SUBMIT.search(s.command) for name in graph.captured(s)}
    asks_queue = bool(_QUEUE.search(stage.command))
    if not asks_queue and not submitted & set(variables.names(stage.command)):
        return ""
    condition = expressions.parse(stage.repeat.until)
    watched = [name for name in condition.names if name in graph.captured(stage)]
    if not watched or any(_tests(later, watched) for later in stages[index + 1 :]):
        return ""
    tried: tuple[str, ...] = _BAD
    if asks_queue or _COUNTS.search(stage.command):
        tried += _GONE
    for state in tried:
        if condition.evaluate(dict.fromkeys(watched, state)):
            if state in _BAD:
                return f"a job in state {state}"
            return "a job that has left the queue, for whatever reason"
    return ""


def _tests(stage: StagePlan, watched: Sequence[str]) -> bool:
    """Whether a later stage looks at the state, so that it can fail the run."""
    used = set(variables.names(stage.command)) & set(watched)
    return bool(used) and bool(_TESTS.search(stage.command))
