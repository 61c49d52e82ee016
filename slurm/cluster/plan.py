"""What a trial cluster is made of, and the texts of its configuration. Nothing is started here."""

from __future__ import annotations

import os
import pwd
import random
import socket
from pathlib import Path

import msgspec

from orchestrator.errors import SettingsError, Unavailable

FILE = "cluster.json"
LONGEST = 60  # a Unix socket's path has 107 bytes, and those of steps are made below the directory
PORTS_FROM, PORTS_TO = 17_000, 31_000  # below the ports that the kernel gives to outgoing connections


class Plan(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Kept as `cluster.json`; the configuration follows from it alone."""

    directory: str
    name: str  # of the cluster, unlike that of any other directory, so that its jobs can be told from others
    user: str
    host: str
    base_port: int
    nodes: int
    cpus: int  # of a node
    gpus: int  # of a node
    memory_mb: int  # of a node
    accounting: bool

    @property
    def path(self) -> Path:
        return Path(self.directory)

    @property
    def node_names(self) -> list[str]:
        return [f"n{number}" for number in range(1, self.nodes + 1)]

    @property
    def conf(self) -> Path:
        return self.path / "etc" / "slurm.conf"

    @property
    def munge_socket(self) -> Path:
        return self.path / "run" / "munge.socket"

    @property
    def database_socket(self) -> Path:
        return self.path / "run" / "database.socket"


def make(
    directory: Path, *, accounting: bool = False, nodes: int = 4, cpus: int = 2, gpus: int = 2, base_port: int = 0
) -> Plan:
    """Decide what is open: ports, memory, names. Raises SettingsError and Unavailable."""
    if len(os.fsencode(directory)) > LONGEST:
        sentence = f"The directory {directory} has a name too long for the sockets of Slurm ({LONGEST} bytes at most)."
        raise SettingsError(sentence, "Name a shorter one with --directory.")
    if any(c.isspace() or c in "\"'#,%\\=" for c in str(directory)):
        sentence = f"The directory {str(directory)!r} has a sign in its name that Slurm's configuration cannot hold."
        raise SettingsError(sentence, "Name another with --directory.")
    if not (1 <= nodes <= 64 and 1 <= cpus <= 256 and 0 <= gpus <= 16):
        raise SettingsError("A trial cluster has 1 to 64 nodes, each of 1 to 256 CPUs and 0 to 16 GPUs.")
    total_mb = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 1_048_576
    return Plan(
        directory=str(directory),
        name=f"trial{random.randrange(16**8):08x}",
        user=_user(),
        host=socket.gethostname().split(".")[0],
        base_port=base_port or free_ports(nodes + 2),
        nodes=nodes,
        cpus=cpus,
        gpus=gpus,
        memory_mb=max(total_mb // nodes, 2000),
        accounting=accounting,
    )


def _user() -> str:
    try:
        return pwd.getpwuid(os.geteuid()).pw_name  # not LOGNAME, which may be that of somebody who became this user
    except KeyError:
        raise SettingsError(f"The user number {os.geteuid()} has no name here, and Slurm needs one.") from None


def free_ports(count: int) -> int:
    """The first of `count` ports in a row that nobody listens on."""
    for _ in range(200):
        first = random.randrange(PORTS_FROM, PORTS_TO - count)
        if all(_free(port) for port in range(first, first + count)):
            return first
    raise Unavailable("No free ports were found for the trial cluster.", "Name the first one with --base-port.")


def _free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as Slurm does: ports in TIME_WAIT are free
        try:
            probe.bind(("", port))
        except OSError:
            return False
        return True


def load(directory: Path) -> Plan | None:
    """The plan of the cluster in this directory, or None. Raises SettingsError when its file is broken."""
    path = directory / FILE
    try:
        return msgspec.json.decode(path.read_bytes(), type=Plan)
    except FileNotFoundError:
        return None
    except (OSError, msgspec.MsgspecError) as error:
        raise SettingsError(f"{path} cannot be read: {error}.", "Name another directory, or remove this one.") from None


def configuration(plan: Plan) -> dict[str, str]:
    """name of a file in `etc` → its text"""
    texts = {"slurm.conf": slurm_conf(plan), "gres.conf": gres_conf(plan), "cgroup.conf": "CgroupAutomount=no\n"}
    return texts | ({"slurmdbd.conf": slurmdbd_conf(plan)} if plan.accounting else {})


def slurm_conf(plan: Plan) -> str:
    """Intervals are short, so that what takes minutes on a large machine is seen in seconds."""
    top = plan.path
    state = {
        "ClusterName": plan.name,
        "SlurmctldHost": f"{plan.host}(127.0.0.1)",
        "SlurmUser": plan.user,
        "SlurmdUser": plan.user,
        "SlurmctldPort": str(plan.base_port),
        "StateSaveLocation": f"{top}/state",
        "SlurmdSpoolDir": f"{top}/spool/%n",
        "TmpFS": f"{top}/tmp/%n",  # PMIx makes the same names there on every node; in one folder they collide
        "SlurmctldPidFile": f"{top}/run/slurmctld.own.pid",
        "SlurmdPidFile": f"{top}/run/slurmd-%n.own.pid",
        "SlurmctldLogFile": f"{top}/log/slurmctld.log",
        "SlurmdLogFile": f"{top}/log/slurmd-%n.log",
        "AuthType": "auth/munge",
        # A requeued job may begin again when its credential has expired: two minutes, were it not set.
        "AuthInfo": f"socket={plan.munge_socket},cred_expire=15",
        "CryptoType": "crypto/munge",
        "SwitchType": "switch/none",
        "MpiDefault": "none",
        "CommunicationParameters": "NoCtldInAddrAny,NoInAddrAny",  # nobody else on the network
    }
    timing = {
        "SlurmctldTimeout": "15",
        "SlurmdTimeout": "15",
        "InactiveLimit": "0",
        "MinJobAge": "20",
        "KillWait": "15",
        "CompleteWait": "0",
        "OverTimeLimit": "0",
        "MessageTimeout": "10",
        "TCPTimeout": "2",
        "BatchStartTimeout": "20",
        "UnkillableStepTimeout": "30",
        "SchedulerType": "sched/backfill",
        "SchedulerParameters": "sched_interval=2,sched_min_interval=200000,batch_sched_delay=1,bf_interval=2,"
        "bf_continue",
    }
    nodes = {
        "ReturnToService": "2",
        "EnforcePartLimits": "ALL",  # what no partition can ever hold is refused at once
        "SlurmdParameters": "config_overrides",  # what is pretended counts, not what the machine has
        "SelectType": "select/cons_tres",
        "SelectTypeParameters": "CR_Core_Memory",
        "DefMemPerCPU": str(plan.memory_mb // plan.cpus),
        "ProctrackType": "proctrack/linuxproc",
        "TaskPlugin": "task/none",
        "PropagateResourceLimits": "NONE",
        "JobRequeue": "1",
        "PreemptType": "preempt/partition_prio",
        "PreemptMode": "REQUEUE",
        "JobAcctGatherType": "jobacct_gather/linux",
        "JobAcctGatherFrequency": "task=2",
        # Proportional memory, so that what forked workers share is not counted once for each.
        "JobAcctGatherParams": "OverMemoryKill,UsePss",
    }
    accounting = {"AccountingStorageType": "accounting_storage/none"}
    if plan.accounting:
        accounting = {
            "AccountingStorageType": "accounting_storage/slurmdbd",
            "AccountingStorageHost": "localhost",
            "AccountingStoragePort": str(plan.base_port + 1),
            "AccountingStoragePass": str(plan.munge_socket),
            "AccountingStorageEnforce": "associations,limits",
            "AccountingStorageTRES": "gres/gpu",  # without a database the controller refuses to start with it
        }
    lines = [f"{key}={value}" for key, value in (state | timing | nodes | accounting).items()]
    gres = f" Gres=gpu:{plan.gpus}" if plan.gpus else ""
    lines += ["GresTypes=gpu"] if plan.gpus else []
    lines += [
        f"NodeName={name} NodeHostname={plan.host} NodeAddr=127.0.0.1 Port={plan.base_port + 2 + number}"
        f" CPUs={plan.cpus} RealMemory={plan.memory_mb}{gres} State=UNKNOWN"
        for number, name in enumerate(plan.node_names)
    ]
    everywhere = f"Nodes={','.join(plan.node_names)} State=UP"
    lines += [
        f"PartitionName=regular {everywhere} Default=YES MaxTime=24:00:00 DefaultTime=1:00:00 PriorityTier=1"
        " PreemptMode=REQUEUE",
        f"PartitionName=realtime {everywhere} MaxTime=4:00:00 DefaultTime=0:30:00 PriorityTier=10 PreemptMode=OFF",
        f"PartitionName=debug {everywhere} MaxTime=0:30:00 DefaultTime=0:10:00 PriorityTier=1 PreemptMode=OFF",
    ]
    return "\n".join(lines) + "\n"


def gres_conf(plan: Plan) -> str:
    """Devices are links to the null device: Slurm sets CUDA_VISIBLE_DEVICES only when each is a character device, and
    takes its number from the end of the name."""
    if not plan.gpus:
        return ""
    return f"AutoDetect=off\nName=gpu Flags=nvidia_gpu_env File={plan.path}/devices/gpu[0-{plan.gpus - 1}]\n"


def slurmdbd_conf(plan: Plan) -> str:
    """The database is reached through its socket alone (MYSQL_UNIX_PORT), in a directory that others cannot enter."""
    values = {
        "AuthType": "auth/munge",
        "AuthInfo": f"socket={plan.munge_socket}",
        "DbdHost": "localhost",
        "DbdPort": str(plan.base_port + 1),
        "SlurmUser": plan.user,
        "PidFile": f"{plan.path}/run/slurmdbd.own.pid",
        "LogFile": f"{plan.path}/log/slurmdbd.log",
        "StorageType": "accounting_storage/mysql",
        "StorageHost": "localhost",
        "StorageUser": "root",
        "StorageLoc": "slurm_acct",
        "MessageTimeout": "10",
    }
    return "".join(f"{key}={value}\n" for key, value in values.items())
