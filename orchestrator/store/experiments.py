"""Experiments: what owns files, runs and people."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from enum import StrEnum
from typing import Any

from msgspec import Struct
from msgspec.structs import replace
from sqlalchemy import Connection, delete, insert, select, update
from sqlalchemy.dialects.postgresql import insert as postgresql_insert
from sqlalchemy.dialects.sqlite import insert as sqlite_insert

from orchestrator import codec
from orchestrator.errors import ArgumentError, Conflict, NotFound, nearest
from orchestrator.store import catalog_values, schema, sight
from orchestrator.store.database import Database
from orchestrator.store.texts import key

TEXT_MOST = 2000  # characters of a title or a proposal
PERSON_MOST = 200  # characters, as of a token
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@+-]{0,127}")
_e, _p, _f = schema.experiments, schema.experiment_people, schema.catalog_files


class Part(StrEnum):
    """What a person may do in an experiment; each may what those before it may."""

    VIEWER = "viewer"  # sees it and its files
    MEMBER = "member"  # and adds files, says what they are, and collects them
    OWNER = "owner"  # and changes the experiment and its people


class Experiment(Struct, frozen=True):
    name: str
    title: str = ""
    proposal: str = ""
    metadata: dict[str, Any] = {}
    retention: Any = None  # its policy
    created_at: float = 0.0
    people: dict[str, Part] = {}


class _Doc(Struct, frozen=True):
    title: str = ""
    proposal: str = ""
    metadata: dict[str, Any] = {}
    retention: Any = None


def check_name(name: str) -> None:
    """Raises ArgumentError for what cannot be the name of an experiment."""
    if not _NAME.fullmatch(name):
        raise ArgumentError(
            f"{name[:200]!r} cannot be the name of an experiment.", "Letters, digits and . _ @ + - only, at most 128."
        )


def _check_person(person: str) -> None:
    """Raises ArgumentError."""
    if not person.strip() or len(person) > PERSON_MOST or not person.isprintable():
        sentence = f"{person[:PERSON_MOST]!r} cannot be the name of a person."
        raise ArgumentError(sentence, f"It is the name of their token, of at most {PERSON_MOST} characters.")


def part(text: str) -> Part:
    """Raises ArgumentError."""
    parts = [p.value for p in Part]
    if text not in parts:
        raise ArgumentError(f"There is no role {text!r}.{nearest(text, parts)}", f"Roles: {', '.join(parts)}.")
    return Part(text)


def create(database: Database, experiment: Experiment) -> Experiment:
    """With its people; asked again it is the same one. Raises Conflict when another has its name, and ArgumentError."""
    check_name(experiment.name)
    for person in experiment.people:
        _check_person(person)
    with database.write() as connection:
        upsert: Any = postgresql_insert if connection.dialect.name == "postgresql" else sqlite_insert
        row = {"name": experiment.name, "created_at": experiment.created_at, "doc": _doc(experiment)}
        added = upsert(_e).values(**row).on_conflict_do_nothing().returning(_e.c.name)
        if connection.execute(added).first() is None:
            there = _get(connection, experiment.name)
            if _as_json(there) == _as_json(experiment):
                return there
            raise Conflict(
                f"There is an experiment {experiment.name!r} already.", "`beamway experiment set` changes one."
            )
        for person, role in experiment.people.items():
            _put_person(connection, experiment.name, person, role)
    return experiment


def get(database: Database, name: str) -> Experiment:
    """Raises NotFound."""
    with database.read() as connection:
        return _get(connection, name)


def ls(database: Database, names: Sequence[str] | None = None) -> list[Experiment]:
    """The newest first; `names`: only these."""
    with database.read() as connection:
        query = select(_e).order_by(_e.c.created_at.desc(), _e.c.name)
        if names is not None:
            query = query.where(_e.c.name.in_(names))
        people: dict[str, dict[str, Part]] = {}
        for row in connection.execute(select(_p).order_by(_p.c.person)):
            people.setdefault(row.experiment, {})[row.person] = Part(row.role)
        return [_experiment(row, people.get(row["name"], {})) for row in connection.execute(query).mappings()]


def of(database: Database, person: str) -> dict[str, Part]:
    """The experiments of a person, each with their part in it."""
    with database.read() as connection:
        rows = connection.execute(select(_p.c.experiment, _p.c.role).where(_p.c.person == key(person)))
        return {row.experiment: Part(row.role) for row in rows}


def change(database: Database, name: str, changes: Mapping[str, Any]) -> Experiment:
    """Set its `title` and `proposal`, and keys of its `metadata`, of which None takes one away. Raises NotFound."""
    with database.write() as connection:
        before = _get(connection, name, locked=True)
        given = before.metadata | catalog_values.plain(changes.get("metadata", {}))
        kept = {k: value for k, value in given.items() if value is not None}
        texts = {k: changes[k] for k in ("title", "proposal") if k in changes}
        after = replace(before, **texts, metadata=catalog_values.plain(kept, f"experiment {name!r}"))
        connection.execute(update(_e).where(_e.c.name == name).values(doc=_doc(after)))
    return after


def put_person(database: Database, name: str, person: str, role: Part) -> Experiment:
    """Add a person, or change what they may. Raises NotFound, and Conflict when it would have no owner any more."""
    _check_person(person)
    with database.write() as connection:
        before = _get(connection, name, locked=True)
        _keep_an_owner(before, person, role)
        _put_person(connection, name, person, role)
        return _get(connection, name)


def remove_person(database: Database, name: str, person: str) -> Experiment:
    """Raises NotFound, and Conflict when it would have no owner any more."""
    with database.write() as connection:
        before = _get(connection, name, locked=True)
        if key(person) not in before.people:
            raise NotFound(f"{person!r} has no part in experiment {name!r}.", f"`beamway experiment show {name}`")
        _keep_an_owner(before, person, None)
        connection.execute(delete(_p).where(_p.c.experiment == name, _p.c.person == key(person)))
        after = _get(connection, name)
        if not after.people:
            sight.reopen(connection, name)
        return after


def remove(database: Database, name: str) -> None:
    """Raises NotFound, and Conflict while it has files."""
    with database.write() as connection:
        _get(connection, name, locked=True)
        if connection.execute(select(_f.c.id).where(_f.c.experiment == key(name)).limit(1)).first() is not None:
            raise Conflict(
                f"The experiment {name!r} has files.", f"`beamway file ls --experiment {name}` lists them; they stay."
            )
        for table in (schema.collections, _p):
            connection.execute(delete(table).where(table.c.experiment == name))
        connection.execute(delete(_e).where(_e.c.name == name))
        sight.reopen(connection, name)


def _keep_an_owner(before: Experiment, person: str, role: Part | None) -> None:
    owners = [p for p, r in before.people.items() if r is Part.OWNER]
    if owners == [key(person)] and role is not Part.OWNER:
        raise Conflict(
            f"{person!r} is the only owner of experiment {before.name!r}.", "Make another one its owner first."
        )


def _get(connection: Connection, name: str, *, locked: bool = False) -> Experiment:
    query = select(_e).where(_e.c.name == key(name))
    row = connection.execute(query.with_for_update() if locked else query).mappings().first()
    if row is None:
        known = connection.execute(select(_e.c.name).order_by(_e.c.created_at.desc()).limit(1000)).scalars()
        raise NotFound(f"There is no experiment {name!r}.{nearest(name, known)}", "`beamway experiment ls` lists them.")
    people = connection.execute(select(_p).where(_p.c.experiment == name).order_by(_p.c.person))
    return _experiment(row, {p.person: Part(p.role) for p in people})


def _experiment(row: Any, people: dict[str, Part]) -> Experiment:
    doc = codec.loads(row["doc"], _Doc)
    return Experiment(
        row["name"], doc.title, doc.proposal, doc.metadata, doc.retention, row["created_at"], dict(people)
    )


def _as_json(experiment: Experiment) -> tuple[str, dict[str, Part]]:
    return _doc(experiment), dict(sorted(experiment.people.items()))


def _doc(experiment: Experiment) -> str:
    for what in ("title", "proposal"):
        if len(getattr(experiment, what)) > TEXT_MOST:
            raise ArgumentError(f"The {what} has more than {TEXT_MOST} characters.")
    metadata = catalog_values.plain(experiment.metadata, f"experiment {experiment.name!r}")
    return codec.dumps(_Doc(experiment.title, experiment.proposal, metadata, experiment.retention))


def _put_person(connection: Connection, name: str, person: str, role: Part) -> None:
    same = (_p.c.experiment == name) & (_p.c.person == key(person))
    connection.execute(delete(_p).where(same))
    connection.execute(insert(_p).values(experiment=name, person=key(person), role=role.value))
