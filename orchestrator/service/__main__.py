"""`python -m orchestrator.service [--idle-exit S]`: the service of $BEAMWAY_HOME."""

from __future__ import annotations

import sys

from orchestrator import logs, settings
from orchestrator.errors import BeamwayError


def main(arguments: list[str]) -> int:
    logs.configure()
    configured = settings.load()
    from orchestrator.service.serve import serve

    idle_exit_s = configured.idle_exit_s if arguments == ["--idle-exit"] else 0.0
    return serve(configured, idle_exit_s=idle_exit_s)


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except BeamwayError as error:
        print(error, file=sys.stderr)
        sys.exit(error.exit_code)
