"""Definition + arguments → `Plan`: what will happen, before anything does.

The order of stages. A stage that says neither `after` nor `inputs` waits for every stage sorted before it: DM's
meaning. One that does waits for exactly the stages it names, those whose `outputs` it lists in `inputs`, and those that
capture a name it uses; so stages with no path between them run side by side.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping

from msgspec.structs import replace

from orchestrator.definition import files, variables
from orchestrator.definition.stages import Reader
from orchestrator.errors import ArgumentError, InputError, nearest
from orchestrator.model import ArgumentSpec, Definition, FileSpec, Plan, StageKind, StagePlan

MOST_CHILDREN = 8  # levels of workflows within workflows
FILE_ARGUMENTS = ("filePath", "filePathList", "filePathPattern", "fileQueryDict")
DIRECTORY_ARGUMENTS = ("dataDir", "workingDir")

FindChild = Callable[[str], Definition]


def compile_plan(
    definition: Definition,
    arguments: Mapping[str, str],
    *,
    directory: str,
    find_child: FindChild | None = None,
    strict: bool = False,
) -> Plan:
    """The plan of a run. `directory`: what relative paths are relative to. `strict`: always demand an input file.

    Raises ArgumentError (unknown, missing, wrong or unsafe argument), DefinitionError, InputError.
    """
    values = bind(definition, arguments)
    stages = arrange(definition)
    _check_calls(definition, stages)
    plan = Plan(
        definition.name,
        definition.owner,
        stages,
        variables=values,
        supplied=tuple(arguments),
        files=_file_spec(values),
        user_account=str(definition.raw.get("userAccount") or ""),
        definition=definition.raw,
        directory=os.path.abspath(directory),
        children=_children(definition, stages, find_child, ()),
    )
    _check_files(plan, strict)
    check_shell_text(plan)
    return plan


# ------------------------------------------------------------------------------------------------------ arguments


def bind(definition: Definition, arguments: Mapping[str, str]) -> dict[str, str]:
    """The arguments, checked against the definition's schema, with defaults filled in."""
    for name in arguments:
        variables.check_name(name)
    specs = definition.arguments
    if specs is None:
        return dict(arguments)
    known = {*specs, *FILE_ARGUMENTS, *DIRECTORY_ARGUMENTS}
    for name in arguments:
        if name not in known:
            raise ArgumentError(
                f"Workflow {definition.name!r} has no argument {name!r}.{nearest(name, known)}",
                f"It has: {', '.join(specs) or 'none'}.",
            )
    values: dict[str, str] = {}
    for name, spec in specs.items():
        if name in arguments:
            values[name] = arguments[name]
        elif spec.required:
            described = f" ({spec.description})" if spec.description else ""
            raise ArgumentError(
                f"Workflow {definition.name!r} needs the argument {name!r}{described}.", f"Give it as {name}:VALUE."
            )
        elif spec.default is not None:
            values[name] = spec.default
        if name in values and (name in arguments or values[name]):
            _check_value(name, values[name], spec)
    values.update({n: v for n, v in arguments.items() if n not in specs})
    given = {**{n: v for n, v in values.items() if n in arguments}}
    for name in specs:  # a default may name other arguments, those before it first
        if name in values and name not in arguments:
            values[name] = variables.substitute(values[name], {**values, **given})
    return values


def _check_value(name: str, value: str, spec: ArgumentSpec) -> None:
    if spec.choices and value not in spec.choices:
        raise ArgumentError(
            f"The argument {name!r} cannot be {value!r}.{nearest(value, spec.choices)}",
            f"It is one of: {', '.join(spec.choices)}.",
        )
    if "$" in value:
        return
    try:
        if spec.type == "integer":
            int(value)
        elif spec.type == "number":
            float(value)
        elif spec.type == "boolean" and value.lower() not in ("true", "false", "yes", "no", "1", "0"):
            raise ValueError
    except ValueError:
        article = "an" if spec.type == "integer" else "a"
        raise ArgumentError(f"The argument {name!r} must be {article} {spec.type}, not {value!r}.") from None


