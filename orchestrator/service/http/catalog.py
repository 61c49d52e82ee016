"""The catalog: experiments, files and collections.

An operator sees and changes all; everyone else only the experiments in which they have a part: `permission.check_part`.
A file name of any bytes comes through: what is not UTF-8 is escaped in answers, and percent-encoded in questions.
"""

from __future__ import annotations

import time
import urllib.parse
from functools import partial
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Path, Query, Request, Response

from orchestrator import codec
from orchestrator.catalog import entries, records
from orchestrator.catalog.entries import Entry, Look
from orchestrator.catalog.query import Asked, wanted
from orchestrator.errors import ArgumentError
from orchestrator.service import permission
from orchestrator.service.http import catalog_shapes as shapes
from orchestrator.service.http.context import Context, Here, Permit, Who
from orchestrator.service.permission import Action, Principal
from orchestrator.store import catalog, catalog_search, experiments, filesets, scans
from orchestrator.store.catalog import CatalogFile
from orchestrator.store.experiments import Experiment, Part
from orchestrator.store.filesets import Collection
from orchestrator.transfer import places
from sites import loader

router = APIRouter(tags=["catalog"])
Reads = Depends(Permit(Action.READ))
Changes = Depends(Permit(Action.CHANGE_FILES))
Everything = Depends(Permit(Action.ANY_EXPERIMENT))
ENTRIES_MOST = 1000
Number = Annotated[int, Path(ge=1, lt=2**63)]


def _answer(record: Any, status: int = 200) -> Response:
    return Response(codec.dumps(record), status, media_type="application/json")


def _check(here: Context, asking: Principal, experiment: str, needed: Part) -> None:
    """Raises Denied."""
    if not permission.sees_all(asking):
        part = experiments.of(here.database, asking.name).get(experiment)
        permission.check_part(asking, part, needed, experiment)


def _file(here: Context, asking: Principal, number: int, needed: Part) -> CatalogFile:
    """Raises NotFound, Denied."""
    found = catalog.get(here.database, number)
    _check(here, asking, found.experiment, needed)
    return found


# ------------------------------------------------------------------------------------------------------ experiments


@router.get("/experiments", dependencies=[Reads], response_model=list[shapes.ExperimentShape])
def listing(here: Here, asking: Who) -> Response:
    """The newest first: all for an operator, else those in which one has a part."""
    own = None if permission.sees_all(asking) else list(experiments.of(here.database, asking.name))
    return _answer([records.experiment(each) for each in experiments.ls(here.database, own)])


@router.post("/experiments", status_code=201, dependencies=[Everything], response_model=shapes.ExperimentShape)
def create(asked: shapes.ExperimentRequest, here: Here) -> Response:
    """A new experiment, with its people."""
    people = {person: experiments.part(role) for person, role in asked.people.items()}
    made = Experiment(asked.name, asked.title, asked.proposal, asked.metadata, created_at=time.time(), people=people)
    return _answer(records.experiment(experiments.create(here.database, made)), 201)


@router.get("/experiments/{name}", dependencies=[Reads], response_model=shapes.ExperimentShape)
def show(name: str, here: Here, asking: Who) -> Response:
    """One of them."""
    _check(here, asking, name, Part.VIEWER)
    return _answer(records.experiment(experiments.get(here.database, name)))


@router.patch("/experiments/{name}", dependencies=[Changes], response_model=shapes.ExperimentShape)
def change(name: str, asked: shapes.ExperimentChange, here: Here, asking: Who) -> Response:
    """Its title, its proposal, keys of its metadata."""
    _check(here, asking, name, Part.OWNER)
    changes = {k: v for k, v in asked.model_dump().items() if v is not None}
    return _answer(records.experiment(experiments.change(here.database, name, changes)))


@router.delete("/experiments/{name}", status_code=204, dependencies=[Everything])
def delete(name: str, here: Here) -> Response:
    """Refused while it has files."""
    experiments.remove(here.database, name)
    return Response(status_code=204)


