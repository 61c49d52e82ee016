"""A GridFTP server as one end of a copy, spoken to over its control channel; the bytes go by `globus-url-copy`.

All it takes are words without a data connection: MLST and MLSC say what is there, CKSM the checksum of a range,
MKD, DELE and RMD make and remove, RNFR and RNTO publish. From what it is told in clear text the Globus server drops
every byte that is no printable ASCII, and would so write to another name: such names are refused here. By certificate
all names pass that hold no control character.
"""

from __future__ import annotations

import ftplib
import os
import re
import socket
import ssl
import time
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from urllib.parse import quote, unquote_to_bytes, urlsplit

from orchestrator.errors import BeamwayError, InputError
from orchestrator.model import FailureClass
from orchestrator.outside import effect
from orchestrator.transfer.base import TransferCancelled, TransferDown, TransferError, TransferRefused
from orchestrator.transfer.ends import GRIDFTP_PORTS, Entry, Listing
from orchestrator.transfer.gridftp_errors import explained
from orchestrator.transfer.gsi import GsiFtp, NoCredential

ANSWER_S = 120.0
SLOWEST_SUM_BYTES_PER_S = 5e6
SUMS = ("adler32", "sha256", "sha1", "md5", "sha512")  # of them, what the server and Python both know
_GONE = re.compile(r"PATH_NOT_FOUND|no such file|not a directory", re.I)
_THERE = re.compile(r"PATH_EXISTS|file exists", re.I)
_CARRIED = {"ftp": re.compile(r"[ -~]*"), "gsiftp": re.compile(r"[^\x00-\x1f\x7f]*")}


@dataclass(frozen=True)
class Address:
    """`ftp://host:port/path` (anonymous) or `gsiftp://host:port/path` (by certificate), its path unescaped."""

    scheme: str
    host: str
    port: int
    path: str

    @property
    def server(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.scheme}://{host}:{self.port}"


def is_address(text: str) -> bool:
    return text.partition("://")[0].lower() in GRIDFTP_PORTS and "://" in text


def address(text: str) -> Address:
    """Read one. `TransferRefused`: it is not whole, carries a password, or leaves its folder by `..`."""
    try:
        parts = urlsplit(text)
        port = parts.port
    except ValueError as error:
        raise TransferRefused(f"The address '{text}' is wrong: {error}.") from None
    if parts.username or parts.password:
        raise TransferRefused(
            f"The address of '{parts.hostname}' holds a name or password.", "They do not belong there."
        )
    rest = text.partition("://")[2]
    if not parts.hostname or "/" not in rest:
        raise TransferRefused(f"The address '{text}' is wrong.", "It reads scheme://host:port/path.")
    # Not `parts.path`: `?` and `#` are letters of a file name here, and urlsplit drops line breaks.
    path = os.fsdecode(unquote_to_bytes(os.fsencode(rest[rest.index("/") :])))
    if ".." in path.split("/"):
        raise TransferRefused(f"The path of '{text}' holds '..'.", "Name the place itself.")
    path = re.sub("/+", "/", path)
    scheme = parts.scheme.lower()
    return Address(scheme, parts.hostname, port or GRIDFTP_PORTS[scheme], path)


class _Refused(Exception):
    """The server's answer begins with 4 or 5."""


