"""`python -m orchestrator.agent SITE`: the agent process of one site; started by the service, or by hand on a site."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import structlog

from orchestrator import locks, logs
from orchestrator import settings as settings_module
from orchestrator.errors import BeamwayError

CARRIED = ("PATH", "PYTHONPATH", "LANG", "LC_ALL", "TZ")  # of the agent's environment, into every job


def main(site: str) -> int:
    logs.configure()
    settings = settings_module.load()
    held = locks.lock(locks.agent_lock(settings.home, site))
    if held is None:
        structlog.get_logger().info("agent.already_running", site=site)
        return 0
    environment = dict(os.environ)

    from orchestrator.agent import agent, around, executors, processes
    from orchestrator.agent.shell import Shell
    from sites import loader

    profile = loader.load(site, [settings.home / "sites"])
    os.environ[processes.AGENT] = f"{settings.home}:{site}"
    executors.environment_for_parsl(str(Path(sys.executable).parent))
    agent.clear(settings.home, site)
    directory = settings.home / "agents" / site
    surroundings = around.of(profile, str(directory / "slots"))
    pool = executors.Executors(
        directory / "parsl",
        surroundings,
        cores=profile.node.cores or agent.cores_here(),
        commands=profile.commands_here() if profile.local else 1,
        worker_init=profile.environment.worker_init,
    )
    me = agent.Agent(settings.home, site, pool, Shell(environment, log_cap_bytes=profile.limits.log_cap_bytes))
    if profile.local:
        pool.pilot(1)
    else:
        from orchestrator import schedulers
        from orchestrator.agent.cluster import Cluster

        me.cluster = Cluster(
            profile,
            schedulers.of(profile),
            pool.kernel,
            home=settings.home,
            directory=directory,
            environment={name: os.environ[name] for name in CARRIED if name in os.environ},
            arrive=me.arrive,
            told=me.told,
        )
    me.run()
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1] if len(sys.argv) > 1 else "local"))
    except BeamwayError as error:
        print(error, file=sys.stderr)
        sys.exit(error.exit_code)
