"""What a site profile may say: one strict tree, every field described. `python -m sites.schema` prints its
JSON schema.

A profile holds facts and rules of one place that computes. Unknown keys are refused, so that a typing error
is not a silent default. Importing this module imports pydantic: do it inside functions.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field


class Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


def _absolute(path: str) -> str:
    expanded = os.path.expanduser(path)
    if not os.path.isabs(expanded) or "\0" in expanded:
        raise ValueError("a path here is absolute or begins with ~")
    return os.path.normpath(expanded)


PathText = Annotated[str, AfterValidator(_absolute)]


class Identity(Part):
    name: str = Field(
        pattern=r"^[a-z][a-z0-9_-]{0,62}$",
        description="Short name, used in `site` of a stage; the name of the file without `.toml`.",
    )
    title: str = Field(default="", description="Name shown to people.")
    description: str = Field(default="", description="What the site is good for, in a sentence or two.")
    contact: str = Field(min_length=1, description="Whom to call when the site does not answer: a person or address.")


class Scheduler(Part):
    kind: Literal["local"] = Field(
        default="local", description="How work is started: `local` starts processes on the agent's own host."
    )


class Node(Part):
    cores: int = Field(default=0, ge=0, description="Cores of one node that may be used; 0: all the agent may use.")
    memory_bytes: int = Field(default=0, ge=0, description="Memory of one node that may be used; 0: all of it.")
    gpus: int = Field(default=0, ge=0, description="GPUs of one node that may be used; 0: none.")

    def cores_here(self) -> int:
        """Cores that may be used on this machine; never more than this process is allowed."""
        allowed = len(os.sched_getaffinity(0))
        return min(self.cores or allowed, allowed)

    def memory_bytes_here(self) -> int:
        there = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
        return min(self.memory_bytes or there, there)


class Launcher(Part):
    kind: Literal["none"] = Field(
        default="none",
        description="What starts the ranks of a parallel program: `none` starts one process.",
    )


class Environment(Part):
    python: str = Field(default="", description="Python that runs kernels and functions; empty: the agent's own.")
    worker_init: str = Field(
        default="", description="Shell lines run before the first task of a worker, such as `module load`."
    )


class Paths(Part):
    scratch: PathText = Field(
        default="~/.local/state/beamway/scratch",
        validate_default=True,
        description="Directory for intermediate files, made if missing; `~`: home of the agent's account.",
    )


class Policies(Part):
    allow_shell_text: bool = Field(
        default=False,
        description=(
            "Accept shell text (quotes, `;`, `|`, `&`, `<`, `>`, backticks, `$(`) in arguments and file names"
            " of DM commands. Whoever may submit a run can then run any command as the agent's account."
        ),
    )
    commands: int = Field(
        default=0,
        ge=0,
        description="Commands run side by side at most; 0: four per core, as most of them wait.",
    )


class Limits(Part):
    log_cap_bytes: int = Field(
        default=16_000_000, ge=4096, description="Output kept of one attempt, each of stdout and stderr."
    )


class SiteProfile(Part):
    """One place that computes."""

    identity: Identity = Field(description="Who this site is.")
    scheduler: Scheduler = Field(default_factory=Scheduler, description="How work is started.")
    node: Node = Field(default_factory=Node, description="What one node has.")
    launcher: Launcher = Field(default_factory=Launcher, description="How parallel programs are started.")
    environment: Environment = Field(default_factory=Environment, description="What a task finds when it starts.")
    paths: Paths = Field(default_factory=Paths, description="Directories.")
    policies: Policies = Field(default_factory=Policies, description="What is allowed.")
    limits: Limits = Field(default_factory=Limits, description="How much is kept.")

    @property
    def name(self) -> str:
        return self.identity.name

    def commands_here(self) -> int:
        """Commands that may run side by side on this machine."""
        return self.policies.commands or 4 * self.node.cores_here()


SCHEMA_FILE = Path(__file__).with_name("schema.json")


def json_schema() -> str:
    schema = SiteProfile.model_json_schema()
    return json.dumps({"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}, indent=2) + "\n"


if __name__ == "__main__":
    print(json_schema(), end="")
