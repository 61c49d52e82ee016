"""Where a file or a run comes from and what became of it: gathered for people, for programs and for crates."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from typing import Any

import msgspec
from msgspec import Struct
from msgspec.structs import replace
from sqlalchemy import select

from orchestrator.codec import iso
from orchestrator.errors import NotFound, printable
from orchestrator.store import catalog, descent, experiments, scans, schema
from orchestrator.store.catalog import CatalogFile, Replica
from orchestrator.store.database import Database
from orchestrator.store.descent import Graph, RunFacts
from orchestrator.store.lineage import READ, Role, Use
from orchestrator.store.stale import StaleProduct
from orchestrator.store.texts import key

COLLECTION = "collection:"
PARTS = 20  # of a scan that a tree names


class Story(Struct, frozen=True):
    """Files and runs with what connects them, where the files are, and the people of the experiment."""

    graph: Graph
    copies: tuple[Replica, ...] = ()
    people: tuple[dict[str, str], ...] = ()
    title: str = ""

    def copies_of(self) -> dict[int, list[Replica]]:
        found: dict[int, list[Replica]] = {}
        for copy in self.copies:
            found.setdefault(copy.file_id, []).append(copy)
        return found


def story(
    database: Database,
    what: str,
    *,
    up: int = descent.DEPTH,
    down: int = descent.DEPTH,
    experiment: str = "",
    person: str | None = None,
) -> Story:
    """`what`: a run (that this `person` may see), a file, or `collection:NAME` of an experiment. Raises NotFound."""
    if what.startswith(COLLECTION):
        files = _collected(database, experiment, what.removeprefix(COLLECTION))
        graph = descent.graph(database, files=files, up=up, down=down)
    else:
        number, run_id = descent.meant(database, what, seen_by=person)
        graph = descent.graph(
            database, files=[number] if number else [], runs=[run_id] if run_id else [], up=up, down=down
        )
    ids = {file.id for file in (*graph.files, *graph.parts)}
    names = {file.experiment for file in graph.files} | {run.experiment for run in graph.runs}
    people = tuple(
        {"name": person, "role": role.value, "experiment": experiment.name}
        for experiment in experiments.ls(database, sorted(names - {""}))
        for person, role in experiment.people.items()
    )
    return Story(graph, tuple(_copies(database, ids)), people, _title(graph, what))


def for_crate(story_of: Callable[[int], Story]) -> Story:
    """All that it was made of, each scan with its parts, and of a run what it has made itself. `story_of`: with so
    many generations on."""
    found = story_of(0)
    found = story_of(1) if found.graph.of_runs else found
    files = {file.id: file for file in (*found.graph.files, *found.graph.parts)}
    return replace(found, graph=replace(found.graph, files=tuple(files.values())))


def _copies(database: Database, ids: Collection[int]) -> Iterator[Replica]:
    for some in scans.slices(ids):
        yield from catalog.replicas(database, some)


def _collected(database: Database, experiment: str, name: str) -> list[int]:
    t = schema.collection_files.c
    with database.read() as connection:
        query = select(t.file_id).where(t.name == key(name), t.experiment == key(experiment)).order_by(t.file_id)
        found = list(connection.execute(query).scalars())
    if not found:
        of = f"of experiment {experiment!r} " if experiment else ""
        raise NotFound(f"There is no collection {name!r} {of}with files in it.", "Say --experiment if it is of one.")
    return found


def seen_by(found: Story, parts: Collection[str], hidden: Collection[str] = ()) -> Story:
    """Without the files of other experiments than these, and without the runs that are hidden."""
    files = tuple(file for file in found.graph.files if file.experiment in parts)
    theirs = tuple(part for part in found.graph.parts if part.experiment in parts)
    numbers = {file.id for file in files}
    uses = tuple(use for use in found.graph.uses if use.file_id in numbers and use.run_id not in hidden)
    ids = {use.run_id for use in uses} | set(found.graph.of_runs)
    runs = tuple(run for run in found.graph.runs if run.id in ids)
    copies = tuple(copy for copy in found.copies if copy.file_id in numbers | {part.id for part in theirs})
    people = tuple(person for person in found.people if person["experiment"] in parts)
    graph = replace(found.graph, files=files, runs=runs, uses=uses, parts=theirs)
    return replace(found, graph=graph, copies=copies, people=people)


def _title(graph: Graph, what: str) -> str:
    if graph.of_runs:
        run = next((run for run in graph.runs if run.id == graph.of_runs[0]), None)
        return f"Run {graph.of_runs[0]} of {run.workflow}" if run else f"Run {graph.of_runs[0]}"
    if what.startswith(COLLECTION):
        return f"Collection {what.removeprefix(COLLECTION)}"
    return next((file.name for file in graph.files if file.id in graph.of_files), what)


# ---------------------------------------------------------------------------------------------------------- as text


def tree(graph: Graph, *, up: bool, down: bool) -> Iterator[str]:
    """Lines for people. What was shown before is not shown again, only named."""
    shown = _Tree(graph)
    for number in graph.of_files:
        yield shown.of_file(number)
        parts = [part for part in graph.parts if part.part_of == number]
        yield from (f"  part {file_line(part)}" for part in parts[:PARTS])
        if len(parts) > PARTS:
            yield f"  and {len(parts) - PARTS:,} more parts"
        if up:
            yield from shown.files_back(number, "  ", set())
        if down:
            yield from shown.files_on(number, "  ", set())
    for run_id in graph.of_runs:
        yield shown.of_run(run_id)
        if up:
            yield from shown.run_back(run_id, "  ", set())
        if down:
            yield from shown.run_on(run_id, "  ", set())
    if graph.cut:
        yield "There is more; --depth shows more generations."


class _Tree:
    def __init__(self, graph: Graph) -> None:
        self._files = {file.id: file for file in graph.files}
        self._runs = {run.id: run for run in graph.runs}
        self._of_file: dict[int, list[Use]] = {}
        self._of_run: dict[str, list[Use]] = {}
        for use in graph.uses:
            self._of_file.setdefault(use.file_id, []).append(use)
            self._of_run.setdefault(use.run_id, []).append(use)

    def of_file(self, number: int) -> str:
        return file_line(self._files[number]) if number in self._files else f"file {number}"

    def of_run(self, run_id: str) -> str:
        return run_line(self._runs[run_id]) if run_id in self._runs else f"run {run_id}"

    def files_back(self, number: int, indent: str, seen: set[object]) -> Iterator[str]:
        for use in self._of_file.get(number, ()):
            if use.role is Role.PRODUCT:
                yield f"{indent}made by {self.of_run(use.run_id)}{_how(use)}{_again(use.run_id, seen)}"
                if use.run_id not in seen:
                    seen.add(use.run_id)
                    yield from self.run_back(use.run_id, indent + "  ", seen)

    def run_back(self, run_id: str, indent: str, seen: set[object]) -> Iterator[str]:
        for use in self._of_run.get(run_id, ()):
            if use.role in READ:
                yield f"{indent}from {use.role.value} {self.of_file(use.file_id)}{_again(use.file_id, seen)}"
                if use.file_id not in seen:
                    seen.add(use.file_id)
                    yield from self.files_back(use.file_id, indent + "  ", seen)

    def files_on(self, number: int, indent: str, seen: set[object]) -> Iterator[str]:
        for use in self._of_file.get(number, ()):
            if use.role in READ:
                yield f"{indent}read as {use.role.value} by {self.of_run(use.run_id)}{_again(use.run_id, seen)}"
                if use.run_id not in seen:
                    seen.add(use.run_id)
                    yield from self.run_on(use.run_id, indent + "  ", seen)

    def run_on(self, run_id: str, indent: str, seen: set[object]) -> Iterator[str]:
        for use in self._of_run.get(run_id, ()):
            if use.role is Role.PRODUCT:
                yield f"{indent}made {self.of_file(use.file_id)}{_how(use)}{_again(use.file_id, seen)}"
                if use.file_id not in seen:
                    seen.add(use.file_id)
                    yield from self.files_on(use.file_id, indent + "  ", seen)


def _again(what: object, seen: set[object]) -> str:
    return " (see above)" if what in seen else ""


def _how(use: Use) -> str:
    version = use.facts.software.get(use.facts.call, "")
    kernel = f" by {use.facts.call} {version}" if version else ""
    return printable(f" in stage {use.facts.stage}{kernel} at {use.facts.site}") if use.facts.stage else ""


def file_line(file: CatalogFile) -> str:
    gone = " (superseded)" if file.superseded_at else ""
    whose = f" (part of file {file.part_of})" if file.part_of else ""
    return printable(f"file {file.id} {file.name} [{file.checksum[:21] or 'content not known'}]{whose}{gone}")


def run_line(run: RunFacts) -> str:
    return printable(f"run {run.id} {run.workflow} {run.version or run.digest[:12]}")


def why(product: StaleProduct) -> str:
    """Why a product is stale, in a sentence without its end."""
    told = [
        f"{cause.file.name} has another content now (file {cause.now})" if cause.now else f"{cause.file.name} is stale"
        for cause in product.causes
    ]
    return "; ".join(told)


# ----------------------------------------------------------------------------------------------------- for programs


def record(found: Story) -> dict[str, Any]:
    """The JSON of a history."""
    graph, copies = found.graph, found.copies_of()
    return {
        "files": [file_record(file) | {"copies": [_copy(c) for c in copies.get(file.id, ())]} for file in graph.files],
        "runs": [_run_record(run) for run in graph.runs],
        "uses": [
            {"run": use.run_id, "role": use.role.value, "file": use.file_id, **msgspec.structs.asdict(use.facts)}
            for use in graph.uses
        ],
        "parts": [file_record(part) | {"copies": [_copy(c) for c in copies.get(part.id, ())]} for part in graph.parts],
        "of": {"files": list(graph.of_files), "runs": list(graph.of_runs)},
        "people": list(found.people),
        "more": graph.cut,
    }


def file_record(file: CatalogFile) -> dict[str, Any]:
    told = {name: getattr(file, name) for name in ("id", "experiment", "name", "size", "checksum", "metadata")}
    times = {"added_at": iso(file.added_at), "superseded_at": iso(file.superseded_at)}
    return told | times | {"kind": file.kind.value, "maker": file.maker or None, "part_of": file.part_of or None}


def stale_record(product: StaleProduct) -> dict[str, Any]:
    causes = [{"file": cause.file.id, "name": cause.file.name, "now": cause.now or None} for cause in product.causes]
    told = {"run_id": product.run_id, "ready": product.ready, "why": why(product), "causes": causes}
    return file_record(product.file) | told


def _copy(copy: Replica) -> dict[str, Any]:
    seen = {"state": copy.state.value, "verified_at": iso(copy.verified_at), "pinned": copy.pinned}
    return {"place": copy.place, "address": copy.address, **seen}


def _run_record(run: RunFacts) -> dict[str, Any]:
    told = {n: getattr(run, n) for n in RunFacts.__struct_fields__ if n not in ("definition", "description")}
    return told | {"started_at": iso(run.started_at), "ended_at": iso(run.ended_at)}
