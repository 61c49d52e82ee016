"""The site profile of a trial cluster, as a user would write it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from slurm.cluster.daemons import ACCOUNTS, Cluster

SITE = "trial"


def profile_toml(cluster: Cluster, **changes: Any) -> str:
    """The text of a site profile `trial`.

    A change that is a dict is laid over the table of its name, as in `execution={"mode": "batch"}`; any other, such as
    a list of queues, takes its place.
    """
    return toml(_over(_profile(cluster), changes))


def _profile(cluster: Cluster) -> dict[str, Any]:
    plan = cluster.plan
    node: dict[str, Any] = {"cores": plan.cpus, "memory_bytes": plan.memory_mb * 1_048_576, "count": plan.nodes}
    if plan.gpus:
        node |= {"gpus": plan.gpus, "accelerator": {"kind": "cuda", "model": "pretended"}}
    queues = [("realtime", 14_400, 1_800, False), ("regular", 86_400, 3_600, True), ("debug", 1_800, 600, False)]
    tree: dict[str, Any] = {
        "identity": {
            "name": SITE,
            "title": "Trial cluster on this machine",
            "description": f"Slurm with {plan.nodes} pretended nodes; its devices are only pretended, too.",
            "contact": "yourself: `beamway slurm-cluster status`",
        },
        "scheduler": {"kind": "slurm", "poll_s": 1.0, "environment": cluster.environment},
        "queues": [
            {
                "name": name,
                "use": name,
                "max_nodes": plan.nodes,
                "max_walltime_s": longest,
                "default_walltime_s": default,
                "preemptible": preemptible,
            }
            for name, longest, default, preemptible in queues
        ],
        "node": node,
        "launcher": {"kind": "srun", "options": ["--mpi=pmix"]},
        # Ranks of different nodes are on one machine here: the shared memory of Open MPI takes one for another.
        "environment": {"variables": {"OMPI_MCA_btl": "self,tcp", "OMPI_MCA_btl_tcp_if_include": "lo"}},
        "execution": {"mode": "pilot", "blocks": 2, "block_walltime_s": 3600, "idle_s": 300, "address": "127.0.0.1"},
        "paths": {"scratch": str(cluster.directory / "scratch")},
        "policies": {
            "create_reservations": True,  # whoever starts the cluster is its SlurmUser
            "fallback": ["queue realtime", "wait 1 min", "queue regular"],
        },
    }
    if plan.accounting:
        tree["accounts"] = {"default": ACCOUNTS[0], "allowed": list(ACCOUNTS)}
    return tree


def _over(tree: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(tree)
    for key, value in changes.items():
        there = merged.get(key)
        merged[key] = _over(there, value) if isinstance(value, Mapping) and isinstance(there, Mapping) else value
    return merged


def toml(tree: Mapping[str, Any], where: str = "") -> str:
    """TOML of a tree of dicts, lists and plain values. Lists of dicts become arrays of tables."""
    lines, tables = [], []
    for key, value in tree.items():
        name = f"{where}{key}"
        if isinstance(value, Mapping):
            tables.append(f"\n[{name}]\n{toml(value, f'{name}.')}")
        elif isinstance(value, list) and value and all(isinstance(v, Mapping) for v in value):
            tables += [f"\n[[{name}]]\n{toml(v, f'{name}.')}" for v in value]
        else:
            # A JSON string, list, number or truth value is one of TOML, too.
            lines.append(f"{key} = {json.dumps(value)}\n")
    return "".join(lines + tables)
