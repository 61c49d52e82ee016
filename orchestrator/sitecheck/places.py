"""Programs, folders and doors of a site, as they are seen from the host that the agent runs on."""

from __future__ import annotations

import os
import shutil
import socket
import tempfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from orchestrator.sitecheck.record import Check, NotDone, Noted, Wrong, made
from orchestrator.transfer.places import is_collection

if TYPE_CHECKING:
    from sites.schema import Door, SiteProfile

CONNECT_S = 5.0
SSH_PORT = 22
FEW_BYTES = 1_000_000_000  # less free space than one small volume
_TRIAL_BYTES = 1 << 20
USUAL = {"srun": "srun", "mpiexec": "mpiexec", "pals": "mpiexec"}


def launcher(profile: SiteProfile) -> Check:
    return made("launcher", lambda: _launcher(profile))


def _launcher(profile: SiteProfile) -> str:
    wanted = profile.launcher
    if wanted.kind == "none":
        raise NotDone("the profile has none: a program has one process")
    program = wanted.command or USUAL[wanted.kind]
    path = os.pathsep.join(filter(None, [profile.scheduler.bin, os.environ.get("PATH", os.defpath)]))
    found = shutil.which(program, path=path)
    if found:
        return found
    if profile.environment.modules or profile.environment.worker_init:
        raise NotDone(f"{program!r} is not on the PATH here; the environment may bring it, which --live sees")
    raise Wrong(
        f"{program!r} is not found, so no parallel program can be started",
        "Set launcher.command to its full path, bring it in by environment.modules, or set launcher.kind to none.",
    )


def scratch(profile: SiteProfile) -> Check:
    return made("scratch", lambda: _writable(profile.paths.scratch, "paths.scratch", profile.identity.contact))


def project(profile: SiteProfile) -> Iterator[Check]:
    if profile.paths.project:
        yield made("project", lambda: _writable(profile.paths.project, "paths.project", profile.identity.contact))


def _writable(folder: str, key: str, contact: str) -> str:
    """Make a file there, read it back, delete it."""
    remedy = f"Set {key} to a folder that this account may write, or call {contact}."
    made_folder = ""
    try:
        Path(folder).mkdir(parents=True, exist_ok=True)
        made_folder = tempfile.mkdtemp(prefix=".beamway-check-", dir=folder)
        path, written = Path(made_folder, "trial"), os.urandom(_TRIAL_BYTES)
        with path.open("wb") as file:
            file.write(written)
            file.flush()
            os.fsync(file.fileno())
        if path.read_bytes() != written:
            raise Wrong(f"{folder}: what is read is not what was written", f"Call {contact}.")
        free = shutil.disk_usage(folder).free
    except OSError as error:
        raise Wrong(f"{folder} cannot be used: {error.strerror or error}", remedy) from error
    finally:
        if made_folder:
            shutil.rmtree(made_folder, ignore_errors=True)
    seen = f"{folder}: written and read, {free / 1e9:.1f} GB free"
    return Noted(seen, f"There is little space: clear it, or change {key}.") if free < FEW_BYTES else seen


def doors(profile: SiteProfile) -> Iterator[Check]:
    for number, door in enumerate(profile.doors):
        name = f"door {door.kind} {door.endpoint or door.root}"
        yield made(name, partial(_door, profile, number, door))


def _door(profile: SiteProfile, number: int, door: Door) -> str:
    key = f"doors[{number}]"
    if door.kind == "globus":
        if not is_collection(door.endpoint):
            remedy = f"Put it into {key}.endpoint: the collection's page at app.globus.org shows it."
            raise Wrong(f"'{door.endpoint}' is not the UUID of a collection", remedy)
        raise NotDone("Globus was not asked; `beamway doctor` says whether it lets us in")
    if door.kind == "local":
        if not os.path.isdir(door.root):
            raise Wrong(f"{door.root} is not a folder here", f"Change {key}.root.")
        return f"{door.root} is there"
    host, _, port = (
        door.endpoint.removeprefix("ftp://").rpartition(":")
        if door.kind == "gridftp"
        else (door.endpoint, "", str(SSH_PORT))
    )
    host = host.rpartition("@")[2]
    try:
        with socket.create_connection((host, int(port)), timeout=CONNECT_S):
            return f"{host}:{port} answers"
    except (OSError, ValueError, OverflowError) as error:
        reason = "no answer in time" if isinstance(error, TimeoutError) else getattr(error, "strerror", None) or error
        remedy = f"Change {key}.endpoint, open the firewall to it, or call {profile.identity.contact}."
        raise Wrong(f"{host}:{port} does not answer: {reason}", remedy) from error
