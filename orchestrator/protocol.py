"""What service, agents and clients say to each other over the service's socket.

Each message is one frame: four bytes of length (big-endian), then JSON. A client asks and gets one answer per question,
in order. An agent says `Hello` once and then both sides send what they have: the service orders and kills, the agent
reports. A report is kept by the agent until `Stored` names it, so that a service that dies in between hears it again.

The socket is a Unix socket in the home directory, whose owner alone may enter.
"""

from __future__ import annotations

import os
import socket
import struct
from pathlib import Path
from typing import Any, TypeAlias

from msgspec import Struct

from orchestrator import codec
from orchestrator.jobs import Queue, Reservation
from orchestrator.model import Order, Outcome, Plan, Resources

API = "/api/v1"  # root of the interface over HTTP
AGENT_LEASE_S = 15.0  # an agent over HTTP that has not asked for messages for so long has lost its site
MOST_BYTES = 256 * 2**20  # of one frame: a larger one is not ours


class Message(Struct, frozen=True, tag=True):
    pass


# client → service, and the answers


class Ping(Message, frozen=True):
    pass


class Pong(Message, frozen=True):
    pid: int
    version: str
    agents: tuple[str, ...]
    active: int  # runs not over
    shut: dict[str, tuple[float, str]] = {}  # sites to which nothing is sent -> since when, why


class Submit(Message, frozen=True):
    """Begin this run. The id is the client's, so that asking twice after a lost answer is harmless."""

    run_id: str
    plan: Plan
    files: tuple[str, ...] = ()
    username: str = ""
    host: str = ""
    instead_of: str = ""  # the failed run whose letter it deals with


class Cancel(Message, frozen=True):
    run_id: str
    reason: str


class Retry(Message, frozen=True):
    run_id: str
    stage: str = ""


class Resume(Message, frozen=True):
    """Try at once what is on hold: of this run, or everything at this site."""

    run_id: str = ""
    site: str = ""


class Resumed(Message, frozen=True):
    runs: tuple[str, ...]


class Peek(Message, frozen=True):
    """How far are the running attempts of this run?"""

    run_id: str


class Live(Message, frozen=True):
    progress: dict[str, tuple[float, str]]  # token -> fraction, text
    waits: dict[str, tuple[float, str]]  # token -> since when, what it waits for; run:stage while a site is chosen
    agents: tuple[str, ...]  # sites whose agent is connected
    shut: dict[str, tuple[float, str]] = {}  # sites to which nothing is sent -> since when, why


class Stop(Message, frozen=True):
    """End the service; its runs go on when it is started again."""


class Accepted(Message, frozen=True):
    """On disk."""

    run_id: str


class Refused(Message, frozen=True):
    sentence: str
    hint: str = ""
    exit_code: int = 2


# agent → service


class SiteView(Struct, frozen=True):
    """What a site's scheduler says at the moment. Times are epoch seconds (UTC)."""

    at: float = 0.0
    silent_since: float = 0.0  # the scheduler has given no answer since then; 0: it answers
    queues: tuple[Queue, ...] = ()
    starts_in_s: dict[str, float] = {}  # queue -> until such work would start, by the scheduler's own estimate
    reservations: tuple[Reservation, ...] = ()
    warm: tuple[str, ...] = ()  # queues and reservations with a free worker that fits
    shut: str = ""  # why nothing is sent there at the moment


class Hello(Message, frozen=True):
    site: str
    pid: int
    holding: tuple[str, ...]  # tokens of the attempts it still runs, or has reports of
    holder: str = ""  # over HTTP: who it is, the same for all connections of one process


class Started(Struct, frozen=True, tag=True):
    token: str
    at: float


class Progress(Struct, frozen=True, tag=True):
    """How far a running attempt is; shown, never stored."""

    token: str
    fraction: float
    text: str


class Waits(Struct, frozen=True, tag=True):
    """What an attempt that has not begun waits for; shown, never stored. An empty text: for nothing any more."""

    token: str
    since: float
    text: str


class Ended(Struct, frozen=True, tag=True):
    token: str
    outcome: Outcome


class Report(Message, frozen=True):
    number: int
    events: tuple[Started | Progress | Waits | Ended, ...]


class Estimated(Message, frozen=True):
    """An answer to `Estimate`."""

    number: int
    view: SiteView


# service → agent


class Estimate(Message, frozen=True):
    """How does the site look for work of this size?"""

    number: int
    resources: Resources
    queues: tuple[str, ...]  # whose start is to be estimated


class Granted(Message, frozen=True):
    """To an agent over HTTP: the site is its own as long as it asks for messages more often than the lease lasts."""

    session: str
    lease_s: float


class Orders(Message, frozen=True):
    orders: tuple[Order, ...]


class Kills(Message, frozen=True):
    tokens: tuple[str, ...]


class Stored(Message, frozen=True):
    """Reports up to this number are on disk."""

    number: int


class Bye(Message, frozen=True):
    """End in order: stop what runs, then exit."""


AnyMessage: TypeAlias = (
    Ping
    | Pong
    | Submit
    | Cancel
    | Retry
    | Resume
    | Resumed
    | Peek
    | Live
    | Stop
    | Accepted
    | Refused  # clients
    | Hello
    | Report
    | Estimated
    | Estimate
    | Granted
    | Orders
    | Kills
    | Stored
    | Bye  # agents
)
_any: Any = AnyMessage


def pack(message: Message) -> bytes:
    body = codec.dumps(message).encode()
    return struct.pack(">I", len(body)) + body


class Frames:
    """Cuts a byte stream into messages."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> list[AnyMessage]:
        """The messages completed by `data`. Raises ValueError on bytes that are no frame of ours."""
        self._buffer += data
        messages: list[AnyMessage] = []
        start = 0
        while len(self._buffer) - start >= 4:
            (length,) = struct.unpack_from(">I", self._buffer, start)
            if length > MOST_BYTES:
                raise ValueError(f"a frame of {length} bytes")
            if len(self._buffer) - start - 4 < length:
                break
            body = self._buffer[start + 4 : start + 4 + length]
            messages.append(codec.loads(body.decode(), _any))
            start += 4 + length
        del self._buffer[:start]
        return messages


SOCKET = "service.sock"


def connect(home: Path, timeout_s: float = 10.0) -> socket.socket:
    """A connection to the service of this home; OSError when none listens.

    Through a file descriptor of the directory, because the path of a Unix socket may not pass 107 bytes.
    """
    directory = os.open(home, os.O_RDONLY | os.O_DIRECTORY)
    try:
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        connection.settimeout(timeout_s)
        try:
            connection.connect(f"/proc/self/fd/{directory}/{SOCKET}")
        except OSError:
            connection.close()
            raise
        return connection
    finally:
        os.close(directory)


def listen(home: Path) -> socket.socket:
    """The service's listening socket. The caller holds the home's lock, so a socket left behind is nobody's."""
    directory = os.open(home, os.O_RDONLY | os.O_DIRECTORY)
    try:
        (home / SOCKET).unlink(missing_ok=True)
        listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        listening.bind(f"/proc/self/fd/{directory}/{SOCKET}")
        os.chmod(home / SOCKET, 0o600)
        listening.listen(64)
        return listening
    finally:
        os.close(directory)
