"""The back end: one Globus task per transfer, found again by its token whatever died in between.

Before Globus is asked, the submission id is on the disk; asking again with it gives the task that is there. So there is
one way on from any state, `_go_on`: survey, note, submit, look, compare. Whoever calls it next goes on with it.

A task that Globus calls SUCCEEDED is compared with both ends: the source is as it was before, and every file lies at
the destination with its size. What lies there already with the same checksum is not sent again. What was not there is
written beside its name, and gets it by rename when it is whole.
"""

from __future__ import annotations

import re
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import globus_sdk
from msgspec.structs import replace

from orchestrator.errors import BeamwayError, Denied, NotFound, Unavailable, nearest
from orchestrator.model import FailureClass
from orchestrator.outside import effect
from orchestrator.settings import Secret
from orchestrator.transfer.base import (
    TRANSFER_ENDED,
    TransferError,
    TransferRefused,
    TransferRequest,
    TransferState,
    TransferStatus,
    failure_of,
)
from orchestrator.transfer.globus import place, verdict
from orchestrator.transfer.globus.notes import Note, Notes
from orchestrator.transfer.globus.session import RETRIES, Held, Session, task_link

CHECKS = ("checksum", "size")  # both always
SLOWEST_BYTES_PER_S = 5_000_000  # the deadline counts on no less
PATIENCE_S = 24 * 3600.0  # for its queue, since a client has three tasks at a time, and for what holds it up
CLOCKS_DIFFER = timedelta(hours=1)  # ours and that of Globus, at most


