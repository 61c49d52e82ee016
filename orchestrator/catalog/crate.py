"""A run, a file with its ancestors, or a collection as an RO-Crate 1.1: data with what made them, for anyone's tools.

The metadata follow the profiles Process Run Crate and, for a single run, Workflow Run Crate
(https://w3id.org/ro/wfrun): a CreateAction for each run, with its workflow as the instrument, what it read as the
objects and what it made as the results. Pure, but for `write`.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import zipfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

from orchestrator.catalog.provenance import Story
from orchestrator.codec import iso
from orchestrator.errors import ArgumentError, printable
from orchestrator.outside import effect
from orchestrator.store.catalog import CatalogFile, FileKind, Replica
from orchestrator.store.descent import Graph, RunFacts
from orchestrator.store.lineage import Role

METADATA = "ro-crate-metadata.json"
SPECIFICATION = "https://w3id.org/ro/crate/1.1"
RUN_TERMS = "https://w3id.org/ro/terms/workflow-run"
PROCESS = "https://w3id.org/ro/wfrun/process/0.5"
WORKFLOW = "https://w3id.org/ro/wfrun/workflow/0.5"
WORKFLOW_FILE = "https://w3id.org/workflowhub/workflow-ro-crate/1.0"
_PROFILES = {PROCESS: "Process Run Crate", WORKFLOW: "Workflow Run Crate", WORKFLOW_FILE: "Workflow RO-Crate"}
_TYPES = {".h5": "application/x-hdf5", ".hdf5": "application/x-hdf5", ".nxs": "application/x-hdf5", ".png": "image/png"}
_TYPES |= {".json": "application/json", ".tif": "image/tiff", ".tiff": "image/tiff", ".txt": "text/plain"}

Entity = dict[str, Any]


def document(found: Story, *, at: float, inside: Mapping[int, str] | None = None) -> dict[str, Any]:
    """The metadata. `inside`: the files that lie in the crate, by their paths there; of the others it says where they
    are."""
    made = _Crate(found.graph, inside or {}, found.copies_of())
    description = f"{found.title}, with what it was made of and what made it, as Beamway recorded it."
    return made.document(found.title, description, at, found.people)


class _Crate:
    def __init__(self, graph: Graph, inside: Mapping[int, str], copies: Mapping[int, Sequence[Replica]]) -> None:
        self._graph, self._inside, self._copies = graph, inside, copies
        self._entities: dict[str, Entity] = {}
        self._names = {file.id: self._name(file) for file in graph.files}

    def document(self, name: str, description: str, at: float, people: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        workflows = {run.digest: self._workflow(run) for run in self._graph.runs}
        single = len(self._graph.of_runs) == 1 and len(workflows) == 1
        profiles = [PROCESS, WORKFLOW, WORKFLOW_FILE] if single else [PROCESS]
        for file in self._graph.files:
            self._add(self._file(file))
        actions = [self._add(self._action(run, workflows[run.digest])) for run in self._graph.runs]
        authors = [self._add(_person(person)) for person in people]
        dataset: Entity = {
            "@id": "./",
            "@type": "Dataset",
            "name": _text(name),
            "description": _text(description),
            "datePublished": iso(at),
            "license": self._add(
                {
                    "@id": "#license",
                    "@type": "CreativeWork",
                    "name": "Not stated",
                    "description": "The policy of the facility for the data of its experiments holds.",
                }
            ),
            "conformsTo": [self._add(_profile(each)) for each in profiles],
            "hasPart": [*workflows.values(), *({"@id": name} for name in self._names.values())],
            "mentions": actions,
        }
        if single:
            dataset["mainEntity"] = next(iter(workflows.values()))
        if authors:
            dataset["author"] = authors
        descriptor: Entity = {
            "@id": METADATA,
            "@type": "CreativeWork",
            "about": {"@id": "./"},
            "conformsTo": [{"@id": SPECIFICATION}, *([{"@id": WORKFLOW_FILE}] if single else [])],
        }
        context = [f"{SPECIFICATION}/context", {"sha256": "https://w3id.org/ro/terms/workflow-run#sha256"}]
        return {
            "@context": [*context, f"{RUN_TERMS}/context"],
            "@graph": [descriptor, dataset, *self._entities.values()],
        }

    def _add(self, entity: Entity) -> Entity:
        """A reference to it, which is in the crate from now on."""
        self._entities.setdefault(entity["@id"], entity)
        return {"@id": entity["@id"]}

    # ---- files

    def _name(self, file: CatalogFile) -> str:
        if file.id in self._inside:
            return quote(os.fsencode(self._inside[file.id]))
        if re.match(r"[A-Za-z][\w+.-]*://", file.name):
            return _text(file.name)
        return "file://" + quote(os.fsencode(file.name)) + f"#{file.id}"

    def _file(self, file: CatalogFile) -> Entity:
        algorithm, _, digest = file.checksum.partition(":")
        places = [f"{copy.place}:{copy.address} ({copy.state.value})" for copy in self._copies.get(file.id, ())]
        folder = self._names[file.id].endswith("/")
        entity: Entity = {
            "@id": self._names[file.id],
            "@type": "Dataset" if folder else "File",
            "name": _text(file.name),
            "identifier": f"beamway:file/{file.id}",
            "contentSize": str(file.size),
            "dateModified": iso(file.added_at) or iso(1.0),
            "additionalType": file.kind.value,
        }
        if file.part_of in self._names:
            entity["isPartOf"] = {"@id": self._names[file.part_of]}
        if file.id in self._inside:
            entity["alternateName"] = _text(os.path.basename(file.name))
        if algorithm == "sha256" and not folder:
            entity["sha256"] = digest
        ending = _TYPES.get(os.path.splitext(file.name)[1].lower())
        if ending and not folder:
            entity["encodingFormat"] = ending
        told = {"checksum": file.checksum, "copies": _text("; ".join(places)), "experiment": _text(file.experiment)}
        if file.superseded_at:
            told["superseded"] = iso(file.superseded_at) or ""
        entity["additionalProperty"] = [
            self._add(_value(f"#file-{file.id}-{key}", key, value)) for key, value in told.items() if value
        ]
        return entity

    # ---- runs

    def _workflow(self, run: RunFacts) -> Entity:
        entity: Entity = {
            "@id": f"workflow-{run.digest[:12]}.json",
            "@type": ["File", "SoftwareSourceCode", "ComputationalWorkflow"],
            "name": _text(run.workflow),
            "version": _text(run.version or run.digest[:12]),
            "identifier": f"sha256:{run.digest}",
            "encodingFormat": "application/json",
            "programmingLanguage": self._add(
                {
                    "@id": "#beamway",
                    "@type": ["ComputerLanguage", "SoftwareApplication"],
                    "name": "Beamway",
                    "description": "A workflow as a dict of stages.",
                }
            ),
        }
        same = {each.id for each in self._graph.runs if each.digest == run.digest}
        used = {pair for use in self._graph.uses if use.run_id in same for pair in use.facts.software.items()}
        if used:
            entity["softwareRequirements"] = [self._add(_software(*pair)) for pair in sorted(used)]
        if run.description:
            entity["description"] = _text(run.description)
        return self._add(entity)

    def _action(self, run: RunFacts, workflow: Entity) -> Entity:
        uses = [use for use in self._graph.uses if use.run_id == run.id and use.file_id in self._names]
        sites = sorted({use.facts.site for use in uses if use.facts.site})
        entity: Entity = {
            "@id": f"#run-{run.id}",
            "@type": "CreateAction",
            "name": _text(f"{run.workflow} on {run.experiment or 'no experiment'}"),
            "identifier": run.id,
            "instrument": workflow,
            "object": [
                *({"@id": self._names[use.file_id]} for use in uses if use.role is not Role.PRODUCT),
                *(self._add(_value(f"#run-{run.id}-{n}", key, value)) for n, (key, value) in _numbered(run.arguments)),
            ],
            "result": [{"@id": self._names[use.file_id]} for use in uses if use.role is Role.PRODUCT],
            "actionStatus": f"http://schema.org/{'Completed' if run.status == 'done' else 'Failed'}ActionStatus",
        }
        entity |= {key: iso(at) for key, at in (("startTime", run.started_at), ("endTime", run.ended_at)) if at}
        if run.username:
            entity["agent"] = self._add(
                {"@id": f"#person-{quote(run.username)}", "@type": "Person", "name": _text(run.username)}
            )
        if sites:
            entity["location"] = [
                self._add({"@id": f"#site-{quote(site)}", "@type": "Place", "name": _text(site)}) for site in sites
            ]
        return entity


def _numbered(arguments: Mapping[str, str]) -> Iterable[tuple[int, tuple[str, str]]]:
    return enumerate(sorted(arguments.items()))


def _value(identity: str, name: str, value: str) -> Entity:
    return {"@id": identity, "@type": "PropertyValue", "name": _text(name), "value": _text(value)}


def _software(name: str, version: str) -> Entity:
    identity = f"#software-{quote(name)}-{quote(version)}"
    return {"@id": identity, "@type": "SoftwareApplication", "name": _text(name), "softwareVersion": version}


def _profile(identity: str) -> Entity:
    version = identity.rpartition("/")[2]
    return {"@id": identity, "@type": "CreativeWork", "name": _PROFILES[identity], "version": version}


def _person(told: Mapping[str, Any]) -> Entity:
    name = str(told.get("name") or told.get("person") or told.get("email") or "unknown")
    orcid = str(told.get("orcid") or "")
    entity: Entity = {
        "@id": f"https://orcid.org/{orcid}" if orcid else f"#person-{quote(name)}",
        "@type": "Person",
        "name": _text(name),
    }
    wanted = (("email", "email"), ("role", "jobTitle"), ("affiliation", "affiliation"))
    return entity | {there: _text(str(told[here])) for here, there in wanted if told.get(here)}


def _text(text: str) -> str:
    return printable(text)


# ------------------------------------------------------------------------------------------------------- on the disk


def placed(graph: Graph, copies: Mapping[int, Sequence[Replica]]) -> tuple[dict[int, str], dict[int, str]]:
    """For a crate with data: where each file that lies on this host comes to lie in it, and what is to be copied."""
    inside: dict[int, str] = {}
    sources: dict[int, str] = {}
    taken: set[str] = set()
    for file in graph.files:
        addresses = [file.name, *(copy.address for copy in copies.get(file.id, ()))]
        source = next((a for a in addresses if a.startswith("/") and _holds(a, file)), "")
        if not source:
            continue
        folder = "data" if file.kind is not FileKind.PRODUCT else "results"
        plain = re.sub(r"[^\w.+ -]", "_", os.path.basename(source)).lstrip(".") or "file"  # as any archive takes it
        name = f"{folder}/{plain}"
        if name in taken:
            name = f"{folder}/{file.id}/{plain}"
        taken.add(name)
        inside[file.id] = name + ("/" if os.path.isdir(source) else "")
        sources[file.id] = source
    return inside, sources


def _holds(path: str, file: CatalogFile) -> bool:
    try:
        return os.path.isdir(path) or os.stat(path).st_size == file.size
    except OSError:
        return False


def write(output: Path, document: Mapping[str, Any], graph: Graph, files: Mapping[str, str]) -> None:
    """A directory, or a zip where the name ends so; it appears whole. `files`: path in the crate → file here."""
    if output.exists() or output.is_symlink():
        raise ArgumentError(f"There is '{output}' already.", "Name a directory or a .zip that is not there yet.")
    if not output.parent.is_dir():
        raise ArgumentError(f"The directory '{output.parent}' is not there.")
    part = output.with_name(f"{output.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    folder = part / "crate"
    try:
        folder.mkdir(parents=True)
        _fill(folder, document, graph, files)
        made = folder
        if output.suffix == ".zip":
            made = part / "crate.zip"
            _zip(folder, made)
        with effect("file.publish"):
            os.rename(made, output)
    finally:
        shutil.rmtree(part, ignore_errors=True)


def _fill(folder: Path, document: Mapping[str, Any], graph: Graph, files: Mapping[str, str]) -> None:
    for name, source in files.items():
        target = folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if os.path.isdir(source):
            shutil.copytree(source, target)
        else:
            shutil.copyfile(source, target)
    for run in graph.runs:
        text = json.dumps(run.definition, indent=2, ensure_ascii=True, default=str)
        (folder / f"workflow-{run.digest[:12]}.json").write_text(text + "\n", encoding="ascii")
    (folder / METADATA).write_text(json.dumps(document, indent=2, ensure_ascii=True) + "\n", encoding="ascii")


def _zip(folder: Path, target: Path) -> None:
    with zipfile.ZipFile(target, "x", zipfile.ZIP_STORED) as archive:
        for path in sorted(folder.rglob("*")):
            archive.write(path, os.fsencode(path.relative_to(folder)).decode("utf-8", "backslashreplace"))