class ServerEnd:
    """Implements `ends.End`. It connects at the first word, and again when the connection was lost."""

    at_once = 2  # one core makes 3 GB/s of the cheapest, and less than a fast network of the others

    def __init__(self, server: Address, answer_s: float = ANSWER_S) -> None:
        self._address = server
        self._answer_s = answer_s  # how long it may think about a word
        self.place = server.server
        self.answer_s = float("inf")  # the quickest answer so far: about how far away it is
        self._control: ftplib.FTP | None = None
        self._closed = False

    # ---- words

    def _connected(self) -> ftplib.FTP:
        if self._closed:
            raise TransferCancelled(f"The copy at '{self.place}' was ended.")
        if self._control is None:
            kind = GsiFtp if self._address.scheme == "gsiftp" else ftplib.FTP
            control = kind(encoding="latin-1", timeout=self._answer_s)
            try:
                control.connect(self._address.host, self._address.port)
                control.login("anonymous", "beamway@")
                if self._closed:  # meanwhile, by another thread
                    raise EOFError
            except BaseException:
                control.close()
                raise
            self._control = control
        return self._control

    def _said(self, *lines: str, more_s: float = 0.0) -> str:
        """The answer to the last of `lines`; asked once more when the connection was lost."""
        for last in (False, True):
            answer = ""
            try:
                control = self._connected()
                if control.sock:
                    control.sock.settimeout(self._answer_s + more_s)
                for line in lines:
                    begun = time.monotonic()
                    answer = control.sendcmd(line)
                    self.answer_s = min(self.answer_s, time.monotonic() - begun)
                return answer
            except ftplib.Error as error:
                if not str(error).startswith("421"):
                    raise _Refused(str(error)) from None
                self._lost(error, last=last)
            except (ssl.SSLError, NoCredential) as error:
                self._drop()
                why = getattr(error, "verify_message", "") or error
                sentence = f"The GridFTP server of '{self.place}' and we do not trust each other: {why}."
                hint = "Renew the certificate or proxy, then it goes on."
                raise TransferError(sentence, hint, failure=FailureClass.AUTHENTICATION) from None
            except (OSError, EOFError) as error:
                self._lost(error, last=last)
        raise AssertionError

    def _lost(self, error: Exception, *, last: bool) -> None:
        self._drop()
        if self._closed:
            raise TransferCancelled(f"The copy at '{self.place}' was ended.") from None
        if last or isinstance(error, ConnectionRefusedError | TimeoutError | socket.gaierror):
            why = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
            sentence = f"The GridFTP server of '{self.place}' does not answer: {why or 'the connection was lost'}."
            raise TransferDown(sentence, "It is tried again later.") from None

    def _drop(self) -> None:
        control, self._control = self._control, None
        if control is not None:
            control.close()

    def _explained(self, refused: _Refused, path: str, *, source: bool = False) -> BeamwayError:
        return explained(str(refused), self.shown(path), source=source)

    def _word(self, path: str) -> str:
        if not _CARRIED[self._address.scheme].fullmatch(path):
            what = "printable ASCII" if self._address.scheme == "ftp" else "what can be printed"
            sentence = f"The name '{path}' cannot be carried by {self._address.scheme}, which carries only {what}."
            raise TransferRefused(sentence, "Rename it, or pack it into an archive.")
        return os.fsencode(path).decode("latin-1")  # byte for byte

    # ---- what is there

    def shown(self, path: str) -> str:
        return self.place + path.replace("%", "%25")  # read by `address` it is the same again

    def url(self, path: str) -> str:
        self._word(path)
        return self.place + quote(os.fsencode(path))

    def entry(self, path: str) -> Entry | None:
        try:
            answer = self._said("MLST " + self._word(path))
        except _Refused as refused:
            if _GONE.search(str(refused)):
                return None
            raise self._explained(refused, path) from None
        lines = answer.splitlines()
        found = _fact_line(lines[1]) if len(lines) > 2 else None
        if found is None:
            raise TransferDown(f"The GridFTP server of '{self.place}' gave an answer that is not understood: {answer}.")
        return _entry(found[0])

    def listing(self, path: str) -> Listing:
        path = path.rstrip("/") or "/"
        found = self.entry(path)
        if found is None:
            raise InputError(f"The source '{self.shown(path)}' is not there.")
        if not found.is_folder:
            listing = Listing(path, {"": found}, ())
        else:
            listing = self._tree(path)
        if not listing.bytes:
            raise InputError(f"The source '{self.shown(path)}' is empty.", "It may still be being written.")
        return listing

    def _tree(self, root: str) -> Listing:
        files: dict[str, Entry] = {}
        folders: list[str] = []
        waiting = [""]
        while waiting:
            below = waiting.pop()
            for name, found in self._names(os.path.join(root, below)).items():
                path = os.path.join(below, name)
                if found.is_link:
                    raise InputError(f"The source holds the link '{path}', and only files come from another host.")
                if found.is_folder:
                    folders.append(path)
                    waiting.append(path)
                else:
                    files[path] = found
        return Listing(root, dict(sorted(files.items())), tuple(sorted(folders)))

    def _names(self, folder: str) -> dict[str, Entry]:
        try:
            answer = self._said("MLSC " + self._word(folder))
        except _Refused as refused:
            raise self._explained(refused, folder, source=True) from None
        names: dict[str, Entry] = {}
        seen, counted = 0, -1
        # Not splitlines: it would break names at bytes that end no line here.
        for line in answer.split("\n")[1:-1]:
            found = _fact_line(line)
            if found is None:
                raise self._odd(folder)
            facts, name = found
            seen += 1
            kind = facts["type"].lower()
            if kind == "cdir":
                counted = int(facts.get("x.count", -1))
            if kind in ("cdir", "pdir"):
                continue
            if "/" in name or name in ("", ".", "..") or kind not in ("file", "dir"):
                raise self._odd(folder)
            names[os.fsdecode(name.encode("latin-1"))] = _entry(facts)
        if counted not in (-1, seen):  # a name with a line break in it can look like two
            raise self._odd(folder)
        return names

    def _odd(self, folder: str) -> InputError:
        sentence = f"The folder '{self.shown(folder)}' holds a name that GridFTP cannot carry, or no regular file."
        return InputError(sentence, "A name with a line break, perhaps: rename it.")

    def sums(self) -> Sequence[str]:
        try:
            told = re.search(r"^\s*CKSM (.*)$", self._said("FEAT"), re.M)
        except _Refused:
            return ()
        known = {word.partition(":")[0].lower() for word in told[1].split(";")} if told else set()
        return [name for name in SUMS if name in known]

    def digest(self, path: str, kind: str, offset: int, length: int) -> str:
        line = f"CKSM {kind.upper()} {offset} {length} {self._word(path)}"
        try:
            answer = self._said(line, more_s=length / SLOWEST_SUM_BYTES_PER_S)
        except _Refused as refused:
            if _GONE.search(str(refused)):
                return ""
            raise self._explained(refused, path) from None
        return answer.split()[-1].lower()

    def whole(self, path: str, kind: str, size: int) -> str:
        return self.digest(path, kind, 0, size)

    def free(self, path: str) -> int | None:
        return None  # no word of the Globus server tells it

    def held(self, paths: Sequence[str]) -> int:
        return 0

    # ---- changes

    def make_folder(self, path: str) -> None:
        missing = []
        above = path
        while (found := self.entry(above)) is None and above != "/":
            missing.append(above)
            above = os.path.dirname(above)
        if found is not None and not found.is_folder:
            raise TransferRefused(f"The destination '{self.shown(path)}' lies below '{above}', which is a file.")
        for each in reversed(missing):
            try:
                self._said("MKD " + self._word(each))
            except _Refused as refused:
                if not _THERE.search(str(refused)):
                    raise self._explained(refused, each) from None

    def keep(self, path: str, folders: Iterable[str]) -> None:
        """Nothing: no word asks a server to bring a file to its disk."""

    def publish(self, part: str, final: str) -> None:
        try:
            with effect("file.publish"):
                self._said("RNFR " + self._word(part), "RNTO " + self._word(final))
        except _Refused as refused:
            # Renamed, its answer lost, and asked again?
            if _GONE.search(str(refused)) and self.entry(part) is None and self.entry(final) is not None:
                return
            raise self._explained(refused, final) from None

    def remove(self, path: str) -> None:
        found = self.entry(path)
        if found is None:
            return
        if found.is_folder and not found.is_link:
            for name in self._names(path):
                self.remove(os.path.join(path, name))
        try:
            self._said(f"{'RMD' if found.is_folder else 'DELE'} {self._word(path)}")
        except _Refused as refused:
            raise self._explained(refused, path) from None

    def again(self) -> ServerEnd:
        return ServerEnd(self._address, self._answer_s)

    def close(self) -> None:
        self._closed = True
        control = self._control
        if control is not None and control.sock is not None:
            with suppress(OSError):
                control.sock.shutdown(socket.SHUT_RDWR)
        self._drop()


def _fact_line(line: str) -> tuple[dict[str, str], str] | None:
    """The facts and the name of a line of MLST or MLSC, None when it is no such line."""
    facts, sep, name = line.removeprefix(" ").partition("; ")
    pairs = [fact.partition("=") for fact in facts.split(";")]
    if not sep or not all(middle for _, middle, _ in pairs):
        return None
    known = {key.lower(): value for key, _, value in pairs}
    return (known, name) if "type" in known else None


def _entry(facts: dict[str, str]) -> Entry:
    size = int(facts.get("size", "0"))
    stamp = f"{facts.get('modify', '')} {facts.get('unique', '')}"
    return Entry(facts["type"].lower() in ("dir", "cdir"), size, stamp, "unix.slink" in facts)
