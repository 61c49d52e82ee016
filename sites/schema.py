"""What a site profile may say: one strict tree, every field described. `python -m sites.schema` prints its
JSON schema.

A profile holds facts and rules of one place that computes. Unknown keys are refused, so that a typing error
is not a silent default. Importing this module imports pydantic: do it inside functions.
"""

from __future__ import annotations

import json
import os
from datetime import date, datetime
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator


class Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


def _absolute(path: str) -> str:
    expanded = os.path.expanduser(path)
    if not os.path.isabs(expanded) or "\0" in expanded:
        raise ValueError("a path here is absolute or begins with ~")
    return os.path.normpath(expanded)


def _absolute_or_empty(path: str) -> str:
    return _absolute(path) if path else ""


def _moment(value: datetime) -> datetime:
    if value.tzinfo is None:
        raise ValueError("a moment here names its time zone, as in 2026-11-24T06:00:00-08:00")
    return value


PathText = Annotated[str, AfterValidator(_absolute)]
PathOrNone = Annotated[str, AfterValidator(_absolute_or_empty)]
Moment = Annotated[datetime, AfterValidator(_moment)]
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._@+-]{0,127}$")]

SchedulerKind = Literal["local", "slurm", "pbs", "sge", "globus-compute", "superfacility-api"]
Use = Literal["realtime", "demand", "regular", "debug"]


class Identity(Part):
    name: str = Field(
        pattern=r"^[a-z][a-z0-9_-]{0,62}$",
        description="Short name, used in `site` of a stage; the name of the file without `.toml`.",
    )
    title: str = Field(default="", description="Name shown to people.")
    description: str = Field(default="", description="What the site is good for, in a sentence or two.")
    owner: str = Field(default="", description="Organisation that runs the site.")
    contact: str = Field(min_length=1, description="Whom to call when the site does not answer: a person or address.")
    documentation: str = Field(default="", description="Web address of the site's own documentation.")
    checked: date | None = Field(default=None, description="Day on which these facts were last compared with it.")


class Maintenance(Part):
    """A time in which nothing is started there."""

    from_: Moment = Field(alias="from", description="When it begins, with time zone.")
    until: Moment = Field(description="When it is over, with time zone.")
    reason: str = Field(default="maintenance", description="What people are told.")


class Scheduler(Part):
    kind: SchedulerKind = Field(
        default="local",
        description="How work is started: `local` starts processes on the agent's own host, the others submit jobs.",
    )
    environment: dict[str, str] = Field(
        default={}, description="Environment of the scheduler's commands, such as SLURM_CONF or SGE_ROOT."
    )
    bin: PathOrNone = Field(default="", description="Directory of the scheduler's commands; empty: on the PATH.")
    options: list[str] = Field(
        default=[], description="Further words of every submit command, such as `-l` and `filesystems=home:eagle`."
    )
    command_timeout_s: float = Field(
        default=20.0, gt=0, description="A command of the scheduler that takes longer is given up."
    )
    poll_s: float = Field(default=5.0, ge=1.0, description="Seconds between looks at all our jobs, one call a look.")
    down_after_s: float = Field(
        default=120.0, gt=0, description="No answer for so long means that the site is down: what waits goes on hold."
    )
    mpi_environment: str = Field(default="mpi", description="SGE: parallel environment for several nodes.")
    smp_environment: str = Field(default="smp", description="SGE: parallel environment for one node.")


class Accelerator(Part):
    """The devices of a node."""

    kind: Literal["cuda", "rocm", "level-zero"] = Field(description="Programming interface of the devices.")
    model: str = Field(default="", description="Such as `A100 40GB`.")
    memory_bytes: int = Field(default=0, ge=0, description="Of one device.")

    def variable(self) -> str:
        """The environment variable that says which devices a process may see."""
        return {"cuda": "CUDA_VISIBLE_DEVICES", "rocm": "ROCR_VISIBLE_DEVICES", "level-zero": "ZE_AFFINITY_MASK"}[
            self.kind
        ]


class Node(Part):
    cores: int = Field(default=0, ge=0, description="Cores of one node that may be used; 0: all the agent may use.")
    memory_bytes: int = Field(default=0, ge=0, description="Memory of one node that may be used; 0: all of it.")
    gpus: int = Field(default=0, ge=0, description="GPUs of one node that may be used; 0: none.")
    accelerator: Accelerator | None = Field(default=None, description="What its GPUs are.")
    count: int = Field(default=1, ge=1, description="How many such nodes there are.")

    @model_validator(mode="after")
    def _whole(self) -> Self:
        if self.gpus and self.accelerator is None:
            raise ValueError("a node with gpus also says what they are, in its table `accelerator`")
        return self

    def cores_here(self) -> int:
        """Cores that may be used on this machine; never more than this process is allowed."""
        allowed = len(os.sched_getaffinity(0))
        return min(self.cores or allowed, allowed)

    def memory_bytes_here(self) -> int:
        there = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
        return min(self.memory_bytes or there, there)