def _file_spec(values: Mapping[str, str]) -> FileSpec:
    query = {"query": values["fileQueryDict"]} if values.get("fileQueryDict") else {}
    return FileSpec(
        path=values.get("filePath", ""),
        paths=files.split_paths(values.get("filePathList", "")),
        pattern=values.get("filePathPattern", ""),
        query=query,
    )


def _check_files(plan: Plan, strict: bool) -> None:
    if plan.files != FileSpec():
        return
    needing = [s.name for s in plan.stages if s.per_file and s.files is None]
    if needing:
        raise InputError(
            f"Stage {needing[0]!r} runs once per file ($filePath), but no input file is given.",
            "Give filePath:FILE, filePathList:A,B or filePathPattern:GLOB.",
        )
    if strict and not any(s.files for s in plan.stages):
        raise InputError("Invalid input file specification.", "Give filePath:FILE; --strict always demands one.")


def check_shell_text(plan: Plan) -> None:
    """Refuse, before anything runs, values from outside that a command's shell would act on."""
    for stage in plan.stages:
        if stage.kind is StageKind.COMMAND:
            for name in variables.names(stage.command):
                if name in plan.supplied and name in plan.variables:
                    variables.check_supplied(name, plan.variables[name])


# ---------------------------------------------------------------------------------------------------------- order


def arrange(definition: Definition) -> tuple[StagePlan, ...]:
    """The stages with what each runs after, in an order that respects it."""
    reader = Reader(definition)
    stages = [reader.read(name) for name in definition.stages]
    captured_by = capturing(stages)
    arranged: dict[str, StagePlan] = {}
    for position, stage in enumerate(stages):
        raw = definition.stages[stage.name]
        if "after" in raw or "inputs" in raw:
            reasons = _reasons(stage, raw, stages, captured_by)
        else:
            reasons = {s.name: "comes before it in the sorted order" for s in stages[:position]}
        arranged[stage.name] = replace(stage, after=tuple(reasons), because=tuple(reasons.values()))
    return tuple(arranged[name] for name in _sorted(arranged, reader))


def capturing(stages: list[StagePlan]) -> dict[str, list[str]]:
    """name → stages that capture it."""
    import re

    found: dict[str, list[str]] = {}
    for stage in stages:
        for pattern in stage.captures:
            for name in re.compile(pattern).groupindex:
                found.setdefault(name, []).append(stage.name)
    return found


def used_names(stage: StagePlan) -> tuple[str, ...]:
    """Every name this stage reads, wherever it stands."""
    texts = [stage.command, stage.working_dir, stage.data_dir, stage.run_if, stage.user_account]
    if stage.repeat:
        texts.append(stage.repeat.until)
    if stage.files:
        texts += [stage.files.path, stage.files.pattern, *stage.files.paths]
    texts += [e.path for e in stage.expect]
    return tuple(dict.fromkeys([*variables.names_in(texts), *variables.names_in(stage.arguments)]))


def _reasons(
    stage: StagePlan, raw: Mapping[str, object], stages: list[StagePlan], capturing: Mapping[str, list[str]]
) -> dict[str, str]:
    reasons: dict[str, str] = {}
    for name in raw.get("after") or ():  # type: ignore[attr-defined]
        reasons[name] = "named in its 'after'"
    for other in stages:
        for path in stage.inputs:
            if other.name != stage.name and path in other.outputs:
                reasons.setdefault(other.name, f"writes its input {path}")
    for name in used_names(stage):
        for other_name in capturing.get(name, ()):
            if other_name != stage.name and other_name < stage.name:
                reasons.setdefault(other_name, f"captures ${name}, which it uses")
    return reasons


def _sorted(arranged: Mapping[str, StagePlan], reader: Reader) -> list[str]:
    """A topological order, sorted where there is a choice. Raises DefinitionError that spells out a cycle."""
    order: list[str] = []
    left = dict(arranged)
    while left:
        ready = [name for name in left if not set(left[name].after) & left.keys()]
        if not ready:
            cycle = _cycle(left)
            raise reader.refuse(f"Stages wait for each other: {' → '.join(cycle)}.", cycle[0], "after")
        order.append(ready[0])
        del left[ready[0]]
    return order


