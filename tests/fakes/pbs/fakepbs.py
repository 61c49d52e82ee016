"""A small PBS Pro: `qsub`, `qstat`, `qdel`, `qselect` and `pbs_rstat` of it are the scripts beside this file.

Jobs really run, as processes of this host, by the ledger of `LocalScheduler` in FAKE_PBS_DIR. Jobs for more than one
node wait for ever. Faults are words in FAKE_PBS_FAULTS or in the file `faults` of that folder: `lose-submit` (once: the
job is taken, the answer is lost), `hang` (no command ends), `refuse` (no server), `bad-json` (a variable breaks it),
`expired` (no job is taken, because the caller's ticket has expired).
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from pathlib import Path
from typing import Any

from orchestrator.jobs import Job, JobSpec, JobState
from orchestrator.schedulers.local import LocalScheduler

HERE = Path(os.environ["FAKE_PBS_DIR"])
SERVER = "fake-pbs"
QUEUES = {"workq": "24:00:00", "debug": "01:00:00"}
LEDGER = LocalScheduler(HERE / "ledger")


def main() -> int:
    command, *words = sys.argv[1:]
    HERE.mkdir(parents=True, exist_ok=True)
    named = faults()
    if "hang" in named:
        time.sleep(600)
    if "refuse" in named:
        print(f"Connection refused\n{command}: cannot connect to server {SERVER} (errno=111)", file=sys.stderr)
        return 111
    return {"qsub": qsub, "qstat": qstat, "qdel": qdel, "qselect": qselect, "pbs_rstat": pbs_rstat}[command](words)


def faults() -> set[str]:
    path = HERE / "faults"
    return set(os.environ.get("FAKE_PBS_FAULTS", "").split()) | set(path.read_text().split() if path.exists() else ())


def qsub(words: list[str]) -> int:
    parser = argparse.ArgumentParser(allow_abbrev=False)
    for letter in "NCSrmoeqAv":
        parser.add_argument(f"-{letter}", dest=letter, default="")
    parser.add_argument("-l", dest="l", action="append", default=[])
    asked = parser.parse_args(words)
    if "expired" in faults():
        print("qsub: Your Kerberos ticket has expired", file=sys.stderr)
        return 1
    if asked.q and asked.q not in QUEUES:
        print("qsub: Unknown queue", file=sys.stderr)
        return 170
    resources = dict(word.partition("=")[::2] for word in asked.l)
    walltime = float(resources.get("walltime", 0) or 0)
    spec = JobSpec(
        asked.N, sys.stdin.read(), stdout=asked.o, stderr=asked.e, directory=os.environ["HOME"], walltime_s=walltime
    )
    waits = int(resources.get("select", "1").partition(":")[0]) > 1
    with LEDGER._only_one():
        folder = LEDGER._write_down(spec)
        job = {"queue": asked.q or "workq", "account": asked.A, "resources": resources, "v": asked.v}
        (folder / "pbs.json").write_text(json.dumps(job))
        if not waits:
            LEDGER._start(folder)
    if "lose-submit" in faults():
        (HERE / "faults").unlink()
        print("qsub: Premature end of message", file=sys.stderr)
        return 1
    print(f"{folder.name.partition('~')[0]}.{SERVER}")
    return 0


def qstat(words: list[str]) -> int:
    head: dict[str, Any] = {"timestamp": int(time.time()), "pbs_version": "2022.1.1.fake", "pbs_server": SERVER}
    if "-B" in words:
        print(json.dumps(head | {"Server": {SERVER: {"server_state": "Active"}}}, indent=4))
        return 0
    if "-Q" in words:
        waiting = sum(job.state is JobState.PENDING for job in LEDGER.mine(""))
        queues = {
            name: {
                "queue_type": "Execution",
                "state_count": f"Transit:0 Queued:{waiting} Held:0 Waiting:0 Running:0 Exiting:0 Begun:0 ",
                "resources_max": {"walltime": limit},
                "enabled": "True",
                "started": "True",
            }
            for name, limit in QUEUES.items()
        }
        print(json.dumps(head | {"Queue": queues}, indent=4))
        return 0
    ids = [word for word in words if word[0].isdigit()]
    found = LEDGER.jobs([job_id.partition(".")[0] for job_id in ids])
    unknown = [job_id for job_id in ids if found[job_id.partition(".")[0]].state is JobState.GONE]
    jobs = {f"{job.id}.{SERVER}": shown(job) for job in found.values() if job.state is not JobState.GONE}
    printed = json.dumps(head | {"Jobs": jobs}, indent=4)
    if "bad-json" in faults():
        printed = printed.replace('"PBS_O_SYSTEM":"Linux"', '"X":"a"b\\q"').replace('": {', '":{')
        printed = printed.replace('"PBS_O_SYSTEM": "Linux"', '"BROKEN":"it "is" broken\\x"')
    print(printed)
    for job_id in unknown:
        print(f"qstat: Unknown Job Id {job_id}", file=sys.stderr)
    return 153 if unknown else 0


LETTERS = {JobState.PENDING: "Q", JobState.RUNNING: "R", JobState.ENDING: "E"}


def shown(job: Job) -> dict[str, Any]:
    (folder,) = (HERE / "ledger").glob(f"{job.id}~*")
    more = json.loads((folder / "pbs.json").read_text())
    letter = LETTERS.get(job.state, "F")
    values: dict[str, Any] = {
        "Job_Name": job.token,
        "Job_Owner": f"me@{SERVER}",
        "job_state": letter,
        "queue": more["queue"],
        "server": SERVER,
        "ctime": clock(job.submitted_at),
        "Resource_List": {k: v for k, v in more["resources"].items() if k != "walltime"},
        "Variable_List": {"PBS_O_SYSTEM": "Linux"} | dict([more["v"].split("=")] if more["v"] else []),
        "mtime": clock(time.time()),
    }
    if job.walltime_s:
        values["Resource_List"]["walltime"] = time.strftime("%H:%M:%S", time.gmtime(job.walltime_s))
    if letter == "Q":
        values["comment"] = "Not Running: Insufficient amount of resource: ncpus (R: 8 A: 2 T: 2)."
        values["estimated"] = {"start_time": clock(time.time() + 3600)}
    if job.started_at:
        values |= {"stime": clock(job.started_at), "exec_host": f"{job.nodes[0]}/0*2"}
        elapsed = (job.ended_at or time.time()) - job.started_at
        values["resources_used"] = {"walltime": time.strftime("%H:%M:%S", time.gmtime(elapsed)), "ncpus": 1}
    if letter == "F":
        values |= {"obittime": clock(job.ended_at), "substate": 92 if job.exit_status == 0 else 93}
        if job.exit_status is not None:
            values["Exit_status"] = -29 if job.state is JobState.WALLTIME else job.exit_status
        if job.state is JobState.CANCELLED:
            values["substate"] = 91
    return values


def clock(moment: float) -> str:
    return time.strftime("%a %b %d %H:%M:%S %Y", time.localtime(moment))


def qdel(words: list[str]) -> int:
    rc = 0
    for job_id in words:
        number = job_id.partition(".")[0]
        job = LEDGER.jobs([number])[number]
        if job.state is JobState.GONE:
            print(f"qdel: Unknown Job Id {job_id}", file=sys.stderr)
            rc = 153
        elif job.ended_at:
            print(f"qdel: Job has finished {job_id}", file=sys.stderr)
            rc = 35
        LEDGER.cancel([number])
    return rc


def qselect(words: list[str]) -> int:
    name = words[words.index("-N") + 1] if "-N" in words else ""
    for job in LEDGER.find(name) if name else LEDGER.mine(""):
        print(f"{job.id}.{SERVER}")
    return 0


def pbs_rstat(words: list[str]) -> int:
    path = HERE / "reservations"
    print(path.read_text() if path.exists() else "", end="")
    return 0


if __name__ == "__main__":
    sys.exit(main())
