"""The nodes of the cluster: which are alive, what they offer, and where cameras run."""

import logging
import time
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

import ray

from config import Settings
from scan.errors import UserMistake

MICROSCOPE = "microscope"  # resource of the nodes that have one
HEAD = "node:__internal_head__"  # resource by which Ray marks its head
SMALL_SHARE = 0.001  # of a resource: any number of simulated microscopes fits on a node
NODE_WAIT_S = 30.0  # nodes may be about to join
STATS_TIMEOUT_S = 5.0

log = logging.getLogger(__name__)


def alive_nodes() -> list[dict[str, Any]]:
    """Ray's description of each node that is alive."""
    return [node for node in ray.nodes() if node["Alive"]]


def is_schedulable(node: Mapping[str, Any]) -> bool:
    """Whether a node is more than a head without CPUs."""
    offered = node["Resources"]
    return HEAD not in offered or bool(offered.get("CPU") or offered.get(MICROSCOPE))


def exclude_idle_heads() -> dict[str, str]:
    """The label selector of all nodes except a head without CPUs."""
    idle = ",".join(node["NodeID"] for node in alive_nodes() if not is_schedulable(node))
    return {"ray.io/node-id": f"!in({idle})"} if idle else {}


def cpu_slots() -> int:
    """CPU slots for stacking and detection in the whole cluster."""
    return int(ray.cluster_resources().get("CPU", 0))


def store_bytes() -> int:
    """Size of the smallest object store of the nodes that hold batches."""
    sizes = (
        node["Resources"].get("object_store_memory")
        for node in alive_nodes()
        if is_schedulable(node)
    )
    return int(min(filter(None, sizes), default=0))


def store_stats() -> Any:
    """Ray's statistics of all object stores; None where a node does not answer."""
    try:  # without the dashboard's process only private functions have them
        from ray._private import internal_api

        state = internal_api.get_state_from_address(ray.get_runtime_context().gcs_address)
        return internal_api.get_memory_info_reply(
            state, timeout_seconds=STATS_TIMEOUT_S
        ).store_stats
    except Exception:  # if a node is gone, gRPC raises errors of its own
        return None


def spilled_mb() -> float | None:
    """Megabytes that Ray spilled to disk; None where it does not answer."""
    stats = store_stats()
    return None if stats is None else round(stats.spilled_bytes_total / 1e6, 3)


def require_cpus() -> None:
    """Wait for a node with a CPU; UserMistake if none joins."""
    wait_for_resource("CPU for stacking", 1, cpu_slots, "start Ray on a computer that has some")


def capture_placements(settings: Settings, cameras: int) -> list[dict[str, Any]]:
    """For each camera the Ray options that place an actor or a task where its microscope is.

    A real microscope takes one whole unit of the resource. UserMistake if a node that is needed
    does not join within `NODE_WAIT_S`.
    """
    if not settings.camera_nodes:
        return [_placement(settings.capture_on, 0)] * cameras
    counts = Counter(settings.camera_nodes)
    placements = {on: _placement(on, real) for on, real in counts.items()}
    return [placements[on] for on in settings.camera_nodes]


def _placement(on: str | None, real: int) -> dict[str, Any]:
    """Ray options for cameras on these nodes, so many of them real microscopes."""
    name, _, label = (on or MICROSCOPE).partition("=")
    if label:
        hint = f"start Ray on the microscope's computer with --labels={name}={label}"
        wait_for_resource(f"node of label {name}={label}", 1, lambda: _labelled(name, label), hint)
        return {"label_selector": {name: label}}
    required = on or (real and len(alive_nodes()) > 1)
    if not (required or ray.cluster_resources().get(name)):
        return {"label_selector": exclude_idle_heads()}
    hint = (
        f"start Ray on the microscope's computer with --resources='{{\"{name}\": 1}}', or end the "
        "scan that uses it"
    )
    needed = real or SMALL_SHARE
    wait_for_resource(f"of resource {name}", needed, lambda: _free(name), hint)
    return {"resources": {name: 1 if real else SMALL_SHARE}}


def _labelled(name: str, label: str) -> int:
    return sum(node["Labels"].get(name) == label for node in alive_nodes())


def _free(resource: str) -> float:
    return float(ray.available_resources().get(resource, 0))


def wait_for_resource(what: str, needed: float, count: Callable[[], float], hint: str) -> None:
    """Wait for nodes to join; UserMistake that names what is missing when they do not."""
    deadline_s, announced = time.monotonic() + NODE_WAIT_S, False
    while (found := count()) < needed:
        if not announced:
            log.info("waiting for %g %s", needed, what)
            announced = True
        if time.monotonic() > deadline_s:
            got = f"{found:g} free within {NODE_WAIT_S:.0f} s"
            raise UserMistake("Ray cluster", f"{needed:g} {what}", got, hint)
        time.sleep(0.5)
