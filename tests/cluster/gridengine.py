"""A real Grid Engine of our own: a master, and one or two execution hosts, on ports and in a directory of its own.

With one execution host that is this machine, as `localhost`. With two they are `bw-one`, this machine by another name
and address, and `bw-two`, a host of its own (`tests.cluster.hosts`); the master and the commands stay at `localhost`.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import psutil

from tests.cluster import hosts
from tests.cluster.hosts import Host

PROGRAMS = Path("/usr/lib/gridengine")  # Debian's packages
SHARED = Path("/usr/share/gridengine")
INSTALLED = Path("/var/lib/gridengine")
SLOTS = 8

PARALLEL = """pe_name {name}
slots 64
user_lists NONE
xuser_lists NONE
start_proc_args NONE
stop_proc_args NONE
allocation_rule {rule}
control_slaves TRUE
job_is_first_task FALSE
urgency_slots min
accounting_summary FALSE
qsort_args NONE
"""

HOST = """hostname {name}
load_scaling NONE
complex_values gpu=2
user_lists NONE
xuser_lists NONE
projects NONE
xprojects NONE
usage_scaling NONE
report_variables NONE
"""

NONE_OF = (
    *("load_thresholds", "suspend_thresholds", "ckpt_list", "prolog", "epilog", "starter_method", "suspend_method"),
    *("resume_method", "terminate_method", "owner_list", "user_lists", "xuser_lists", "subordinate_list"),
    *("complex_values", "projects", "xprojects", "calendar"),
)
QUEUE = {
    "qname": "all.q",
    "seq_no": "0",
    "nsuspend": "1",
    "suspend_interval": "00:05:00",
    "priority": "0",
    "min_cpu_interval": "00:00:05",
    "processors": "UNDEFINED",
    "qtype": "BATCH INTERACTIVE",
    "pe_list": "smp mpi",
    "rerun": "FALSE",
    "slots": str(SLOTS),
    "shell": "/bin/bash",
    "shell_start_mode": "unix_behavior",
    "notify": "00:00:03",
    "initial_state": "default",
    **dict.fromkeys(NONE_OF, "NONE"),
    **dict.fromkeys(
        (f"{kind}_{what}" for what in ("rt", "cpu", "fsize", "data", "stack", "core", "rss", "vmem") for kind in "sh"),
        "INFINITY",
    ),
}


class GridEngineHere:
    """Started by `running()`. `environment` is what the commands need; `profile_toml` a site profile for it."""

    def __init__(self, directory: Path, *, two_hosts: bool = False) -> None:
        self.directory = directory
        self._around = contextlib.ExitStack()  # the hosts, and the network between them
        self._master: Host | None = None
        self._hosts: dict[str, Host | None] = {"localhost": None}
        self.address = "127.0.0.1"  # of this machine for the execution hosts
        if two_hosts:
            self._add_hosts()
        self.root = directory / "root"
        first, second = _free_ports()
        self.environment = {
            "SGE_ROOT": str(self.root),
            "SGE_CELL": "default",
            "SGE_QMASTER_PORT": str(first),
            "SGE_EXECD_PORT": str(second),
        }
        self.pids: list[int] = []

    def _add_hosts(self) -> None:
        """The two tell this machine's `localhost`, where the master is, from themselves by its other address."""
        net = hosts.own_net()
        self.address, there = f"{net}.1", f"{net}.2"
        master = {f"localhost {socket.gethostname()}": "127.0.0.1", "bw-one": self.address, "bw-two": there}
        others = {"bw-one localhost": self.address, "bw-two": there}
        tables = [hosts.table(self.directory / f"hosts-{n}", t) for n, t in (("master", master), ("others", others))]
        self._master, one, two = (
            self._host("", tables[0], network=False),
            self._host("bw-one", tables[1], network=False),
            self._host("bw-two", tables[1], network=True),
        )
        self._around.enter_context(hosts.network(two, f"bw{os.getpid()}", here=self.address, there=there))
        self._hosts = {"bw-one": one, "bw-two": two}

    def _host(self, name: str, table: Path, *, network: bool) -> Host:
        host = Host(name, table, network=network)
        self._around.callback(host.close)
        return host

    def start(self) -> None:
        common, spool = self.root / "default" / "common", self.root / "spool"
        for place in (common, spool / "qmaster" / "job_scripts", spool / "execd"):
            place.mkdir(parents=True)
        for name in ("bin", "lib", "utilbin", "util"):
            (self.root / name).symlink_to(INSTALLED / name)
        where = f"{common};{spool / 'qmaster'}"
        (common / "bootstrap").write_text(
            "admin_user none\ndefault_domain none\nignore_fqdn true\nspooling_method classic\nspooling_lib libspoolc\n"
            f"spooling_params {where}\nbinary_path /usr/sbin\nqmaster_spool_dir {spool / 'qmaster'}\n"
            "security_mode none\nlistener_threads 2\nworker_threads 2\nscheduler_threads 1\n"
        )
        # The host's name need not resolve: everything here is localhost.
        (common / "act_qmaster").write_text("localhost\n")
        (common / "host_aliases").write_text(f"localhost {socket.gethostname()}\n")
        changes = {
            "execd_spool_dir": str(spool / "execd"),
            "min_uid": "0",
            "min_gid": "0",
            "load_report_time": "00:00:01",
            "gid_range": "21000-21999",
            "mailer": "/bin/true",
            "administrator_mail": "none",
            "reporting_params": "accounting=true reporting=false flush_time=00:00:01 accounting_flush_time=00:00:01 "
            "joblog=false sharelog=00:00:00",
        }
        configuration = self._file("configuration", _changed((SHARED / "default-configuration").read_text(), changes))
        self._tool("spoolinit", "classic", "libspoolc", where, "init")
        self._tool("spooldefaults", "configuration", configuration)
        self._tool("spooldefaults", "complexes", str(SHARED / "util/resources/centry"))
        self._tool("spooldefaults", "usersets", str(SHARED / "util/resources/usersets"))
        self._tool("spooldefaults", "managers", "root")
        self.pids.append(self._daemon("sge_qmaster", self._master))
        self._until("qconf", "-sh")
        self.ask("qconf", "-as", "localhost")
        fast = {
            "schedule_interval": "0:0:1",
            "flush_submit_sec": "1",
            "flush_finish_sec": "1",
            "job_load_adjustments": "NONE",
            "load_adjustment_decay_time": "0:0:0",
            "schedd_job_info": "true",
            "max_reservation": "10",
        }
        self.ask("qconf", "-Msconf", self._file("scheduler", _changed(self.ask("qconf", "-ssconf"), fast)))
        complexes = self.ask("qconf", "-sc") + "gpu gpu INT <= YES JOB 0 0\n"
        self.ask("qconf", "-Mc", self._file("complexes", complexes))
        for name in self._hosts:
            if name != "localhost":
                self.ask("qconf", "-ah", name)
            self.ask("qconf", "-Ae", self._file("host", HOST.format(name=name)))
        elsewhere = self.directory / "tmp"  # of the second host: each takes the temporary folder of a job away
        elsewhere.mkdir()
        tmpdir = f"/tmp,[bw-two={elsewhere}]" if len(self._hosts) > 1 else "/tmp"
        queue = {**QUEUE, "hostlist": " ".join(self._hosts), "tmpdir": tmpdir}
        for name, rule in (("smp", "$pe_slots"), ("mpi", "$round_robin")):
            self.ask("qconf", "-Ap", self._file(name, PARALLEL.format(name=name, rule=rule)))
        self.ask("qconf", "-Aq", self._file("queue", "".join(f"{key} {value}\n" for key, value in queue.items())))
        self.pids += [self._daemon("sge_execd", host) for host in self._hosts.values()]
        deadline = time.monotonic() + 30
        while not self._all_report():
            if time.monotonic() > deadline:
                raise RuntimeError(f"the execution daemon does not report: {self.messages()}")
            time.sleep(0.2)

    def _all_report(self) -> bool:
        """Do all execution hosts say how they are?"""
        lines = [line.split() for line in self.ask("qstat", "-f").splitlines() if line.startswith("all.q@")]
        return sum(words[-1] == "lx-amd64" for words in lines) == len(self._hosts)

    def ask(self, *argv: str) -> str:
        command = self._master.inside([*argv]) if self._master else [*argv]
        done = subprocess.run(command, env=os.environ | self.environment, capture_output=True, text=True, timeout=30)
        if done.returncode:
            raise RuntimeError(f"{argv}: {done.stdout} {done.stderr}")
        return done.stdout

    def pause_master(self) -> None:
        os.kill(self.pids[0], signal.SIGSTOP)

    def resume_master(self) -> None:
        os.kill(self.pids[0], signal.SIGCONT)

    def kill_master(self) -> None:
        os.kill(self.pids[0], signal.SIGKILL)
        os.waitpid(self.pids[0], 0)

    def restart_master(self) -> None:
        self.pids[0] = self._daemon("sge_qmaster", self._master)
        self._until("qconf", "-sh")

    def messages(self) -> str:
        return "\n".join(p.read_text(errors="replace")[-2000:] for p in self.root.glob("spool/**/messages"))

    def stop(self) -> None:
        """End the jobs, the daemons and whatever still carries our root in its environment."""
        self.resume_master()
        with contextlib.suppress(RuntimeError, subprocess.TimeoutExpired):
            self.ask("qdel", "-f", "-u", "*")
        for pid in reversed(self.pids):
            with contextlib.suppress(ProcessLookupError):
                os.killpg(pid, signal.SIGTERM)
        needle = f"SGE_ROOT={self.root}".encode()
        deadline = time.monotonic() + 10
        while (left := [p for p in psutil.process_iter() if _carries(p, needle)]) or _reap(self.pids):
            for process in left:
                if time.monotonic() > deadline - 8:
                    with contextlib.suppress(psutil.Error):
                        process.kill()
            if time.monotonic() > deadline:
                break
            time.sleep(0.1)

    def close(self) -> None:
        """Take the hosts away, once nothing runs on them."""
        self._around.close()

    def _file(self, name: str, text: str) -> str:
        path = self.directory / name
        if name == "configuration":
            path = self.directory / "global"
        path.write_text(text)
        return str(path)

    def _tool(self, name: str, *words: str) -> None:
        subprocess.run(
            [str(PROGRAMS / name), *words],
            env=os.environ | self.environment,
            check=True,
            capture_output=True,
            timeout=30,
        )

    def _daemon(self, name: str, host: Host | None) -> int:
        argv = [str(PROGRAMS / name)]
        with (self.directory / f"{name}.log").open("ab") as log:
            process = subprocess.Popen(
                host.inside(argv) if host else argv,
                env=os.environ | self.environment | {"SGE_ND": "1"},  # stays in the foreground
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd="/",
                start_new_session=True,
            )
        process.returncode = 0  # reaped by `stop`; keeps Popen from complaining when it is forgotten
        return process.pid

    def _until(self, *argv: str) -> None:
        deadline = time.monotonic() + 30
        while True:
            try:
                self.ask(*argv)
            except RuntimeError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.1)
            else:
                return

    def profile_toml(self, name: str, *, scratch: Path) -> str:
        """A site profile for this Grid Engine, as a user would write it."""
        environment = "\n".join(f'{key} = "{value}"' for key, value in self.environment.items())
        return f"""[identity]
name = "{name}"
title = "Grid Engine of the tests"
contact = "the tests"

[scheduler]
kind = "sge"
poll_s = 1.0

[scheduler.environment]
{environment}

[[queues]]
name = "all.q"
use = "regular"
default_walltime_s = 600.0

[node]
cores = 2
gpus = 2
accelerator = {{kind = "cuda", model = "pretended"}}

[launcher]
kind = "mpiexec"
options = ["--oversubscribe", "--allow-run-as-root"]

[environment]
python = "{sys.executable}"

[paths]
scratch = "{scratch}"
"""


