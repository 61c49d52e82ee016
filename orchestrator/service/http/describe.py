"""`python -m orchestrator.service.http.describe >docs/openapi.json`: the interface as it is committed."""

from __future__ import annotations

import json
from pathlib import Path

from orchestrator.service.http.app import create
from orchestrator.service.http.context import Context
from orchestrator.settings import Settings
from orchestrator.store.database import Database


def text() -> str:
    with Database("sqlite://") as nothing:
        description = create(Context(Settings(home=Path("/nowhere")), nothing, lambda: None)).openapi()
    return json.dumps(description, indent=1, sort_keys=True) + "\n"


if __name__ == "__main__":
    print(text(), end="")