def _cycle(left: Mapping[str, StagePlan]) -> list[str]:
    path = [next(iter(left))]
    while True:
        following = next(a for a in left[path[-1]].after if a in left)
        if following in path:
            return [*path[path.index(following) :], following]
        path.append(following)


# ---------------------------------------------------------------------------------------------------------- calls


def _check_calls(definition: Definition, stages: tuple[StagePlan, ...]) -> None:
    """Kernels and their arguments must exist before the run begins."""
    from kernels import registry

    reader = Reader(definition)
    for stage in stages:
        if stage.kind is StageKind.FUNCTION and not _importable(stage.call):
            raise reader.refuse(
                f"A function is named like 'package.module:name', not {stage.call!r}.", stage.name, "function"
            )
        if stage.kind is not StageKind.KERNEL:
            continue
        if stage.call not in registry.names():
            near = nearest(stage.call, registry.names())
            raise reader.refuse(f"There is no kernel {stage.call!r}.{near}", stage.name, "kernel", "`beamway kernels`")
        known = registry.get(stage.call).arguments
        for name in stage.arguments:
            if name not in known:
                near = nearest(name, known) or f" It has {', '.join(known)}."
                raise reader.refuse(
                    f"The kernel {stage.call!r} has no argument {name!r}.{near}", stage.name, "arguments"
                )
        for name, argument in known.items():
            if argument.required and name not in stage.arguments:
                raise reader.refuse(f"The kernel {stage.call!r} needs the argument {name!r}.", stage.name, "arguments")


def _importable(call: str) -> bool:
    module, colon, name = call.partition(":")
    return bool(colon) and name.isidentifier() and all(part.isidentifier() for part in module.split("."))


def _children(
    definition: Definition, stages: tuple[StagePlan, ...], find_child: FindChild | None, above: tuple[str, ...]
) -> dict[str, Plan]:
    """The plans of the workflows that WORKFLOW stages start, their arguments still open."""
    children: dict[str, Plan] = {}
    for stage in stages:
        if stage.kind is not StageKind.WORKFLOW or stage.call in children:
            continue
        reader = Reader(definition)
        if find_child is None:
            raise reader.refuse("Workflows within workflows need to be looked up by name.", stage.name, "workflow")
        if len(above) >= MOST_CHILDREN or stage.call in above:
            chain = " → ".join((*above, stage.call))
            raise reader.refuse(f"Workflows start each other without end: {chain}.", stage.name, "workflow")
        child = find_child(stage.call)
        if child.arguments is not None:
            for name in stage.arguments:
                if name not in {*child.arguments, *FILE_ARGUMENTS, *DIRECTORY_ARGUMENTS}:
                    near = nearest(name, child.arguments)
                    sentence = f"The workflow {stage.call!r} has no argument {name!r}.{near}"
                    raise reader.refuse(sentence, stage.name, "arguments")
        inner = arrange(child)
        _check_calls(child, inner)
        children[stage.call] = Plan(
            child.name,
            child.owner,
            inner,
            definition=child.raw,
            user_account=str(child.raw.get("userAccount") or ""),
            children=_children(child, inner, find_child, (*above, stage.call)),
        )
    return children


def child_plan(parent: Plan, call: str, arguments: Mapping[str, str], directory: str) -> Plan:
    """The plan of a child run, now that its arguments are known. Raises ArgumentError, InputError."""
    from orchestrator.definition import loader

    child = parent.children[call]
    values = bind(loader.load(child.definition), arguments)
    plan = replace(child, variables=values, supplied=tuple(arguments), files=_file_spec(values), directory=directory)
    _check_files(plan, strict=False)
    check_shell_text(plan)
    return plan


def unset_names(plan: Plan) -> dict[str, tuple[str, ...]]:
    """stage → names it uses that nothing sets: neither an argument, nor an earlier capture, nor Beamway itself."""
    captured = capturing(list(plan.stages))
    known = {*plan.variables, *variables.AUTOMATIC, *captured}
    found = {s.name: tuple(n for n in used_names(s) if n not in known) for s in plan.stages}
    return {name: names for name, names in found.items() if names}
