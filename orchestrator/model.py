"""The words of the product as immutable records: definition, plan, run, stage, task, order, outcome.

A *definition* is what a person wrote. A *plan* is what it means for given arguments; a run is pinned to its plan. A
*run* is one execution of a plan, made of *stages*, each of *tasks* (one command or call on one file or on the whole
set), each tried in *attempts*. An *order* is one attempt as the site agent gets it; an *outcome* is what came of it.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Any

from immutables import Map
from msgspec import Struct, field

# --------------------------------------------------------------------------------------------------------- enums


class StageKind(StrEnum):
    COMMAND = "command"  # one shell command line, DM's only kind
    KERNEL = "kernel"  # a registered kernel and its arguments; never through a shell
    TRANSFER = "transfer"  # copy files, verified, under their final name only when whole
    FUNCTION = "function"  # an importable Python function, `package.module:name`
    WORKFLOW = "workflow"  # a child run per item


class RunStatus(StrEnum):
    PENDING = "pending"  # accepted and on disk; no stage has begun
    RUNNING = "running"  # at least one stage has begun
    HELD = "held"  # each task that could go on is on hold; it resumes by itself
    DONE = "done"  # every stage ended and every declared output passed its checks
    FAILED = "failed"  # a stage failed; `error` says why
    ABORTING = "aborting"  # cancel was asked for; processes are being ended
    ABORTED = "aborted"  # cancel was carried out; no process of the run is left


class StageStatus(StrEnum):
    PENDING = "pending"  # waits for the stages before it
    OPENING = "opening"  # its turn: runIf, files and variables are being worked out
    RUNNING = "running"  # at least one task is not ended, or the next repetition is due later
    DONE = "done"  # every task ended well and its checks passed
    FAILED = "failed"  # a task failed for good, or the repetitions ran out
    SKIPPED = "skipped"  # runIf was false
    ABORTED = "aborted"  # the run was cancelled, or another stage failed first


class TaskStatus(StrEnum):
    PENDING = "pending"  # on disk, with an agent or on its way there
    RUNNING = "running"  # its process or call was seen to start
    BACKOFF = "backoff"  # a failed attempt will be repeated at `due_at`
    ON_HOLD = "held"  # nobody's fault here: a person or the site has to do something; `hold` says what
    DONE = "done"
    FAILED = "failed"
    TIMEOUT = "timeout"  # ended by us because its `timeout` was over
    ABORTED = "aborted"


RUN_GOING = frozenset({RunStatus.RUNNING, RunStatus.HELD})
RUN_ENDED = frozenset({RunStatus.DONE, RunStatus.FAILED, RunStatus.ABORTED})
STAGE_ENDED = frozenset({StageStatus.DONE, StageStatus.FAILED, StageStatus.SKIPPED, StageStatus.ABORTED})
STAGE_PASSED = frozenset({StageStatus.DONE, StageStatus.SKIPPED})
TASK_ENDED = frozenset({TaskStatus.DONE, TaskStatus.FAILED, TaskStatus.TIMEOUT, TaskStatus.ABORTED})


class FailureClass(StrEnum):
    """Why an attempt failed; each class has its own retry budget."""

    USER = "user error"  # non-zero exit, exception, bad argument: repeating gives the same
    BAD_OUTPUT = "bad output"  # exit 0, but an output is missing, empty, stale, of wrong shape or not finite
    BAD_INPUT = "bad input"  # an input file is missing, truncated or not what it should be
    TRANSIENT = "transient"  # exit code 75, or a code the definition lists
    LOST = "lost worker"  # the worker or agent died under it: not the user's fault, not counted against them
    NODE = "node failure"  # a node under its job died
    PREEMPTED = "preempted"  # its job was ended to make room for another
    WALLTIME = (
        "walltime"  # its job was over before the work was; repeated once with more time, within the queue's limit
    )
    MEMORY = "out of memory"  # its job used more memory than it had
    RESERVATION = "reservation"  # the reservation it counted on is gone or full; the site's policy says what is next
    SITE = "site"  # the scheduler refuses such jobs, or no worker comes up there
    DOWN = (
        "site down"  # its scheduler, or what moves its files, is of no use now: the task is on hold, no budget is used
    )
    AUTHENTICATION = "authentication"  # who we are is not accepted there any more: the task is on hold as well
    OUTSIDE = "cancelled outside"  # somebody ended its job with the scheduler's own command
    TIMEOUT = "timeout"  # ran longer than its `timeout`
    CANCELLED = "cancelled"


HOLDING = frozenset({FailureClass.DOWN, FailureClass.AUTHENTICATION})  # these put a task on hold and use no budget


# ---------------------------------------------------------------------------------------------------- definition


class ArgumentSpec(Struct, frozen=True, forbid_unknown_fields=True):
    """One declared argument of a workflow: validation, `--help`, REST schema and form are all made from this."""

    required: bool = False
    type: str = "string"  # string | integer | number | boolean | path
    choices: tuple[str, ...] = ()
    default: str | None = None
    description: str = ""


class Definition(Struct, frozen=True):
    """A loaded workflow: the dict as written, plus where each stage and key stood (`lines`) for error messages."""

    name: str
    owner: str
    raw: dict[str, Any]  # exactly as written, unknown keys included
    stages: dict[str, dict[str, Any]]  # sorted as strings, DM's order
    arguments: dict[str, ArgumentSpec] | None = None  # None: not declared, anything goes (DM)
    description: str = ""
    source: str = "<dict>"
    lines: dict[tuple[str, str], int] = {}  # ("" or stage, "" or key) -> line


# ---------------------------------------------------------------------------------------------------------- plan


class Repeat(Struct, frozen=True):
    period_s: float
    until: str
    most: int


class Resources(Struct, frozen=True):
    nodes: int = 1
    ranks_per_node: int = 1
    gpus_per_rank: int = 0
    cores_per_rank: int = 1
    memory_bytes: int = 0  # 0: not stated
    walltime_s: float = 0.0  # 0: the queue's default
    longer: float = 1.0  # this attempt gets so many times the walltime: an earlier one had too little
    larger: float = 1.0  # the same for the memory


class Placing(Struct, frozen=True):
    """Where and how a task runs; an empty field leaves it to the site's profile."""

    site: str = ""  # a site's name, `auto`, or empty for the default
    queue: str = ""  # a queue's name or a use (`realtime`, `demand`, `regular`, `debug`)
    account: str = ""
    reservation: str = ""
    mode: str = ""  # `pilot` or `batch`
    priority: str = ""  # of a whole run: `live`, `normal` (also when empty) or `backfill`


