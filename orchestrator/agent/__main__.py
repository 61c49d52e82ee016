"""`python -m orchestrator.agent SITE [--stands-by]`: the agent process of one site, started by service or hand."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

import structlog

from orchestrator import locks, logs
from orchestrator import settings as settings_module
from orchestrator.agent.link import Link, SocketLink
from orchestrator.errors import BeamwayError
from orchestrator.settings import Settings

STAND_BY_S = 0.5
CARRIED = ("PATH", "PYTHONPATH", "LANG", "LC_ALL", "TZ")  # of the agent's environment, into every job


def main(site: str, *, stands_by: bool = False) -> int:
    """Be the agent of this site until stopped. `stands_by`: wait for one of this home to end; else leave it be."""
    settings = settings_module.load()
    settings_module.ensure_home(settings.home)
    lock, told = locks.agent_lock(settings.home, site), False
    while locks.lock(lock) is None:
        if not stands_by:
            structlog.get_logger().info("agent.already_running", site=site)
            return 0
        if not told:
            structlog.get_logger().info("agent.stands_by", site=site, holder=locks.holder(lock))
            told = True
        time.sleep(STAND_BY_S)
    ours = {name: os.environ.pop(name) for name in settings_module.SECRETS if name in os.environ}
    environment = dict(os.environ)  # what runs gets, without what opens the service or its database

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
    shell = Shell(environment, log_cap_bytes=profile.limits.log_cap_bytes)
    connection = _link(settings, site)
    shell.may_begin = lambda: connection.valid
    me = agent.Agent(settings.home, site, pool, shell, connection, stays=bool(settings.url), ours=ours)
    if profile.local:
        pool.pilot(1)
    else:
        from orchestrator import schedulers
        from orchestrator.agent.cluster import Cluster
        from orchestrator.agent.leased import Leased

        me.cluster = Cluster(
            profile,
            Leased(schedulers.of(profile), lambda: connection.valid),
            pool.kernel,
            home=settings.home,
            directory=directory,
            environment={name: os.environ[name] for name in CARRIED if name in os.environ},
            arrive=me.arrive,
            told=me.told,
        )
    me.run()
    return 0


def _link(settings: Settings, site: str) -> Link:
    if not settings.url:
        return SocketLink(settings.home, site)
    from orchestrator.agent.http_link import HttpLink

    return HttpLink(settings, site)


if __name__ == "__main__":
    logs.configure()
    try:
        sys.exit(main(sys.argv[1] if len(sys.argv) > 1 else "local", stands_by="--stands-by" in sys.argv[2:]))
    except BeamwayError as error:
        print(error, file=sys.stderr)
        sys.exit(error.exit_code)
