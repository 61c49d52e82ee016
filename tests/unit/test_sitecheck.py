"""A site is held against its profile: each fault is named, with what to change."""

from __future__ import annotations

import contextlib
import socket
import subprocess
import sys
import time
from collections.abc import Collection, Iterator
from pathlib import Path

import pytest
from msgspec.structs import replace

from orchestrator import probe, sitecheck
from orchestrator.jobs import Job, JobSpec, JobState, Queue, Refused, Reservation, Scheduler, SchedulerSilent
from orchestrator.sitecheck import Check, Result, live
from sites import loader
from sites.schema import SiteProfile

HEAD = """
[identity]
name = "beam"
contact = "ops@example.org"
checked = {today}
[scheduler]
kind = "slurm"
poll_s = 1.0
"""
QUEUES = """
[[queues]]
name = "short"
use = "debug"
max_walltime_s = 600
default_walltime_s = 600
max_nodes = 2
[[queues]]
name = "long"
max_walltime_s = 7200
"""


class Fake:
    """A scheduler in memory; its jobs run at once as processes, unless it is told to let them wait."""

    kind = "fake"

    def __init__(self) -> None:
        self.there = {"short": Queue("short", walltime_s=600, nodes=4, idle_nodes=4), "long": Queue("long", nodes=4)}
        self.charged: frozenset[str] | None = frozenset({"beamtime"})
        self.reserved: dict[str, Reservation] = {}
        self.starts = True
        self.silent: set[str] = set()
        self.asked: list[JobSpec] = []
        self.all: dict[str, Job] = {}
        self.cancelled: list[str] = []

    def _ask(self, what: str) -> None:
        if what in self.silent:
            self.silent.discard(what)
            raise SchedulerSilent(f"{what}: no answer in 20 s.")

    def _refuse(self, spec: JobSpec) -> None:
        if spec.queue and spec.queue not in self.there:
            raise Refused(f"invalid partition specified: {spec.queue}.")
        if spec.qos == "gold":
            raise Refused("Invalid qos specification.")
        if spec.account not in ("", "beamtime"):
            raise Refused("Invalid account or account/partition combination specified.")

    def ping(self) -> str:
        self._ask("ping")
        return "fake 1.0"

    def submit_once(self, spec: JobSpec, *, known: bool = False) -> str:
        self._refuse(spec)
        self.asked.append(spec)
        if self.starts:
            script = Path(spec.directory, "script.sh")
            script.write_text(spec.script)
            with open(spec.stdout, "wb") as out, open(spec.stderr, "wb") as err:
                status = subprocess.run(["bash", script], stdout=out, stderr=err, cwd=spec.directory, check=False)
            state = JobState.FAILED if status.returncode else JobState.DONE
            self.all["7"] = Job("7", spec.token, state)
        else:
            self.all["7"] = Job("7", spec.token, JobState.PENDING, reason="Priority")
        self._ask("submit")
        return "7"

    def find(self, token: str) -> list[Job]:
        return [job for job in self.all.values() if job.token == token]

    def mine(self, prefix: str) -> list[Job]:
        return []

    def jobs(self, ids: Collection[str]) -> dict[str, Job]:
        self._ask("jobs")
        return {i: self.all[i] for i in ids}

    def cancel(self, ids: Collection[str]) -> None:
        self.cancelled += ids

    def queues(self) -> dict[str, Queue]:
        self._ask("queues")
        return self.there

    def accounts(self) -> frozenset[str] | None:
        return self.charged

    def reservations(self) -> dict[str, Reservation]:
        self._ask("reservations")
        return self.reserved

    def starts_at(self, spec: JobSpec) -> float | None:
        self._refuse(spec)
        return time.time() + 60


@pytest.fixture
def fake() -> Fake:
    return Fake()


@pytest.fixture
def scratch(tmp_path: Path) -> Path:
    return tmp_path / "scratch"


def profile(scratch: Path | str, text: str = "", *, queues: str = QUEUES, head: str = HEAD) -> SiteProfile:
    today = time.strftime("%Y-%m-%d", time.gmtime())
    return loader.parse(head.format(today=today) + queues + text + f'\n[paths]\nscratch = "{scratch}"\n')


def checked(site: SiteProfile, scheduler: Scheduler | None, **more: object) -> dict[str, Check]:
    return {c.name: c for c in sitecheck.check(site, scheduler, **more)}  # type: ignore[arg-type]