class Queue(Part):
    name: Name = Field(description="Partition (Slurm) or queue; with Slurm's QOS in `qos` where that is what differs.")
    named: bool = Field(
        default=True,
        description="The scheduler knows this name. `false`: it is only ours, and `qos` and `options` say where.",
    )
    use: Use = Field(default="regular", description="What it is for; stages and fallbacks may ask for a use.")
    qos: str = Field(default="", description="Slurm QOS that goes with it.")
    max_nodes: int = Field(default=0, ge=0, description="Nodes of one job at most; 0: no limit known.")
    min_nodes: int = Field(default=1, ge=1, description="Nodes of one job at least.")
    max_walltime_s: float = Field(default=0.0, ge=0, description="Longest job; 0: no limit known.")
    min_walltime_s: float = Field(default=0.0, ge=0, description="Shortest job that is taken.")
    default_walltime_s: float = Field(default=3600.0, gt=0, description="For stages that state none.")
    max_jobs: int = Field(default=0, ge=0, description="Jobs of one user at a time; 0: no limit known.")
    cost: float = Field(default=1.0, ge=0, description="Charge factor: what a node hour costs, in units of the site.")
    preemptible: bool = Field(default=False, description="Its jobs may be ended to make room for others.")
    options: list[str] = Field(default=[], description="Further words of the submit command for this queue.")
    node: Node | None = Field(default=None, description="Its nodes, where they differ from the site's.")

    @property
    def partition(self) -> str:
        """What the submit command is told as partition or queue; empty: nothing, the scheduler finds out."""
        return self.name if self.named else ""


class Accounts(Part):
    default: str = Field(default="", description="Charged when a stage names none; empty: the scheduler's default.")
    allowed: list[str] = Field(default=[], description="Those that may be named; empty: any.")


class Reservation(Part):
    name: Name = Field(description="Name of the reservation; with PBS the queue that stands for it.")
    queue: str = Field(default="", description="Queue that goes with it; empty: the scheduler knows.")
    account: str = Field(default="", description="Account that goes with it.")
    from_: Moment | None = Field(default=None, alias="from", description="When it opens; unset: ask the scheduler.")
    until: Moment | None = Field(default=None, description="When it closes; unset: ask the scheduler.")
    nodes: int = Field(default=1, ge=1, description="Nodes it holds.")
    experiments: list[str] = Field(default=[], description="Experiments that may use it; empty: all.")
    warm: bool = Field(default=True, description="Start workers as it opens, before a run asks for them.")


class Environment(Part):
    python: str = Field(default="", description="Python that runs kernels and functions; empty: the agent's own.")
    modules: list[str] = Field(default=[], description="Modules loaded first, in this order.")
    container: list[str] = Field(
        default=[],
        description="Words put before every program, such as `shifter --image=…` or `apptainer exec IMAGE`.",
    )
    worker_init: str = Field(
        default="", description="Shell lines run before the first task of a worker, such as `source env/bin/activate`."
    )
    variables: dict[str, str] = Field(default={}, description="Environment variables set for every task.")


class Launcher(Part):
    kind: Literal["none", "srun", "mpiexec", "pals"] = Field(
        default="none",
        description="What starts the ranks of a parallel program: `none` has one process only, `srun` is Slurm's, "
        "`mpiexec` is Open MPI's or Hydra's, `pals` is HPE's on PBS machines.",
    )
    command: str = Field(default="", description="Program to call instead of the launcher's usual name.")
    options: list[str] = Field(default=[], description="Further words, such as `--overlap`.")


class Execution(Part):
    mode: Literal["pilot", "batch"] = Field(
        default="pilot",
        description="`pilot`: warm workers inside a job that stays, milliseconds per task. `batch`: a job per task.",
    )
    blocks: int = Field(default=1, ge=1, description="Pilot jobs of one shape at a time, at most.")
    block_nodes: int = Field(default=1, ge=1, description="Nodes of one pilot job.")
    block_walltime_s: float = Field(default=3600.0, gt=0, description="Length of a pilot job.")
    idle_s: float = Field(default=300.0, ge=0, description="A pilot job without work for so long is given back.")
    lease_s: float = Field(
        default=300.0, ge=5, description="Pilot jobs wait so long for an agent that has died, then they end."
    )
    silent_s: float = Field(
        default=300.0,
        ge=30,
        description="A job that runs, says the scheduler, and gives no sign of life for so long is lost.",
    )
    exclusive: bool = Field(default=False, description="Ask for whole nodes.")
    address: str = Field(
        default="", description="Address of the agent's host as compute nodes reach it; empty: found out."
    )


