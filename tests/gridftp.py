"""A real GridFTP server on 127.0.0.1, for tests: started, stopped, killed, paused at will, gone when they are over.

It lets in anybody (`ftp://`), or with `Certificates` who has one of them (`gsiftp://`), sees one folder only, and never
runs as root: its files belong to `nobody` then.
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

from tests.cluster.hosts import Host

PATH = os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin"])
START_S = 20.0
_NEW = ["-newkey", "rsa:2048", "-nodes"]


def missing() -> str:
    """Why there can be no server here; empty when there can."""
    for program, package in (
        ("globus-gridftp-server", "globus-gridftp-server-progs"),
        ("globus-url-copy", "globus-gass-copy-progs"),
    ):
        if shutil.which(program, path=PATH) is None:
            return f"{program} is not installed (Debian: apt install {package})"
    return ""


class Certificates:
    """An authority of the tests' own, and certificates that it has signed, made by `openssl`."""

    def __init__(self, place: Path) -> None:
        self.place = place
        self.trusted = place / "trusted"
        self.trusted.mkdir(parents=True)
        authority = self.trusted / "authority.pem"
        self._openssl("req", "-x509", *_NEW, "-keyout", "authority.key", "-out", authority, "-subj", "/O=Trial/CN=CA")
        name = self._openssl("x509", "-hash", "-noout", "-in", authority).strip()
        shutil.copy(authority, self.trusted / f"{name}.0")
        lines = ["access_id_CA X509 '/O=Trial/CN=CA'", "pos_rights globus CA:sign"]
        lines.append("""cond_subjects globus '"/O=Trial/*"'""")
        (self.trusted / f"{name}.signing_policy").write_text("\n".join(lines) + "\n")

    def make(self, name: str, days: int = 1) -> dict[str, str]:
        """A new certificate, as the environment that lets Globus programs use it."""
        request = ["-keyout", f"{name}.key", "-out", f"{name}.csr", "-subj", f"/O=Trial/CN={name}"]
        self._openssl("req", *_NEW, *request)
        (self.place / "names").write_text("subjectAltName=DNS:localhost\n")
        signing = ["-CA", self.trusted / "authority.pem", "-CAkey", "authority.key", "-CAcreateserial"]
        signing += ["-days", str(days), "-extfile", "names"]
        self._openssl("x509", "-req", "-in", f"{name}.csr", *signing, "-out", f"{name}.pem")
        (self.place / f"{name}.key").chmod(0o600)
        return {
            "X509_CERT_DIR": str(self.trusted),
            "X509_USER_CERT": str(self.place / f"{name}.pem"),
            "X509_USER_KEY": str(self.place / f"{name}.key"),
            "X509_USER_PROXY": str(self.place / "no-proxy"),
        }

    def _openssl(self, *words: str | Path) -> str:
        done = subprocess.run(["openssl", *words], cwd=self.place, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout


class Gridftp:
    """One server, running when made. `root` is the folder that it sees; `options` are words for its command line. With
    `certificates` it lets in only who has the one named `user`. With `host` it runs there, reached at `address`."""

    def __init__(
        self,
        *options: str,
        certificates: Certificates | None = None,
        host: Host | None = None,
        address: str = "127.0.0.1",
    ) -> None:
        self._place = Path(tempfile.mkdtemp(prefix="bw-gridftp-"))
        self._place.chmod(0o755)
        self.root = self._place / "data"
        self.root.mkdir(mode=0o777)
        self.root.chmod(0o777)
        self._options = ["-aa", *options] if certificates is None else [*options]
        self._server_name = f"ftp://{address}" if certificates is None else "gsiftp://localhost"
        self._host, self._address = host, address
        self._account, self._environment = _account(), dict(os.environ)
        if certificates is not None:
            self._admit(certificates)
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
        return f"{self._server_name}:{self.port}{quote(path)}"

    @property
    def door(self) -> str:
        """A table of a site profile, for the folder `root`."""
        return f'\n[[doors]]\nkind = "gridftp"\nendpoint = "{self._server_name}:{self.port}"\nroot = "/"\n'

    def _admit(self, certificates: Certificates) -> None:
        self._environment |= certificates.make("localhost")
        self._environment["GRIDMAP"] = str(self._place / "gridmap")
        user = pwd.getpwuid(self._account.get("user", os.geteuid())).pw_name
        (self._place / "gridmap").write_text(f'"/O=Trial/CN=user" {user}\n')
        del self._environment["X509_USER_PROXY"]
        shutil.copytree(certificates.trusted, self._place / "trusted")
        self._environment["X509_CERT_DIR"] = str(self._place / "trusted")
        for key in ("X509_USER_CERT", "X509_USER_KEY"):
            mine = self._place / os.path.basename(self._environment[key])
            shutil.copy(self._environment[key], mine)
            mine.chmod(0o600 if mine.suffix == ".key" else 0o644)
            if self._account:
                os.chown(mine, self._account["user"], self._account["group"])
            self._environment[key] = str(mine)

    def start(self) -> None:
        assert self._server is None
        program = shutil.which("globus-gridftp-server", path=PATH)
        assert program, missing()
        words = [program, "-c", "/dev/null", "-restrict-paths", f"RW{self.root}"]
        words += ["-control-interface", self._address, "-data-interface", self._address, "-p", str(self.port)]
        words, account = [*words, *self._options], self._account
        if self._host is not None:  # entering it takes the rights that the server is not to have
            as_who = [f"--reuid={account['user']}", f"--regid={account['group']}", "--clear-groups"] if account else []
            words, account = self._host.inside(["setpriv", *as_who, *words]), {}
        with (self._place / "log").open("ab") as log:
            self._server = subprocess.Popen(
                words,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd="/",
                start_new_session=True,
                env=self._environment,
                **account,
            )
        over = time.monotonic() + START_S
        while True:
            try:
                socket.create_connection((self._address, self.port), timeout=1).close()
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

    def processor_s(self) -> float:
        """What its ended connections have taken of processors."""
        assert self._server is not None
        times = psutil.Process(self._server.pid).cpu_times()
        return float(times.children_user + times.children_system)

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


def _account() -> dict[str, Any]:
    """Who runs a server: not root."""
    if os.geteuid():
        return {}
    nobody = pwd.getpwnam("nobody")
    return {"user": nobody.pw_uid, "group": nobody.pw_gid, "extra_groups": []}


def _signalled(process: psutil.Process, number: int) -> bool:
    try:
        process.send_signal(number)
    except psutil.NoSuchProcess:
        return False
    return True


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as held:
        return int(held.getsockname()[1])
