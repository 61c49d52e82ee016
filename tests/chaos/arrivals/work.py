"""What is done with scans: a rule file, quick workflows, and the function in them whose product proves what it read."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import xxhash

from kernels import contract
from tests.chaos.arrivals import scans

PATIENCE_S = 4
AXIS = (scans.COLUMNS - 1) / 2
CHANGED = "is not the file that arrived"
AGAIN = {"retries": {"lost worker": {"most": 50, "delay": 0.2, "longest": 2}, "node failure": 50}}
RULES = """
directory = "{directory}"
experiment = "chaos"

[[rule]]
name = "tomo"
match = "tomo/**/*.h5"
workflow = "arrivals-tomo"
arguments = {{ checksum = "{{checksum}}" }}
ready = {{ layout = "dxchange", patience_s = {patience} }}

[[rule]]
name = "scans"
match = "scans/**/*.h5"
workflow = "arrivals-scan"
arguments = {{ checksum = "{{checksum}}" }}
ready = {{ layout = "dxchange", patience_s = {patience} }}

[[rule]]
name = "eiger"
match = "eiger/**/{{scan}}_master.h5"
parts = {{ pattern = "{{scan}}_data_{{index:06}}.h5", links = "/entry/data" }}
workflow = "arrivals-many"
arguments = {{ checksum = "{{checksum}}" }}
ready = {{ patience_s = {patience} }}

[[rule]]
name = "raw"
match = "raw/**/*.raw"
workflow = "arrivals-raw"
arguments = {{ checksum = "{{checksum}}" }}
ready = {{ sentinel = "{{stem}}.done", patience_s = {patience} }}

[[rule]]
name = "marked"
match = "raw/**/*.txt"
workflow = "arrivals-raw"
arguments = {{ checksum = "{{checksum}}" }}
ready = {{ end_marker = "END OF SCAN\\n", patience_s = {patience} }}
"""


def rules(tree: Path) -> str:
    return RULES.format(directory=tree, patience=PATIENCE_S)


def definitions(place: Path) -> list[dict[str, Any]]:
    """Where the scan is one file it is taken in first, so that what is computed is what was checked."""
    work, products = place / "work", place / "products"
    copy, product = f"{work}/$id", f"{products}/$id.json"

    def prove(path: str, kind: str) -> dict[str, Any]:
        given = {"path": path, "kind": kind, "checksum": "$checksum", "product": product, "marks": f"{place}/marks/$id"}
        return {"function": "tests.chaos.arrivals.work:prove", "arguments": given, "outputs": [product], **AGAIN}

    take = {"transfer": {"from": "$filePath", "to": copy}, **AGAIN}
    volume = f"{products}/$id.zarr"
    kernel = {
        "kernel": "tomography.reconstruct",
        "arguments": {"input": copy, "output": volume, "rotationAxis": AXIS},
        "outputs": [volume],
        "expect": {volume: {"opens": "zarr", "finite": 1.0, "nonconstant": True}},
        **AGAIN,
    }
    stages: dict[str, dict[str, Any]] = {
        "tomo": {"01-take": take, "02-prove": prove(copy, "hdf5"), "03-reconstruct": kernel},
        "scan": {"01-take": take, "02-prove": prove(copy, "hdf5")},
        "raw": {"01-take": take, "02-prove": prove(copy, "bytes")},
        "many": {"01-prove": prove("$filePath", "hdf5")},
    }
    return [{"name": f"arrivals-{name}", "owner": "chaos", "stages": each} for name, each in stages.items()]


def warm(place: Path) -> None:
    """What is compiled once for a machine is compiled before anybody is killed."""
    scans.dxchange(place / "warm.h5", scans.frames(0, 6))
    reconstructed(place / "warm.h5", place / "warm.zarr")


def reconstructed(scan: Path, volume: Path) -> Path:
    """As the workflow does it, here."""
    contract.run("tomography.reconstruct", {"input": scan, "output": volume, "rotationAxis": AXIS}, say=None)
    return volume


def prove(path: str, kind: str, checksum: str, product: str, marks: str) -> None:
    """Writes what only this content gives. Raises ValueError when it is another than the one that arrived."""
    with open(marks, "a") as file:
        file.write("x\n")
    content = Path(path).read_bytes()
    found = f"xxh3:{xxhash.xxh3_128_hexdigest(content)}"
    if found != checksum:
        raise ValueError(f"{path!r} {CHANGED}: its checksum is {found}, not {checksum}")
    proof = scans.proof_of_bytes(content) if kind == "bytes" else scans.proof(*scans.read(path))
    beside = f"{product}.part"
    Path(beside).write_text(json.dumps({"checksum": found, "proof": proof}))
    os.replace(beside, product)
