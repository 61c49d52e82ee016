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
    """Copy a file or a tree between paths of this host and addresses; see `local.copy` and `gridftp.copy`."""
    schemes = {found[1].lower() for place in (source, destination) if (found := _SCHEME.match(place))}
    for scheme in sorted(schemes - GRIDFTP_PORTS.keys()):
        raise TransferRefused(
            f"Nothing here copies to or from '{scheme}://'.", f"Known: paths, {', '.join(GRIDFTP_PORTS)}."
        )
    if schemes:
        from orchestrator.transfer import gridftp

        return gridftp.copy(
            source,
            destination,
            token=token,
            checks=checks,
            options=options,
            progress=progress,
            cancelled=cancelled,
        )
    return local.copy(source, destination, checks=checks, options=options, progress=progress, cancelled=cancelled)
