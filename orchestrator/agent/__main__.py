"""`python -m orchestrator.agent SITE`: the agent process of one site; started by the service, or by hand on a site."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import structlog

from orchestrator import locks, logs
from orchestrator import settings as settings_module
from orchestrator.errors import BeamwayError


def main(site: str) -> int:
    logs.configure()
    settings = settings_module.load()
    held = locks.lock(locks.agent_lock(settings.home, site))
    if held is None:
        structlog.get_logger().info("agent.already_running", site=site)
        return 0
    environment = dict(os.environ)

    from orchestrator.agent import agent, executors, processes
    from orchestrator.agent.shell import Shell
    from sites import loader

    profile = loader.load(site, [settings.home / "sites"])
    os.environ[processes.AGENT] = f"{settings.home}:{site}"
    executors.environment_for_parsl(str(Path(sys.executable).parent))
    agent.clear(settings.home, site)
    cores = profile.node.cores or agent.cores_here()
    pool = executors.Executors(
        settings.home / "agents" / site / "parsl",
        cores=cores,
        commands=profile.commands_here(),
        worker_init=profile.environment.worker_init,
    )
    shell = Shell(environment, log_cap_bytes=profile.limits.log_cap_bytes)
    pool.pilot(1)
    agent.Agent(settings.home, site, pool, shell, log_cap_bytes=profile.limits.log_cap_bytes).run()
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1] if len(sys.argv) > 1 else "local"))
    except BeamwayError as error:
        print(error, file=sys.stderr)
        sys.exit(error.exit_code)
