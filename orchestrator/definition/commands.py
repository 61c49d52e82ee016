"""How a stage becomes a command line and its folders: the same for the engine that runs it and for `explain`."""

from __future__ import annotations

import os
from collections.abc import Mapping

from orchestrator.definition import stages, variables
from orchestrator.errors import ArgumentError
from orchestrator.model import Plan, StagePlan

SUDO = "/usr/bin/sudo -u {} -- "


def command_line(plan: Plan, stage: StagePlan, values: Mapping[str, str]) -> str:
    """The shell command of a stage, as its account runs it. Raises ArgumentError when that is no account."""
    command = variables.substitute(stage.command, values)
    account = variables.substitute(stage.user_account or plan.user_account, values)
    if not account:
        return command
    if not stages.ACCOUNT.fullmatch(account):
        raise ArgumentError(f"userAccount {account!r} is not the name of an account.")
    return SUDO.format(account) + command


def data_directory(plan: Plan) -> str:
    """What the run's file names are relative to: the argument `dataDir`, else where it was submitted."""
    return os.path.join(plan.directory, plan.variables.get("dataDir", ""))


def directories(plan: Plan, stage: StagePlan, values: Mapping[str, str]) -> tuple[str, str]:
    """(working directory, data directory) of a stage, absolute."""
    working = os.path.join(plan.directory, variables.substitute(stage.working_dir, values))
    data = os.path.join(working, variables.substitute(stage.data_dir, {**values, "workingDir": working}))
    return os.path.normpath(working), os.path.normpath(data)
