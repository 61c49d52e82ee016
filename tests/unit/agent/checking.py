"""What the tests of the checks share: asking, and files to ask about."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import h5py
import numpy as np

from orchestrator.agent import checks
from orchestrator.model import Expectation, Finding


def ask(base: Path, path: str, *, since: float = 0.0, **wanted: Any) -> tuple[Finding, ...]:
    return checks.check([Expectation(path=path, **wanted)], since=since, base=str(base))


def failed(findings: tuple[Finding, ...]) -> tuple[str, str]:
    """Check and clause of the only failed finding."""
    bad = [f for f in findings if not f.passed]
    assert len(bad) == 1, findings
    return bad[0].check, bad[0].seen


def passes(findings: tuple[Finding, ...]) -> list[str]:
    assert checks.verdict(findings) == ""
    return [f.check for f in findings]


def h5(path: Path, data: Any, name: str = "exchange/data", **kwargs: Any) -> Path:
    with h5py.File(path, "w") as file:
        file.create_dataset(name, data=data, **kwargs)
    return path


def values(*shape: int) -> np.ndarray[Any, Any]:
    return np.arange(np.prod(shape), dtype="f4").reshape(shape)
