"""Another host by ssh: its address, the words that start a program there, and what goes wrong, in one sentence.

Nothing here asks anybody: keys and known hosts are those of the account that runs, or of the configuration of ssh that
is named. Who is not let in is on hold; a host whose key is another one now is refused, because that may be an attack.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from urllib.parse import unquote_to_bytes

from orchestrator.errors import BeamwayError, InputError
from orchestrator.model import FailureClass
from orchestrator.transfer.base import TransferDown, TransferError, TransferRefused

CONNECT_S = 20
ALIVE_S = 15  # without a sign of life; three times, then the connection is lost
_HOST = re.compile(
    r"(?:(?P<user>[A-Za-z0-9_][A-Za-z0-9_.-]*)@)?(?P<host>[A-Za-z0-9][A-Za-z0-9.-]*|\[[0-9A-Fa-f:.]+\])(?::(?P<port>\d{1,5}))?"
)

_KEY = re.compile(r"host key verification failed|REMOTE HOST IDENTIFICATION HAS CHANGED|host key .* not known", re.I)
_WHO = re.compile(
    r"permission denied \(|too many authentication failures|no supported authentication|bad owner or perm", re.I
)
_DOWN = re.compile(
    r"connection (refused|timed out|reset|closed|lost)|could not resolve|no route to host|network is unreachable|"
    r"operation timed out|broken pipe|connection unexpectedly closed|timeout in data|kex_exchange|lost connection",
    re.I,
)
_FULL = re.compile(r"no space left|disk quota|quota exceeded", re.I)
_FORBIDDEN = re.compile(r"permission denied|read-only file system|operation not permitted", re.I)
_GONE = re.compile(r"no such file|vanished", re.I)
_LONG = re.compile(r"name too long", re.I)
_IN_THE_WAY = re.compile(r"is a directory|not a directory|file exists|directory not empty", re.I)
_MISSING = re.compile(r"(command )?not found", re.I)
_NOISE = re.compile(r"^rsync error:|^rsync: \[\w+\] *$|^Warning: Permanently added|^\s*$|^debug\d:", re.I)


@dataclass(frozen=True)
class Address:
    """`ssh://user@host:port/path`, its path unescaped."""

    host: str  # without the brackets of IPv6
    path: str
    user: str = ""
    port: int = 0

    @property
    def place(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"ssh://{f'{self.user}@' if self.user else ''}{host}{f':{self.port}' if self.port else ''}"

    def argv(self, config: str = "") -> list[str]:
        """ssh up to the host, so that it is never taken for an option."""
        words = ["ssh", *(["-F", config] if config else []), "-T", "-x", "-o", "BatchMode=yes"]
        words += ["-o", f"ConnectTimeout={CONNECT_S}", "-o", f"ServerAliveInterval={ALIVE_S}"]
        words += ["-o", "ServerAliveCountMax=3", "-o", "ForwardAgent=no"]
        words += ["-p", str(self.port)] if self.port else []
        return words + (["-l", self.user] if self.user else [])


def is_address(text: str) -> bool:
    return text[:6].lower() == "ssh://"


def address(text: str) -> Address:
    """Read one. `TransferRefused`: it is not whole, carries a password, or leaves its folder by `..`."""
    where, slash, rest = text[6:].partition("/")
    if ":" in where.rpartition("@")[0]:
        raise TransferRefused("An address by ssh holds a password.", "It does not belong there: use a key.")
    found = _HOST.fullmatch(where)
    if not slash or found is None or int(found["port"] or 22) > 65535:
        raise TransferRefused(f"The address '{text}' is wrong.", "It reads ssh://user@host:port/path.")
    path = re.sub("/+", "/", os.fsdecode(unquote_to_bytes(os.fsencode(f"/{rest}"))))
    if ".." in path.split("/"):
        raise TransferRefused(f"The path of '{text}' holds '..'.", "Name the place itself.")
    if "\0" in path:
        raise TransferRefused(f"The address '{text}' is not a path.")
    return Address(found["host"].strip("[]"), path, found["user"] or "", int(found["port"] or 0))


def rsh(words: Sequence[str]) -> str:
    """The words as rsync reads them in RSYNC_RSH: apart at blanks, quoted by doubling."""
    return " ".join("'" + word.replace("'", "''") + "'" for word in words)


def explained(text: str, place: str, *, source: bool = False) -> BeamwayError:
    """The error for what ssh, rsync or a program there has said about `place`."""
    said = _clause(text)
    if _KEY.search(text):
        sentence = f"The host of '{place}' is not the one that is known here: {said}."
        hint = "Ask its owner whether its key is new; then mend the known hosts."
        return TransferError(sentence, hint, failure=FailureClass.AUTHENTICATION)
    if _WHO.search(text):
        sentence = f"The host of '{place}' does not let us in: {said}."
        return TransferError(sentence, "Give it our key, then it goes on.", failure=FailureClass.AUTHENTICATION)
    if _FULL.search(text):
        sentence = f"The disk of '{place}' is full; nothing was left under its final name."
        return TransferError(sentence, "Free some space there.")
    if _DOWN.search(text):
        return TransferDown(f"The host of '{place}' does not answer: {said}.", "It is tried again later.")
    if _FORBIDDEN.search(text):
        return TransferRefused(f"'{place}' may not be read or written: {said}.", "Ask its owner for permission.")
    if _LONG.search(text):
        return TransferRefused(f"The name '{place}' is too long for its file system.")
    if _GONE.search(text) and source:
        return InputError(f"The source '{place}' is not there.")
    if _IN_THE_WAY.search(text):
        return TransferRefused(f"Something else is in the way at '{place}': {said}.")
    if _MISSING.search(text):
        return TransferRefused(f"The host of '{place}' lacks a program: {said}.", "It needs rsync and GNU coreutils.")
    return TransferDown(f"The copy of '{place}' broke off: {said}.")


def _clause(text: str) -> str:
    """The line that says most: the first, because the others follow from it."""
    lines = [line.strip() for line in text.splitlines() if not _NOISE.search(line)]
    telling = [line for line in lines if _KEY.search(line) or _WHO.search(line)] or lines
    return telling[0].strip(" .") if telling else "no reason given"
