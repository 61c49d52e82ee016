"""What the choice of a site is made from: the need of a stage, and what is known of each site. Plain records.

Moments are epoch seconds (UTC). A limit of 0 means that none is known.
"""

from __future__ import annotations

from msgspec import Struct

from orchestrator.model import Resources


class Need(Struct, frozen=True):
    """What one stage asks for."""

    resources: Resources = Resources()
    workflow: str = ""
    stage: str = ""
    input_bytes: int = 0
    paths: tuple[str, ...] = ()  # the input files, as the service names them
    data_at: str = "local"  # the site whose doors the data come from
    experiment: str = ""
    export_controlled: bool = False
    site: str = "auto"  # or the name of one: only that one is looked at
    queue: str = ""  # a name or a use; empty: any but those for debugging
    reservation: str = ""  # a name; empty or "auto": any that fits; "none": none


class NodeFacts(Struct, frozen=True):
    cores: int = 0
    memory_bytes: int = 0
    gpus: int = 0  # 0: it has none


class QueueFacts(Struct, frozen=True):
    name: str
    use: str = "regular"
    max_nodes: int = 0
    min_nodes: int = 1
    max_walltime_s: float = 0.0
    default_walltime_s: float = 3600.0
    cost: float = 1.0
    node: NodeFacts | None = None  # None: the site's
    open: bool = True  # takes and starts jobs
    nodes: int = 0  # all of them
    idle_nodes: int | None = None  # None: not known
    pending: int = 0  # jobs that wait


class ReservationFacts(Struct, frozen=True):
    name: str
    queue: str = ""
    from_at: float = 0.0  # 0: open already
    until_at: float = 0.0  # 0: no end known
    nodes: int = 1
    free_nodes: int | None = None  # None: not known, so all
    experiments: tuple[str, ...] = ()  # patterns with `*`; empty: all


class Closed(Struct, frozen=True):
    """A time in which nothing is started there."""

    from_at: float
    until_at: float
    reason: str = "maintenance"


class SiteFacts(Struct, frozen=True):
    """One site as its profile, its scheduler and its agent describe it."""

    name: str
    queues: tuple[QueueFacts, ...] = ()  # none: work is started without one
    reservations: tuple[ReservationFacts, ...] = ()
    maintenance: tuple[Closed, ...] = ()
    node: NodeFacts = NodeFacts()
    node_count: int = 0
    scheduler: bool = False  # jobs wait in a batch queue; otherwise processes start at once
    starts_in_s: dict[str, float | None] = {}  # queue -> the scheduler's own estimate for such a job
    starts_by: str = "scheduler's estimate"  # where it is from, such as "squeue --start"
    measured_at: float = 0.0  # when estimate, idle nodes and waiting jobs were asked for; 0: now
    backlog_s: float = 0.0  # work of ours that waits there before this
    export_control: bool = False
    experiments: tuple[str, ...] = ("*",)
    doors: tuple[float, ...] = ()  # expected bytes/s of each
    shared: tuple[str, ...] = ()  # folders whose files it sees without a transfer
    answers: bool = True
    silent_since: float = 0.0
    shut: str = ""  # why nothing is sent there, in words
    contact: str = ""


def queue_of(site: SiteFacts, word: str) -> QueueFacts | None:
    """The queue of that name, else the first of that use."""
    by_name = (q for q in site.queues if q.name == word)
    by_use = (q for q in site.queues if q.use == word)
    return next(by_name, None) or next(by_use, None)


def walltime_s(need: Need, queue: QueueFacts | None) -> float:
    """How long the job will ask for."""
    return need.resources.walltime_s or (queue.default_walltime_s if queue is not None else 0.0)
