"""A real sshd on 127.0.0.1, for tests: on a port and with keys of its own, gone when they are over.

It lets in the account that runs the tests, by a key that nobody else has. `config` is what ssh is to be told
to reach it.
"""

from __future__ import annotations

import contextlib
import getpass
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from pathlib import Path
from types import TracebackType
from urllib.parse import quote

import psutil

PATH = os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin"])
START_S = 20.0


def missing() -> str:
    """Why there can be no server here; empty when there can."""
    for program, package in (("sshd", "openssh-server"), ("ssh", "openssh-client"), ("rsync", "rsync")):
        if shutil.which(program, path=PATH) is None:
            return f"{program} is not installed (Debian: apt install {package})"
    return ""


class Sshd:
    """One server, running when made. `root` is a folder for the files of the tests."""

    def __init__(self) -> None:
        self.place = Path(tempfile.mkdtemp(prefix="bw-sshd-"))
        self.root = self.place / "data"
        self.root.mkdir()
        self._server: subprocess.Popen[bytes] | None = None
        for name in ("host", "user", "other"):
            self._keygen(name)
        with socket.create_server(("127.0.0.1", 0)) as held:
            self.port = int(held.getsockname()[1])
        (self.place / "authorized").write_text((self.place / "user.pub").read_text())
        self.config = self.configured("config", key="user", host="host")
        try:
            self.start()
        except BaseException:
            self.remove()
            raise

    def __enter__(self) -> Sshd:
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        self.remove()

    def url(self, name: str | bytes = "") -> str:
        """The address of what is below `root`."""
        path = os.fsencode(self.root) + b"/" + os.fsencode(name)
        return f"ssh://{getpass.getuser()}@127.0.0.1:{self.port}{quote(path)}"

    def configured(self, name: str, *, key: str, host: str) -> Path:
        """A configuration of ssh: which key it shows, and which key it expects of the host."""
        known = self.place / f"{name}.known"
        known.write_text(f"[127.0.0.1]:{self.port} {(self.place / f'{host}.pub').read_text()}")
        lines = ["Host *", f"  IdentityFile {self.place / key}", "  IdentitiesOnly yes", "  IdentityAgent none"]
        lines += [f"  UserKnownHostsFile {known}", "  GlobalKnownHostsFile /dev/null", "  StrictHostKeyChecking yes"]
        path = self.place / name
        path.write_text("\n".join(lines) + "\n")
        return path

    def start(self) -> None:
        program = shutil.which("sshd", path=PATH)
        assert program, missing()
        if os.geteuid() == 0:
            Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)
        lines = [f"Port {self.port}", "ListenAddress 127.0.0.1", f"HostKey {self.place / 'host'}", "UsePAM no"]
        lines += [f"AuthorizedKeysFile {self.place / 'authorized'}", "StrictModes no", "PasswordAuthentication no"]
        lines += [
            "KbdInteractiveAuthentication no",
            "PermitRootLogin yes",
            "MaxStartups 100",
            f"PidFile {self.place}/pid",
        ]
        (self.place / "sshd_config").write_text("\n".join(lines) + "\n")
        with (self.place / "log").open("ab") as log:
            words = [program, "-D", "-e", "-f", self.place / "sshd_config"]
            self._server = subprocess.Popen(
                words, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
            )
        over = time.monotonic() + START_S
        while True:
            try:
                socket.create_connection(("127.0.0.1", self.port), timeout=1).close()
                return
            except OSError:
                assert self._server.poll() is None, (self.place / "log").read_text()
                assert time.monotonic() < over, f"sshd did not start within {START_S:g} s"
                time.sleep(0.02)

    def cut(self) -> int:
        """End its connections, as a lost network does; it takes new ones. How many there were."""
        found = self._processes()[1:]
        for process in found:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.send_signal(signal.SIGKILL)
        psutil.wait_procs(found, timeout=START_S)
        return len(found)

    def kill(self) -> None:
        """End it and its connections at once, as a crash of its host does."""
        if self._server is not None:
            found = self._processes()
            self._server.kill()
            self._server.wait(START_S)
            for process in found[1:]:
                with contextlib.suppress(psutil.NoSuchProcess):
                    process.send_signal(signal.SIGKILL)
            psutil.wait_procs(found[1:], timeout=START_S)
            self._server = None

    def remove(self) -> None:
        self.kill()
        shutil.rmtree(self.place, ignore_errors=True)

    def _processes(self) -> list[psutil.Process]:
        if self._server is None:
            return []
        first = psutil.Process(self._server.pid)
        return [first, *first.children(recursive=True)]

    def _keygen(self, name: str) -> None:
        words = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", name, "-f", self.place / name]
        subprocess.run(words, check=True)
