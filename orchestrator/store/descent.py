"""From a file or a run back to what it was made of, and on to what was made with it, over the generations."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from msgspec import Struct
from sqlalchemy import Connection, select

from orchestrator import codec
from orchestrator.errors import NotFound
from orchestrator.store import lineage, scans, schema, search
from orchestrator.store.catalog import CatalogFile
from orchestrator.store.database import Database
from orchestrator.store.lineage import AT_ONCE, READ, Role, Use
from orchestrator.store.runs import Request

DEPTH = 20  # generations that are followed unless more are asked for
MOST = 10_000  # files and runs of one answer


class RunFacts(Struct, frozen=True):
    """What a run was: which workflow in which version, with which arguments, whose and when."""

    id: str
    workflow: str
    version: str  # as the definition says
    digest: str  # of the plan: the definition with everything that was put into it
    owner: str
    experiment: str
    username: str
    status: str
    started_at: float
    ended_at: float
    arguments: dict[str, str] = {}
    description: str = ""
    definition: dict[str, Any] = {}


class Graph(Struct, frozen=True):
    """`of` names where it begins: a file's number or a run's id. `parts`: of the scans whose masters are among
    the files. `cut`: there is more than this."""

    files: tuple[CatalogFile, ...] = ()
    runs: tuple[RunFacts, ...] = ()
    uses: tuple[Use, ...] = ()
    of_files: tuple[int, ...] = ()
    of_runs: tuple[str, ...] = ()
    parts: tuple[CatalogFile, ...] = ()
    cut: bool = False


def meant(database: Database, text: str, *, seen_by: str | None = None) -> tuple[int, str]:
    """The file (its number, or the newest at a path or address) or the run that a person means. `seen_by`: a run that
    this person may see. Raises NotFound."""
    if not text:
        raise NotFound("An empty text names no file and no run.")
    number = lineage.number_of(database, text)
    if number:
        return number, ""
    if "/" in text:
        raise NotFound(f"The catalog has no file '{text}'.", "A path as the run saw it, or the file's number.")
    try:
        return 0, search.find(database, text, seen_by=seen_by)
    except NotFound:
        raise NotFound(f"There is no file and no run {text!r}.", "`beamway ls` lists the runs.") from None


def graph(
    database: Database,
    *,
    files: Sequence[int] = (),
    runs: Sequence[str] = (),
    up: int = DEPTH,
    down: int = DEPTH,
) -> Graph:
    """`up`: what these were made of, so many generations back; `down`: what was made with them. Each file and run is
    there once. What happened to a part is told of the master of its scan, which is there with it."""
    with database.read() as connection:
        masters = [file.part_of for file in scans.several(connection, files) if file.part_of]
        files = tuple(dict.fromkeys((*files, *masters)))
        walk = _Walk(connection)
        for depth, to_run, from_run in ((up, (Role.PRODUCT,), READ), (down, READ, (Role.PRODUCT,))):
            if depth:
                walk.go(set(files), set(runs), to_run, from_run, depth)
        found = lineage.files(connection, {*files, *(use.file_id for use in walk.uses.values())})
        parts = [part for part in scans.parts(connection, found) if not part.superseded_at]
        facts = run_facts(connection, {*runs, *(use.run_id for use in walk.uses.values())})
    return Graph(
        tuple(found[number] for number in sorted(found)),
        tuple(sorted(facts.values(), key=lambda run: (run.ended_at, run.id))),
        tuple(walk.uses.values()),
        files,
        tuple(runs),
        tuple(parts[:MOST]),
        walk.cut or len(parts) > MOST,
    )


class _Walk:
    """Generation by generation, in one direction at a time; nothing is visited twice, so that it ends in any case."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self.uses: dict[tuple[str, Role, int], Use] = {}
        self.cut = False

    def go(self, files: set[int], runs: set[str], to_run: Sequence[Role], from_run: Sequence[Role], depth: int) -> None:
        """`to_run`: how a file leads to the next runs; `from_run`: how those lead to the next files."""
        seen_files, seen_runs = set(files), set(runs)
        for _ in range(depth):
            into = lineage.uses_of_files(self._connection, files, to_run)
            runs |= self._take(into, {use.run_id for use in into}, seen_runs)
            out = lineage.uses_of_runs(self._connection, runs, from_run)
            files = self._take(out, {use.file_id for use in out}, seen_files)
            runs = set()
            if not files:
                return
        self.cut = self.cut or bool(lineage.uses_of_files(self._connection, files, to_run))

    def _take(self, uses: Iterable[Use], found: set[Any], seen: set[Any]) -> set[Any]:
        for use in uses:
            if len(self.uses) >= MOST:
                self.cut = True
                return set()
            self.uses[use.run_id, use.role, use.file_id] = use
        fresh = found - seen
        seen |= fresh
        return fresh


def run_facts(connection: Connection, ids: Iterable[str]) -> dict[str, RunFacts]:
    wanted, found = list(ids), dict[str, RunFacts]()
    plans: dict[str, dict[str, Any]] = {}
    for start in range(0, len(wanted), AT_ONCE):
        query = select(schema.runs).where(schema.runs.c.id.in_(wanted[start : start + AT_ONCE]))
        for row in connection.execute(query).mappings():
            if row["plan"] not in plans:
                plan = select(schema.plans.c.doc).where(schema.plans.c.digest == row["plan"])
                plans[row["plan"]] = codec.loads(connection.execute(plan).scalar_one(), dict)
            found[row["id"]] = _facts(row, plans[row["plan"]])
    return found


def _facts(row: Any, plan: dict[str, Any]) -> RunFacts:
    asked = codec.loads(row["request"], Request)
    definition = plan.get("definition") or {}
    return RunFacts(
        row["id"],
        str(plan.get("workflow") or row["workflow"]),
        str(definition.get("version") or ""),
        row["plan"],
        row["owner"],
        asked.variables.get("experimentName", ""),
        asked.username,
        row["status"],
        row["started_at"],
        row["ended_at"],
        {name: asked.variables[name] for name in asked.supplied if name in asked.variables},
        str(definition.get("description") or ""),
        definition,
    )