@router.put("/experiments/{name}/people/{person}", dependencies=[Changes], response_model=shapes.ExperimentShape)
def put_person(name: str, person: str, asked: shapes.PartRequest, here: Here, asking: Who) -> Response:
    """Add a person, or change what they may."""
    _check(here, asking, name, Part.OWNER)
    part = experiments.part(asked.role)
    return _answer(records.experiment(experiments.put_person(here.database, name, person, part)))


@router.delete("/experiments/{name}/people/{person}", dependencies=[Changes], response_model=shapes.ExperimentShape)
def remove_person(name: str, person: str, here: Here, asking: Who) -> Response:
    """They have no part in it any more."""
    _check(here, asking, name, Part.OWNER)
    return _answer(records.experiment(experiments.remove_person(here.database, name, person)))


@router.get("/experiments/{name}/stats", dependencies=[Reads], response_model=shapes.StatsShape)
def stats(name: str, here: Here, asking: Who) -> Response:
    """How many files it has, of which kinds, how large, since when."""
    _check(here, asking, name, Part.VIEWER)
    return _answer(records.stats(filesets.stats(here.database, name)))


# ------------------------------------------------------------------------------------------------------------ files


@router.post("/files", status_code=201, dependencies=[Changes], response_model=list[int])
def add(asked: list[shapes.FileEntry], here: Here, asking: Who) -> Response:
    """Files into the catalog, as they were read where they are; their numbers. Asking again adds nothing twice."""
    if len(asked) > ENTRIES_MOST:
        raise ArgumentError(f"{len(asked)} files are too many for one request.", f"At most {ENTRIES_MOST}.")
    for experiment in sorted({each.experiment for each in asked}):
        _check(here, asking, experiment, Part.MEMBER)
    some = [Entry(**each.model_dump()) for each in asked]
    apart = places.apart(partial(loader.load, directories=here.settings.site_directories))
    return _answer(entries.add(here.database, some, now=time.time(), apart=apart), 201)


@router.get("/files", dependencies=[Reads], response_model=shapes.FilePage)
def search(
    request: Request,
    here: Here,
    asking: Who,
    experiment: str = "",
    kind: str = "",
    name: Annotated[str, Query(description="The beginning of a path, of a name, or of a word in a name.")] = "",
    text: Annotated[list[str], Query(description="Each the beginning of a word in a name or in the metadata.")] = [],  # noqa: B006
    meta: Annotated[list[str], Query(description="Conditions: `energy>=20`, `sample=bone`.")] = [],  # noqa: B006
    checksum: str = "",
    copies: Annotated[str, Query(description="The state of one of its copies.")] = "",
    place: Annotated[str, Query(description="Where that copy is.")] = "",
    collection: str = "",
    since: Annotated[float, Query(ge=0.0, description="Epoch seconds.")] = 0.0,
    until: Annotated[float, Query(ge=0.0, description="Epoch seconds; before this moment.")] = 0.0,
    superseded: Annotated[bool, Query(description="Also those that have another content now.")] = False,
    limit: Annotated[int, Query(ge=1, le=1000)] = 50,
    before: Annotated[int, Query(ge=0, lt=2**63, description="What the page before said.")] = 0,
) -> Response:
    """The newest first. A page may be short, or empty, before the end: there are no more when `before` is 0."""
    said = urllib.parse.parse_qs(request.scope["query_string"].decode("ascii"), errors="surrogateescape")
    words, conditions = tuple(said.get("text", ())), tuple(said.get("meta", ()))
    asked = Asked(
        *(experiment, kind, said.get("name", [""])[-1], words, conditions, checksum, copies, place, collection),
        *(since, until, superseded, before),
    )
    own: tuple[str, ...] | None = None
    if experiment:
        _check(here, asking, experiment, Part.VIEWER)
    elif not permission.sees_all(asking):
        own = tuple(experiments.of(here.database, asking.name))
    page = catalog_search.listing(here.database, wanted(asked, own), limit=limit)
    if experiment and not (page.files or page.before or before):
        experiments.get(here.database, experiment)
    return _answer({"files": [records.file(each) for each in page.files], "before": page.before})


