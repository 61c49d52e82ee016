"""A whole Slurm on one machine, for trials and tests: real daemons, pretended nodes and devices, one directory.

`up` starts it, `down` ends it without a trace of a process, `status` says what lives. Nothing outside the directory is
touched, and no system service is used: the daemons, munge and the database are its own.
"""

from __future__ import annotations

from slurm.cluster.daemons import Cluster, Daemon, down, status, up
from slurm.cluster.plan import Plan
from slurm.cluster.profile import profile_toml

__all__ = ["Cluster", "Daemon", "Plan", "down", "profile_toml", "status", "up"]