def failed(found: dict[str, Check]) -> dict[str, Check]:
    assert all(c.seen and c.remedy for c in found.values() if c.result is Result.FAILED)
    return {name: c for name, c in found.items() if c.result is Result.FAILED}


def test_a_good_site_passes(fake: Fake, scratch: Path) -> None:
    found = checked(profile(scratch, '[accounts]\ndefault = "beamtime"'), fake, live=True)
    assert not failed(found)
    assert {n for n, c in found.items() if c.result is Result.SKIPPED} == {"launcher", "MPI there", "GPUs there"}
    assert found["queue short"].seen.startswith("open, 4 of 4 nodes idle, 0 jobs wait, a small job would start 20")
    assert "tomography.reconstruct" in found["kernels there"].seen
    assert fake.asked[0].queue == "short"  # a debug queue, where there is one
    assert fake.asked[0].account == "beamtime"
    assert list(scratch.iterdir()) == []
    assert fake.cancelled == []


def test_a_broken_profile_names_each_fault_and_its_remedy(fake: Fake, tmp_path: Path) -> None:
    """Wrong partition, missing account, no MPI, a scratch that cannot be written: four faults, four remedies."""
    (tmp_path / "file").write_text("in the way")
    text = '[accounts]\ndefault = "beamtimes"\n[launcher]\nkind = "srun"\ncommand = "no-such-srun"\n'
    queues = QUEUES.replace('"short"', '"shrot"')
    found = checked(profile(tmp_path / "file" / "scratch", text, queues=queues), fake, live=True)
    faults = failed(found)
    assert set(faults) == {"account", "queue shrot", "launcher", "scratch"}
    assert faults["account"].seen == "account 'beamtimes' cannot be charged by this user; beamtime can"
    assert "Change accounts.default, or ask ops@example.org" in faults["account"].remedy
    assert "Did you mean 'beamtime'?" in faults["account"].remedy
    assert faults["queue shrot"].seen == "the scheduler has no queue 'shrot'; it has long, short"
    assert "Change queues[0].name" in faults["queue shrot"].remedy
    assert "Did you mean 'short'?" in faults["queue shrot"].remedy
    assert "'no-such-srun' is not found" in faults["launcher"].seen
    assert "Set launcher.command" in faults["launcher"].remedy
    assert "cannot be used: Not a directory" in faults["scratch"].seen
    assert "Set paths.scratch" in faults["scratch"].remedy
    assert found["probe job"].result is Result.SKIPPED
    assert found["queue long"].result is Result.PASSED  # a wrong account does not hide what is right


@pytest.mark.parametrize(
    ("there", "seen", "remedy"),
    [
        (Queue("short", open=False, nodes=4), "it is closed", "Call ops@example.org"),
        (Queue("short", walltime_s=300, nodes=4), "its longest job is 300 s", "Set queues[0].max_walltime_s to 300"),
        (Queue("short", nodes=1), "it has 1 nodes", "Set queues[0].max_nodes to 1 or less."),
    ],
)
def test_limits_of_queues(fake: Fake, scratch: Path, there: Queue, seen: str, remedy: str) -> None:
    fake.there["short"] = there
    fault = failed(checked(profile(scratch), fake))["queue short"]
    assert seen in fault.seen
    assert remedy in fault.remedy


def test_a_qos_that_is_refused(fake: Fake, scratch: Path) -> None:
    queues = '[[queues]]\nname = "fast"\nnamed = false\nqos = "gold"\n'
    fault = failed(checked(profile(scratch, queues=queues), fake))["queue fast"]
    assert fault.seen == "a small job is refused: Invalid qos specification."
    assert fault.remedy.startswith("Change queues[0].qos")