def missing() -> str:
    """Why there can be no Grid Engine here; empty when there can."""
    if os.geteuid() != 0:
        return "Grid Engine is started as root only"
    wanted = [PROGRAMS / "sge_qmaster", PROGRAMS / "sge_execd", PROGRAMS / "qsub"]
    absent = [path.name for path in wanted if not path.exists()]
    return f"Grid Engine is not installed ({', '.join(absent)}): tests/install-system-parts" if absent else ""


@contextlib.contextmanager
def running(*, two_hosts: bool = False) -> Iterator[GridEngineHere]:
    # Not below pytest's own directories: their names are long, and some of these paths have a limit.
    directory = Path(tempfile.mkdtemp(prefix="bw-sge-"))
    directory.chmod(0o755)
    here = GridEngineHere(directory, two_hosts=two_hosts)
    try:
        here.start()
        yield here
    finally:
        if here.pids:
            here.stop()
        here.close()
        shutil.rmtree(directory, ignore_errors=True)


def _free_ports() -> tuple[int, int]:
    with socket.socket() as one, socket.socket() as two:
        for each in (one, two):
            each.bind(("127.0.0.1", 0))
        return one.getsockname()[1], two.getsockname()[1]


def _changed(text: str, changes: dict[str, str]) -> str:
    lines = []
    for line in text.splitlines():
        key = line.split(maxsplit=1)[0] if line.strip() else ""
        lines.append(f"{key} {changes[key]}" if key in changes else line)
    return "\n".join(lines) + "\n"


def _carries(process: psutil.Process, needle: bytes) -> bool:
    with contextlib.suppress(OSError, psutil.Error):
        if process.pid == os.getpid() or process.status() == psutil.STATUS_ZOMBIE:
            return False
        return needle in Path(f"/proc/{process.pid}/environ").read_bytes()
    return False


def _reap(pids: list[int]) -> bool:
    """Are some of our daemons still there?"""
    left = False
    for pid in pids:
        with contextlib.suppress(ChildProcessError):
            left |= os.waitpid(pid, os.WNOHANG)[0] == 0
    return left
