"""Which server an address is of, and how it is spoken to: GridFTP (`ftp://`, `gsiftp://`), or a host by ssh."""

from __future__ import annotations

import shlex
import shutil

from orchestrator.errors import BeamwayError
from orchestrator.transfer import gridftp_errors, gridftp_server, ssh
from orchestrator.transfer.base import TransferRefused
from orchestrator.transfer.ends import End
from orchestrator.transfer.gridftp_server import ServerEnd
from orchestrator.transfer.ssh_end import SshEnd


def is_known(at: str) -> bool:
    return gridftp_server.is_address(at) or ssh.is_address(at)


def server_and_path(at: str) -> tuple[str, str]:
    """Of an address that is known; no server and the path itself of a path. Raises TransferRefused."""
    if ssh.is_address(at):
        host = ssh.address(at)
        return host.place, host.path
    if gridftp_server.is_address(at):
        found = gridftp_server.address(at)
        return found.server, found.path
    return "", at


def end(at: str, answer_s: float) -> End:
    """Raises TransferRefused."""
    if ssh.is_address(at):
        return SshEnd(ssh.address(at), answer_s=answer_s)
    return ServerEnd(gridftp_server.address(at), answer_s)


def to_stdout(url: str) -> list[str]:
    """The program that fetches a file and keeps nothing. Raises TransferRefused."""
    if ssh.is_address(url):
        host = ssh.address(url)
        return [*host.argv(), "--", host.host, f"cat {shlex.quote(host.path)}"]
    program = shutil.which("globus-url-copy")
    if program is None:
        raise TransferRefused(
            "The program globus-url-copy is not on this host.", "Debian: apt install globus-gass-copy-progs."
        )
    return [program, "-q", url, "-"]


def explained(said: str, url: str) -> BeamwayError:
    """What it said when it failed."""
    why = ssh.explained if ssh.is_address(url) else gridftp_errors.explained
    return why(said, url, source=True)
