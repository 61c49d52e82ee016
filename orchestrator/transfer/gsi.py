"""A GridFTP control channel with a certificate: GSI (RFC 2228 with TLS inside), as `gsiftp://` asks for.

GSI is a TLS handshake carried in `ADAT` lines, one byte that asks for no delegation, and from then on each line of both
sides as a TLS record in base64. The certificate is found where the Globus programs look for it:

    X509_USER_PROXY, /tmp/x509up_u<uid>, X509_USER_CERT with X509_USER_KEY, ~/.globus/usercert.pem with userkey.pem
    X509_CERT_DIR, ~/.globus/certificates, /etc/grid-security/certificates    the authorities that we trust
"""

from __future__ import annotations

import base64
import ftplib
import os
import ssl
from binascii import Error as NotBase64
from pathlib import Path

NO_DELEGATION = b"0"
_WRAPPED = ("631", "632", "633")


class NoCredential(Exception):
    """There is no certificate here, or none that can be used."""


def credential() -> tuple[Path, Path]:
    """The files of our certificate and its key; the same one for a proxy."""
    environment = os.environ
    proxy = Path(environment.get("X509_USER_PROXY") or f"/tmp/x509up_u{os.getuid()}")
    if proxy.is_file():
        return proxy, proxy
    globus = Path.home() / ".globus"
    certificate = Path(environment.get("X509_USER_CERT") or globus / "usercert.pem")
    key = Path(environment.get("X509_USER_KEY") or globus / "userkey.pem")
    if not certificate.is_file() or not key.is_file():
        raise NoCredential(f"there is neither a proxy at {proxy} nor a certificate at {certificate}")
    return certificate, key


def authorities() -> Path:
    places = [Path.home() / ".globus" / "certificates", Path("/etc/grid-security/certificates")]
    if given := os.environ.get("X509_CERT_DIR"):
        places = [Path(given)]
    found = next((place for place in places if place.is_dir()), None)
    if found is None:
        raise NoCredential(f"there are no trusted authorities at {places[-1]}")
    return found


def _context() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.maximum_version = ssl.TLSVersion.TLSv1_2  # GSI counts the handshake's messages
    context.load_verify_locations(capath=authorities())
    certificate, key = credential()
    try:
        # A key with a passphrase would wait at the terminal for it: it is none of ours.
        context.load_cert_chain(certificate, key, password=lambda: b"")
    except (ssl.SSLError, OSError) as error:
        raise NoCredential(f"the certificate {certificate} cannot be used: {error}") from None
    return context


class GsiFtp(ftplib.FTP):
    """`login` authenticates by certificate; the words are those of `ftplib.FTP`."""

    _tls: ssl.SSLObject | None = None

    def login(self, *_: str, **__: str) -> str:
        into, out = ssl.MemoryBIO(), ssl.MemoryBIO()
        tls = _context().wrap_bio(into, out, server_hostname=self.host)
        self.sendcmd("AUTH GSSAPI")
        while True:
            try:
                tls.do_handshake()
                break
            except ssl.SSLWantReadError:
                into.write(self._adat(out.read()))
        if more := out.read():  # our last words of the handshake: the server has nothing more to say to it
            into.write(self._adat(more))
        tls.write(NO_DELEGATION)
        self._adat(out.read())
        self._into, self._out, self._tls = into, out, tls
        answer = self.sendcmd("USER :globus-mapping:")
        return self.sendcmd("PASS dummy") if answer.startswith("3") else answer

    def _adat(self, token: bytes) -> bytes:
        answer = self.sendcmd("ADAT " + base64.b64encode(token).decode())
        _, _, text = answer.partition("ADAT=")
        return base64.b64decode(text)

    def putline(self, line: str) -> None:
        if self._tls is None:
            super().putline(line)
            return
        if "\r" in line or "\n" in line:
            raise ValueError("a line break in a word for the server")
        self._tls.write(line.encode(self.encoding) + b"\r\n")
        super().putline("ENC " + base64.b64encode(self._out.read()).decode())

    def getmultiline(self) -> str:
        """An answer is wrapped as a whole, however many lines it has."""
        if self._tls is None:
            return super().getmultiline()
        text = ""
        while True:
            line = super().getline()
            if line[:3] not in _WRAPPED:
                return line
            try:
                self._into.write(base64.b64decode(line[4:]))
            except NotBase64 as error:
                raise ftplib.error_proto(line) from error
            text += self._decrypted().decode(self.encoding)
            lines = text.replace("\r\n", "\n").rstrip("\0\n").split("\n")
            if len(lines[-1]) > 3 and lines[-1][3] == " " and lines[-1][:3] == lines[0][:3]:
                return "\n".join(lines)

    def _decrypted(self) -> bytes:
        assert self._tls is not None
        found = b""
        try:
            while block := self._tls.read(1 << 16):
                found += block
        except ssl.SSLWantReadError:
            pass
        return found
