"""The demo with a facility: a beamline and a computing site on this machine, a GridFTP server each, and a real Slurm.

All of it lies in one folder, with a home of its own, and is there for the time of one demo.
"""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from orchestrator.client import Client
    from orchestrator.store.arrivals import Arrival

PROGRAMS = {"globus-gridftp-server": "globus-gridftp-server-progs", "globus-url-copy": "globus-gass-copy-progs"}
PATH = os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/sbin"])
RESERVATION, SITE = "beamtime", "trial"
START_S, ARRIVES_S = 20.0, 120.0
EXPERIMENT = "demo"


class Facility(NamedTuple):
    client: Client
    home: Path
    beamline: Path  # where scans land, and volumes come home
    scratch: Path  # at the facility


def missing() -> str:
    """Why this machine cannot have one, in a sentence; empty when it can."""
    from slurm.cluster.daemons import missing as no_slurm

    absent = [f"{program} (Debian: {package})" for program, package in PROGRAMS.items() if not _program(program)]
    gridftp = f"GridFTP needs {' and '.join(absent)}." if absent else ""
    return " ".join(filter(None, [gridftp, no_slurm()]))


@contextlib.contextmanager
def standing(where: Path) -> Iterator[Facility]:
    """Both sites, their servers and a reservation; gone afterwards, but for the files."""
    from orchestrator import settings
    from orchestrator.client import Client
    from slurm import cluster, reservations
    from slurm.client import Slurm

    top = _folder(where)
    home, beamline, scratch = top / "home", top / "beamline", top / "facility"
    settings.ensure_home(home)
    (home / "sites").mkdir()
    for folder in (beamline, scratch):
        folder.mkdir()
        folder.chmod(0o777 if os.geteuid() == 0 else 0o700)
    with contextlib.ExitStack() as stack:
        daemons = Path(tempfile.mkdtemp(prefix="bw-demo-slurm-"))  # names of sockets have to be short
        daemons.chmod(0o755)
        stack.callback(shutil.rmtree, daemons, ignore_errors=True)
        stack.callback(_down, daemons)
        slurm = cluster.up(daemons, nodes=2)
        doors = [stack.enter_context(_served(folder)) for folder in (beamline, scratch)]
        own = '[identity]\nname = "local"\ntitle = "The beamline"\ncontact = "yourself"\n'
        (home / "sites" / "local.toml").write_text(own + doors[0], encoding="utf-8")
        (home / "sites" / f"{SITE}.toml").write_text(cluster.profile_toml(slurm) + doors[1], encoding="utf-8")
        now = time.time()
        asked = Slurm(environment=slurm.environment)
        user = pwd.getpwuid(os.geteuid()).pw_name
        reservations.create(asked, RESERVATION, from_at=now, until_at=now + 3600, nodes=1, users=[user])
        client = stack.enter_context(Client(settings.Settings(home=home)))
        stack.callback(client.stop_service)
        yield Facility(client, home, beamline, scratch)


def begun(there: Facility, scan: Path, truth: Path) -> str:
    """The run that begins by itself when the scan lands at the beamline."""
    from orchestrator.arrival import rule_text
    from orchestrator.errors import RunFailed
    from orchestrator.store.watches import Wish

    given = {
        "site": SITE,
        "stageIn": str(there.scratch),
        "reservation": RESERVATION,
        "truthPath": str(truth),
        "coresPerRank": "1",
    }
    said: dict[str, Any] = {"workflow": "tomography_remote", "match": ("*.h5",), "arguments": given}
    rules = rule_text.text_of((), existing=None, once=None, **said)
    there.client.watches.put(Wish(rules, directory=str(there.beamline), experiment=EXPERIMENT))
    shutil.copyfile(scan, there.beamline / scan.name)
    over, found = time.monotonic() + ARRIVES_S, None
    while time.monotonic() < over:
        found = next(iter(there.client.watches.arrivals(watch=EXPERIMENT)), None)
        if found is not None and found.run_id:
            return found.run_id
        time.sleep(0.1)
    raise RunFailed(f"No run began for '{scan.name}' in {ARRIVES_S:g} s.", _said(found))


def _said(arrival: Arrival | None) -> str:
    return f"It is {arrival.state.value}: {arrival.reason}." if arrival else "It was not seen."


def _folder(where: Path) -> Path:
    """A new one. Servers of root run as another account, which has to reach it."""
    if os.geteuid() == 0:
        top = Path(tempfile.mkdtemp(prefix="bw-demo-"))
        top.chmod(0o755)
        return top
    return Path(tempfile.mkdtemp(prefix=time.strftime("facility-%H%M%S-"), dir=where))


def _program(name: str) -> str | None:
    return shutil.which(name, path=PATH)


@contextlib.contextmanager
def _served(folder: Path) -> Iterator[str]:
    """A GridFTP server for this folder on this machine alone; the table of a site profile that leads there."""
    from orchestrator.errors import Unavailable

    with socket.create_server(("127.0.0.1", 0)) as free:
        port = int(free.getsockname()[1])
    near = ["-control-interface", "127.0.0.1", "-data-interface", "127.0.0.1", "-p", str(port)]
    words = [str(_program("globus-gridftp-server")), "-c", "/dev/null", "-aa", "-restrict-paths", f"RW{folder}", *near]
    account: dict[str, Any] = {}
    if os.geteuid() == 0:
        nobody = pwd.getpwnam("nobody")
        account = {"user": nobody.pw_uid, "group": nobody.pw_gid, "extra_groups": []}
    server = subprocess.Popen(
        words,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        cwd="/",
        start_new_session=True,  # Ctrl-C is for us: what moves is to end first
        **account,
    )
    try:
        over = time.monotonic() + START_S
        while True:
            with contextlib.suppress(OSError):
                socket.create_connection(("127.0.0.1", port), timeout=1).close()
                break
            if server.poll() is not None or time.monotonic() > over:
                raise Unavailable(f"The GridFTP server for '{folder}' does not start.", " ".join(words))
            time.sleep(0.05)
        yield f'\n[[doors]]\nkind = "gridftp"\nendpoint = "ftp://127.0.0.1:{port}"\nroot = "/"\n'
    finally:
        server.terminate()
        try:
            server.wait(5)
        except subprocess.TimeoutExpired:
            server.kill()
            server.wait()


def _down(daemons: Path) -> None:
    from slurm import cluster

    if (daemons / "cluster.json").exists():
        cluster.down(daemons)
