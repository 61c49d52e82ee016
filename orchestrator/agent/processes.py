"""Processes of ours that an earlier agent left behind, found by what is in their environment."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Iterable, Iterator

import psutil

from orchestrator.outside import effect

TOKEN = "BEAMWAY_ATTEMPT"  # of the attempt that a command belongs to
AGENT = "BEAMWAY_AGENT"  # home:site of the agent that started a worker pool
GRACE_S = 5.0  # between the polite signal and the other one


def with_environment(name: str, value: str) -> Iterator[psutil.Process]:
    """Our processes whose environment says `name=value`."""
    wanted = f"{name}={value}".encode(errors="surrogateescape")
    mine = os.getuid()
    for process in psutil.process_iter():
        try:
            if process.uids().real != mine or process.pid == os.getpid():
                continue
            with open(f"/proc/{process.pid}/environ", "rb") as file:
                if wanted in file.read().split(b"\0"):
                    yield process
        except (OSError, psutil.Error):
            continue


def end(processes: Iterable[psutil.Process], grace_s: float = GRACE_S) -> int:
    """SIGTERM, then SIGKILL for what is left after `grace_s`; returns how many there were."""
    found = list(processes)
    for process in found:
        with contextlib.suppress(psutil.Error):
            process.terminate()
    _, alive = psutil.wait_procs(found, timeout=grace_s)
    for process in alive:
        with contextlib.suppress(psutil.Error):
            process.kill()
    psutil.wait_procs(alive, timeout=grace_s)
    return len(found)


def waited(process: subprocess.Popen[bytes]) -> int:
    """The exit status of a process with a group of its own; when this is left by an exception, the group is ended."""
    try:
        return process.wait()
    except BaseException:
        end_group(process.pid)
        process.wait()
        raise


def end_group(group: int, grace_s: float = GRACE_S) -> bool:
    """End a process group: SIGTERM, then SIGKILL once `grace_s` is over. True when no process of it is left.

    False when something of it belongs to another account (sudo) and may not be signalled by ours.
    """
    for number in (signal.SIGTERM, signal.SIGKILL):
        try:
            with effect("command.end"):
                os.killpg(group, number)
        except ProcessLookupError:
            return True
        except PermissionError:
            return False
        over = time.monotonic() + grace_s
        while time.monotonic() < over:
            if not group_alive(group):
                return True
            time.sleep(0.02)
    return False


def group_alive(group: int) -> bool:
    """Is a process of this group running (not merely unburied)?"""
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    for process in psutil.process_iter():
        try:
            if os.getpgid(process.pid) == group and process.status() != psutil.STATUS_ZOMBIE:
                return True
        except (OSError, psutil.Error):
            continue
    return False