class RetryRule(Struct, frozen=True):
    """How often an attempt that failed in `failure` is repeated: after `delay_s · factor**n` seconds, capped."""

    failure: FailureClass
    most: int
    delay_s: float = 1.0
    factor: float = 2.0
    delay_max_s: float = 300.0
    exit_codes: tuple[int, ...] = ()  # these codes are of this class; TRANSIENT: beside 75


class FileSpec(Struct, frozen=True):
    """DM's input specification, of a run or of one stage; values may hold `$names`."""

    path: str = ""
    paths: tuple[str, ...] = ()
    pattern: str = ""
    query: dict[str, Any] = {}


class Expectation(Struct, frozen=True):
    """What one declared output must be before its stage is done. `path` may hold `$names` and ends resolved."""

    path: str
    opens: str = ""  # "hdf5" | "zarr" | "png" | "npy" | "json" | "tiff": the file opens as this
    dataset: str = ""  # within HDF5 or Zarr; for `shape`, `dtype`, `finite`
    shape: tuple[int | None, ...] | None = None  # None: any length on that axis
    dtype: str = ""
    finite: float | None = None  # least fraction of finite values
    min_bytes: int = 1
    newer: bool = True  # changed since the attempt started
    nonconstant: bool = False  # holds at least two different values


class StagePlan(Struct, frozen=True):
    """One stage, normalised: what runs, after what, where, how it is repeated, tried again and checked.

    Strings may hold `$names`; they are bound when the stage opens, because captures of earlier stages count.
    """

    name: str
    kind: StageKind
    after: tuple[str, ...] = ()
    because: tuple[str, ...] = ()  # one reason per entry of `after`, for `explain`
    command: str = ""  # COMMAND
    call: str = ""  # KERNEL: registered name; FUNCTION: module:name; WORKFLOW: name or path
    arguments: dict[str, Any] = {}  # KERNEL, FUNCTION, WORKFLOW: by name; TRANSFER: from, to, checks
    working_dir: str = "."
    data_dir: str = "$workingDir"
    files: FileSpec | None = None
    captures: tuple[str, ...] = ()
    run_if: str = ""
    repeat: Repeat | None = None
    per_file: bool = False  # names `$filePath`: one task per file
    parallel: bool = True  # parallelExec
    placing: Placing = Placing()
    user_account: str = ""
    resources: Resources = Resources()
    retries: tuple[RetryRule, ...] = ()
    timeout_s: float = 0.0  # 0: none
    expect: tuple[Expectation, ...] = ()
    inputs: tuple[str, ...] = ()
    outputs: tuple[str, ...] = ()