class GlobusTransfer:
    """Implements `Transfer` between collections; `folder` is where its notes and tokens are kept.

    `options` of a request: `sources`, several addresses in place of `source`, for one task into one folder;
    `checksum`, `ALGORITHM:HEX` of a source that is one file; `deadline_s`, from now; `direct`, at once under the final
    name, for a destination where nothing can be renamed.
    """

    def __init__(self, client_id: str, secret: Secret, folder: Path, *, retries: int = RETRIES) -> None:
        self._notes = Notes(folder / "notes")
        self._session = Session(client_id, secret, folder, retries=retries)

    def __enter__(self) -> GlobusTransfer:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Transfers go on without us."""
        self._session.close()

    def submit(self, token: str, request: TransferRequest) -> TransferState:
        note = self._notes.read(token)
        if note is None or (note.verdict and note.verdict.status is TransferStatus.HELD):
            note = self._notes.keep(Note(token, request, time.time()))
        return self._go_on(note)

    def poll(self, token: str) -> TransferState:
        note = self._notes.read(token)
        if note is None:
            raise NotFound(f"No transfer {token!r} is known here.")
        return self._go_on(note)

    def find(self, token: str) -> TransferState | None:
        note = self._notes.read(token)
        if note is None:
            return None  # no note, no question
        return self._go_on(note, begin=False)

    def is_open(self, token: str) -> bool:
        """Has it been asked for, is it still wanted, and has nobody seen its end? Asks nobody."""
        note = self._notes.read(token)
        return note is not None and not note.cancelled and self._notes.unended(token)

    def cancel(self, token: str) -> None:
        note = self._notes.read(token)
        if note is None or (note.verdict and note.verdict.status in TRANSFER_ENDED):
            return
        note = self._adopted(self._notes.keep(replace(note, cancelled=True, verdict=None)))
        if note.task:
            self._end_task(note)

    # ------------------------------------------------------------------------------------------------ the way on

    def _go_on(self, note: Note, *, begin: bool = True) -> TransferState:
        if note.verdict:
            return note.verdict
        try:
            note = self._adopted(note)
            if not note.task and note.cancelled:
                return self._conclude(note, verdict.cancelled(TransferState(note.token, TransferStatus.PENDING)))
            if not note.task and not begin:
                return TransferState(note.token, TransferStatus.PENDING)
            if not note.task:
                note = self._begin(note)
            return self._look(note)
        except Held as held:
            link = task_link(note.task) if note.task else held.link
            return TransferState(
                note.token,
                TransferStatus.HELD,
                bytes_total=note.bytes,
                reason=str(held),
                link=link,
                failure=held.failure,
            )
        except Unavailable:
            raise
        except BeamwayError as error:
            state = TransferState(note.token, TransferStatus.FAILED, reason=str(error), failure=failure_of(error))
            return self._conclude(note, state)

    def _begin(self, note: Note) -> Note:
        if not note.submission:
            note = self._surveyed(note)
        with self._session.asking(note.source, note.destination) as client, effect("globus.submit"):
            task = client.submit_transfer(_document(note))["task_id"]
        return self._notes.keep(replace(note, task=task))

    def _surveyed(self, note: Note) -> Note:
        """The note as it must be on the disk before Globus is asked to move anything."""
        for check in note.request.checks:
            if check not in CHECKS:
                raise TransferRefused(f"There is no transfer check {check!r}.{nearest(check, CHECKS)}")
        found = place.survey(self._session, note.request, split_attempt(note.token))
        with self._session.asking() as client:
            submission = client.get_submission_id()["value"]
        wanted = sum(c.bytes for c in found.copies)
        patience_s = note.request.options.get("deadline_s") or PATIENCE_S + wanted / SLOWEST_BYTES_PER_S
        deadline = datetime.now(UTC) + timedelta(seconds=patience_s)
        return self._notes.keep(
            replace(
                note,
                source=found.source,
                destination=found.destination,
                items=found.items,
                copies=found.copies,
                all_listed=found.all_listed,
                submission=submission,
                deadline=deadline.isoformat(timespec="seconds"),
            )
        )

    def _adopted(self, note: Note) -> Note:
        """The note with the task of its submission, if Globus has taken it without our hearing of it."""
        if note.task or note.verdict or not note.submission:
            return note
        since = datetime.fromtimestamp(note.asked_at, UTC) - CLOCKS_DIFFER
        wanted = f"type:TRANSFER/label:={_label(note)}/request_time:{since:%Y-%m-%d %H:%M:%S},"
        with self._session.asking() as client:
            tasks = [t for t in client.task_list(filter=wanted) if t["label"] == _label(note)]
        return self._notes.keep(replace(note, task=tasks[0]["task_id"])) if tasks else note

    def _look(self, note: Note) -> TransferState:
        try:
            with self._session.asking(note.source, note.destination) as client:
                task: dict[str, Any] = client.get_task(note.task).data
                because = _pause_words(client.task_pause_info(note.task).data) if task.get("is_paused") else ""
        except NotFound:  # of another identity, or forgotten: whether it still moves files is not known
            sentence = f"Globus shows its task {note.task} to {self._session.identity} no more."
            link = task_link(note.task)
            raise Held(sentence, failure=FailureClass.AUTHENTICATION, link=link) from None
        state = verdict.judge(note, task, because)
        if state.status is TransferStatus.DONE:
            parts = self._parts(note)
            self._compare(note, parts)
            self._publish(note, parts)
        is_over = task["status"] in ("SUCCEEDED", "FAILED")
        if state.status in TRANSFER_ENDED and not is_over:
            self._end_task(note)
        return self._conclude(note, state) if state.status in TRANSFER_ENDED or is_over else state

    def _parts(self, note: Note) -> set[str]:
        """Those that have not got their final name yet."""
        return set(place.seen(self._session, note.destination, (i.part for i in note.items if i.part)))

    def _publish(self, note: Note, parts: set[str]) -> None:
        for item in note.items:
            if item.part not in parts:
                continue
            try:
                with self._session.asking(note.destination) as client, effect("file.publish"):
                    client.operation_rename(note.destination, item.part, item.destination)
            except BeamwayError:
                there = place.seen(self._session, note.destination, (item.destination,))
                if there and item.part not in self._parts(note):
                    continue  # only the answer was lost
                if there:
                    sentence = f"Something else has appeared as '{item.destination}' meanwhile."
                    raise TransferError(sentence, f"What was transferred is whole, as '{item.part}'.") from None
                raise

    def _compare(self, note: Note, parts: set[str]) -> None:
        """Raise what both ends do not bear out. Sizes at the destination, as far as we may look there."""
        now = place.seen(self._session, note.source, (c.source for c in note.copies))
        for copy in note.copies:
            if now.get(copy.source) != (copy.bytes, copy.modified):
                sentence = f"The source '{copy.source}' changed while it was transferred."
                raise TransferError(sentence, "It may still be being written.")
        renamed = {i.part: i.destination for i in note.items if i.part and i.part not in parts}
        wanted = {_renamed(c.destination, renamed): c.bytes for c in note.copies}
        try:
            there = place.seen(self._session, note.destination, wanted)
        except Denied:
            return
        for path, expected in wanted.items():
            if path not in there:
                raise TransferError(f"Globus says it succeeded, but '{path}' is not there.")
            if (size := there[path][0]) != expected:
                raise TransferError(f"Globus says it succeeded, but '{path}' has {size} of {expected} bytes.")

    def _end_task(self, note: Note) -> None:
        with self._session.asking(note.source, note.destination) as client, effect("globus.cancel"):
            client.cancel_task(note.task)

    def _conclude(self, note: Note, state: TransferState) -> TransferState:
        self._notes.keep(replace(note, verdict=state, copies=()))
        return state


def _renamed(path: str, renamed: dict[str, str]) -> str:
    """Where that is now, after these parts have got their names."""
    for part, final in renamed.items():
        if path == part or path.startswith(f"{part}/"):
            return final.rstrip("/") + path[len(part) :]
    return path


def split_attempt(token: str) -> str:
    """Without the attempt: the next one goes on with what this one has brought."""
    return token.rpartition(".")[0] or token


def _label(note: Note) -> str:
    """By which a task is found; the filter of Globus knows `/` and `,` as signs of its own."""
    return f"beamway {re.sub(r'[^A-Za-z0-9._-]', '_', note.token)[:80]} {note.submission}"


def _document(note: Note) -> globus_sdk.TransferData:
    data = globus_sdk.TransferData(
        note.source,
        note.destination,
        label=_label(note),
        submission_id=note.submission,
        sync_level=verdict.BY_CHECKSUM,
        verify_checksum=True,
        deadline=note.deadline,
        skip_source_errors=False,
        fail_on_quota_errors=True,  # who has made room sends the rest; a deadline does not wait for that
        notify_on_succeeded=False,
        notify_on_failed=False,
        notify_on_inactive=False,
    )
    algorithm, _, digest = note.request.options.get("checksum", "").partition(":")
    for item in note.items:
        to = item.part or item.destination
        if digest and not item.is_tree and len(note.items) == 1:
            data.add_item(item.source, to, external_checksum=digest, checksum_algorithm=algorithm.upper())
        else:
            data.add_item(item.source, to, recursive=item.is_tree)
    return data


def _pause_words(info: dict[str, Any]) -> str:
    said = [info.get("source_pause_message"), info.get("destination_pause_message")]
    said += [rule.get("message") for rule in info.get("pause_rules") or []]
    return "; ".join(dict.fromkeys(s for s in said if s))
