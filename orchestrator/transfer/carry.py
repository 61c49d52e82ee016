"""Which back end carries a copy: the scheme of its two places says it."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from orchestrator.transfer import local
from orchestrator.transfer.base import TransferRefused, TransferReport
from orchestrator.transfer.ends import GRIDFTP_PORTS

_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://")


def copy(
    source: str,
    destination: str,
    *,
    token: str,
    checks: Sequence[str] | str = ("checksum",),
    options: Mapping[str, Any] | None = None,
    progress: local.Progress | None = None,
    cancelled: Callable[[], bool] | None = None,
) -> TransferReport:
    """Copy a file or a tree between paths of this host and addresses; see `copy` of `local`, `gridftp` and `rsync`."""
    schemes = {found[1].lower() for place in (source, destination) if (found := _SCHEME.match(place))}
    known = (*GRIDFTP_PORTS, "ssh")
    for scheme in sorted(schemes - set(known)):
        raise TransferRefused(f"Nothing here copies to or from '{scheme}://'.", f"Known: paths, {', '.join(known)}.")
    if "ssh" in schemes and len(schemes) > 1:
        raise TransferRefused(
            "Nothing here copies between a host by ssh and a GridFTP server.", "Copy by way of a path."
        )
    if schemes:
        from orchestrator.transfer import gridftp, rsync

        carrier = rsync.copy if "ssh" in schemes else gridftp.copy
        return carrier(
            source,
            destination,
            token=token,
            checks=checks,
            options=options,
            progress=progress,
            cancelled=cancelled,
        )
    return local.copy(source, destination, checks=checks, options=options, progress=progress, cancelled=cancelled)