class Plan(Struct, frozen=True):
    """Definition + arguments, compiled: immutable, printable, stored with the run."""

    workflow: str
    owner: str
    stages: tuple[StagePlan, ...]  # a topological order
    variables: dict[str, str] = {}  # the arguments, defaults filled in, and the automatic ones known at submission
    supplied: tuple[
        str, ...
    ] = ()  # names among `variables` that a user or a file name supplied (checked for shell text)
    files: FileSpec = FileSpec()
    user_account: str = ""
    definition: dict[str, Any] = {}  # as written, for the DM record
    directory: str = ""  # directory the run was submitted from: relative paths are resolved against it
    children: dict[str, Plan] = {}  # plans of WORKFLOW stages' targets, by `call`, compiled with the parent
    placing: Placing = Placing()  # asked for with the run: holds for what the stages leave open, and for child runs


# ----------------------------------------------------------------------------------------------------------- run


class Finding(Struct, frozen=True):
    """One check of one output: what was asked, what was seen."""

    path: str
    check: str
    passed: bool
    seen: str = ""


class Product(Struct, frozen=True):
    """An output that passed its checks."""

    path: str
    bytes: int = 0
    description: str = ""
    checksum: str = ""  # `algorithm:digest`; empty: nobody has read it again


class Content(Struct, frozen=True):
    """What an attempt has read, as it was when the attempt ended."""

    path: str  # or an address
    bytes: int = 0
    checksum: str = ""
    modified_at: float = 0.0  # 0: not known


class Outcome(Struct, frozen=True):
    """What came of one attempt. `reason` is one sentence, empty on success. Times are epoch seconds (UTC)."""

    failure: FailureClass | None = None  # None: success
    reason: str = ""
    exit_status: int | None = None
    job: str = ""  # id of the batch job that carried it, where there was one
    unsure: bool = False  # DOWN: it may have begun all the same, so the same attempt is looked for before it is begun
    link: str = ""  # AUTHENTICATION, DOWN: where a person can mend it, when the words of `reason` do not say
    elsewhere: str = ""  # SITE, RESERVATION: the site that the profile's policy names for the next attempt
    captures: dict[str, str] = {}
    findings: tuple[Finding, ...] = ()
    products: tuple[Product, ...] = ()
    inputs: tuple[Content, ...] = ()
    software: dict[str, str] = {}  # name → version of what did it, as far as it says
    metrics: dict[str, Any] = {}  # what the kernel measured about itself (axis found, error, …)
    warnings: tuple[str, ...] = ()  # what whoever uses its products has to know, `CODE: SENTENCE` each
    started_at: float = 0.0
    ended_at: float = 0.0
    transfer_s: float = 0.0
    moved_bytes: int = 0  # by a transfer, without what was there already
    checks_s: float = 0.0
    queue_s: float = 0.0  # from the order to the start of the work
    stdout: str = ""  # path of the kept output, or empty when there was none
    stderr: str = ""


