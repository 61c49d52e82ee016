"""What is in an HDF5 file, asked of a process of its own: a broken file can harm that one alone.

The process is used again for the next file, and replaced when it died, hung or ran out of memory.
"""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import threading
from collections.abc import Sequence
from typing import Any

import msgspec
from msgspec import Struct

LIMIT_S = 20.0
START_S = 30.0
LENGTH_BYTES = 8  # before an answer
ANSWER_MOST = 128 << 20


def _received(link: socket.socket) -> bytes:
    """An answer, which may be longer than one message of a socket can be; empty when the other side has ended."""
    length = int.from_bytes(_exactly(link, LENGTH_BYTES))
    return _exactly(link, length) if length <= ANSWER_MOST else b""


def _exactly(link: socket.socket, length: int) -> bytes:
    found = bytearray()
    while len(found) < length:
        piece = link.recv(min(1 << 20, length - len(found)))
        if not piece:
            return b""
        found += piece
    return bytes(found)


class Shape(Struct, frozen=True):
    shape: tuple[int, ...]
    written: bool  # every part of it


class Contents(Struct, frozen=True):
    """`broken`: why it cannot be read; `writing`: its writer is at work, or died before closing it."""

    broken: str = ""
    writing: bool = False
    values: dict[str, Any] = {}
    shapes: dict[str, Shape | None] = {}
    links: list[str] | None = None
    entries: dict[str, str] | None = None
    metadata: dict[str, Any] | None = None


class Question(Struct, frozen=True):
    """`values`: paths of datasets, or `path@attribute`; `shapes`: paths; `links`: a group whose links lead outside."""

    values: tuple[str, ...] = ()
    shapes: tuple[str, ...] = ()
    links: str = ""
    entries: bool = False
    metadata: bool = False  # all of it that is small


class Reader:
    """Asks one question at a time; several threads wait for each other."""

    def __init__(self, *, limit_s: float = LIMIT_S, argv: Sequence[str] = ()) -> None:
        self._limit_s = limit_s
        self._argv = list(argv) or [sys.executable, "-m", "orchestrator.arrival.hdf5_reader"]
        self._process: subprocess.Popen[bytes] | None = None
        self._link: socket.socket | None = None
        self._turn = threading.Lock()
        self._warm = False

    def __enter__(self) -> Reader:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def ask(self, handle: int, question: Question) -> Contents:
        """About the file of that handle. Whatever is wrong with it is in `broken`."""
        with self._turn:
            link = self._link or self._begin()
            link.settimeout(self._limit_s if self._warm else self._limit_s + START_S)
            text = json.dumps(msgspec.to_builtins(question)).encode()
            try:
                socket.send_fds(link, [text], [handle])
                answer = _received(link)
            except TimeoutError:
                self._end()
                return Contents(broken=f"it cannot be read within {self._limit_s:g} s")
            except OSError:
                answer = b""
            if not answer:
                self._end()
                return Contents(broken="reading it ends the process that does")
            self._warm = True
            return msgspec.convert(json.loads(answer), Contents)

    def close(self) -> None:
        with self._turn:
            self._end()

    def _begin(self) -> socket.socket:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        with theirs:
            self._process = subprocess.Popen(
                [*self._argv, str(theirs.fileno())],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
        self._link, self._warm = ours, False
        return ours

    def _end(self) -> None:
        if self._link is not None:
            self._link.close()
        if self._process is not None:
            self._process.kill()
            self._process.wait()
        self._link = self._process = None
