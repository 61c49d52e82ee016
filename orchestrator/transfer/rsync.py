"""Copies to and from a host by ssh, by `rsync`, file by file; see `carrying`.

rsync compares each file as it passes; when it stands there, its checksum is asked once more at both ends. A part that
an interrupted copy has left is gone on with: rsync moves what differs.
"""

from __future__ import annotations

import os
import re
import select
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from orchestrator.errors import BeamwayError, nearest
from orchestrator.outside import effect
from orchestrator.transfer import checksums, local, ssh
from orchestrator.transfer.base import TransferCancelled, TransferDown, TransferRefused, TransferReport
from orchestrator.transfer.carrying import Move, carried, longest_s
from orchestrator.transfer.ends import End, local_end
from orchestrator.transfer.pieces import Piece
from orchestrator.transfer.ssh_end import SshEnd
from orchestrator.transfer.url_copy import dying_with_us

OPTIONS = {"silence_s": 120, "timeout_s": 0, "retries": 5}  # numbers; beside them `checksum` and `ssh_config`
LOOK_S = 0.1
BATCH_BYTES = 4 << 30  # of a start of the program: its files are compared while the next ones move
BATCH_FILES = 2000
_BYTES = re.compile(rb"^\s*([\d,.]+)\s+\d+%")


def copy(
    source: str,
    destination: str,
    *,
    token: str,
    checks: Sequence[str] | str = ("checksum",),
    options: Mapping[str, Any] | None = None,
    progress: local.Progress | None = None,
    cancelled: Callable[[], bool] | None = None,
) -> TransferReport:
    """Copy a file or a tree between a path and an address `ssh://user@host:port/path`.

    A file goes *into* a destination that is a folder or ends in `/`. Called again with the same token it goes on where
    it was. `InputError`: the source is at fault; `TransferError`: the rest, with its failure class.
    """
    verify = "checksum" in local.checked(checks)
    kind, config, chosen = _chosen(options or {})
    if ssh.is_address(source) and ssh.is_address(destination):
        raise TransferRefused("rsync does not copy between two other hosts.", "One of the two places is a path.")
    program = shutil.which("rsync")
    for name, path in (("rsync", program), ("ssh", shutil.which("ssh"))):
        if path is None:
            raise TransferRefused(
                f"The program {name} is not on this host.", "Debian: apt install rsync openssh-client."
            )
    origin, from_path, host = _end(source, kind, config, chosen["silence_s"])
    target, to_path, other = _end(destination, kind, config, chosen["silence_s"])
    there = host or other
    assert there is not None
    assert program is not None
    return carried(
        origin,
        target,
        (from_path, to_path),
        Rsync(program, there, host is not None, config, chosen),
        token=token,
        kind=kind if verify else "",
        progress=progress,
        cancelled=cancelled,
    )


def _chosen(options: Mapping[str, Any]) -> tuple[str, str, dict[str, float]]:
    known = (*OPTIONS, "checksum", "ssh_config")
    for name, value in options.items():
        if name not in known:
            raise TransferRefused(f"A copy by ssh has no option {name!r}.{nearest(name, known)}")
        if name in OPTIONS and (not isinstance(value, int | float) or value < 0):
            raise TransferRefused(f"The option {name!r} of a copy by ssh is a number, and not {value!r}.")
    config = str(options.get("ssh_config", ""))
    if config and not os.path.isfile(config):
        raise TransferRefused(f"The configuration of ssh '{config}' is not there.")
    return checksums.chosen(options), config, {**OPTIONS, **{n: v for n, v in options.items() if n in OPTIONS}}


def _end(place: str, kind: str, config: str, silence_s: float) -> tuple[End, str, ssh.Address | None]:
    if ssh.is_address(place):
        found = ssh.address(place)
        return SshEnd(found, config=config, answer_s=silence_s), found.path, found
    return *local_end(place, kind), None


