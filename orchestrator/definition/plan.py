"""Definition + arguments → plan: checked, defaults filled in, stages normalised, what waits for what worked
out."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from typing import Any

from msgspec.structs import replace

from orchestrator.definition import arguments as args
from orchestrator.definition import graph, loader, registry, stages, variables
from orchestrator.definition.place import Place
from orchestrator.errors import ArgumentError, InputError
from orchestrator.model import Definition, FileSpec, Placing, Plan, StageKind, StagePlan

MAX_CHILDREN_DEEP = 8
NOWHERE = Placing()  # nothing was asked for

FindChild = Callable[[str], Definition]
AllowsShellText = Callable[[str], bool]  # site -> whether its profile allows shell text in supplied values


def _never(site: str) -> bool:
    return False


def compile_plan(
    definition: Definition,
    arguments: Mapping[str, str],
    *,
    directory: str,
    find_child: FindChild | None = None,
    strict: bool = False,
    shell_text: AllowsShellText = _never,
    placing: Placing = NOWHERE,
) -> Plan:
    """The plan of one run, or the first thing that forbids it.

    `placing` is what was asked for with the run; it fills in what a stage leaves open, unless the stage names another
    site.
    `find_child` gives the definition of a `workflow` stage's target. `strict` demands an input file
    specification always, as DM does. `shell_text` says for a site whether shell text is allowed there.

    Raises ArgumentError for the arguments, InputError for a missing file specification, DefinitionError for
    the rest.
    """
    compiler = _Compiler(directory, find_child, strict, shell_text, placing)
    return compiler.compile(definition, arguments, (), open_names=False)


def bind(
    plan: Plan, arguments: Mapping[str, str], *, directory: str = "", shell_text: AllowsShellText = _never
) -> Plan:
    """A child plan again, now with the values its parent's stage passes: all checks that a submission gets
    are made."""
    definition = loader.load(plan.definition)

    def find_child(call: str) -> Definition:
        return loader.load(plan.children[call].definition)

    where = directory or plan.directory
    return compile_plan(
        definition,
        arguments,
        directory=where,
        find_child=find_child,
        shell_text=shell_text,
        placing=plan.placing,
    )


def merged(own: Placing, asked: Placing) -> Placing:
    """What the stage says, and where it is silent what was asked for with the run."""
    if own.site and asked.site and own.site != asked.site:
        return replace(own, priority=asked.priority)
    return Placing(*(getattr(own, f) or getattr(asked, f) for f in Placing.__struct_fields__))


def unset_names(plan: Plan) -> tuple[str, ...]:
    """Variables that some stage reads and nothing sets: the shell will make them empty. Sorted."""
    # nobody but an argument sets the experiment, and a run that runs has no end
    known = set(plan.variables) | set(variables.AUTOMATIC) - {"experimentName", "endTime"}
    for stage in plan.stages:
        known.update(graph.captured(stage))
    return tuple(sorted({name for stage in plan.stages for name in graph.used(stage)} - known))


class _Compiler:
    def __init__(
        self,
        directory: str,
        find_child: FindChild | None,
        strict: bool,
        shell_text: AllowsShellText,
        placing: Placing,
    ) -> None:
        self.placing = placing
        self.directory = os.path.abspath(directory)
        self.find_child = find_child
        self.strict = strict
        self.shell_text = shell_text

    def compile(
        self,
        definition: Definition,
        arguments: Mapping[str, str],
        parents: tuple[str, ...],
        *,
        open_names: bool,
    ) -> Plan:
        """`open_names`: a child, whose arguments may still hold the `$names` of its parent."""
        place = Place(definition.source, definition.lines)
        given = args.supplied(arguments)
        args.check(given, definition.arguments, workflow=definition.name, open_names=open_names)
        values = args.fill(given, definition.arguments, self.directory)
        files = _files(given, values, place)
        account = str(definition.raw.get("userAccount") or "")
        planned = [
            self._stage(stages.read(name, body, place, None if open_names else values), account)
            for name, body in definition.stages.items()
        ]
        planned = graph.connect(planned, definition.stages, place)
        self._check_files(planned, files, place)
        _check_kernels(planned, place)
        if not open_names:
            in_shell = [s for s in planned if s.kind is StageKind.COMMAND and not self.shell_text(s.placing.site)]
            _check_shell(in_shell, given, definition)
            _check_directory(in_shell, given, definition, self.directory)
        return Plan(
            workflow=definition.name,
            owner=definition.owner,
            stages=tuple(planned),
            variables=values,
            supplied=tuple(sorted(given)),
            files=files,
            user_account=account,
            definition=definition.raw,
            directory=self.directory,
            children=self._children(planned, (*parents, definition.name), place),
            placing=self.placing,
        )

    def _stage(self, stage: StagePlan, account: str) -> StagePlan:
        return replace(
            stage,
            working_dir=args.absolute(stage.working_dir, self.directory),
            data_dir=args.absolute(stage.data_dir, self.directory),
            user_account=stage.user_account or account,
            placing=merged(stage.placing, self.placing),
        )

    def _check_files(self, planned: list[StagePlan], files: FileSpec, place: Place) -> None:
        if files != FileSpec():
            return
        has_own = [s for s in planned if s.files]
        if self.strict and not has_own:
            raise InputError("Invalid input file specification.", "Pass filePath, filePathList or filePathPattern.")
        captured = {name for s in planned for name in graph.captured(s)}
        for stage in planned:
            if stage.per_file and not stage.files and "filePath" not in captured:
                raise InputError(
                    f"Stage {stage.name!r} runs once per file, and the run has no input files.",
                    "Pass filePath, filePathList or filePathPattern.",
                )

    def _children(self, planned: list[StagePlan], parents: tuple[str, ...], place: Place) -> dict[str, Plan]:
        children: dict[str, Plan] = {}
        for stage in planned:
            if stage.kind is not StageKind.WORKFLOW:
                continue
            spot = place.at(stage=stage.name, key="workflow")
            if variables.names(stage.call):
                raise spot.error("The child workflow must be named outright, without $names.")
            if self.find_child is None:
                raise spot.error(f"The child workflow {stage.call!r} cannot be looked up here.")
            child = self.find_child(stage.call)
            if child.name in parents:
                circle = " → ".join([*parents[parents.index(child.name) :], child.name])
                raise spot.error(f"Workflows start each other in a circle: {circle}.")
            if len(parents) >= MAX_CHILDREN_DEEP:
                raise spot.error(f"Workflows start each other more than {MAX_CHILDREN_DEEP} deep.")
            texts: dict[str, str] = {
                name: str(value) if isinstance(value, str | int | float) else json.dumps(value)
                for name, value in stage.arguments.items()
                if value is not None
            }
            try:
                children[stage.call] = self.compile(child, texts, parents, open_names=True)
            except (ArgumentError, InputError) as e:
                raise spot.at(key="arguments").error(e.sentence, e.hint) from None
        return children


def _files(given: Mapping[str, str], values: Mapping[str, str], place: Place) -> FileSpec:
    """The run's own file specification. A value that itself holds a dollar is kept as the name of its
    argument, since the specification is substituted when it is resolved and a file name must come through as
    it is."""
    spec: dict[str, Any] = {}
    for name in variables.FILE_ARGUMENTS:
        if text := values.get(name, ""):
            spec[name] = f"${name}" if "$" in text and name in given else text
    if query := spec.get("fileQueryDict"):
        try:
            spec["fileQueryDict"] = json.loads(query)
        except (ValueError, RecursionError):
            raise ArgumentError("The value of 'fileQueryDict' must be a dict written as JSON.") from None
        if not isinstance(spec["fileQueryDict"], dict):
            raise ArgumentError("The value of 'fileQueryDict' must be a dict written as JSON.")
    return stages.read_files(spec, place) or FileSpec()


def _check_kernels(planned: list[StagePlan], place: Place) -> None:
    calls = [s for s in planned if s.kind is StageKind.KERNEL]
    known = registry.kernels() if calls else None
    for stage in calls:
        for sentence in registry.problems(stage.call, stage.arguments, known):
            raise place.at(stage=stage.name, key="kernel").error(sentence)


def _check_shell(planned: list[StagePlan], given: Mapping[str, str], definition: Definition) -> None:
    """Refuse supplied values that a shell would read as commands, where a command uses them."""
    for stage in planned:
        in_command = set(variables.names(stage.command))
        if stage.per_file:
            in_command.update(n for n in ("filePath", "filePathList") if n in given)
        for name in sorted(in_command):
            for source in sorted(args.sources(name, given, definition.arguments)):
                try:
                    variables.check_supplied(source, given[source])
                except ArgumentError as e:
                    raise ArgumentError(f"{e.sentence} (used by stage {stage.name!r})", e.hint) from None


def _check_directory(
    planned: list[StagePlan], given: Mapping[str, str], definition: Definition, directory: str
) -> None:
    """Refuse a run from a folder whose name is shell text, when a default that is a path puts it into a command."""
    paths = {n for n, s in (definition.arguments or {}).items() if n not in given and s.type == "path" and s.default}
    for stage in planned:
        if paths & set(variables.names(stage.command)):
            variables.check_supplied("the folder of the submission", directory)


__all__ = ["bind", "compile_plan", "unset_names"]
