"""Check that every node writes into the storage that the driver reads."""

import os
from collections.abc import Iterable, Mapping
from typing import Any, Protocol

import ray
from ray.exceptions import RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from cluster.failures import cause_of, one_line
from cluster.nodes import alive_nodes
from scan.errors import UserMistake
from scan.text import MAX_REASON_CHARS

PROBE_TIMEOUT_S = 60.0  # a node that has started no process yet takes some seconds


class ProbedStorage(Protocol):
    """The part of a run's storage that is needed here."""

    location: str
    sharing_hint: str

    def check_same_on_all_nodes(self) -> None:
        """Raise UserMistake if the location means something else on another node."""

    def write_probe(self) -> None:
        """Write a file that every node should see."""

    def answer_probe(self, node: str) -> bool:
        """Whether the driver's file is seen here; if so, write this node's answer."""

    def probe_answered(self, node: str) -> bool:
        """Whether the answer of a node is seen here."""

    def remove_probes(self, nodes: Iterable[str]) -> None:
        """Remove the files of driver and nodes."""


@ray.remote(num_cpus=0, max_retries=0)
def answer_probe(storage: ProbedStorage, node: str) -> bool:
    """Answer the driver's probe from a node."""
    return storage.answer_probe(node)


def require_shared_storage(storage: ProbedStorage) -> None:
    """Raise UserMistake unless every node reads and writes what the driver does."""
    nodes = alive_nodes()
    if len(nodes) == 1 and "RAY_JOB_CONFIG_JSON_ENV_VAR" not in os.environ:
        return
    storage.check_same_on_all_nodes()
    storage.write_probe()
    try:
        # all at once, because each may have to start a process
        answers = [(node, _probe(storage, node["NodeID"])) for node in nodes]
        mismatches = [_storage_mismatch(storage, node, answer) for node, answer in answers]
    finally:
        storage.remove_probes([node["NodeID"] for node in nodes])
    if found := "; ".join(dict.fromkeys(filter(None, mismatches))):
        expected = f"one folder on all {len(nodes)} nodes"
        got, hint = found[:MAX_REASON_CHARS], storage.sharing_hint
        raise UserMistake(storage.location, expected, got, hint)


def _probe(storage: ProbedStorage, node_id: str) -> ray.ObjectRef:
    there = NodeAffinitySchedulingStrategy(node_id, soft=False)
    return answer_probe.options(scheduling_strategy=there).remote(storage, node_id)


def _storage_mismatch(
    storage: ProbedStorage, node: Mapping[str, Any], answer: ray.ObjectRef
) -> str:
    """Why a node does not share the storage; empty if it does."""
    where = f"on {node['NodeManagerHostname']}"
    try:
        seen = ray.get(answer, timeout=PROBE_TIMEOUT_S)
    except RayError as error:
        return f"{one_line(cause_of(error))} {where}"
    if seen and storage.probe_answered(node["NodeID"]):
        return ""
    return f"another one {where} ({node['NodeManagerAddress']})"
