"""A real GridFTP server on 127.0.0.1, for tests: started, stopped, killed, paused at will, gone when they are over.

It lets in anybody (`ftp://`), sees one folder only, and never runs as root: its files belong to `nobody` then.
"""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from pathlib import Path
from types import TracebackType
from typing import Any
from urllib.parse import quote

import psutil

PATH = os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin"])
START_S = 20.0


def missing() -> str:
    """Why there can be no server here; empty when there can."""
    for program, package in (
        ("globus-gridftp-server", "globus-gridftp-server-progs"),
        ("globus-url-copy", "globus-gass-copy-progs"),
    ):
        if shutil.which(program, path=PATH) is None:
            return f"{program} is not installed (Debian: apt install {package})"
    return ""


class Gridftp:
    """One server, running when made. `root` is the folder that it sees; `options` are words for its command line."""

    def __init__(self, *options: str) -> None:
        self._place = Path(tempfile.mkdtemp(prefix="bw-gridftp-"))
        self._place.chmod(0o755)
        self.root = self._place / "data"
        self.root.mkdir(mode=0o777)
        self.root.chmod(0o777)
        self._options = options
        self.port = _free_port()
        self._server: subprocess.Popen[bytes] | None = None
        try:
            self.start()
        except BaseException:
            self.remove()
            raise

    def __enter__(self) -> Gridftp:
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        self.remove()

    def url(self, name: str | bytes = "") -> str:
        """The address of what is below `root`."""
        path = os.fsencode(str(self.root)) + b"/" + os.fsencode(name)
        return f"ftp://127.0.0.1:{self.port}{quote(path)}"

    def start(self) -> None:
        assert self._server is None
        program = shutil.which("globus-gridftp-server", path=PATH)
        assert program, missing()
        words = [program, "-c", "/dev/null", "-aa", "-restrict-paths", f"RW{self.root}"]
        words += ["-control-interface", "127.0.0.1", "-data-interface", "127.0.0.1", "-p", str(self.port)]
        account: dict[str, Any] = {}
        if not os.geteuid():
            nobody = pwd.getpwnam("nobody")
            account = {"user": nobody.pw_uid, "group": nobody.pw_gid, "extra_groups": []}
        with (self._place / "log").open("ab") as log:
            self._server = subprocess.Popen(
                [*words, *self._options],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd="/",
                start_new_session=True,
                **account,
            )
        over = time.monotonic() + START_S
        while True:
            try:
                socket.create_connection(("127.0.0.1", self.port), timeout=1).close()
                return
            except OSError:
                assert self._server.poll() is None, (self._place / "log").read_text()
                assert time.monotonic() < over, f"the GridFTP server did not start within {START_S:g} s"
                time.sleep(0.02)

    def kill(self) -> None:
        """End it and its connections at once, as a crash of its host does."""
        if self._server is None:
            return
        ended = self._signal(signal.SIGKILL)
        psutil.wait_procs(ended[1:], timeout=START_S)
        self._server.wait(START_S)
        self._server = None

    def cut(self) -> None:
        """End its connections; it takes new ones."""
        psutil.wait_procs([p for p in self._processes()[1:] if _signalled(p, signal.SIGKILL)], timeout=START_S)

    def pause(self) -> None:
        """Let it hang: connections stay, nothing answers."""
        self._signal(signal.SIGSTOP)

    def resume(self) -> None:
        self._signal(signal.SIGCONT)

    def busy(self) -> int:
        """How many connections it serves."""
        return max(0, len(self._processes()) - 1)

    def remove(self) -> None:
        self.resume()
        self.kill()
        shutil.rmtree(self._place, ignore_errors=True)

    def _processes(self) -> list[psutil.Process]:
        if self._server is None:
            return []
        try:
            first = psutil.Process(self._server.pid)
            return [first, *first.children(recursive=True)]
        except psutil.NoSuchProcess:
            return []

    def _signal(self, number: int) -> list[psutil.Process]:
        return [process for process in self._processes() if _signalled(process, number)]


def _signalled(process: psutil.Process, number: int) -> bool:
    try:
        process.send_signal(number)
    except psutil.NoSuchProcess:
        return False
    return True


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as held:
        return int(held.getsockname()[1])
