"""Which file system a directory is on, and whether other machines write to it unseen by this one."""

from __future__ import annotations

import os
import re
from pathlib import Path

# There the kernel says nothing of what others write, and a writer elsewhere cannot be seen.
NETWORK = frozenset(
    {"9p", "afs", "beegfs", "ceph", "cifs", "gfs2", "glusterfs", "gpfs", "lustre", "nfs", "nfs4", "ocfs2"}
    | {"orangefs", "panfs", "pvfs2", "smb3", "smbfs", "virtiofs", "wekafs"}
)
_OCTAL = re.compile(rb"\\([0-7]{3})")


def kind(path: str, mountinfo: bytes | None = None) -> str:
    """The type of the file system, as `ext4`; empty when it cannot be told. `mountinfo`: text of that file of /proc."""
    if mountinfo is None:
        try:
            mountinfo = Path("/proc/self/mountinfo").read_bytes()
        except OSError:
            return ""
    wanted = os.fsencode(os.path.realpath(path)).rstrip(b"/") + b"/"
    best, found = -1, b""
    for line in mountinfo.splitlines():
        before, _, after = line.partition(b" - ")
        words = before.split()
        if len(words) < 5 or not after:
            continue
        point = _OCTAL.sub(lambda m: bytes([int(m[1], 8)]), words[4]).rstrip(b"/") + b"/"
        if wanted.startswith(point) and len(point) >= best:  # of two at one point the later covers the earlier
            best, found = len(point), after.split()[0]
    return found.decode(errors="replace")


def is_network(kind: str) -> bool:
    """Whether others may write there unseen. What is not known counts as such, and so does all of FUSE."""
    return not kind or kind in NETWORK or kind.startswith("fuse")