def test_accounts_that_the_scheduler_does_not_list(fake: Fake, scratch: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake.charged = None
    wrong = profile(scratch, '[accounts]\ndefault = "other"')
    assert "Invalid account" in failed(checked(wrong, fake))["account"].seen
    right = profile(scratch, '[accounts]\ndefault = "beamtime"')
    assert checked(right, fake)["account"].seen == "a job for beamtime would be taken"
    monkeypatch.setattr(fake, "starts_at", lambda spec: None)
    assert checked(right, fake)["account"].result is Result.SKIPPED
    assert checked(profile(scratch), fake)["account"].seen.startswith("none named")


def test_reservations(fake: Fake, scratch: Path) -> None:
    now = time.time()
    fake.reserved = {
        "right": Reservation("right", now - 10, now + 3600, node_count=2, active=True),
        "moved": Reservation("moved", now, now + 3600, node_count=1),
        "over": Reservation("over", now - 7200, now - 3600, node_count=1),
        "small": Reservation("small", now, now + 3600, node_count=1),
    }
    text = "".join(f'[[reservations]]\nname = "{n}"\nnodes = 2\n' for n in ("right", "rigth", "over", "small"))
    text += '[[reservations]]\nname = "moved"\nfrom = 2026-01-01T00:00:00Z\n'
    text += '[[reservations]]\nname = "old"\nuntil = 2026-01-01T00:00:00Z\n'
    found = checked(profile(scratch, text), fake)
    faults = failed(found)
    assert set(faults) == {f"reservation {n}" for n in ("rigth", "over", "small", "moved", "old")}
    assert found["reservation right"].seen.startswith("open now, ")
    assert "Did you mean 'right'?" in faults["reservation rigth"].remedy
    assert "it is over" in faults["reservation over"].seen
    assert "Change reservations[3].nodes." in faults["reservation small"].remedy
    assert "Set reservations[4].from to " in faults["reservation moved"].remedy
    assert faults["reservation old"].remedy == "Take reservations[5] out of the profile."


def test_a_scheduler_that_does_not_answer(fake: Fake, scratch: Path) -> None:
    fake.silent = {"ping"}
    found = checked(profile(scratch, '[[reservations]]\nname = "r"\n'), fake)
    assert set(failed(found)) == {"scheduler"}
    assert "ops@example.org" in found["scheduler"].remedy
    assert {"account", "queue short", "queue long", "reservation r"} <= set(found)
    fake.silent = {"queues", "reservations"}
    found = checked(profile(scratch, '[[reservations]]\nname = "r"\n'), fake)
    assert found["queue long"].result is found["reservation r"].result is Result.SKIPPED


@pytest.mark.parametrize("kind", ["globus-compute", "superfacility-api"])
def test_a_kind_without_an_adapter(kind: str, scratch: Path) -> None:
    site = profile(scratch, head=HEAD.replace("slurm", kind))
    found = checked(site, None, live=True)
    assert "is not built yet" in failed(found)["scheduler"].seen
    assert found["probe job"].result is Result.SKIPPED


def test_maintenance_and_old_facts(fake: Fake, scratch: Path) -> None:
    text = "[[maintenance]]\nfrom = 2026-01-01T00:00:00Z\nuntil = 2999-01-01T00:00:00Z\nreason = 'new disks'\n"
    assert "new disks until 2999-01-01" in failed(checked(profile(scratch, text), fake))["maintenance"].seen
    old = checked(profile(scratch, head=HEAD.replace("{today}", "2020-01-01")), fake)["profile"]
    assert (old.result, "over a year old" in old.seen, "identity.checked" in old.remedy) == (Result.PASSED, True, True)
    never = checked(profile(scratch, head=HEAD.replace("checked = {today}", "")), fake)["profile"]
    assert "Nobody has compared it" in never.remedy


@pytest.fixture
def port() -> Iterator[int]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


COLLECTION = "6c54cade-bde5-45c1-bdea-f4bd71dba2cc"


def test_doors(fake: Fake, scratch: Path, port: int) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        closed = taken.getsockname()[1]
    doors = [
        ("gridftp", f"127.0.0.1:{port}"),
        ("gridftp", f"127.0.0.1:{closed}"),
        ("gridftp", "127.0.0.1:99999"),
        ("globus", COLLECTION),
        ("globus", "alcf#dtn"),
    ]
    text = "".join(f'[[doors]]\nkind = "{k}"\nendpoint = "{e}"\n' for k, e in doors)
    text += '[[doors]]\nkind = "local"\nroot = "/nowhere"\n[[doors]]\nkind = "local"\nroot = "/tmp"\n'
    found = checked(profile(scratch, text), fake)
    assert found[f"door gridftp 127.0.0.1:{port}"].result is Result.PASSED
    assert found[f"door globus {COLLECTION}"].result is Result.SKIPPED
    assert found["door local /tmp"].result is Result.PASSED
    faults = failed(found)
    assert set(faults) == {
        f"door gridftp 127.0.0.1:{closed}",
        "door gridftp 127.0.0.1:99999",
        "door globus alcf#dtn",
        "door local /nowhere",
    }
    assert "Change doors[1].endpoint" in faults[f"door gridftp 127.0.0.1:{closed}"].remedy
    assert "Change doors[5].root" in faults["door local /nowhere"].remedy


# ------------------------------------------------------------------------------------------------ the probe job


def test_a_job_that_waits_too_long_is_cancelled(fake: Fake, scratch: Path) -> None:
    fake.starts = False
    told: list[str] = []
    found = checked(profile(scratch), fake, live=True, timeout_s=0.2, tell=told.append)
    fault = failed(found)["probe job"]
    assert fault.seen == "it is still pending (Priority) after 0.2 s"
    assert "--timeout" in fault.remedy
    assert fake.cancelled == ["7"]
    assert told == ["job 7 is submitted", "job 7 pending: Priority", "the probe job is cancelled"]
    assert found["python there"].result is Result.SKIPPED
    assert list(scratch.iterdir()) == []


def test_ctrl_c_cancels_the_job(fake: Fake, scratch: Path) -> None:
    fake.starts = False

    def interrupt(text: str) -> None:
        if "pending" in text:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        checked(profile(scratch), fake, live=True, tell=interrupt)
    assert fake.cancelled == ["7"]
    assert list(scratch.iterdir()) == []


def test_an_end_before_the_last_row_leaves_nothing(fake: Fake, scratch: Path) -> None:
    with contextlib.closing(sitecheck.check(profile(scratch), fake, live=True)) as checks:
        assert any(c.name == "probe job" for c in checks)
    assert list(scratch.iterdir()) == []


def test_lost_answers_are_asked_for_again(fake: Fake, scratch: Path) -> None:
    fake.silent = {"submit", "jobs"}
    told: list[str] = []
    assert not failed(checked(profile(scratch), fake, live=True, tell=told.append))
    assert "job 7 no answer: jobs: no answer in 20 s." in told


def test_a_refused_job(fake: Fake, scratch: Path) -> None:
    fake.there.pop("short")
    told: list[str] = []
    fault = failed(checked(profile(scratch), fake, live=True, tell=told.append))["probe job"]
    assert told == []
    assert fault.seen == "queue 'short' refused it: invalid partition specified: short."
    assert not failed(checked(profile(scratch), fake, live=True, queue="long")).get("probe job")


@pytest.mark.parametrize(
    ("text", "seen", "remedy"),
    [
        ('modules = ["no/such"]', "its environment could not be prepared: ", "Mend environment.modules"),
        ('worker_init = "echo no key >&2; false"', "could not be prepared: no key", "environment.worker_init"),
        ('python = "/nowhere/python"', "the probe ended with 127", "Set environment.python"),
        ('container = ["/nowhere/apptainer"]', "the probe ended with 127", "environment.container"),
    ],
)
def test_an_environment_that_does_not_work(fake: Fake, scratch: Path, text: str, seen: str, remedy: str) -> None:
    fault = failed(checked(profile(scratch, f"[environment]\n{text}\n"), fake, live=True))["probe job"]
    assert seen in fault.seen
    assert remedy in fault.remedy


def test_a_job_that_leaves_no_record(fake: Fake, scratch: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake.starts = False
    monkeypatch.setattr(live, "SHOWN_S", 0.1)
    monkeypatch.setattr(
        fake, "jobs", lambda ids: {i: replace(fake.all[i], state=JobState.NODE, reason="NodeFail") for i in ids}
    )
    fault = failed(checked(profile(scratch), fake, live=True))["probe job"]
    assert fault.seen == "the job is node failure (NodeFail) and left no record"
    assert "paths.scratch" in fault.remedy


LAUNCHER = """#!{python}
import os, subprocess, sys
assert sys.argv[1:3] == ["-n", "2"], sys.argv
for rank in "01":
    subprocess.run(sys.argv[3:], env=os.environ | {{"PMI_RANK": rank}}, check=True)
"""
MPI = """
import os
class World:
    def Get_rank(self): return {rank}
    def Get_size(self): return {size}
COMM_WORLD = World()
"""


@pytest.fixture
def launcher(tmp_path: Path) -> Path:
    path = tmp_path / "mpiexec"
    path.write_text(LAUNCHER.format(python=sys.executable))
    path.chmod(0o755)
    return path


def mpi(tmp_path: Path, fake: Fake, scratch: Path, command: str, package: str) -> Check:
    """The check, where `mpi4py` is a package with this text."""
    folder = tmp_path / "packages" / "mpi4py"
    folder.mkdir(parents=True)
    (folder / "__init__.py").touch()
    (folder / "MPI.py").write_text(package)
    text = f'[launcher]\nkind = "mpiexec"\ncommand = "{command}"\n'
    text += f'[environment]\nworker_init = "export PYTHONPATH={folder.parent}:$PYTHONPATH"\n'
    return checked(profile(scratch, text), fake, live=True)["MPI there"]


def test_ranks_that_see_each_other(tmp_path: Path, fake: Fake, scratch: Path, launcher: Path) -> None:
    found = mpi(tmp_path, fake, scratch, str(launcher), MPI.format(rank='int(os.environ["PMI_RANK"])', size=2))
    assert (found.result, found.seen) == (Result.PASSED, "mpiexec starts two ranks, and they see each other")


@pytest.mark.parametrize(
    ("package", "command", "seen"),
    [
        (MPI.format(rank=0, size=1), "", "each believes it is alone"),
        ("raise RuntimeError('no libmpi')", "", "mpi4py cannot be imported: RuntimeError: no libmpi"),
        ("", "/nowhere/mpiexec", "could not start two ranks"),
        ("", "/bin/false", "started 0 of two ranks and ended with 1"),
    ],
)
def test_ranks_that_do_not(
    tmp_path: Path, fake: Fake, scratch: Path, launcher: Path, package: str, command: str, seen: str
) -> None:
    found = mpi(tmp_path, fake, scratch, command or str(launcher), package)
    assert found.result is Result.FAILED
    assert seen in found.seen
    assert found.remedy


def test_devices(fake: Fake, scratch: Path) -> None:
    node = '[node]\ngpus = 2\n[node.accelerator]\nkind = "cuda"\n[environment.variables]\nCUDA_VISIBLE_DEVICES = "{}"\n'
    two = checked(profile(scratch, node.format("0,1")), fake, live=True)["GPUs there"]
    assert (two.result, two.seen) == (Result.PASSED, "2 (CUDA_VISIBLE_DEVICES=0,1)")
    assert fake.asked[-1].gpus_per_node == 2
    fault = failed(checked(profile(scratch, node.format("0")), fake, live=True))["GPUs there"]
    assert fault.seen == "1 are visible to a job (CUDA_VISIBLE_DEVICES=0), and the profile says 2"
    assert "table [node]" in fault.remedy
    intel = '[node]\ngpus = 2\n[node.accelerator]\nkind = "level-zero"\n'
    assert checked(profile(scratch, intel), fake, live=True)["GPUs there"].result is Result.SKIPPED


def test_answers_that_do_not_fit(scratch: Path) -> None:
    from orchestrator.sitecheck import answers

    found = {"python": "3.6.8", "kernels": {"error": "ImportError: numba"}, "scratch": {"error": "Read-only"}}
    faults = failed({c.name: c for c in answers.checks(profile(scratch), None, found)})
    assert set(faults) == {"python there", "kernels there", "scratch there"}
    lacking = {"names": ["a.b", "c.d"], "broken": {"c.d": "ModuleNotFoundError: No module named 'numba'"}}
    found |= {"kernels": lacking}
    seen = failed({c.name: c for c in answers.checks(profile(scratch), None, found)})["kernels there"].seen
    assert seen == "1 of 2 cannot be loaded, c.d: ModuleNotFoundError: No module named 'numba'"
    assert "Set environment.python to a Python 3." in faults["python there"].remedy


def test_a_local_site_runs_the_probe_as_a_process(scratch: Path) -> None:
    site = loader.parse(f'[identity]\nname = "here"\ncontact = "me"\n[paths]\nscratch = "{scratch}"\n')
    found = checked(site, None, live=True)
    assert not failed(found)
    assert "scheduler" not in found
    assert found["probe job"].result is Result.PASSED
    assert list(scratch.iterdir()) == []


def test_a_local_probe_that_hangs_is_ended(scratch: Path) -> None:
    text = '[identity]\nname = "here"\ncontact = "me"\n[environment]\nworker_init = "sleep 60"\n'
    site = loader.parse(text + f'[paths]\nscratch = "{scratch}"\n')
    begun = time.monotonic()
    assert "still running" in failed(checked(site, None, live=True, timeout_s=0.5))["probe job"].seen
    assert time.monotonic() - begun < 15


def test_the_probe_needs_the_standard_library_alone(tmp_path: Path) -> None:
    said = subprocess.run(
        [sys.executable, "-I", "-S", probe.__file__, "--scratch", str(tmp_path), "--accelerator", "rocm"],
        capture_output=True,
        text=True,
        check=True,
        cwd=tmp_path,
    )
    assert '"kernels": {"error": "ModuleNotFoundError' in said.stdout
    assert list(tmp_path.iterdir()) == []
