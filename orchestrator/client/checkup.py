"""Is this installation well? Each check looks and changes nothing; `beamway doctor` shows them.

A check says what was seen, or raises `Wrong` with one sentence about what to do, or `NotDone` where there is nothing to
look at. What one check finds broken hides no other.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import stat
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import datetime
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any

from sqlalchemy import make_url, text

from orchestrator import locks, protocol, records, settings
from orchestrator.errors import BeamwayError, SettingsError, Unavailable
from orchestrator.model import RUN_ENDED
from orchestrator.service import holding
from orchestrator.settings import Settings
from orchestrator.sitecheck.record import Check, NotDone, Result, Wrong, made
from orchestrator.store import arrivals, search, tokens, watches
from orchestrator.store.database import HEAD, Database

CLOCK_MOST_S = 2.0  # a clock may differ so much from the database's
DATE_MOST_S = 5.0  # and so much from a service's, which tells whole seconds only
FREE_LEAST_BYTES, FREE_LEAST_SHARE, FREE_LEAST_FILES = 2**30, 0.02, 10_000
WRITE_MOST_S = 0.25
DAYS_LEAST = 7.0
SOCKET_S = 5.0


def checks(home: Path) -> Iterator[Check]:
    """All of them, one after the other, for the installation at `home`."""
    try:
        found = settings.load(home)
        yield Check("settings", Result.PASSED, seen=f"of {home}")
    except SettingsError as error:
        yield Check("settings", Result.FAILED, seen=error.sentence, remedy=error.hint or "Mend it.")
        found = Settings(home=home)
    here = Checkup(found)
    looks: list[tuple[str, Callable[[], str], str]] = [
        ("home", here.home, "Give it to the account that runs Beamway."),
        ("secrets", here.secrets, ""),
        *((f"disk: {name}", _disk(path), "") for name, path in here.places().items()),
        ("database", here.reached, "Mend the setting 'database'."),
        ("database: tables", here.tables, ""),
        ("database: writes", here.writes, ""),
        ("clock: database", here.clock, ""),
        ("tokens in the store", here.tokens, ""),
        *((f"service {address}", here.answers(address), "") for address in here.addresses or [""]),
        ("token", here.token, ""),
        ("engine", here.engine, ""),
        ("agents", here.agents, ""),
        ("watches", here.watches, ""),
        ("sites", here.sites, ""),
        ("globus", here.globus, ""),
    ]
    try:
        for name, look, remedy in looks:
            yield made(name.strip(), look, remedy)
    finally:
        here.close()


def _disk(path: Path) -> Callable[[], str]:
    def look() -> str:
        there = next(p for p in (path, *path.parents) if p.exists())
        usage, files = shutil.disk_usage(there), os.statvfs(there).f_favail
        seen = f"{usage.free / 2**30:.1f} GiB free of {usage.total / 2**30:.0f}"
        if usage.free < FREE_LEAST_BYTES or usage.free < FREE_LEAST_SHARE * usage.total:
            raise Wrong(seen, f"Make room for {path}: when it is full, nothing is accepted any more.")
        if 0 < files < FREE_LEAST_FILES:
            raise Wrong(f"{seen}, for {files} files", f"Remove files: each run makes several at {path}.")
        return seen

    return look


def _open_to_others(path: Path) -> bool:
    return bool(path.stat().st_mode & (stat.S_IRWXG | stat.S_IRWXO))


class Checkup:
    def __init__(self, configured: Settings) -> None:
        self._settings = configured
        self._home = configured.home
        self._database: Database | None = None  # once it has answered
        self._pong: protocol.Pong | None = None
        self._site = configured.site

    def close(self) -> None:
        if self._database is not None:
            self._database.close()

    @property
    def addresses(self) -> list[str]:
        return [a.strip().rstrip("/") for a in self._settings.url.split(",") if a.strip()]

    def places(self) -> dict[str, Path]:
        runs_at = self._settings.runs_directory
        return {"home": self._home, **({} if runs_at.is_relative_to(self._home) else {"runs": runs_at})}

    # ---- this machine

    def home(self) -> str:
        if not self._home.exists():
            raise NotDone("not made yet: the first command makes it")
        if not os.access(self._home, os.R_OK | os.W_OK | os.X_OK):
            raise Wrong(f"{self._home} cannot be written", "Give it to the account that runs Beamway.")
        if _open_to_others(self._home):
            raise Wrong("others on this machine can look into it", f"chmod 700 {self._home}")
        return str(self._home)

    def secrets(self) -> str:
        path = self._home / "settings.toml"
        if not path.exists():
            raise NotDone("there is no settings.toml")
        content = path.read_text(encoding="utf-8", errors="replace")
        words = [line.partition("=") for line in content.splitlines()]
        secret = any(
            name.strip() in ("token", "globus_secret") or ("://" in value and "@" in value) for name, _, value in words
        )
        if secret and _open_to_others(path):
            raise Wrong("settings.toml holds a secret and others can read it", f"chmod 600 {path}")
        return "nobody else reads them" if secret else "settings.toml holds none"

    # ---- the database

    def reached(self) -> str:
        """Of whoever reaches a service by its address the database is no concern, unless it is set."""
        if self.addresses and not self._settings.database:
            raise NotDone("it is the service's")
        url = self._settings.database_url
        if not self._settings.database and not (self._home / "beamway.db").exists():
            raise NotDone("not made yet: the first command makes it")
        database = Database(url)
        try:
            database.revision()
        except BeamwayError:
            database.close()
            raise
        self._database = database
        return database.where

    def _store(self) -> Database:
        if self._database is None:
            raise NotDone("no database was reached")
        return self._database

    def _filled(self) -> Database:
        database = self._store()
        if database.revision() != HEAD:
            raise NotDone("its tables are of another version")
        return database

    def tables(self) -> str:
        revision = self._store().revision()
        if revision > HEAD:
            raise Wrong(f"revision {revision}, this version knows {HEAD}", "Use the newer Beamway that was here.")
        if revision < HEAD and self._store().postgresql:
            raise Wrong(f"revision {revision or 'none'}, this version needs {HEAD}", "beamway db upgrade")
        return f"revision {revision}" + ("" if revision == HEAD else f"; the next service brings it to {HEAD}")

    def writes(self) -> str:
        """How long until something is on the disk: of PostgreSQL a message in its log that says nothing to anybody, of
        SQLite a file beside it that is gone again."""
        database = self._store()
        began = time.monotonic()
        with database.write() as connection:
            if database.postgresql:
                connection.execute(text("SELECT pg_logical_emit_message(true, 'beamway', 'doctor')"))
        if not database.postgresql:
            _write_beside(Path(make_url(database.url).database or self._home / "memory"))
        took_s = time.monotonic() - began
        if took_s > WRITE_MOST_S:
            remedy = (
                "Everything that is accepted waits for this: put the database on a fast disk that nobody else fills."
            )
            raise Wrong(f"{took_s * 1000:.0f} ms", remedy)
        return f"{took_s * 1000:.1f} ms"

    def clock(self) -> str:
        database = self._store()
        if not database.postgresql:
            raise NotDone("SQLite has the clock of this machine")
        before = time.time()
        with database.read() as connection:
            theirs = float(connection.execute(text("SELECT extract(epoch FROM clock_timestamp())")).scalar_one())
        return _apart(before, theirs, time.time(), CLOCK_MOST_S, "of the database")

    def tokens(self) -> str:
        now = time.time()
        good = [t for t in tokens.ls(self._filled()) if not t.revoked_at and not 0 < t.expires_at <= now]
        ending = [t for t in good if t.expires_at and t.expires_at - now < DAYS_LEAST * 86400]
        if ending:
            names = ", ".join(f"{t.name} ({t.role}, {_days(t.expires_at - now)})" for t in ending)
            raise Wrong(f"soon over: {names}", "`beamway token create` makes the next; both are good meanwhile.")
        return f"{len(good)} good"

    # ---- the service

    def answers(self, address: str) -> Callable[[], str]:
        return (lambda: self._remote(address)) if address else self._local

    def _local(self) -> str:
        try:
            with protocol.connect(self._home, SOCKET_S) as connection:
                connection.sendall(protocol.pack(protocol.Ping()))
                frames, heard = protocol.Frames(), list[protocol.AnyMessage]()
                while not heard:
                    data = connection.recv(1 << 16)
                    if not data:
                        raise ConnectionError("it ended the connection")
                    heard = list(frames.feed(data))
        except (FileNotFoundError, ConnectionRefusedError):
            raise NotDone("none runs here; the next command that needs one starts it") from None
        except OSError as error:
            remedy = f"Look at {self._home}/logs/service.log; `beamway down`, then `beamway up`."
            raise Wrong(f"it does not answer: {error}", remedy) from None
        if isinstance(heard[0], protocol.Pong):
            self._pong = heard[0]
        return f"pid {self._pong.pid}, {self._pong.active} runs not over" if self._pong else "it answers"

    def _remote(self, address: str) -> str:
        import httpx2

        remedy = "Is it up, and is the address right? Ask whoever runs it."
        before = time.time()
        try:
            answer = httpx2.get(f"{address}/health/ready", timeout=10.0)
        except (httpx2.HTTPError, httpx2.InvalidURL) as error:
            raise Wrong(f"it does not answer: {error}", remedy) from None
        if answer.status_code not in (200, 503):
            raise Wrong(f"it answers {answer.status_code}", remedy)
        role = "has the engine" if answer.status_code == 200 else "stands by"
        try:
            theirs = parsedate_to_datetime(answer.headers["date"]).timestamp()
        except (KeyError, ValueError):
            return role
        return f"{role}; {_apart(before, theirs, time.time(), DATE_MOST_S, 'of the service')}"

    def _asked(self, path: str) -> Any:
        """What a service says; the first that answers. Raises BeamwayError."""
        from orchestrator.client.remote import Remote

        trouble: Unavailable | None = None
        for address in self.addresses:
            remote = Remote(replace(self._settings, url=address))
            try:
                return remote.ask(path)
            except Unavailable as error:
                trouble = error
            finally:
                remote.close()
        raise trouble or NotDone("no address of a service is set")

    def token(self) -> str:
        if self.addresses and not self._settings.token:
            raise Wrong("none is set", "Set BEAMWAY_TOKEN; whoever runs the service makes one: `beamway token create`.")
        said = self._asked("/token")
        over = said["expires_at"]
        left_s = datetime.fromisoformat(over).timestamp() - time.time() if over else None
        seen = f"{said['name']}, {said['role']}" + (f" of {said['site']}" if said["site"] else "")
        seen += f", {_days(left_s)} left" if left_s is not None else ", without an end"
        if left_s is not None and left_s < DAYS_LEAST * 86400:
            raise Wrong(seen, "Ask whoever runs the service for the next one.")
        return seen

    def engine(self) -> str:
        if self.addresses and self._database is None:
            said = self._asked("/status")
            self._site = said["site"]
            unfinished, seen = said["unfinished"], "has it" if said["active"] else ""
        else:
            database = self._filled()
            lease = holding.holder(database)
            alive = lease is not None and (database.postgresql or self._lives())
            seen = f"{lease.holder} has it, fence {lease.fence}" if lease is not None and alive else ""
            unfinished = sum(n for state, n in search.counts(database).items() if state not in RUN_ENDED)
        if seen:
            return seen
        if unfinished:
            raise Wrong(f"nobody has it, and {unfinished} runs are not over", "Start a service: they go on then.")
        return "nobody has it, and nothing waits for it"

    def _lives(self) -> bool:
        lock = locks.service_lock(self._home)
        return lock.exists() and locks.locked(lock)

    def agents(self) -> str:
        if self.addresses:
            there = {each["name"]: bool(each["connected"]) for each in self._asked("/sites")}
        elif self._pong is not None:
            there = {self._site: False} | dict.fromkeys(self._pong.agents, True)
        else:
            raise NotDone("no service was reached")
        away = [name for name, connected in there.items() if not connected]
        connected = ", ".join(sorted(set(there) - set(away))) or "none"
        if away:
            said = "".join(self._last_words(name) for name in away)
            remedy = f"On its host: `beamway agent {away[0]}`." if self.addresses else "Its log says why it ended."
            raise Wrong(f"connected: {connected}; away: {', '.join(away)}{said}", remedy)
        return f"connected: {connected}"

    def _last_words(self, site: str) -> str:
        try:
            lines = (self._home / "logs" / f"agent-{site}.log").read_text(errors="replace").strip().splitlines()
        except OSError:
            return ""
        return f"; {site} last said: {lines[-1][:200]}" if lines else ""

    def watches(self) -> str:
        now = time.time()
        going = [w for w in watches.standing(self._filled()) if not w.watch.stopped_at]
        if not going:
            raise NotDone("nothing is watched")
        if wrong := [words for w in going if (words := records.watch_trouble(w, now))]:
            remedy = "`beamway watch show NAME`; a service of this home, or `beamway watcher`, looks at them."
            raise Wrong(" ".join(wrong), remedy)
        due = arrivals.counts(self._filled())[arrivals.ArrivalState.DUE]
        return f"{len(going)} watched, {due} files are about to run"

    def sites(self) -> str:
        from sites import loader

        own = self._home / "sites"
        names, wrong = loader.names([own, loader.SHIPPED]), []
        for name in dict.fromkeys([self._settings.site, *names]):
            try:
                loader.load(name, [own])
            except SettingsError as error:
                wrong.append(error.sentence)
        if wrong:
            raise Wrong(" ".join(wrong), "Mend the profile; `beamway site check NAME` compares it with the site.")
        return f"{len(names)} profiles can be read"

    def globus(self) -> str:
        if not self._settings.globus_client and not self._settings.globus_secret:
            raise NotDone("no client of Globus is set")
        from orchestrator.transfer.globus.session import Held, Session

        with contextlib.closing(Session(self._settings.globus_client, self._settings.globus_secret, None)) as session:
            try:
                return f"signed in as {session.sign_in()}"
            except Held as held:
                raise Wrong(held.sentence, f"{held.hint} {held.link}".strip()) from None


def _write_beside(database: Path) -> None:
    path = database.with_name(f"{database.name}.doctor-{os.getpid()}")
    try:
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            os.write(handle, b"\0" * 4096)
            os.fsync(handle)
        finally:
            os.close(handle)
    finally:
        path.unlink(missing_ok=True)


def _apart(before: float, theirs: float, after: float, most_s: float, whose: str) -> str:
    """`theirs` was read between the two others; a tell of whole seconds is of the middle of its second at best."""
    off_s = max(0.0, before - theirs - 1.0, theirs - after)
    if off_s > most_s:
        raise Wrong(f"{off_s:.0f} s from that {whose}", "Let both follow a time server (chrony, NTP).")
    return f"agrees with that {whose} within {max(1.0, off_s):.0f} s"


def _days(seconds: float) -> str:
    return f"{seconds / 86400:.0f} days" if seconds >= 2 * 86400 else f"{seconds / 3600:.0f} h"
