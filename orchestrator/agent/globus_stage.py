"""A transfer stage between Globus collections: begun or taken over, followed, and left alone when it is on hold.

Globus moves the files; this only looks. So an attempt whose worker died, or that ended in a hold, has left a transfer
behind that goes on. The next attempt of the task takes it over instead of beginning another; or it is ended, when there
is to be no further attempt.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Sequence

from orchestrator import settings
from orchestrator.errors import BeamwayError, Unavailable, nearest
from orchestrator.model import FailureClass, Order, Outcome, Product, split_token
from orchestrator.model import token as token_of
from orchestrator.transfer import progress
from orchestrator.transfer.base import TransferRefused, TransferRequest, TransferState, TransferStatus, failure_of
from orchestrator.transfer.globus.notes import Notes
from orchestrator.transfer.globus.session import Held
from orchestrator.transfer.globus.transfer import GlobusTransfer

OPTIONS = ("deadline_s", "direct")
LOOK_S = (1.0, 15.0)  # between looks: at first, and at most
SILENCE_S = 120.0  # Globus has not answered for so long: it is down


def call(order: Order) -> Outcome:
    """Carry the stage out. Whatever ends this early (the attempt is to end) ends the transfer, too."""
    configured = settings.load()
    begun = time.time()
    client = configured.globus_client, configured.globus_secret
    try:
        with GlobusTransfer(*client, configured.globus_directory) as transfer:
            token = _token(transfer, order)
            try:
                state = _followed(transfer, token, _request(order))
            except BaseException as error:
                if not isinstance(error, Exception | SystemExit):
                    with contextlib.suppress(BeamwayError):
                        transfer.cancel(token)
                raise
    except Unavailable as error:
        return Outcome(FailureClass.DOWN, str(error), exit_status=Unavailable.exit_code)
    except BeamwayError as error:
        return Outcome(failure_of(error), str(error))
    if state.status is TransferStatus.HELD:  # with an exit status: it has run here, and no site is at fault
        return Outcome(state.failure, state.reason, exit_status=Unavailable.exit_code, link=state.link)
    if state.report is None:
        return Outcome(state.failure, state.reason)
    report = state.report
    print(f"moved {report.files} files, {report.bytes} bytes, {report.skipped} of them were there", flush=True)
    product = Product(report.destination, report.bytes, "transferred by Globus, checksums verified", report.checksum)
    return Outcome(products=(product,), transfer_s=time.time() - begun, moved_bytes=report.bytes - report.skipped_bytes)


def left(token: str) -> list[str]:
    """The tokens of this attempt and those before it under which a transfer may still be going."""
    run_id, number, attempt = split_token(token)
    notes = Notes(settings.load().globus_directory / "notes")
    return [each for i in range(attempt, 0, -1) if notes.unended(each := token_of(run_id, number, i))]


def end(tokens: Sequence[str]) -> Outcome:
    """End what they have left behind, however long Globus gives no answer."""
    configured = settings.load()
    client = configured.globus_client, configured.globus_secret
    pause_s = LOOK_S[0]
    while True:
        try:
            with GlobusTransfer(*client, configured.globus_directory) as transfer:
                for token in tokens:
                    transfer.cancel(token)
            return Outcome(FailureClass.CANCELLED, "cancelled")
        except Held as held:
            where = f" End it at {held.link}." if held.link else ""
            reason = f"cancelled; its Globus task may go on until its deadline: {held}{where}"
            return Outcome(FailureClass.CANCELLED, reason, link=held.link)
        except Unavailable:
            time.sleep(pause_s)
            pause_s = min(LOOK_S[1], pause_s * 1.5)
        except BeamwayError as error:
            return Outcome(FailureClass.CANCELLED, f"cancelled; its Globus task may go on until its deadline: {error}")


def _request(order: Order) -> TransferRequest:
    given = order.arguments["from"]
    checks, options = order.arguments.get("checks", "checksum"), dict(order.arguments.get("options") or {})
    for name in options:
        if name not in OPTIONS:
            raise TransferRefused(f"Globus has no option {name!r}.{nearest(name, OPTIONS)}")
    if isinstance(given, str):
        return TransferRequest(given, order.arguments["to"], (checks,), options)
    # Several go into a folder, even if it is only one this time.
    return TransferRequest(
        given[0], f"{order.arguments['to'].rstrip('/')}/", (checks,), {**options, "sources": list(given)}
    )


def _token(transfer: GlobusTransfer, order: Order) -> str:
    """That of the last attempt that has left an open transfer behind, or else this one's."""
    run_id, number, attempt = split_token(order.token)
    earlier = (token_of(run_id, number, each) for each in range(attempt - 1, 0, -1))
    return next(filter(transfer.is_open, earlier), order.token)


def _followed(transfer: GlobusTransfer, token: str, request: TransferRequest) -> TransferState:
    """Until it has ended or waits for somebody."""
    pause_s, answered_at, shown = LOOK_S[0], time.monotonic(), ""
    while True:
        try:
            state = transfer.submit(token, request)  # of one that is known: its state
        except Unavailable:
            if time.monotonic() - answered_at > SILENCE_S:
                raise
        else:
            answered_at = time.monotonic()
            if state.status not in (TransferStatus.PENDING, TransferStatus.RUNNING):
                return state
            line = progress.line(state.bytes_done, state.bytes_total, state.rate, state.reason)
            if line != shown:
                print(line, flush=True)
                shown = line
        time.sleep(pause_s)
        pause_s = min(LOOK_S[1], pause_s * 1.5)
