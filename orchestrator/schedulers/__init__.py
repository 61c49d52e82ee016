"""The batch schedulers: one adapter a module, chosen by the site's profile.

Slurm's lives in the package `slurm`; `local` runs the same scripts as processes of this host, for trial and tests.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from orchestrator.errors import SettingsError
from orchestrator.jobs import Scheduler

if TYPE_CHECKING:
    from sites.schema import SiteProfile


def of(profile: SiteProfile) -> Scheduler:
    """The scheduler of a site. Raises SettingsError for one that is declared and not built yet."""
    kind = profile.scheduler.kind
    environment, bin_dir = dict(profile.scheduler.environment), profile.scheduler.bin
    timeout_s = profile.scheduler.command_timeout_s
    if kind == "slurm":
        from slurm.client import Slurm

        return Slurm(environment=environment, bin_dir=bin_dir, timeout_s=timeout_s)
    if kind == "sge":
        from orchestrator.schedulers.sge import GridEngine

        return GridEngine(
            environment=environment,
            bin_dir=bin_dir,
            timeout_s=timeout_s,
            mpi_environment=profile.scheduler.mpi_environment,
            smp_environment=profile.scheduler.smp_environment,
        )
    if kind == "pbs":
        from orchestrator.schedulers.pbs import Pbs

        return Pbs(environment=environment, bin_dir=bin_dir, timeout_s=timeout_s)
    if kind == "local":
        from orchestrator.schedulers.local import LocalScheduler

        return LocalScheduler(Path(profile.paths.scratch) / "jobs")
    raise SettingsError(f"Site {profile.name!r}: the scheduler {kind!r} is not built yet.", "Use slurm, sge or pbs.")
