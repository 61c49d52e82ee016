"""The configuration of a trial cluster and its site profile, without starting anything."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

from orchestrator.errors import NotFound, SettingsError, Unavailable
from sites import loader
from slurm import cluster
from slurm.cluster import Cluster, Plan, daemons, plan, processes, profile_toml
from slurm.cluster.profile import toml

PLAN = Plan(
    directory="/scratch/trial",
    name="trial00000001",
    user="ann",
    host="here",
    base_port=20_000,
    nodes=3,
    cpus=2,
    gpus=2,
    memory_mb=4000,
    accounting=False,
)


def values(text: str) -> dict[str, str]:
    return dict(line.split("=", 1) for line in text.splitlines() if not line.startswith(("NodeName", "PartitionName")))


def with_(**changes: object) -> Plan:
    return Plan(**{name: getattr(PLAN, name) for name in PLAN.__struct_fields__} | changes)  # type: ignore[arg-type]


def test_every_node_has_a_port_of_its_own() -> None:
    lines = [line for line in plan.slurm_conf(PLAN).splitlines() if line.startswith("NodeName=")]
    assert [line.split()[0] for line in lines] == ["NodeName=n1", "NodeName=n2", "NodeName=n3"]
    assert [line.split()[3] for line in lines] == ["Port=20002", "Port=20003", "Port=20004"]
    assert all("CPUs=2 RealMemory=4000 Gres=gpu:2" in line for line in lines)


def test_realtime_preempts_regular() -> None:
    text = plan.slurm_conf(PLAN)
    partitions = {line.split()[0].partition("=")[2]: line for line in text.splitlines() if "PartitionName" in line}
    assert values(text)["PreemptType"] == "preempt/partition_prio"
    assert "PriorityTier=10 PreemptMode=OFF" in partitions["realtime"]
    assert "PriorityTier=1 PreemptMode=REQUEUE" in partitions["regular"]
    assert "Default=YES" in partitions["regular"]
    assert "MaxTime=0:30:00" in partitions["debug"]


def test_everything_is_below_the_directory() -> None:
    for text in plan.configuration(with_(accounting=True)).values():
        for path in re.findall(r"=(/\S+)", text):
            assert path.startswith("/scratch/trial/")


def test_without_accounting_there_is_no_database() -> None:
    assert set(plan.configuration(PLAN)) == {"slurm.conf", "gres.conf", "cgroup.conf"}
    said = values(plan.slurm_conf(PLAN))
    assert said["AccountingStorageType"] == "accounting_storage/none"
    assert "AccountingStorageTRES" not in said  # the controller would not start
    assert Cluster(PLAN).names == ["munged", "slurmctld", "n1", "n2", "n3"]


def test_with_accounting_the_associations_are_enforced() -> None:
    planned = with_(accounting=True)
    assert values(plan.slurm_conf(planned))["AccountingStorageEnforce"] == "associations,limits"
    assert values(plan.slurmdbd_conf(planned))["DbdPort"] == values(plan.slurm_conf(planned))["AccountingStoragePort"]
    assert Cluster(planned).names[:4] == ["munged", "database", "slurmdbd", "slurmctld"]


def test_without_gpus_there_is_no_word_of_them() -> None:
    planned = with_(gpus=0)
    assert "gpu" not in "".join(plan.configuration(planned).values()).lower()
    profile = loader.parse(profile_toml(Cluster(planned)))
    assert profile.node.gpus == 0
    assert profile.node.accelerator is None


def test_the_profile_says_what_the_cluster_has() -> None:
    profile = loader.parse(profile_toml(Cluster(PLAN)))
    assert profile.name == "trial"
    assert profile.scheduler.environment == {"SLURM_CONF": "/scratch/trial/etc/slurm.conf"}
    assert [q.use for q in profile.queues] == ["realtime", "regular", "debug"]
    assert (profile.node.cores, profile.node.gpus, profile.node.count) == (2, 2, 3)
    assert profile.node.accelerator is not None
    assert profile.node.accelerator.variable() == "CUDA_VISIBLE_DEVICES"
    assert profile.accounts.default == ""
    assert loader.parse(profile_toml(Cluster(with_(accounting=True)))).accounts.allowed == ["beamline", "other"]


def test_changes_are_laid_over_the_profile() -> None:
    queues = [{"name": "regular"}]
    text = profile_toml(Cluster(PLAN), execution={"mode": "batch"}, queues=queues, policies={"fallback": []})
    profile = loader.parse(text)
    assert profile.execution.mode == "batch"
    assert profile.execution.blocks == 2
    assert [q.name for q in profile.queues] == ["regular"]
    assert profile.policies.fallback == []


def test_toml_is_read_back_as_it_was() -> None:
    tree = {
        "a": {"text": 'x "y" \\ \n', "list": ["u", "v"], "deep": {"n": 1.5, "yes": True}},
        "b": [{"c": 1}, {"c": 2}],
    }
    assert tomllib.loads(toml(tree)) == tree


@pytest.mark.parametrize("name", ["x" * 60, "with space", 'quo"te', "per%n", "hash#", "comma,"])
def test_a_directory_that_slurm_cannot_have_is_refused(name: str) -> None:
    with pytest.raises(SettingsError, match="Name"):
        plan.make(Path("/scratch") / name)


def test_the_plan_is_read_back(tmp_path: Path) -> None:
    import msgspec

    assert plan.load(tmp_path) is None
    (tmp_path / plan.FILE).write_bytes(msgspec.json.encode(PLAN))
    assert plan.load(tmp_path) == PLAN
    (tmp_path / plan.FILE).write_text('{"directory": 1}')
    with pytest.raises(SettingsError, match=r"cluster\.json"):
        plan.load(tmp_path)


def test_nothing_there_says_so(tmp_path: Path) -> None:
    for ask in (cluster.down, cluster.status):
        with pytest.raises(NotFound, match="no trial cluster"):
            ask(tmp_path / "none")


def test_missing_programs_are_told_with_their_packages(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(processes, "program", lambda name: "" if name in ("munged", "slurmdbd") else f"/bin/{name}")
    assert daemons.missing() == "A trial cluster needs munged: on Debian the packages munge."
    with pytest.raises(SettingsError, match="packages munge slurmdbd"):
        cluster.up(tmp_path / "c", accounting=True)
    assert not (tmp_path / "c").exists()


def test_a_failing_command_is_one_sentence(tmp_path: Path) -> None:
    here = Cluster(with_(directory=str(tmp_path)))
    with pytest.raises(Unavailable, match="exit code 3: second"):
        here.run("sh", "-c", "echo first >&2; echo second >&2; exit 3")
    with pytest.raises(Unavailable, match=r"longer than 0\.2 s"):
        here.run("sleep", "5", timeout_s=0.2)
    assert here.run("sh", "-c", "echo $SLURM_CONF") == f"{tmp_path}/etc/slurm.conf\n"
