"""Starting, watching and ending the daemons of a trial cluster."""

from __future__ import annotations

import contextlib
import fcntl
import os
import secrets
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec

from orchestrator.errors import BeamwayError, Conflict, NotFound, SettingsError, Unavailable
from slurm.cluster import plan as plans
from slurm.cluster import processes
from slurm.cluster.plan import Plan

START_S = 60.0
ACCOUNTS = ("beamline", "other")
PROGRAMS = {
    "munge": ("munged",),
    "slurm-wlm": ("slurmctld", "slurmd", "sbatch", "sinfo", "scancel"),
}
ACCOUNTING_PROGRAMS = {
    "slurmdbd": ("slurmdbd",),
    "mariadb-server": ("mariadbd", "mariadb-install-db"),
}
FOLDERS = ("etc", "run", "log", "state", "spool", "tmp", "devices", "scratch")
GRACE_S = {"database": 10.0}  # it writes its tables first; others end within a second or never


class Daemon(msgspec.Struct, frozen=True, kw_only=True):
    name: str  # munged, slurmctld, n1 …, with accounting slurmdbd and database
    pid: int  # 0: it does not live
    state: str = ""  # of a node as sinfo says it; `running` or `ended` of the others


class Cluster:
    """The trial cluster in a directory. Commands find it by `environment` alone."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.directory = plan.path

    @property
    def environment(self) -> dict[str, str]:
        return {"SLURM_CONF": str(self.plan.conf)}

    @property
    def names(self) -> list[str]:
        """The daemons in the order in which they start."""
        accounting = ["database", "slurmdbd"] if self.plan.accounting else []
        return ["munged", *accounting, "slurmctld", *self.plan.node_names]

    def pid(self, name: str) -> int:
        return processes.alive(self._pid_file(name), self._mark(name))

    def run(self, *argv: str, timeout_s: float = 20.0, text: str | None = None) -> str:
        """What a command prints. Raises Unavailable with its last words when it fails or takes longer."""
        try:
            done = subprocess.run(
                [processes.program(argv[0]) or argv[0], *argv[1:]],
                env={**os.environ, **self.environment},
                input=text,
                stdin=subprocess.DEVNULL if text is None else None,
                capture_output=True,
                text=True,
                errors="backslashreplace",
                timeout=timeout_s,
            )
        except subprocess.TimeoutExpired:
            raise Unavailable(f"`{argv[0]}` took longer than {timeout_s:g} s.") from None
        if done.returncode:
            said = (done.stderr.strip() or done.stdout.strip()).splitlines()[-1:] or ["it said nothing"]
            raise Unavailable(f"`{argv[0]}` failed with exit code {done.returncode}: {said[0]}")
        return done.stdout

    def node_states(self, timeout_s: float = 15.0) -> dict[str, str]:
        lines = self.run("sinfo", "-hNo", "%N %T", timeout_s=timeout_s).splitlines()
        return {name: state for name, _, state in (line.strip().partition(" ") for line in lines)}

    # ------------------------------------------------------------------------------------------- what tests do to it

    def pause_controller(self) -> None:
        """It is there and answers nobody, as under a heavy load."""
        processes.send([self.pid("slurmctld")], signal.SIGSTOP)

    def resume_controller(self) -> None:
        processes.send([self.pid("slurmctld")], signal.SIGCONT)

    def stop_controller(self) -> None:
        processes.end({self.pid("slurmctld")} - {0}, grace_s=10.0)

    def start_controller(self) -> None:
        self.start("slurmctld")
        self._until_answers(time.monotonic() + START_S)

    def kill_node(self, name: str) -> None:
        """As a power cut: the daemon, its steps and all their processes, at once."""
        deadline = time.monotonic() + 5.0
        while (doomed := self.node_processes(name)) and time.monotonic() < deadline:  # one may have been forking
            processes.send(doomed, signal.SIGKILL)
            processes.wait_gone(doomed, 1.0)

    def start_node(self, name: str) -> None:
        self.start(name)

    # --------------------------------------------------------------------------------------------------- the daemons

    def start(self, name: str) -> None:
        """Start one daemon unless it lives."""
        if self.pid(name):
            return
        argv, more = self._command(name)
        processes.start(
            argv,
            mark=self._mark(name),
            pid_file=self._pid_file(name),
            log=self.directory / "log" / f"{name}.out",
            environment={**_plain_environment(), **self.environment, **more},
        )

    def _command(self, name: str) -> tuple[list[str], dict[str, str]]:
        top, run = self.directory, self.directory / "run"
        database = {"MYSQL_UNIX_PORT": str(self.plan.database_socket)}
        if name == "munged":
            words = ["--foreground", "--force", f"--key-file={top}/etc/munge.key", f"--socket={self.plan.munge_socket}"]
            words += [f"--pid-file={run}/munged.own.pid", f"--log-file={top}/log/munged.log"]
            return [processes.program("munged"), *words, f"--seed-file={top}/state/munge.seed"], {}
        if name == "slurmctld":
            return [processes.program("slurmctld"), "-D", "-f", str(self.plan.conf)], {}
        if name == "slurmdbd":
            return [processes.program("slurmdbd"), "-D"], database
        if name == "database":
            words = [f"--datadir={top}/database", f"--socket={self.plan.database_socket}", "--skip-networking"]
            words += [f"--pid-file={run}/database.own.pid", f"--user={self.plan.user}", "--skip-log-bin"]
            words += ["--innodb-buffer-pool-size=64M", "--innodb-lock-wait-timeout=900"]
            return [processes.program("mariadbd"), "--no-defaults", *words], database
        return [processes.program("slurmd"), "-D", "-N", name, "-f", str(self.plan.conf)], {}

    def _pid_file(self, name: str) -> Path:
        return self.directory / "run" / f"{name}.pid"

    def _mark(self, name: str) -> str:
        return f"{self.directory}:{name}"

    def _until_answers(self, deadline: float) -> None:
        while True:
            try:
                self.run("scontrol", "ping", timeout_s=5.0)
                return
            except Unavailable:
                if not self.pid("slurmctld") or time.monotonic() > deadline:
                    raise self.silent("slurmctld", "does not answer") from None
            time.sleep(0.1)

    def until_idle(self, deadline: float) -> None:
        """Wait until all nodes are there and have nothing to do but the work they had."""
        while True:
            with contextlib.suppress(Unavailable):
                states = self.node_states(timeout_s=5.0)
                ready = [n for n in self.plan.node_names if states.get(n) in ("idle", "mixed", "allocated")]
                if len(ready) == self.plan.nodes:
                    return
            for name in self.names:
                if not self.pid(name):
                    raise self.silent(name, "has ended")
            if time.monotonic() > deadline:
                raise self.silent("slurmctld", "did not see all nodes in time")
            time.sleep(0.1)

    def silent(self, name: str, what: str) -> Unavailable:
        found = [lines for path in self._logs(name) if (lines := _last_lines(path, 3))]
        fatal = [line for lines in found for line in lines if "fatal" in line or "Error" in line]
        said = " | ".join(fatal[:1] or (found[0] if found else ["its log is empty"]))
        return Unavailable(f"{name} of the trial cluster {what}: {said}", f"The logs are in {self.directory}/log.")

    def _logs(self, name: str) -> list[Path]:
        log = self.directory / "log"
        return [log / (f"slurmd-{name}.log" if name in self.plan.node_names else f"{name}.log"), log / f"{name}.out"]

    def node_processes(self, name: str) -> set[int]:
        """The daemon of a node, its steps and what they have started."""
        mark, found = self._mark(name), set()
        for pid in processes.every():
            around = processes.environment_of(pid)
            job_here = around.get("SLURM_CLUSTER_NAME") == self.plan.name and around.get("SLURMD_NODENAME") == name
            if job_here or around.get(processes.MARK) == mark:
                found.add(pid)
        return processes.with_descendants(found)

    def all_processes(self) -> set[int]:
        found = set().union(*(self.node_processes(name) for name in self.plan.node_names))
        found |= {pid for name in self.names if (pid := self.pid(name))}
        return found


def up(
    directory: str | Path,
    *,
    accounting: bool = False,
    nodes: int = 4,
    cpus: int = 2,
    gpus: int = 2,
    base_port: int = 0,
) -> Cluster:
    """Start the cluster in this directory, or what of it does not live, and wait until all nodes are idle.

    Raises SettingsError (a program is missing), Conflict (another cluster lives there) and Unavailable (it did not
    come up; nothing of it is left running).
    """
    top = Path(directory).expanduser().absolute()
    _require_programs(accounting)
    wanted = plans.make(top, accounting=accounting, nodes=nodes, cpus=cpus, gpus=gpus, base_port=base_port)
    _make_folders(top)
    with _alone(top):
        known = plans.load(top)
        plan = wanted if known is None else _joined(known, wanted, base_port)
        cluster = Cluster(plan)
        _write(plan)
        deadline = time.monotonic() + START_S
        try:
            _start_all(cluster, deadline)
        except BaseException:
            _end_all(cluster)
            raise
        return cluster


def _joined(known: Plan, wanted: Plan, base_port: int) -> Plan:
    """The plan to go on with, where there is one: a shape is changed only when nothing of the old one lives."""
    same = ("accounting", "nodes", "cpus", "gpus", "directory", "user")
    changed = [key for key in same if getattr(known, key) != getattr(wanted, key)]
    changed += ["base_port"] if base_port not in (0, known.base_port) else []
    lives = bool(Cluster(known).all_processes())
    if lives and changed:
        there = ", ".join(f"{key} is {getattr(known, key)}" for key in changed)
        raise Conflict(f"Another trial cluster lives in {known.directory}: {there}.", "End it first, or name another.")
    if lives:
        return known
    # Its name and so its jobs and their numbers go on; its ports may have been taken by others meanwhile.
    return msgspec.structs.replace(wanted, name=known.name)


def down(directory: str | Path) -> int:
    """End the cluster in this directory and all that its jobs run; how many processes that were.

    Raises NotFound when there is none. Its files stay: logs, and the numbers of jobs, which are not used again.
    """
    top = Path(directory).expanduser().absolute()
    plan = plans.load(top)
    if plan is None:
        raise NotFound(f"There is no trial cluster in {top}.", "`beamway slurm-cluster up` starts one.")
    with _alone(top):
        return _end_all(Cluster(plan))


def status(directory: str | Path) -> list[Daemon]:
    """Every daemon and node, whether it lives or not. Raises NotFound when there is no cluster here."""
    top = Path(directory).expanduser().absolute()
    plan = plans.load(top)
    if plan is None:
        raise NotFound(f"There is no trial cluster in {top}.", "`beamway slurm-cluster up` starts one.")
    cluster = Cluster(plan)
    states: dict[str, str] = {}
    if cluster.pid("slurmctld"):
        with contextlib.suppress(Unavailable):
            states = cluster.node_states(timeout_s=5.0)
    found = []
    for name in cluster.names:
        pid = cluster.pid(name)
        found.append(Daemon(name=name, pid=pid, state=states.get(name, "running" if pid else "ended")))
    return found


def missing(*, accounting: bool = False) -> str:
    """Why there can be no trial cluster on this machine; empty when there can."""
    wanted = PROGRAMS | (ACCOUNTING_PROGRAMS if accounting else {})
    absent = {package: [p for p in names if not processes.program(p)] for package, names in wanted.items()}
    packages = [package for package, names in absent.items() if names]
    if not packages:
        return ""
    programs = ", ".join(name for names in absent.values() for name in names)
    return f"A trial cluster needs {programs}: on Debian the packages {' '.join(packages)}."


def _require_programs(accounting: bool) -> None:
    if reason := missing(accounting=accounting):
        raise SettingsError(reason, "Their system services are not used and may be switched off.")


def _make_folders(top: Path) -> None:
    try:
        top.mkdir(parents=True, exist_ok=True, mode=0o755)
        for name in FOLDERS:
            (top / name).mkdir(exist_ok=True)
        for name in ("etc", "state", "run"):  # the key of munge; the sockets, that of the database above all
            (top / name).chmod(0o755 if name == "etc" or os.geteuid() == 0 else 0o700)
    except OSError as error:
        raise SettingsError(f"The directory {top} cannot be used: {error.strerror}.", "Name another.") from error


@contextlib.contextmanager
def _alone(top: Path) -> Iterator[None]:
    """One `up` or `down` at a time in a directory."""
    with (top / "lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _write(plan: Plan) -> None:
    top = plan.path
    for name, text in plans.configuration(plan).items():
        path = top / "etc" / name
        path.touch(mode=0o600 if name == "slurmdbd.conf" else 0o644)  # slurmdbd refuses one that others can read
        path.write_text(text)
    for number in range(plan.gpus):
        device = top / "devices" / f"gpu{number}"
        if not device.is_symlink():
            device.symlink_to("/dev/null")
    for name in plan.node_names:
        for folder in ("spool", "tmp"):
            (top / folder / name).mkdir(exist_ok=True)
    key = top / "etc" / "munge.key"
    if not key.exists():
        key.touch(mode=0o600)
        key.write_bytes(secrets.token_bytes(128))
    part = top / f"{plans.FILE}.part"
    part.write_bytes(msgspec.json.format(msgspec.json.encode(plan), indent=2) + b"\n")
    os.replace(part, top / plans.FILE)


def _start_all(cluster: Cluster, deadline: float) -> None:
    if all(map(cluster.pid, cluster.names)):
        cluster.until_idle(deadline)
        return
    cluster.start("munged")
    _until(cluster, "munged", deadline, cluster.plan.munge_socket.exists)
    if cluster.plan.accounting:
        _start_accounting(cluster, deadline)
    for name in ("slurmctld", *cluster.plan.node_names):
        cluster.start(name)
    cluster.until_idle(deadline)


def _until(cluster: Cluster, name: str, deadline: float, ready: Callable[[], bool]) -> None:
    while not ready():
        if not cluster.pid(name):
            raise cluster.silent(name, "has ended")
        if time.monotonic() > deadline:
            raise cluster.silent(name, "did not get ready in time")
        time.sleep(0.05)


def _start_accounting(cluster: Cluster, deadline: float) -> None:
    plan, data = cluster.plan, cluster.directory / "database"
    if not (data / "mysql").is_dir():
        argv = [processes.program("mariadb-install-db"), "--no-defaults", f"--datadir={data}", f"--user={plan.user}"]
        argv += ["--auth-root-authentication-method=normal", "--skip-test-db", "--skip-name-resolve"]
        with (cluster.directory / "log" / "database.out").open("ab") as log:
            done = subprocess.run(argv, stdout=log, stderr=log, stdin=subprocess.DEVNULL, timeout=START_S)
        if done.returncode:
            shutil.rmtree(data, ignore_errors=True)
            raise cluster.silent("database", "could not be made")
    cluster.start("database")
    _until(cluster, "database", deadline, lambda: _listens(plan.database_socket))
    cluster.start("slurmdbd")
    _until(cluster, "slurmdbd", deadline, lambda: _answers(cluster, "sacctmgr", "-n", "list", "cluster"))
    for words in (
        ("cluster", plan.name),
        *(("account", name, f"cluster={plan.name}", f"description={name}", "organization=trial") for name in ACCOUNTS),
        ("user", plan.user, f"cluster={plan.name}", f"account={','.join(ACCOUNTS)}", f"defaultaccount={ACCOUNTS[0]}"),
    ):
        _add(cluster, *words)


def _add(cluster: Cluster, *words: str) -> None:
    """Tell the accounting of something, once: sacctmgr fails for what it knows already."""
    try:
        cluster.run("sacctmgr", "-i", "add", *words)
    except Unavailable as error:
        if "Nothing new added" not in error.sentence and "already exists" not in error.sentence:
            raise


def _listens(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as probe:
        return probe.connect_ex(str(path)) == 0


def _answers(cluster: Cluster, *argv: str) -> bool:
    try:
        cluster.run(*argv, timeout_s=5.0)
    except Unavailable:
        return False
    return True


def _end_all(cluster: Cluster) -> int:
    """Cancel the jobs, then end everything in the order in which it can still say goodbye."""
    cluster.resume_controller()
    if cluster.pid("slurmctld"):
        for state in ("PENDING", "RUNNING"):
            with contextlib.suppress(BeamwayError):
                cluster.run("scancel", "--quiet", f"--state={state}", timeout_s=5.0)
    everything = cluster.all_processes()
    nodes = set().union(*(cluster.node_processes(name) for name in cluster.plan.node_names))
    left = processes.end(nodes | ({cluster.pid("slurmctld")} - {0}), grace_s=3.0)
    left |= processes.end(set().union(*(cluster.node_processes(n) for n in cluster.plan.node_names)), grace_s=0.0)
    for name in ("slurmdbd", "database", "munged"):
        left |= processes.end({cluster.pid(name)} - {0}, grace_s=GRACE_S.get(name, 5.0))
    for pid_file in (cluster.directory / "run").glob("*.pid"):
        pid_file.unlink(missing_ok=True)
    if left:
        raise Unavailable(f"Processes of the trial cluster do not end: {', '.join(map(str, sorted(left)))}.")
    return len(everything)


def _plain_environment() -> dict[str, str]:
    """What daemons and so the jobs' steps begin with: nothing of a cluster or a job that we are part of."""
    return {k: v for k, v in os.environ.items() if not k.startswith(("SLURM", "SBATCH", "MUNGE", "MYSQL"))}


def _last_lines(path: Path, count: int) -> list[str]:
    try:
        return [line.strip() for line in path.read_text(errors="replace").splitlines() if line.strip()][-count:]
    except OSError:
        return []
