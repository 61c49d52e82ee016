"""What the specification of RO-Crate 1.1 and the profiles of Workflow Run Crate demand, as far as it can be looked at
without their servers."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any
from urllib.parse import unquote_to_bytes, urlsplit

DATES = ("datePublished", "dateModified", "startTime", "endTime")


def wrong(document: dict[str, Any], folder: Path | None = None) -> list[str]:
    """What is against the rules. `folder`: where the crate lies."""
    return list(_wrong(document, folder))


def _wrong(document: dict[str, Any], folder: Path | None) -> Iterator[str]:
    if document["@context"][0] != "https://w3id.org/ro/crate/1.1/context":
        yield "its context is not that of RO-Crate 1.1"
    entities: dict[str, dict[str, Any]] = {}
    for entity in document["@graph"]:
        if not entity.get("@id") or not entity.get("@type"):
            yield f"an entity without @id or @type: {entity}"
        if entity["@id"] in entities:
            yield f"{entity['@id']} is there twice"
        entities[entity["@id"]] = entity
    descriptor = entities.get("ro-crate-metadata.json", {})
    if descriptor.get("@type") != "CreativeWork" or descriptor.get("about") != {"@id": "./"}:
        yield "the descriptor does not say what it is about"
    if "https://w3id.org/ro/crate/1.1" not in _ids(descriptor.get("conformsTo")):
        yield "the descriptor does not conform to 1.1"
    root = entities.get("./", {})
    yield from (f"the root has no {name}" for name in ("name", "description", "datePublished") if not root.get(name))
    if root.get("@type") != "Dataset" or not isinstance(root.get("license"), dict):
        yield "the root is no Dataset with a license"
    known = set(entities) | set(_ids(descriptor.get("conformsTo")))
    for entity in entities.values():
        yield from (f"{entity['@id']} refers to {other}, which is not there" for other in _refs(entity) - known)
        for name in DATES:
            if name in entity and datetime.fromisoformat(entity[name]).tzinfo is None:
                yield f"{entity['@id']}: {name} has no time zone"
    yield from _data(entities, root, folder)
    yield from _runs(entities, root)


def _data(entities: dict[str, dict[str, Any]], root: dict[str, Any], folder: Path | None) -> Iterator[str]:
    parts = set(_ids(root.get("hasPart")))
    for name, entity in entities.items():
        kinds = _list(entity["@type"])
        if name == "./" or not {"File", "Dataset"} & set(kinds):
            continue
        if name not in parts:
            yield f"{name} is not part of the root"
        if urlsplit(name).scheme:
            continue
        path = unquote_to_bytes(name).decode("utf-8", "surrogateescape")
        if name.startswith(("/", "#", ".")) or ".." in path.split("/"):
            yield f"{name} is no path within the crate"
        if ("Dataset" in kinds) is not name.endswith("/"):
            yield f"{name}: a directory ends with a slash, and a file does not"
        if folder is not None and not (folder / path).exists():
            yield f"{name} is not in the crate"


def _runs(entities: dict[str, dict[str, Any]], root: dict[str, Any]) -> Iterator[str]:
    actions = [entity for entity in entities.values() if entity["@type"] == "CreateAction"]
    profiles = [name for name in _ids(root.get("conformsTo")) if name.startswith("https://w3id.org/ro/wfrun/process/")]
    if actions and not (profiles and entities[profiles[0]]["@type"] == "CreativeWork"):
        yield "the root does not name the profile"
    for action in actions:
        if action["@id"] not in _ids(root.get("mentions")):
            yield f"{action['@id']} is not mentioned"
        for tool in _ids(action.get("instrument")) or ["(none)"]:
            if "SoftwareSourceCode" not in _list(entities.get(tool, {}).get("@type", [])):
                yield f"{action['@id']} has no instrument that is software"
        yield from (f"{action['@id']} has no {name}" for name in ("name", "endTime", "agent") if not action.get(name))
    if any(name.startswith("https://w3id.org/ro/wfrun/workflow/") for name in _ids(root.get("conformsTo"))):
        [main] = _ids(root.get("mainEntity"))
        if "ComputationalWorkflow" not in entities[main]["@type"]:
            yield "the main entity is no workflow"


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [] if value is None else [value]


def _ids(value: Any) -> list[str]:
    return [each["@id"] for each in _list(value)]


def _refs(entity: dict[str, Any]) -> set[str]:
    values = (each for value in entity.values() for each in _list(value))
    return {each["@id"] for each in values if isinstance(each, dict)}
