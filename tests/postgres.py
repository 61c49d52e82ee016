"""A real PostgreSQL cluster of the tests' own: started, stopped, killed and paused at will, gone when they are over.

It listens on a Unix socket in a directory of its own, or on an address. Texts are ordered by the rules of a language
(ICU), as on a site's own server, so that a query which counts on the order of bytes shows itself.
"""

from __future__ import annotations

import os
import pwd
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any

import psutil

Inside = Callable[[list[str]], list[str]]
START_S = 30.0
# What a crash of the machine would need; a killed process loses nothing without it.
UNFLUSHED = {"fsync": "off", "full_page_writes": "off"}


def _programs() -> Path | None:
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda p: int(p.parts[-3]))
    if found:
        return found[-1].parent
    on_path = shutil.which("initdb")
    return Path(on_path).resolve().parent if on_path else None


def missing() -> str:
    """Why there can be no cluster here; empty when there can."""
    if _programs() is None:
        return "PostgreSQL is not installed (Debian: apt install postgresql)"
    return "" if os.geteuid() or _account() else "there is no account 'postgres' or 'nobody' to run PostgreSQL as"


def _account() -> str:
    """PostgreSQL refuses to run as root: who runs it then."""
    names = {entry.pw_name for entry in pwd.getpwall()}
    return next((name for name in ("postgres", "nobody") if name in names), "")


class Postgres:
    """One cluster, running when made. `durable`: commits reach the disk, as in operation; `address`: TCP as well;
    `inside`: what lets a program run on the host that has the address (`hosts.Host.inside`), for root only."""

    def __init__(
        self, *, durable: bool = False, address: str = "", inside: Inside | None = None, **configuration: str
    ) -> None:
        programs = _programs()
        assert programs is not None, missing()
        self._programs = programs
        self._as = {} if os.geteuid() else _credentials(_account())
        self.place = Path(tempfile.mkdtemp(prefix="bw-pg-", dir="/tmp"))  # short: a socket's path has 107 bytes
        self._password = secrets.token_hex(16)
        self._address = address
        self._inside = inside
        self._port = _free_port(address) if address and inside is None else 5432
        self._server: subprocess.Popen[bytes] | None = None
        self._made = 0
        self._configuration = {
            **({} if durable else UNFLUSHED),
            "listen_addresses": address,
            "port": str(self._port),
            "unix_socket_directories": str(self.place),
            "max_connections": "50",
            **configuration,
        }
        try:
            self._initialise()
            self.start()
        except BaseException:
            self.remove()
            raise

    def __enter__(self) -> Postgres:
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        self.remove()

    def _initialise(self) -> None:
        secret = self.place / "password"
        secret.write_text(self._password)
        if self._as:
            for path in (self.place, secret):
                shutil.chown(path, self._as["user"], self._as["group"])
        words = [self._programs / "initdb", "-D", self._data, "-U", "beamway", f"--pwfile={secret}", "--no-sync"]
        words += ["--auth=scram-sha-256", "--encoding=UTF8", "--locale=C", "--locale-provider=icu", "--icu-locale=en"]
        done = subprocess.run(words, capture_output=True, text=True, cwd="/", check=False, **self._as)
        assert done.returncode == 0, done.stderr
        if self._address:
            with (self._data / "pg_hba.conf").open("a") as file:
                file.write("host all all samenet scram-sha-256\n")
        with (self._data / "postgresql.conf").open("a") as file:
            file.writelines(f"{name} = '{value}'\n" for name, value in self._configuration.items())

    # ---- what tests connect to

    @property
    def url(self) -> str:
        return self.url_of("postgres")

    def url_of(self, database: str) -> str:
        login = f"postgresql+psycopg://beamway:{self._password}@"
        if self._address:
            return f"{login}{self._address}:{self._port}/{database}"
        return f"{login}/{database}?host={self.place}&port={self._port}"

    def new_database(self) -> str:
        """The address of a new, empty database of this cluster."""
        self._made += 1
        name = f"test{self._made}"
        with self.connect() as connection:
            connection.execute(f"CREATE DATABASE {name}")
        return self.url_of(name)

    def connect(self, database: str = "postgres") -> Any:
        """A connection of psycopg that commits each statement."""
        import psycopg

        where = {"host": self._address or str(self.place), "port": self._port, "dbname": database}
        return psycopg.connect(user="beamway", password=self._password, autocommit=True, connect_timeout=5, **where)

    # ---- what may happen to it

    def start(self) -> None:
        assert self._server is None
        words, account = [str(self._programs / "postgres"), "-D", str(self._data)], self._as
        if self._inside is not None:  # it takes root to get there
            drop = [f"--reuid={account['user']}", f"--regid={account['group']}", "--clear-groups"]
            words, account = self._inside(["setpriv", *drop, *words]), {}
        with self.log.open("ab") as log:
            self._server = subprocess.Popen(
                words, stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd="/", start_new_session=True, **account
            )
        over = time.monotonic() + START_S
        while not self._answers():
            assert self._server.poll() is None, self.log.read_text()
            assert time.monotonic() < over, f"PostgreSQL did not start within {START_S:g} s: {self.log.read_text()}"
            time.sleep(0.02)

    def stop(self) -> None:
        """End it in good order; connections are cut."""
        self._end(signal.SIGINT)

    def kill(self) -> None:
        """End every process of it at once, as a crash does."""
        self._end(signal.SIGKILL)

    def pause(self) -> None:
        """Let it hang: connections stay, nothing answers."""
        self._signal(signal.SIGSTOP)

    def resume(self) -> None:
        self._signal(signal.SIGCONT)

    def remove(self) -> None:
        if self._server is not None:
            self.resume()
            self.kill()
        shutil.rmtree(self.place, ignore_errors=True)

    @property
    def log(self) -> Path:
        return self.place / "log"

    @property
    def _data(self) -> Path:
        return self.place / "data"

    def _answers(self) -> bool:
        import psycopg

        try:
            self.connect().close()
        except psycopg.OperationalError:
            return False
        return True

    def _processes(self) -> list[psutil.Process]:
        """The postmaster first, so that a paused one makes no further children."""
        assert self._server is not None
        try:
            postmaster = psutil.Process(self._server.pid)
            return [postmaster, *postmaster.children(recursive=True)]
        except psutil.NoSuchProcess:
            return []

    def _signal(self, number: int) -> list[psutil.Process]:
        processes = self._processes()
        for process in processes:
            try:
                process.send_signal(number)
            except psutil.NoSuchProcess:
                continue
        return processes

    def _end(self, number: int) -> None:
        assert self._server is not None
        if number == signal.SIGKILL:
            psutil.wait_procs(self._signal(number)[1:], timeout=START_S)
        else:
            self._server.send_signal(number)
        self._server.wait(START_S)
        self._server = None


def _credentials(name: str) -> dict[str, Any]:
    entry = pwd.getpwnam(name)
    return {"user": entry.pw_uid, "group": entry.pw_gid, "extra_groups": []}


def _free_port(address: str) -> int:
    with socket.create_server((address, 0)) as held:
        return int(held.getsockname()[1])
