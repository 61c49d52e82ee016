"""`python -m orchestrator.agent.job FILE`: one order as the payload of a batch job.

The outcome is on the disk before the job ends, whatever happens to the agent meanwhile. A SIGTERM, which schedulers
send some time before they kill, and the attempt's own time-out leave the work by an exception, so its clean-up runs.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import time
from pathlib import Path

from orchestrator import codec
from orchestrator.agent import output, ranks, wrapper
from orchestrator.model import FailureClass, Outcome

NOT_WELL = 1  # exit status: the outcome says more


def main(path: str) -> int:
    job = codec.loads(Path(path).read_text(), ranks.RankOrder)
    order = job.order
    paths = output.Paths(order)
    started_at = time.time()
    timed_out = False

    def on_alarm(_number: int, _frame: object) -> None:
        nonlocal timed_out
        timed_out = True
        raise wrapper.Ended

    signal.signal(signal.SIGALRM, on_alarm)
    signal.signal(signal.SIGTERM, wrapper.on_term)
    if order.timeout_s:
        signal.setitimer(signal.ITIMER_REAL, order.timeout_s)
    try:
        if os.path.exists(paths.cancelled):
            raise wrapper.Ended
        outcome = wrapper.attempt(order, job.around)
        for number in (signal.SIGALRM, signal.SIGTERM):
            signal.signal(number, signal.SIG_IGN)  # it is over: now it is written down
    except wrapper.Ended:
        outcome = Outcome(FailureClass.CANCELLED, "asked to end")
        if timed_out:
            outcome = Outcome(FailureClass.TIMEOUT, f"ended after its timeout of {order.timeout_s:g} s")
    except OSError as error:
        outcome = Outcome(FailureClass.LOST, f"the attempt could not be prepared: {error}")
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            stream.flush()
    outcome = wrapper.with_output(order, outcome, started_at, job.around.cap_bytes)
    wrapper.write_whole(paths.exit, codec.dumps(outcome))
    return 0 if outcome.failure is None else NOT_WELL


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