@dataclass(frozen=True)
class Rsync:
    """Implements `carrying.Mover`."""

    program: str
    host: ssh.Address
    is_source: bool  # the other host is
    config: str
    options: dict[str, float]
    aside = True

    @property
    def retries(self) -> float:
        return self.options["retries"]

    def cut(self, name: str, size: int) -> list[Piece]:
        return [Piece(name, 0, size, size)]

    def move(
        self,
        moves: Sequence[Move],
        *,
        arrived: Callable[[int], None],
        moved: Callable[[int], None],
        cancelled: Callable[[], bool],
    ) -> BeamwayError | None:
        done = 0
        for batch in _batches(moves):
            if (trouble := self._run(batch, moved, cancelled)) is not None:
                return trouble
            done += len(batch)
            arrived(done)
        return None

    def _run(
        self, moves: Sequence[Move], moved: Callable[[int], None], cancelled: Callable[[], bool]
    ) -> BeamwayError | None:
        name = moves[0].piece.name
        # Not `--checksum`, `--archive` or the like: what moves is decided already, and nothing is carried but bytes.
        words = ["--inplace", "--ignore-times", "--no-whole-file", "--protect-args", "--info=progress2", "--outbuf=L"]
        words += ["--no-inc-recursive", f"--timeout={max(1, int(self.options['silence_s']))}"]
        if name:
            source, target = (_top(path, name) for path in (moves[0].source, moves[0].staged))
            words += ["--from0", "--files-from=-"]
            listed = b"".join(os.fsencode(move.piece.name) + b"\0" for move in moves)
        else:
            source, target, listed = moves[0].source, moves[0].staged, b""
        host = f"[{self.host.host}]" if ":" in self.host.host else self.host.host
        places = (f"{host}:{source}", target) if self.is_source else (source, f"{host}:{target}")
        size = sum(move.piece.length for move in moves)
        over = time.monotonic() + longest_s(self.options["timeout_s"], size)
        place = self.host.place + (source if self.is_source else target)
        environment = {**os.environ, "RSYNC_RSH": ssh.rsh(self.host.argv(self.config)), "LC_ALL": "C"}
        with tempfile.TemporaryFile() as errors, tempfile.TemporaryFile() as names:
            names.write(listed)
            names.seek(0)
            with effect("transfer.run"):
                process = subprocess.Popen(
                    [*dying_with_us(), self.program, *words, "--", *places],
                    stdin=names,
                    stdout=subprocess.PIPE,
                    stderr=errors,
                    env=environment,
                    start_new_session=True,
                )
            try:
                trouble = _listen(process, place, over, moved, cancelled)
            finally:
                process.kill()
                process.wait()
                assert process.stdout is not None
                process.stdout.close()
            if trouble is not None or process.returncode == 0:
                return trouble
            errors.seek(0)
            return ssh.explained(errors.read().decode(errors="backslashreplace"), place, source=self.is_source)


def _batches(moves: Sequence[Move]) -> Iterator[Sequence[Move]]:
    batch: list[Move] = []
    size = 0
    for move in moves:
        batch.append(move)
        size += move.piece.length
        if len(batch) >= BATCH_FILES or size >= BATCH_BYTES:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def _top(path: str, name: str) -> str:
    """The folder from which `name` is told."""
    return path[: len(path) - len(name)]


def _listen(
    process: subprocess.Popen[bytes],
    place: str,
    over: float,
    moved: Callable[[int], None],
    cancelled: Callable[[], bool],
) -> BeamwayError | None:
    assert process.stdout is not None
    handle, rest = process.stdout.fileno(), b""
    while True:
        ready, _, _ = select.select([handle], [], [], LOOK_S)
        if cancelled():
            return TransferCancelled(f"The copy of '{place}' was cancelled.")
        if time.monotonic() > over:
            return TransferDown(f"The copy of '{place}' took longer than its size allows.")
        if not ready:
            continue
        block = os.read(handle, 65536)
        if not block:
            process.wait()
            return None
        *lines, rest = re.split(rb"[\r\n]", rest + block)
        for line in lines:
            if found := _BYTES.match(line):
                moved(int(re.sub(rb"\D", b"", found[1])))
