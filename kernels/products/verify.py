"""`products.verify`: is every product in a folder the one that was made, byte for byte?"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from kernels import manifest
from kernels.errors import Exit, KernelError
from kernels.job import Job

_ENDING = ".manifest.json"


def verify(job: Job, *, input: str) -> None:
    """Read each product that a manifest in the folder names, and compare size and checksum.

    A manifest tells where its products were made; they are looked for beside it, by name. So this holds for a copy at
    another place, and covers the whole way from the kernel that made them. The metrics are products and product_bytes.

    Raises
    ------
    KernelError
        Exit 3 when a product is missing or another; 65 when a manifest cannot be read; 66 when there is none.
    """
    found = sorted(Path(input).glob(f"*{_ENDING}"))
    if not found:
        raise KernelError(f"There is no manifest in {input!r}, so nothing there can be verified.", Exit.NO_INPUT)
    wanted = {output["path"].name: output for each in found for output in _outputs(each)}
    total = 0
    for number, (name, output) in enumerate(sorted(wanted.items())):
        job.progress(number / len(wanted), "verify", name)
        total += _compared(Path(input, name), output)
    job.metric("products", len(wanted))
    job.metric("product_bytes", total)


def _outputs(path: Path) -> list[dict[str, Any]]:
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        return [
            {"path": Path(o["path"]), "bytes": int(o["bytes"]), "checksum": str(o["checksum"])}
            for o in record["outputs"]
        ]
    except (ValueError, LookupError, TypeError) as error:
        raise KernelError(f"{str(path)!r} is no manifest of a kernel.", Exit.BAD_INPUT) from error


def _compared(path: Path, made: dict[str, Any]) -> int:
    if not path.exists():
        raise KernelError(f"The product {str(path)!r} is missing.", Exit.BAD_OUTPUT)
    digest, size = manifest.checksum(path)
    if (digest, size) != (made["checksum"], made["bytes"]):
        sentence = f"The product {str(path)!r} has {size} bytes and {digest}; as it was made: {made['bytes']} bytes"
        raise KernelError(f"{sentence} and {made['checksum']}.", Exit.BAD_OUTPUT)
    return size
