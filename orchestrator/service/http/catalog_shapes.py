"""What goes in and comes out of the catalog over HTTP, as OpenAPI shows it.

Names and metadata may hold bytes that are not UTF-8, as lone surrogates, which pydantic's own texts refuse.
"""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, Field, PlainValidator, WithJsonSchema

from orchestrator.service.http.shapes import Strict


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError("a text is wanted here")
    return value


def _metadata(value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise ValueError("an object is wanted here")
    return value


FileId = Annotated[int, Field(ge=1, lt=2**63)]
Text = Annotated[Any, PlainValidator(_text), WithJsonSchema({"type": "string"})]
Metadata = Annotated[Any, PlainValidator(_metadata), WithJsonSchema({"type": "object"})]


class ExperimentRequest(Strict):
    name: str
    title: str = ""
    proposal: str = ""
    metadata: Metadata = Field(default={})
    people: dict[str, str] = Field(default={}, description="Person → owner, member or viewer.")


class ExperimentChange(Strict):
    """What is left out stays; a key of the metadata that is null goes."""

    title: str | None = None
    proposal: str | None = None
    metadata: Metadata = Field(default={})


class PartRequest(Strict):
    role: str = Field(description="owner, member or viewer.")


class ExperimentShape(BaseModel):
    name: str
    title: str
    proposal: str
    metadata: dict[str, Any]
    retention: Any
    created_at: str | None
    people: dict[str, str]


class FileEntry(Strict):
    """A file as it was read at a place."""

    experiment: str
    name: Text = Field(description="Its path where it was first seen.")
    size: int
    checksum: str = Field(description="`algorithm:digest`.")
    kind: str = "raw"
    metadata: Metadata = Field(default={})
    place: str = Field(description="The site where it was read.")
    address: Text = Field(default="", description="Its path there; empty: its name.")


class CopyShape(BaseModel):
    place: str
    address: str
    state: str
    pinned: bool
    verified_at: str | None
    seen: dict[str, Any]


class FileShape(BaseModel):
    id: int
    experiment: str
    name: str
    size: int
    checksum: str
    kind: str
    added_at: str | None
    superseded_at: str | None = Field(description="Since when there is another content under its name.")
    maker: str | None = Field(description="The run that made it.")
    part_of: int | None = Field(description="The file that is the master of its scan.")
    metadata: dict[str, Any]
    copies: list[CopyShape] | None = None


class FilePage(BaseModel):
    files: list[FileShape]
    before: int = Field(description="Give it as `before` for the next page; 0: there is none. A page may be short.")


class MetadataChange(Strict):
    """Keys and their values; null takes one away."""

    metadata: Metadata


class LookRequest(Strict):
    """What was found where a copy should be."""

    place: str
    address: Text
    state: str = Field(description="verified, corrupted or missing.")
    seen: Metadata = Field(default={})


class CollectionRequest(Strict):
    name: str
    description: str = ""


class CollectionShape(BaseModel):
    experiment: str
    name: str
    description: str
    created_at: str | None


class CollectRequest(Strict):
    add: list[FileId] = Field(default=[], max_length=10_000)
    remove: list[FileId] = Field(default=[], max_length=10_000)


class Collected(BaseModel):
    added: int
    removed: int


class SumShape(BaseModel):
    files: int
    bytes: int


class StatsShape(BaseModel):
    files: int
    bytes: int
    first_at: str | None
    last_at: str | None
    smallest: int = Field(description="Bytes of a file.")
    largest: int
    mean: float
    deviation: float = Field(description="Standard deviation of their sizes.")
    kinds: dict[str, SumShape]