@router.get("/files/at", dependencies=[Reads], response_model=list[shapes.FileShape])
def at(request: Request, here: Here, asking: Who, place: str, address: str) -> Response:
    """The files that have had a copy at an address, the newest first."""
    said = urllib.parse.parse_qs(request.scope["query_string"].decode("ascii"), errors="surrogateescape")
    found = catalog.at(here.database, place, said.get("address", [address])[-1])
    if not permission.sees_all(asking):
        own = experiments.of(here.database, asking.name)
        found = [each for each in found if each.experiment in own]
    return _answer([records.file(each) for each in found])


@router.get("/files/{number}", dependencies=[Reads], response_model=shapes.FileShape)
def file(number: Number, here: Here, asking: Who) -> Response:
    """One of them, with its copies."""
    found = _file(here, asking, number, Part.VIEWER)
    return _answer(records.file(found, catalog.replicas(here.database, [number])))


@router.get("/files/{number}/parts", dependencies=[Reads], response_model=list[shapes.FileShape])
def parts(number: Number, here: Here, asking: Who) -> Response:
    """The parts of the scan whose master it is, without contents that others have superseded."""
    _file(here, asking, number, Part.VIEWER)
    return _answer([records.file(each) for each in scans.standing_parts(here.database, number)])


@router.patch("/files/{number}", dependencies=[Changes], response_model=shapes.FileShape)
def change_file(number: Number, asked: shapes.MetadataChange, here: Here, asking: Who) -> Response:
    """Set keys of its metadata."""
    _file(here, asking, number, Part.MEMBER)
    return _answer(records.file(entries.change(here.database, number, asked.metadata)))


@router.post("/files/{number}/looks", status_code=204, dependencies=[Changes])
def looked(number: Number, asked: shapes.LookRequest, here: Here, asking: Who) -> Response:
    """Write down what was found where one of its copies should be."""
    _file(here, asking, number, Part.MEMBER)
    entries.looked(here.database, [Look(number, **asked.model_dump())], now=time.time())
    return Response(status_code=204)


# ------------------------------------------------------------------------------------------------------ collections


@router.get("/experiments/{name}/collections", dependencies=[Reads], response_model=list[shapes.CollectionShape])
def collections(name: str, here: Here, asking: Who) -> Response:
    """Those of an experiment."""
    _check(here, asking, name, Part.VIEWER)
    return _answer([records.collection(each) for each in filesets.ls(here.database, name)])


@router.post(
    "/experiments/{name}/collections",
    status_code=201,
    dependencies=[Changes],
    response_model=shapes.CollectionShape,
)
def create_collection(name: str, asked: shapes.CollectionRequest, here: Here, asking: Who) -> Response:
    """A new one, without files."""
    _check(here, asking, name, Part.MEMBER)
    made = Collection(name, asked.name, asked.description, time.time())
    return _answer(records.collection(filesets.create(here.database, made)), 201)


@router.delete("/experiments/{name}/collections/{collection}", status_code=204, dependencies=[Changes])
def delete_collection(name: str, collection: str, here: Here, asking: Who) -> Response:
    """Its files stay."""
    _check(here, asking, name, Part.MEMBER)
    filesets.remove(here.database, name, collection, None)
    return Response(status_code=204)


@router.post(
    "/experiments/{name}/collections/{collection}/files", dependencies=[Changes], response_model=shapes.Collected
)
def collect(name: str, collection: str, asked: shapes.CollectRequest, here: Here, asking: Who) -> shapes.Collected:
    """Files of the experiment into it, or out of it."""
    _check(here, asking, name, Part.MEMBER)
    added = filesets.add(here.database, name, collection, asked.add)
    return shapes.Collected(added=added, removed=filesets.remove(here.database, name, collection, asked.remove))


@router.get(
    "/experiments/{name}/collections/{collection}/stats", dependencies=[Reads], response_model=shapes.StatsShape
)
def collection_stats(name: str, collection: str, here: Here, asking: Who) -> Response:
    """How many files it has, of which kinds, how large, since when."""
    _check(here, asking, name, Part.VIEWER)
    return _answer(records.stats(filesets.stats(here.database, name, collection)))
