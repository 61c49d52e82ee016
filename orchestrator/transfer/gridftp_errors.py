"""What a GridFTP server and `globus-url-copy` say when something fails, in one sentence with its class."""

from __future__ import annotations

import os
import re
from urllib.parse import unquote_to_bytes

from orchestrator.errors import BeamwayError, InputError
from orchestrator.model import FailureClass
from orchestrator.transfer.base import TransferDown, TransferError, TransferRefused

_WHO = re.compile(
    r"^53[0-5][ -]|login incorrect|gss[_ -]|gsi_|credential|certificate|proxy|not authoriz|authenticat", re.I | re.M
)
_FULL = re.compile(r"no space left|disk quota|quota exceeded|NO_SPACE", re.I)
_FORBIDDEN = re.compile(
    r"path not allowed|permission denied|PERMISSION_DENIED|read-only file system|not permitted", re.I
)
_GONE = re.compile(r"no such file|PATH_NOT_FOUND|does not exist", re.I)
_LONG = re.compile(r"name too long", re.I)
_IN_THE_WAY = re.compile(r"is a directory|not a directory|file exists|PATH_EXISTS", re.I)
_UNREACHABLE = re.compile(
    r"connection refused|no route|unable to connect|unreachable|resolv|name resol|unknown host", re.I
)
# Lines that only pass on what another one says.
_NOISE = re.compile(
    r"^(error: *)?(the server responded with an error)?$|^End\.?$|A system call failed|GlobusError: v=|GridFTP-Errno|"
    r"Command failed",
    re.I,
)
_TAGS = re.compile(r"(^\d{3}[ -]|globus_\w+: *|GridFTP-Error-String: *|GridFTP-Reason: *)", re.I)


def explained(text: str, place: str, *, source: bool = False) -> BeamwayError:
    """The error for what was said about `place`, an address or a path."""
    for name in _paths(place):  # a file's name says nothing about the failure
        text = text.replace(name, "")
    said = _clause(text)
    if _UNREACHABLE.search(text):
        return TransferDown(f"The GridFTP server of '{place}' does not answer: {said}.", "It is tried again later.")
    if _WHO.search(text):
        sentence = f"The GridFTP server of '{place}' does not let us in: {said}."
        hint = "Renew the certificate or proxy, then it goes on."
        return TransferError(sentence, hint, failure=FailureClass.AUTHENTICATION)
    if _FULL.search(text):
        return TransferError(
            f"The disk of '{place}' is full; nothing was left under its final name.", "Free some space there."
        )
    if _FORBIDDEN.search(text):
        return TransferRefused(f"The GridFTP server refuses '{place}': {said}.", "Ask its owner for permission.")
    if _LONG.search(text):
        return TransferRefused(f"The name '{place}' is too long for its file system.")
    if source and _GONE.search(text):
        return InputError(f"The source '{place}' is not there.")
    if _IN_THE_WAY.search(text):
        return TransferRefused(f"Something else is in the way at '{place}': {said}.")
    return TransferDown(f"The copy of '{place}' broke off: {said}.")


def _paths(place: str) -> tuple[str, str]:
    path = "/" + place.partition("://")[2].partition("/")[2] if "://" in place else place
    return path, os.fsdecode(unquote_to_bytes(os.fsencode(path)))


def _clause(text: str) -> str:
    """The line that says most."""
    lines = [_TAGS.sub("", line.strip()).strip() for line in text.splitlines()]
    telling = [line for line in lines if not _NOISE.search(line)] or [line for line in lines if line]
    last = telling[-1].removeprefix("error: ").strip(" .:") if telling else ""
    return last or "no reason given"
