"""What people ask of watches, checked before it is written down: for the service, and for the client of a home."""

from __future__ import annotations

import hashlib
import json
import re
import time
from collections.abc import Callable, Mapping

from orchestrator.arrival import rules
from orchestrator.arrival.rules import WatchFile
from orchestrator.arrival.scan import Root
from orchestrator.arrival.trigger import Rule, places
from orchestrator.definition import arguments
from orchestrator.errors import Conflict, SettingsError, UserError
from orchestrator.model import Definition
from orchestrator.store import arrivals, watches
from orchestrator.store.arrivals import Arrival
from orchestrator.store.database import Database
from orchestrator.store.watches import Watch, Wish

FRESH_S = 1.0  # for so long a definition is as it was read
DIGITS = 16  # of a version

Load = Callable[[str], Definition]


class Versions:
    """Definitions by name, each with its version, which is of what it says and of the workflows that it starts."""

    def __init__(self, load: Load, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._load, self._clock = load, clock
        self._kept: dict[str, tuple[float, Definition, str]] = {}

    def get(self, name: str) -> tuple[Definition, str]:
        """The definition, and `NAME@VERSION`. Raises what loading it raises."""
        kept = self._kept.get(name)
        if kept is None or self._clock() > kept[0] + FRESH_S:
            definition = self._load(name)
            kept = self._kept[name] = (self._clock(), definition, f"{name}@{self._digest(definition, ())}")
        return kept[1], kept[2]

    def _digest(self, definition: Definition, above: tuple[str, ...]) -> str:
        started = sorted({str(stage["workflow"]) for stage in definition.stages.values() if stage.get("workflow")})
        children = [self._digest(self._load(n), (*above, n)) for n in started if n not in above]
        text = json.dumps([definition.raw, children], sort_keys=True, default=str)
        return hashlib.sha256(text.encode()).hexdigest()[:DIGITS]


def put(database: Database, wish: Wish, load: Load, *, owner: str, now: float, here: bool) -> Watch:
    """Watch it, as soon as the watcher of the site sees this. `here`: the directory is one of this machine.

    Asked again it is the same watch. Raises SettingsError, ArgumentError, NotFound, Conflict.
    """
    file = _parsed(wish)
    if not file.directory.startswith("/"):
        raise SettingsError(f"The directory '{file.directory}' is not said from the root on.", "Begin it with a /.")
    for rule in file.rules:
        check(rule, load)
    if here:
        Root(file.directory).close()
    name = _name(wish, file)
    made = Watch(
        name,
        file.experiment,
        file.directory,
        wish.rules,
        site=wish.site,
        base=wish.base,
        owner=owner,
        created_at=now,
    )
    if watches.add(database, made):
        return made
    before = watches.get(database, name)
    if before.directory != made.directory or before.site != made.site:
        raise Conflict(
            f"There is a watch {name!r} already, of '{before.directory}' at {before.site}.", "--name makes another one."
        )
    if (before.rules, before.experiment) != (made.rules, made.experiment) and not wish.change:
        raise Conflict(
            f"'{made.directory}' is watched already as {name!r}, with other rules.",
            "--change gives it these; --name makes another watch of it.",
        )
    return watches.change(database, name, rules=made.rules, experiment=made.experiment, base=made.base, stopped_at=0.0)


def name_of(wish: Wish) -> str:
    """What the watch is called. Raises SettingsError."""
    return _name(wish, _parsed(wish))


def _name(wish: Wish, file: WatchFile) -> str:
    return rules.checked_name(wish.name or re.sub(r"[^\w.:-]+", "-", file.experiment, flags=re.ASCII)[:128])


def _parsed(wish: Wish) -> WatchFile:
    where = wish.source or "the rules"
    return rules.parse(wish.rules, where, directory=wish.directory, experiment=wish.experiment, lines=bool(wish.source))


def check(rule: Rule, load: Load) -> None:
    """Raises NotFound or DefinitionError for its workflow, and ArgumentError for what that does not take."""
    definition = load(rule.workflow)
    if rule.owner and rule.owner != definition.owner:
        raise SettingsError(
            f"Rule {rule.name!r}: workflow {rule.workflow!r} is of {definition.owner!r}, not of {rule.owner!r}."
        )
    given = {name: "$later" if places(value) else value for name, value in rule.arguments.items()}
    given |= dict.fromkeys(rule.arguments_from, "$later")
    supplied = arguments.supplied({"filePath": "$later", **given})
    arguments.check(supplied, definition.arguments, workflow=definition.name, open_names=True)


def release(
    database: Database,
    number: int,
    load: Load,
    *,
    who: str,
    now: float,
    workflow: str = "",
    given: Mapping[str, str] | None = None,
) -> Arrival:
    """Run one that did not, whatever was against it, with its workflow as it is now. Raises NotFound, Conflict."""
    found = arrivals.get(database, [number])
    name = workflow or (found[0].workflow.rpartition("@")[0] if found else "")
    version = Versions(load).get(name)[1] if name else ""
    changed = {**found[0].arguments, **given} if found and given else None
    if found and not found[0].arguments and version:
        watch = watches.get(database, found[0].watch)
        changed = {"filePath": f"{watch.directory.rstrip('/')}/{found[0].name}", **(given or {})}
    return arrivals.release(database, number, who=who, now=now, workflow=version, arguments=changed)


def sentence(arrival: Arrival) -> tuple[str, str]:
    """What became of it and why; and what can be done."""
    name, released = f"'{arrival.name}'", f"`beamway arrivals release {arrival.id}` runs it all the same."
    match arrival.state:
        case arrivals.ArrivalState.RUN:
            return f"{name} was whole and new: run {arrival.run_id} is of it.", f"`beamway show {arrival.run_id}`"
        case arrivals.ArrivalState.DUE:
            why = f" ({arrival.reason})" if arrival.reason else ""
            return f"{name} is whole and new{why}; its run is about to begin.", "`beamway status` shows the service."
        case arrivals.ArrivalState.DUPLICATE:
            return f"{name} does not run: {arrival.reason}.", released
        case arrivals.ArrivalState.IGNORED:
            return f"{name} is ignored: {arrival.reason}.", released
        case arrivals.ArrivalState.INCOMPLETE:
            return f"{name} is incomplete: {arrival.reason}.", f"It runs when it is whole; {released}"
    raise AssertionError(arrival.state)


def check_name(workflow: str) -> None:
    """Raises UserError for what is no name of a workflow of the service."""
    if not workflow or "/" in workflow or workflow.endswith((".py", ".toml", ".json")):
        raise UserError(
            f"{workflow!r} is no name of a workflow that the service has.", "`beamway workflows` lists them."
        )
