"""A site profile as people read it, and its way into the user's folder."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from orchestrator.cli import formats
from orchestrator.errors import Conflict, SettingsError, printable
from sites import loader

if TYPE_CHECKING:
    from sites.schema import Node, Queue, SiteProfile


def text(profile: SiteProfile) -> str:
    """The whole profile, short: what differs from site to site."""
    identity, paths, policies = profile.identity, profile.paths, profile.policies
    facts = [
        ("title", identity.title),
        ("about", identity.description),
        ("owner", identity.owner),
        ("contact", identity.contact),
        ("source", identity.documentation),
        ("checked", str(identity.checked or "")),
        ("scheduler", _words(profile.scheduler.kind, *profile.scheduler.options)),
        ("work", _work(profile)),
        ("account", profile.accounts.default),
        ("node", _node(profile.node)),
        ("launcher", _words(profile.launcher.kind, profile.launcher.command, *profile.launcher.options)),
        ("python", profile.environment.python or "the agent's own"),
        ("modules", " ".join(profile.environment.modules)),
        ("container", " ".join(profile.environment.container)),
        ("scratch", paths.scratch + (f", purged after {policies.retention_days} days" * bool(policies.retention_days))),
        ("project", paths.project),
        ("sees", ", ".join(paths.shared)),
        ("when full", "; ".join(policies.fallback)),
    ]
    lines = [profile.name, *(f"  {name:<10} {printable(value)}" for name, value in facts if value)]
    lines += [f"  {'maintenance':<10} {m.from_} to {m.until}: {printable(m.reason)}" for m in profile.maintenance]
    if profile.queues:
        headings = ("queue", "use", "nodes", "longest", "jobs", "cost", "note")
        table = formats.table(headings, [_row(q) for q in profile.queues], right=("nodes", "longest", "jobs", "cost"))
        lines += ["", table]
    if profile.reservations:
        rows = [(r.name, r.queue, r.from_ or "-", r.until or "-", r.nodes) for r in profile.reservations]
        lines += ["", formats.table(("reservation", "queue", "from", "until", "nodes"), rows, right=("nodes",))]
    if profile.doors:
        lines += [
            "",
            formats.table(("door", "endpoint", "root"), [(d.kind, d.endpoint, d.root) for d in profile.doors]),
        ]
    return "\n".join(lines)


def _words(*words: str) -> str:
    return " ".join(word for word in words if word)


def _work(profile: SiteProfile) -> str:
    if profile.local:
        return "processes of the agent"
    execution = profile.execution
    if execution.mode == "batch":
        return "batch: a job per task"
    length = formats.duration(execution.block_walltime_s)
    return f"pilot: up to {execution.blocks} jobs of {execution.block_nodes} nodes for {length}, kept warm"


def _node(node: Node) -> str:
    parts = [f"{node.count} ×" if node.count > 1 else "", f"{node.cores} cores" if node.cores else "all cores"]
    if node.memory_bytes:
        parts.append(formats.size(node.memory_bytes))
    if node.gpus and node.accelerator:
        parts.append(f"{node.gpus} × {node.accelerator.model or node.accelerator.kind}")
    return " ".join([*parts[:1], ", ".join(parts[1:])]).strip()


def _row(queue: Queue) -> tuple[object, ...]:
    nodes = f"{queue.min_nodes}-{queue.max_nodes}" if queue.max_nodes else f"{queue.min_nodes}-"
    longest = formats.duration(queue.max_walltime_s) if queue.max_walltime_s else "-"
    notes = [f"qos {queue.qos}" if queue.qos else "", "preemptible" if queue.preemptible else "", *queue.options]
    notes += [_node(queue.node)] if queue.node else []
    return queue.name, queue.use, nodes, longest, queue.max_jobs or "-", f"{queue.cost:g}", _words(*notes)


def put(profile: str, name: str, folder: Path, *, replace: bool) -> tuple[Path, bool]:
    """Write the text of a profile under its name, whole or not at all: (where, was there one before).

    Raises Conflict when there is a site of that name, also a shipped one, which yours would hide.
    """
    path = folder / f"{name}.toml"
    if not replace and (loader.SHIPPED / path.name).is_file():
        hint = "Give yours another identity.name, or hide the shipped one with --replace."
        raise Conflict(f"A site {name!r} is shipped with Beamway.", hint)
    temporary = ""
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        handle, temporary = tempfile.mkstemp(prefix=f".{name}-", dir=folder)
        with open(handle, "w", encoding="utf-8") as file:
            file.write(profile)
            file.flush()
            os.fsync(file.fileno())
        there = path.exists()
        if replace:
            os.replace(temporary, path)
            return path, there
        os.link(temporary, path)
    except FileExistsError:
        if not path.exists():
            raise SettingsError(f"The profile cannot be written: {folder} is not a folder.") from None
        hint = "Give yours another identity.name, or take its place with --replace."
        raise Conflict(f"There is a site {name!r} already: {path}.", hint) from None
    except OSError as error:
        raise SettingsError(f"The profile cannot be written to {folder}: {error.strerror or error}.") from error
    finally:
        if temporary:
            Path(temporary).unlink(missing_ok=True)
    return path, False
