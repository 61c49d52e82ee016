"""A transfer stage: each of its sources carried to its destination, with one figure of how far it is."""

from __future__ import annotations

import os
import time
from collections.abc import Callable

from orchestrator.agent import output
from orchestrator.errors import BeamwayError
from orchestrator.model import FailureClass, Order, Outcome, Product
from orchestrator.transfer import base, carry, progress

LOOK_S = 0.5  # how often it looks whether it is to end


def call(order: Order) -> Outcome:
    given, destination = order.arguments["from"], order.arguments["to"]
    checks, options = order.arguments.get("checks", ("checksum",)), order.arguments.get("options")
    sources = [given] if isinstance(given, str) else given
    if any(end.startswith("globus://") for end in (destination, *sources)):
        from orchestrator.agent import globus_stage

        return globus_stage.call(order)
    token = order.token.rpartition(".")[0]  # without the attempt: the next one goes on where this one was
    if not isinstance(given, str):
        destination = os.path.join(destination, "")  # several go into a folder
    begun, moved = time.time(), 0
    products: list[Product] = []
    cancelled = _mark(output.Paths(order).cancelled)
    for number, source in enumerate(sources, 1):
        which = f"{number} of {len(sources)}" if len(sources) > 1 else ""
        try:
            report = carry.copy(
                source,
                destination,
                token=token,
                checks=checks,
                options=options,
                progress=progress.Told(_tell, which=which),
                cancelled=cancelled,
            )
        except BeamwayError as error:
            failure = base.failure_of(error)
            # Who is not let in elsewhere has run here: this site is not to blame.
            status = error.exit_code if failure is FailureClass.AUTHENTICATION else None
            return Outcome(failure, str(error), exit_status=status, products=tuple(products))
        _tell(f"copied {report.files} files, {report.bytes} bytes, {report.skipped} of them were there")
        moved += report.bytes - report.skipped_bytes
        products.append(Product(report.destination, report.bytes, f"copy of {source}", report.checksum))
    return Outcome(products=tuple(products), transfer_s=time.time() - begun, moved_bytes=moved)


def _tell(line: str) -> None:
    print(line, flush=True)


def _mark(path: str) -> Callable[[], bool]:
    """Whether the mark is there, asked of the file system now and then."""
    asked_at, there = float("-inf"), False

    def look() -> bool:
        nonlocal asked_at, there
        if not there and time.monotonic() - asked_at > LOOK_S:
            asked_at, there = time.monotonic(), os.path.exists(path)
        return there

    return look
