"""A transfer stage between Globus collections: begun or taken over, followed, and left alone when it is on hold.

Globus moves the files; this only looks. So an attempt whose worker died, or that ended in a hold, has left a transfer
behind that goes on. The next attempt of the task takes it over instead of beginning another.
"""

from __future__ import annotations

import contextlib
import time

from orchestrator import settings
from orchestrator.errors import BeamwayError, Unavailable
from orchestrator.model import FailureClass, Order, Outcome, Product, split_token
from orchestrator.model import token as token_of
from orchestrator.transfer import progress
from orchestrator.transfer.base import TransferRequest, TransferState, TransferStatus, failure_of
from orchestrator.transfer.globus.transfer import GlobusTransfer

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


def _request(order: Order) -> TransferRequest:
    given = order.arguments["from"]
    checks = order.arguments.get("checks", "checksum")
    if isinstance(given, str):
        return TransferRequest(given, order.arguments["to"], (checks,))
    # Several go into a folder, even if it is only one this time.
    return TransferRequest(given[0], f"{order.arguments['to'].rstrip('/')}/", (checks,), {"sources": list(given)})


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