class PathPair(Part):
    here: PathText = Field(description="Folder as the service and the users name it.")
    there: PathText = Field(description="The same folder as this site names it.")


class Paths(Part):
    scratch: PathText = Field(
        default="~/.local/state/beamway/scratch",
        validate_default=True,
        description="Directory for intermediate files, made if missing; `~`: home of the agent's account.",
    )
    project: PathOrNone = Field(default="", description="Directory for results that stay.")
    map: list[PathPair] = Field(default=[], description="The same folders under other names there.")
    shared: list[PathText] = Field(
        default=["/"],
        validate_default=True,
        description="Folders whose files the site sees without a transfer; `/`: all, as on the service's own host.",
    )


class Door(Part):
    """A way in and out for data."""

    kind: Literal["local", "gridftp", "globus", "rsync"] = Field(description="Protocol.")
    endpoint: str = Field(
        default="",
        description="UUID of the collection (Globus), host:port (GridFTP; ftp://host:port for an anonymous server) or "
        "host (rsync).",
    )
    root: PathText = Field(default="/", description="Folder of the site at which the endpoint's own `/` stands.")
    bytes_per_s: float = Field(default=1e8, gt=0, description="Expected rate, until transfers have been measured.")


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
    create_reservations: bool = Field(default=False, description="Beamway may create and extend reservations here.")
    fallback: list[str] = Field(
        default=[],
        description="What to do in turn when a reservation is gone or full: `wait 10 min`, `queue realtime` (a use or "
        "a name), `site NAME`. Empty: the regular queue, at once.",
    )
    retention_days: int = Field(default=0, ge=0, description="Files in scratch may be purged after so long; 0: never.")
    export_control: bool = Field(default=False, description="Export-controlled data may be sent here.")
    experiments: list[str] = Field(
        default=["*"], description="Experiments whose data may be processed here, as patterns with `*`."
    )


class Limits(Part):
    log_cap_bytes: int = Field(
        default=16_000_000, ge=4096, description="Output kept of one attempt, each of stdout and stderr."
    )


class SiteProfile(Part):
    """One place that computes."""

    identity: Identity = Field(description="Who this site is.")
    maintenance: list[Maintenance] = Field(default=[], description="When nothing is started there.")
    scheduler: Scheduler = Field(default_factory=Scheduler, description="How work is started.")
    queues: list[Queue] = Field(default=[], description="Where jobs go; the first of a use is the one taken for it.")
    accounts: Accounts = Field(default_factory=Accounts, description="Who pays.")
    node: Node = Field(default_factory=Node, description="What one node has.")
    reservations: list[Reservation] = Field(default=[], description="Time set aside for us.")
    environment: Environment = Field(default_factory=Environment, description="What a task finds when it starts.")
    launcher: Launcher = Field(default_factory=Launcher, description="How parallel programs are started.")
    execution: Execution = Field(default_factory=Execution, description="Warm workers or a job per task.")
    paths: Paths = Field(default_factory=Paths, description="Directories.")
    doors: list[Door] = Field(default=[], description="How data get in and out.")
    policies: Policies = Field(default_factory=Policies, description="What is allowed.")
    limits: Limits = Field(default_factory=Limits, description="How much is kept.")

    @property
    def name(self) -> str:
        return self.identity.name

    @property
    def local(self) -> bool:
        """Does work run on the agent's own host, without a scheduler?"""
        return self.scheduler.kind == "local"

    def commands_here(self) -> int:
        """Commands that may run side by side on this machine."""
        return self.policies.commands or 4 * self.node.cores_here()

    def queue(self, name_or_use: str = "") -> Queue | None:
        """The queue of that name, else the first of that use; without a word the first regular one, else the first."""
        for queue in self.queues:
            if queue.name == name_or_use:
                return queue
        wanted = name_or_use or "regular"
        for queue in self.queues:
            if queue.use == wanted:
                return queue
        return self.queues[0] if self.queues and not name_or_use else None

    def node_of(self, queue: Queue | None) -> Node:
        return queue.node if queue is not None and queue.node is not None else self.node


SCHEMA_FILE = Path(__file__).with_name("schema.json")


def json_schema() -> str:
    schema = SiteProfile.model_json_schema(by_alias=True)
    return json.dumps({"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}, indent=2) + "\n"


if __name__ == "__main__":
    print(json_schema(), end="")