class Hold(Struct, frozen=True):
    """Why a task is on hold, and since when, however often it has been tried in between."""

    cause: FailureClass
    reason: str
    since: float
    probes: int = 0  # attempts made while it is on hold
    link: str = ""  # where a person can mend it


class Task(Struct, frozen=True):
    """One command or call on one file (`item`) or on the whole set. `number` is the job-wide counter of DM."""

    number: int
    stage: str
    item: str | None = None
    repetition: int = 1
    status: TaskStatus = TaskStatus.PENDING
    attempt: int = 1
    command: str = ""  # after substitution, as the record shows it
    call: str = ""
    arguments: dict[str, Any] = {}
    working_dir: str = "."
    expect: tuple[Expectation, ...] = ()
    submitted_at: float = 0.0
    started_at: float = 0.0
    ended_at: float = 0.0
    site: str = ""  # that has this attempt
    due_at: float = 0.0  # BACKOFF, ON_HOLD: next attempt; PENDING of a later repetition: its start
    held: bool = False  # waits for an earlier task of its stage (parallelExec false)
    used: dict[str, int] = {}  # failure class -> retries used
    outcome: Outcome | None = None
    hold: Hold | None = None  # ON_HOLD, or the attempt that tries whether it is over


class StageState(Struct, frozen=True):
    name: str
    status: StageStatus = StageStatus.PENDING
    repetition: int = 0
    started_at: float = 0.0
    ended_at: float = 0.0
    reason: str = ""
    site: str = ""  # where its tasks go; for `auto` empty until a site was chosen
    queue: str = ""  # chosen with it
    reservation: str = ""
    placed: str = ""  # why there, in a sentence
    open: int = 0  # tasks not ended
    done: int = 0
    failed: int = 0
    tasks: int = 0
    on_hold: int = 0  # tasks ON_HOLD


class Run(Struct, frozen=True):
    """One execution of a plan. Changed only by `states.advance`."""

    id: str
    plan: Plan
    created_at: float
    status: RunStatus = RunStatus.PENDING
    started_at: float = 0.0
    ended_at: float = 0.0
    error: str = ""
    stage: str = ""  # current, or last reached
    variables: Map[str, str] = Map()
    item_variables: Map[tuple[str, str], str] = Map()  # (file, name) -> value captured for that file
    stages: Map[str, StageState] = Map()
    tasks: Map[int, Task] = field(default_factory=Map)
    next_number: int = 0
    files: tuple[str, ...] = ()  # files the run's own specification resolved to, for countFiles
    parent: str = ""  # "run_id.number" of the task that started this run
    instead_of: str = ""  # the failed run in whose place this one was begun
    username: str = ""
    host: str = ""


class Order(Struct, frozen=True):
    """One attempt, as an agent gets it: complete, so that the agent needs nothing else. `token` names it for ever."""

    token: str  # run.number.attempt
    kind: StageKind
    stage: str
    command: str = ""
    call: str = ""
    arguments: dict[str, Any] = {}
    working_dir: str = "."
    user_account: str = ""
    captures: tuple[str, ...] = ()
    expect: tuple[Expectation, ...] = ()
    inputs: tuple[str, ...] = ()  # files that it reads, beside those that a kernel's or a transfer's arguments name
    known: dict[str, str] = {}  # file → checksum that it must have: another content is bad input
    transient_codes: tuple[int, ...] = ()
    authentication_codes: tuple[int, ...] = ()
    timeout_s: float = 0.0
    resources: Resources = Resources()
    placing: Placing = Placing()
    experiment: str = ""
    log_dir: str = ""
    adopt: bool = False  # this attempt may already run or have run: look for it first
    claim: int = 0  # how often the right to begin it was withdrawn from other agents


def token(run_id: str, number: int, attempt: int) -> str:
    return f"{run_id}.{number}.{attempt}"


def split_token(text: str) -> tuple[str, int, int]:
    run_id, number, attempt = text.rsplit(".", 2)
    return run_id, int(number), int(attempt)
