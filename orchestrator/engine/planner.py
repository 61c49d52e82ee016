"""From a definition and arguments to a plan: with the workflows and the sites of this home."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TYPE_CHECKING

from orchestrator import protocol
from orchestrator.errors import BeamwayError, UserError
from orchestrator.model import Definition, Placing, Plan, Run, StageKind, StagePlan
from orchestrator.settings import Settings
from orchestrator.store.database import Database

if TYPE_CHECKING:
    from orchestrator.engine.placement import Placement
    from sites.schema import SiteProfile


class Planner:
    def __init__(self, settings: Settings, database: Database) -> None:
        self._settings = settings
        self._database = database

    def definition(self, name_or_path: str) -> Definition:
        """Load a definition from a file or by name. Raises DefinitionError, NotFound."""
        from orchestrator.definition import loader

        return loader.find(name_or_path, self._settings.workflow_directories)

    def plan(
        self,
        definition: Definition,
        arguments: Mapping[str, str],
        *,
        directory: str = "",
        strict: bool = False,
        placing: Placing | None = None,
    ) -> Plan:
        """What this definition means for these arguments. Raises DefinitionError, ArgumentError, InputError."""
        from orchestrator.definition.plan import compile_plan

        plan = compile_plan(
            definition,
            arguments,
            directory=os.path.abspath(directory or os.getcwd()),
            find_child=self.definition,
            strict=strict,
            shell_text=self._allows_shell_text,
            placing=placing or Placing(),
        )
        self._check_sites(plan)
        return plan

    def changed(self, plan: Plan, arguments: Mapping[str, str]) -> Plan:
        """The plan of the same definition, child workflows included, with these arguments changed."""
        from orchestrator.definition.plan import bind

        given = {name: plan.variables[name] for name in plan.supplied if name in plan.variables}
        made = bind(plan, given | dict(arguments), shell_text=self._allows_shell_text)
        self._check_sites(made)
        return made

    def _allows_shell_text(self, site: str) -> bool:
        from sites import loader

        name = self._settings.site if site in ("", "auto") else site
        return loader.load(name, self._settings.site_directories).policies.allow_shell_text

    def _check_sites(self, plan: Plan) -> None:
        """Every site a stage names must exist, and have what the stage asks for."""
        from orchestrator.engine import place_sites
        from sites import loader

        for stage in plan.stages:
            name = stage.placing.site or self._settings.site
            if name == "auto" or stage.kind is StageKind.WORKFLOW:
                continue
            profile = loader.load(name, self._settings.site_directories)
            sentence = place_sites.forbidden(profile, stage.resources, stage.placing)
            if sentence:
                raise UserError(
                    f"Stage {stage.name!r} cannot run at site {name!r}: {sentence}.",
                    "Ask for less in its 'resources', or run it at another site.",
                )
            if stage.kind is StageKind.TRANSFER:
                self._check_way(stage, plan, name)

    def _check_way(self, stage: StagePlan, plan: Plan, at: str) -> None:
        """Between the sites that a transfer names there must be a way, before anything is begun."""
        from orchestrator.definition import variables
        from orchestrator.transfer import places
        from sites import loader

        asked = variables.substitute_in(stage.arguments, plan.variables)
        if any(text.startswith(f"{places.SCHEME}$") for text in (asked["to"], *_listed(asked["from"]))):
            return  # an earlier stage will say where
        places.routed(asked, at, partial(loader.load, directories=self._settings.site_directories))

    def placements(self, plan: Plan) -> list[Placement]:
        """Where each stage whose site is `auto` would go now, and why; the sites' schedulers are asked, side by side.

        Input files are looked at; those that earlier stages would make count for nothing.
        """
        from orchestrator.engine import opening, place_sites

        stages = [s for s in plan.stages if s.placing.site == "auto" and s.kind is not StageKind.WORKFLOW]
        sites = list(place_sites.candidates(self._settings.site, self._settings.site_directories[0])) if stages else []
        run = Run("", plan, time.time(), files=opening.files_at_submission(plan)) if stages else None
        found = []
        for stage in stages:
            assert run is not None
            with ThreadPoolExecutor(max(1, len(sites))) as pool:
                views = pool.map(lambda profile, s=stage: _outlook(profile, s), sites)
                looked = list(zip(sites, views, strict=True))
            found.append(
                place_sites.predict(self._database, run, stage, looked, now=time.time(), data_at=self._settings.site)
            )
        return found


def _listed(given: str | list[str]) -> list[str]:
    return [given] if isinstance(given, str) else given


def _outlook(profile: SiteProfile, stage: StagePlan) -> protocol.SiteView:
    from orchestrator import schedulers
    from orchestrator.engine import place_sites
    from orchestrator.schedulers import outlook

    now = time.time()
    if profile.local:
        return protocol.SiteView(now)
    try:
        scheduler = schedulers.of(profile)
    except BeamwayError:  # declared and not built yet: it answers nobody, and the others are asked all the same
        return protocol.SiteView(now, silent_since=now)
    return outlook.ask(scheduler, profile, stage.resources, place_sites.queues(profile, stage.placing))
